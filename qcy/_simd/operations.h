/* The few operations that compilers do not find by themselves: the only intrinsics in qcy.
 *
 *   dot         for each lane, sums += the sum of QCY_GROUP products u8 * s8, exact in 32 bits
 *   dot_taps    the same for channels side by side: four taps of QCY_BLOCK channels each, whose
 *               bytes `interleave` has brought together
 *   round_pack  four vectors of reals to one vector of codes: round half to even, add the zero
 *               point, saturate
 *   lookup      each code replaced by its entry in a table of 256
 *
 * and the loads, stores, conversions and arithmetic between them. Every instruction set gets the
 * same names: the plain-C twin stands here, the others in operations_x86.h, operations_avx512.h and
 * operations_arm.h.
 * setup.py defines one QCY_ISA_...; the compiler's own macros are not asked, since MSVC has none
 * for VNNI.
 *
 * QCY_LANES    32-bit lanes of one vector
 * QCY_VECTORS  vectors across the widest panel of packed weights
 * QCY_ROWS     rows of the tile that fits the registers beside such a panel
 * QCY_GROUP    products that one dot sums into a lane: four, or two where codes are widened to 16
 *              bits. A cell of packed weights holds that many, and a left operand comes in words of
 *              32 bits: four bytes, or two 16-bit numbers.
 * QCY_LHS_ZERO what dot subtracts from every left byte: 128 where only s8 * s8 exists, else 0
 * QCY_BLOCK    codes of one vector, as many as the lanes of four vectors of sums or reals
 *
 * Lane j of the v-th of four vectors of sums that dot_taps takes is channel 16 * (j / 4) + 4 * v +
 * j % 4; round_pack_lanes takes reals in that order, round_pack in plain order. Weights of dot_taps
 * lie as [4 / QCY_GROUP][4 vectors][QCY_LANES][QCY_GROUP].
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

/* qcy_reals_halve(x, n): x / 2^n for normal x whose quotient is normal, where the last nine bits of n
 * are a number of halvings, as after adding 1.5 * 2^23. */
/* Reals above this are all the same code. Where reals may pass 2^31, `tame` cuts them to it before
 * round_pack: a conversion that overflows gives INT_MIN, right for reals far below zero only. A NaN,
 * the sum of two infinities, becomes the lowest code. */
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

#define qcy_prefetch(p) ((void)(p))
#define QCY_EACH(i) for (i = 0; i < 4; i++)

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
QCY_INLINE qcy_sums qcy_sums_set(int32_t t)
{
    qcy_sums s;
    int i;
    QCY_EACH(i) s.lane[i] = t;
    return s;
}
QCY_INLINE qcy_sums qcy_sums_sub(qcy_sums s, qcy_sums t)
{
    int i;
    QCY_EACH(i) s.lane[i] = (int32_t)((uint32_t)s.lane[i] - (uint32_t)t.lane[i]);
    return s;
}
QCY_INLINE qcy_sums qcy_sums_mul(qcy_sums s, qcy_sums t)
{
    int i;
    QCY_EACH(i) s.lane[i] = (int32_t)((uint32_t)s.lane[i] * (uint32_t)t.lane[i]);
    return s;
}
QCY_INLINE qcy_sums qcy_widen(const uint8_t *p)
{
    qcy_sums s;
    int i;
    QCY_EACH(i) s.lane[i] = p[i];
    return s;
}
QCY_INLINE qcy_sums qcy_widen_signed(const uint8_t *p)
{
    qcy_sums s;
    int i;
    QCY_EACH(i) s.lane[i] = (int8_t)p[i];
    return s;
}
QCY_INLINE qcy_reals qcy_reals_of(qcy_sums s)
{
    qcy_reals x;
    int i;
    QCY_EACH(i) x.lane[i] = (float)s.lane[i];
    return x;
}
QCY_INLINE qcy_reals qcy_reals_set(float y)
{
    qcy_reals x;
    int i;
    QCY_EACH(i) x.lane[i] = y;
    return x;
}
QCY_INLINE qcy_reals qcy_reals_load(const float *p)
{
    qcy_reals x;
    memcpy(x.lane, p, sizeof x.lane);
    return x;
}
QCY_INLINE void qcy_reals_store(float *p, qcy_reals x) { memcpy(p, x.lane, sizeof x.lane); }
#define QCY_REALS(name, expression)                                                               \
    QCY_INLINE qcy_reals qcy_reals_##name(qcy_reals x, qcy_reals y)                               \
    {                                                                                             \
        int i;                                                                                    \
        QCY_EACH(i) x.lane[i] = expression;                                                       \
        return x;                                                                                 \
    }
QCY_REALS(add, x.lane[i] + y.lane[i])
QCY_REALS(mul, x.lane[i] * y.lane[i])
QCY_REALS(div, x.lane[i] / y.lane[i])
QCY_REALS(min, x.lane[i] < y.lane[i] ? x.lane[i] : y.lane[i])
QCY_REALS(max, x.lane[i] > y.lane[i] ? x.lane[i] : y.lane[i])
QCY_INLINE qcy_reals qcy_reals_halve(qcy_reals x, qcy_reals n)
{
    uint32_t bits, count;
    int i;
    QCY_EACH(i) {
        memcpy(&bits, &x.lane[i], 4);
        memcpy(&count, &n.lane[i], 4);
        bits -= count << 23;
        memcpy(&x.lane[i], &bits, 4);
    }
    return x;
}
QCY_INLINE qcy_reals qcy_reals_tame(qcy_reals x) { return x; }      /* round_pack4 clamps */
QCY_INLINE int qcy_reals_have_nan(qcy_reals x, qcy_reals y)
{
    int i, have = 0;
    QCY_EACH(i) have |= x.lane[i] != x.lane[i] || y.lane[i] != y.lane[i];
    return have;
}
QCY_INLINE void qcy_round_pack4(uint8_t *codes, qcy_reals p, int zero_point)
{
    const float low = (float)(0 - zero_point), high = (float)(255 - zero_point);
    int i;
    QCY_EACH(i) {
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
#define qcy_round_pack_lanes qcy_round_pack
QCY_INLINE qcy_codes qcy_codes_set(uint8_t d)
{
    qcy_codes c;
    memset(c.byte, d, sizeof c.byte);
    return c;
}
QCY_INLINE qcy_codes qcy_codes_load(const uint8_t *p)
{
    qcy_codes c;
    memcpy(c.byte, p, sizeof c.byte);
    return c;
}
#define QCY_CODES(name, expression)                                                               \
    QCY_INLINE qcy_codes qcy_codes_##name(qcy_codes c, qcy_codes d)                               \
    {                                                                                             \
        int i;                                                                                    \
        for (i = 0; i < 16; i++) c.byte[i] = (uint8_t)(expression);                               \
        return c;                                                                                 \
    }
QCY_CODES(max, c.byte[i] > d.byte[i] ? c.byte[i] : d.byte[i])
QCY_CODES(min, c.byte[i] < d.byte[i] ? c.byte[i] : d.byte[i])
QCY_CODES(xor, c.byte[i] ^ d.byte[i])
QCY_INLINE void qcy_codes_store(uint8_t *p, qcy_codes c, int vectors)
{
    memcpy(p, c.byte, (size_t)(4 * vectors));
}
typedef struct { uint8_t byte[16][4]; } qcy_taps;
QCY_INLINE qcy_taps qcy_interleave(qcy_codes t0, qcy_codes t1, qcy_codes t2, qcy_codes t3)
{
    qcy_taps t;
    int i;
    for (i = 0; i < 16; i++) {
        t.byte[i][0] = t0.byte[i];
        t.byte[i][1] = t1.byte[i];
        t.byte[i][2] = t2.byte[i];
        t.byte[i][3] = t3.byte[i];
    }
    return t;
}
QCY_INLINE void qcy_dot_taps(qcy_sums *sums, qcy_taps t, const int8_t *weights)
{
    int i;
    for (i = 0; i < 16; i++, weights += 4) {
        int32_t *sum = &sums[i / 4].lane[i % 4];
        *sum = (int32_t)((uint32_t)*sum + (uint32_t)(
            t.byte[i][0] * weights[0] + t.byte[i][1] * weights[1]
            + t.byte[i][2] * weights[2] + t.byte[i][3] * weights[3]));
    }
}

#elif defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#include "operations_x86.h"
#elif defined(__aarch64__) || defined(_M_ARM64)
#include "operations_arm.h"
#else
#error "setup.py must define QCY_ISA_PORTABLE on this architecture"
#endif

/* ------------------------------------------------------------------- what all have in common */
#define QCY_BLOCK (4 * QCY_LANES)

#ifdef QCY_TAPS_IN_PAIRS
QCY_INLINE qcy_taps qcy_interleave(qcy_codes t0, qcy_codes t1, qcy_codes t2, qcy_codes t3)
{
    qcy_taps t;
    qcy_interleave_pair(t.part, t0, t1);
    qcy_interleave_pair(t.part + 4, t2, t3);
    return t;
}
#define QCY_TAPS_ARE_LEFT
#endif
#ifdef QCY_TAPS_ARE_LEFT
QCY_INLINE void qcy_dot_taps(qcy_sums *sums, qcy_taps t, const int8_t *weights)
{
    int i;
    QCY_UNROLL
    for (i = 0; i < 16 / QCY_GROUP; i++)
        sums[i % 4] = qcy_dot(sums[i % 4], t.part[i],
                              qcy_rhs_load(weights + i * QCY_LANES * QCY_GROUP));
}
#endif

#ifndef QCY_TABLE       /* registers do not hold a table: it is read from memory */
typedef struct { const uint8_t *entry; } qcy_table;
QCY_INLINE qcy_table qcy_table_load(const uint8_t *entries)
{
    qcy_table t;
    t.entry = entries;
    return t;
}
QCY_INLINE qcy_codes qcy_lookup(qcy_codes c, qcy_table t)
{
#ifdef QCY_LOOKUP_16
    return qcy_lookup_16(c, t.entry);
#else
    uint8_t byte[QCY_BLOCK];
    int i;
    qcy_codes_store(byte, c, 4);
    for (i = 0; i < QCY_BLOCK; i++) byte[i] = t.entry[byte[i]];
    return qcy_codes_load(byte);
#endif
}
#endif

#if !defined(QCY_ISA_AVX512VNNI) && !defined(QCY_ISA_AVX512VBMI)
#if !defined(QCY_ISA_AVX2) && !defined(QCY_ISA_AVXVNNI)
/* x, cut to plus or minus `most`. */
QCY_INLINE qcy_reals qcy_reals_within(qcy_reals x, qcy_reals most)
{
    const qcy_reals least = qcy_reals_mul(most, qcy_reals_set(-1.0f));
    return qcy_reals_max(qcy_reals_min(x, most), least);
}
#endif
/* The lanes of vector v among the first n numbers. */
QCY_INLINE size_t qcy_bytes_of(ptrdiff_t n, int v)
{
    const ptrdiff_t lanes = n - v * QCY_LANES;
    return lanes <= 0 ? 0 : 4 * (size_t)(lanes < QCY_LANES ? lanes : QCY_LANES);
}
QCY_INLINE void qcy_sums_store_some(int32_t *p, qcy_sums s, ptrdiff_t n, int v)
{
    int32_t lanes[QCY_LANES];
    qcy_sums_store(lanes, s);
    memcpy(p + v * QCY_LANES, lanes, qcy_bytes_of(n, v));
}
QCY_INLINE void qcy_reals_store_some(float *p, qcy_reals x, ptrdiff_t n, int v)
{
    float lanes[QCY_LANES];
    qcy_reals_store(lanes, x);
    memcpy(p + v * QCY_LANES, lanes, qcy_bytes_of(n, v));
}
QCY_INLINE qcy_codes qcy_codes_load_some(const uint8_t *p, ptrdiff_t n)
{
    uint8_t byte[QCY_BLOCK] = {0};
    memcpy(byte, p, (size_t)(n < QCY_BLOCK ? n : QCY_BLOCK));
    return qcy_codes_load(byte);
}
QCY_INLINE void qcy_codes_store_some(uint8_t *p, qcy_codes c, ptrdiff_t n)
{
    uint8_t byte[QCY_BLOCK];
    qcy_codes_store(byte, c, 4);
    memcpy(p, byte, (size_t)(n < QCY_BLOCK ? n : QCY_BLOCK));
}
#endif

#ifndef QCY_REDUCE
/* The smallest and the largest lane, none of which is a NaN. */
QCY_INLINE float qcy_reals_least(qcy_reals x)
{
    float lane[QCY_LANES];
    int i, j;
    qcy_reals_store(lane, x);
    for (j = QCY_LANES / 2; j > 0; j /= 2)
        for (i = 0; i < j; i++) lane[i] = lane[i + j] < lane[i] ? lane[i + j] : lane[i];
    return lane[0];
}
QCY_INLINE float qcy_reals_most(qcy_reals x)
{
    float lane[QCY_LANES];
    int i, j;
    qcy_reals_store(lane, x);
    for (j = QCY_LANES / 2; j > 0; j /= 2)
        for (i = 0; i < j; i++) lane[i] = lane[i + j] > lane[i] ? lane[i + j] : lane[i];
    return lane[0];
}
#endif

#ifndef QCY_STORE_PART
/* n codes of those that one or two vectors of sums became: the first such part, or a later one. */
QCY_INLINE void qcy_codes_store_part(
    uint8_t *p, qcy_codes c, const int part, const int vectors, ptrdiff_t n)
{
    uint8_t byte[QCY_BLOCK];
    qcy_codes_store(byte, c, 4);
    if (n == vectors * QCY_LANES)
        memcpy(p, byte + part * vectors * QCY_LANES, (size_t)vectors * QCY_LANES);
    else
        memcpy(p, byte + part * vectors * QCY_LANES, (size_t)n);
}
#endif

#ifndef QCY_DISTANCES
/* A block of codes less their zero point, as reals. */
QCY_INLINE void qcy_distances(
    const uint8_t *p, const int is_signed, int zero_point, qcy_reals *distance)
{
    const qcy_sums zero = qcy_sums_set(zero_point);
    int v;
    QCY_UNROLL
    for (v = 0; v < 4; v++, p += QCY_LANES)
        distance[v] = qcy_reals_of(
            qcy_sums_sub(is_signed ? qcy_widen_signed(p) : qcy_widen(p), zero));
}
#endif

QCY_INLINE qcy_codes qcy_clamp_flip(qcy_codes c, uint8_t low, uint8_t high, uint8_t flip)
{
    c = qcy_codes_min(qcy_codes_max(c, qcy_codes_set(low)), qcy_codes_set(high));
    return qcy_codes_xor(c, qcy_codes_set(flip));
}
#endif
