/* The few operations that compilers do not find by themselves: the only intrinsics in qcy.
 *
 *   dot         for each lane, sums += the sum of QCY_GROUP products u8 * s8, exact in 32 bits
 *   round_pack  four vectors of reals to one vector of codes: round half to even, add the zero
 *               point, saturate
 *
 * and the loads, stores and conversions between them (a store of codes writes the lanes of its
 * first `vectors` vectors). Every instruction set gets the same names: the plain-C twin stands
 * here, the others in operations_x86.h and operations_arm.h. setup.py defines one QCY_ISA_...; the
 * compiler's own macros are not asked, since MSVC has none for VNNI.
 *
 * QCY_LANES    32-bit lanes of one vector
 * QCY_VECTORS  vectors across the widest panel of packed weights
 * QCY_ROWS     rows of the tile that fits the registers beside such a panel
 * QCY_GROUP    products that one dot sums into a lane: four, or two where codes are widened to 16
 *              bits. A cell of packed weights holds that many, and a left operand comes in words of
 *              32 bits: four bytes, or two 16-bit numbers.
 * QCY_LHS_ZERO what dot subtracts from every left byte: 128 where only s8 * s8 exists, else 0
 *
 * vpmaddubsw is never used: it saturates pairs of products at 16 bits. */
#ifndef QCY_OPERATIONS_H
#define QCY_OPERATIONS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef _MSC_VER
#define QCY_INLINE static __forceinline
#define QCY_NOINLINE static __declspec(noinline)
#elif defined(__clang__)
#define QCY_INLINE static inline __attribute__((always_inline))
#define QCY_NOINLINE static __attribute__((noinline))
#elif defined(__GNUC__)
#define QCY_INLINE static inline __attribute__((always_inline))
/* noipa: gcc would clone the kernel for a constant depth, unroll it and spill its sums. */
#define QCY_NOINLINE static __attribute__((noipa))
#else
#define QCY_INLINE static inline
#define QCY_NOINLINE static
#endif

#if defined(__clang__)
#define QCY_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define QCY_UNROLL _Pragma("GCC unroll 16")
#else
#define QCY_UNROLL
#endif

QCY_INLINE uint32_t qcy_load32(const uint8_t *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, 4);
    return word;
}

/* Reals above this are all the same code; below it the hardware's conversion cannot overflow
 * upwards (an overflow gives INT_MIN, which is right for reals far below zero only). */
#define QCY_REAL_MAX 65536.0f

/* The plain-C twin that any compiler takes. */
#if defined(QCY_ISA_PORTABLE)
#define QCY_LANES 4
#define QCY_VECTORS 1
#define QCY_ROWS 4
#define QCY_GROUP 4
#define QCY_LHS_ZERO 0
typedef struct { int32_t lane[4]; } qcy_sums;
typedef struct { int32_t byte[4]; } qcy_lhs;
typedef struct { const int8_t *bytes; } qcy_rhs;
typedef struct { float lane[4]; } qcy_reals;
typedef struct { uint8_t byte[16]; } qcy_codes;

QCY_INLINE qcy_sums qcy_zero(void)
{
    qcy_sums s = {{0, 0, 0, 0}};
    return s;
}
QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word)
{
    uint8_t byte[4];
    qcy_lhs a;
    int i;
    memcpy(byte, &word, 4);
    for (i = 0; i < 4; i++) a.byte[i] = byte[i];
    return a;
}
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b)
{
    qcy_rhs rhs;
    rhs.bytes = b;
    return rhs;
}
QCY_INLINE qcy_sums qcy_dot(qcy_sums s, qcy_lhs a, qcy_rhs b)
{
    int i;
    for (i = 0; i < 4; i++)
        s.lane[i] = (int32_t)((uint32_t)s.lane[i] + (uint32_t)(
            a.byte[0] * b.bytes[4 * i] + a.byte[1] * b.bytes[4 * i + 1]
            + a.byte[2] * b.bytes[4 * i + 2] + a.byte[3] * b.bytes[4 * i + 3]));
    return s;
}
QCY_INLINE qcy_sums qcy_sums_load(const int32_t *p)
{
    qcy_sums s;
    memcpy(s.lane, p, sizeof s.lane);
    return s;
}
QCY_INLINE void qcy_sums_store(int32_t *p, qcy_sums s) { memcpy(p, s.lane, sizeof s.lane); }
QCY_INLINE qcy_sums qcy_sums_add(qcy_sums s, qcy_sums t)
{
    int i;
    for (i = 0; i < 4; i++) s.lane[i] = (int32_t)((uint32_t)s.lane[i] + (uint32_t)t.lane[i]);
    return s;
}
QCY_INLINE qcy_sums qcy_sums_scale(qcy_sums s, int32_t t)
{
    int i;
    for (i = 0; i < 4; i++) s.lane[i] = (int32_t)((uint32_t)s.lane[i] * (uint32_t)t);
    return s;
}
QCY_INLINE qcy_reals qcy_scaled(qcy_sums s, const float *multiplier)
{
    qcy_reals p;
    int i;
    for (i = 0; i < 4; i++) p.lane[i] = (float)s.lane[i] * multiplier[i];
    return p;
}
QCY_INLINE void qcy_round_pack4(uint8_t *codes, qcy_reals p, int zero_point)
{
    const float low = (float)(0 - zero_point), high = (float)(255 - zero_point);
    int i;
    for (i = 0; i < 4; i++) {
        float real = p.lane[i] > low ? p.lane[i] : low;
        real = real < high ? real : high;
        /* 1.5 * 2^23: the sum has no bits left for a fraction, and rounds half to even. */
        codes[i] = (uint8_t)((int32_t)((real + 12582912.0f) - 12582912.0f) + zero_point);
    }
}
QCY_INLINE qcy_codes qcy_round_pack(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    qcy_codes c;
    qcy_round_pack4(c.byte, p0, zero_point);
    qcy_round_pack4(c.byte + 4, p1, zero_point);
    qcy_round_pack4(c.byte + 8, p2, zero_point);
    qcy_round_pack4(c.byte + 12, p3, zero_point);
    return c;
}
QCY_INLINE qcy_codes qcy_clamp_flip(qcy_codes c, uint8_t low, uint8_t high, uint8_t flip)
{
    int i;
    for (i = 0; i < 16; i++) {
        uint8_t code = c.byte[i] > low ? c.byte[i] : low;
        c.byte[i] = (uint8_t)((code < high ? code : high) ^ flip);
    }
    return c;
}
QCY_INLINE void qcy_codes_store(uint8_t *p, qcy_codes c, int vectors)
{
    memcpy(p, c.byte, (size_t)(4 * vectors));
}

#elif defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#include "operations_x86.h"
#elif defined(__aarch64__) || defined(_M_ARM64)
#include "operations_arm.h"
#else
#error "setup.py must define QCY_ISA_PORTABLE on this architecture"
#endif
#endif
