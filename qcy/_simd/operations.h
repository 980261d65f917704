/* The few operations that compilers do not find by themselves: the only intrinsics in qcy.
 *
 *   dot         for each lane, sums += the sum of QCY_GROUP products u8 * s8, exact in 32 bits
 *   round_pack  four vectors of reals to one vector of codes: round half to even, add the zero
 *               point, saturate
 *
 * and the loads, stores and conversions between them (a store of codes writes the lanes of its
 * first `vectors` vectors). Every instruction set gets the same names;
 * the last block is the plain-C twin that any compiler takes. setup.py defines one QCY_ISA_...;
 * the compiler's own macros are not asked, since MSVC has none for VNNI.
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

/* ------------------------------------------------------------------------------- AVX-512 VNNI */
#if defined(QCY_ISA_AVX512VNNI)
#include <immintrin.h>
#define QCY_LANES 16
#define QCY_VECTORS 4
#define QCY_ROWS 6
#define QCY_GROUP 4
#define QCY_LHS_ZERO 0
typedef __m512i qcy_sums;
typedef __m512i qcy_lhs;
typedef __m512i qcy_rhs;
typedef __m512 qcy_reals;
typedef __m512i qcy_codes;

QCY_INLINE qcy_sums qcy_zero(void) { return _mm512_setzero_si512(); }
QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word) { return _mm512_set1_epi32((int)word); }
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b) { return _mm512_loadu_si512(b); }
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    return _mm512_dpbusd_epi32(sums, a, b);
}
QCY_INLINE qcy_sums qcy_sums_load(const int32_t *p) { return _mm512_loadu_si512(p); }
QCY_INLINE void qcy_sums_store(int32_t *p, qcy_sums s) { _mm512_storeu_si512(p, s); }
QCY_INLINE qcy_sums qcy_sums_add(qcy_sums s, qcy_sums t) { return _mm512_add_epi32(s, t); }
QCY_INLINE qcy_sums qcy_sums_scale(qcy_sums s, int32_t t)
{
    return _mm512_mullo_epi32(s, _mm512_set1_epi32(t));
}
QCY_INLINE qcy_reals qcy_scaled(qcy_sums s, const float *multiplier)
{
    return _mm512_mul_ps(_mm512_cvtepi32_ps(s), _mm512_loadu_ps(multiplier));
}
QCY_INLINE qcy_codes qcy_round_pack(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const __m512 high = _mm512_set1_ps(QCY_REAL_MAX);
    const __m512i zero = _mm512_set1_epi16((short)zero_point);
    const __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i low16 = _mm512_packs_epi32(_mm512_cvtps_epi32(_mm512_min_ps(p0, high)),
                                       _mm512_cvtps_epi32(_mm512_min_ps(p1, high)));
    __m512i high16 = _mm512_packs_epi32(_mm512_cvtps_epi32(_mm512_min_ps(p2, high)),
                                        _mm512_cvtps_epi32(_mm512_min_ps(p3, high)));
    low16 = _mm512_adds_epi16(low16, zero);
    high16 = _mm512_adds_epi16(high16, zero);
    return _mm512_permutexvar_epi32(lanes, _mm512_packus_epi16(low16, high16));
}
QCY_INLINE qcy_codes qcy_clamp_flip(qcy_codes c, uint8_t low, uint8_t high, uint8_t flip)
{
    c = _mm512_max_epu8(c, _mm512_set1_epi8((char)low));
    c = _mm512_min_epu8(c, _mm512_set1_epi8((char)high));
    return _mm512_xor_si512(c, _mm512_set1_epi8((char)flip));
}
QCY_INLINE void qcy_codes_store(uint8_t *p, qcy_codes c, int vectors)
{
    if (vectors == 4) {
        _mm512_storeu_si512(p, c);
        return;
    }
    if (vectors >= 2) _mm256_storeu_si256((__m256i *)p, _mm512_castsi512_si256(c));
    if (vectors == 3) _mm_storeu_si128((__m128i *)(p + 32), _mm512_extracti32x4_epi32(c, 2));
    if (vectors == 1) _mm_storeu_si128((__m128i *)p, _mm512_castsi512_si128(c));
}

/* ---------------------------------------------------------------------------- AVX-VNNI and AVX2 */
#elif defined(QCY_ISA_AVXVNNI) || defined(QCY_ISA_AVX2)
#include <immintrin.h>
#define QCY_LANES 8
#define QCY_VECTORS 2
#define QCY_LHS_ZERO 0
typedef __m256i qcy_sums;
typedef __m256 qcy_reals;
typedef __m256i qcy_codes;

#ifdef QCY_ISA_AVXVNNI
#define QCY_ROWS 6
#define QCY_GROUP 4
typedef __m256i qcy_lhs;
typedef __m256i qcy_rhs;
QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word) { return _mm256_set1_epi32((int)word); }
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b) { return _mm256_loadu_si256((const __m256i *)b); }
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    return _mm256_dpbusd_avx_epi32(sums, a, b);
}
#else
#define QCY_ROWS 6
#define QCY_GROUP 2     /* the products of a pair of 16-bit numbers fit 32 bits */
typedef __m256i qcy_lhs;
typedef __m256i qcy_rhs;
QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word) { return _mm256_set1_epi32((int)word); }
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)b));
}
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    return _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
}
#endif

QCY_INLINE qcy_sums qcy_zero(void) { return _mm256_setzero_si256(); }
QCY_INLINE qcy_sums qcy_sums_load(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
QCY_INLINE void qcy_sums_store(int32_t *p, qcy_sums s) { _mm256_storeu_si256((__m256i *)p, s); }
QCY_INLINE qcy_sums qcy_sums_add(qcy_sums s, qcy_sums t) { return _mm256_add_epi32(s, t); }
QCY_INLINE qcy_sums qcy_sums_scale(qcy_sums s, int32_t t)
{
    return _mm256_mullo_epi32(s, _mm256_set1_epi32(t));
}
QCY_INLINE qcy_reals qcy_scaled(qcy_sums s, const float *multiplier)
{
    return _mm256_mul_ps(_mm256_cvtepi32_ps(s), _mm256_loadu_ps(multiplier));
}
QCY_INLINE qcy_codes qcy_round_pack(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const __m256 high = _mm256_set1_ps(QCY_REAL_MAX);
    const __m256i zero = _mm256_set1_epi16((short)zero_point);
    const __m256i lanes = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i low16 = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_min_ps(p0, high)),
                                       _mm256_cvtps_epi32(_mm256_min_ps(p1, high)));
    __m256i high16 = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_min_ps(p2, high)),
                                        _mm256_cvtps_epi32(_mm256_min_ps(p3, high)));
    low16 = _mm256_adds_epi16(low16, zero);
    high16 = _mm256_adds_epi16(high16, zero);
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low16, high16), lanes);
}
QCY_INLINE qcy_codes qcy_clamp_flip(qcy_codes c, uint8_t low, uint8_t high, uint8_t flip)
{
    c = _mm256_max_epu8(c, _mm256_set1_epi8((char)low));
    c = _mm256_min_epu8(c, _mm256_set1_epi8((char)high));
    return _mm256_xor_si256(c, _mm256_set1_epi8((char)flip));
}
QCY_INLINE void qcy_codes_store(uint8_t *p, qcy_codes c, int vectors)
{
    __m128i low = _mm256_castsi256_si128(c);
    if (vectors == 2) _mm_storeu_si128((__m128i *)p, low);
    if (vectors == 1) _mm_storel_epi64((__m128i *)p, low);
}

/* ----------------------------------------------------------------------------------------- SSE2 */
#elif defined(QCY_ISA_BASELINE) && (defined(__x86_64__) || defined(__i386__) \
    || defined(_M_X64) || defined(_M_IX86))
#include <emmintrin.h>
#define QCY_LANES 4
#define QCY_VECTORS 2
#define QCY_ROWS 6
#define QCY_GROUP 2
#define QCY_LHS_ZERO 0
typedef __m128i qcy_sums;
typedef __m128i qcy_lhs;
typedef __m128i qcy_rhs;
typedef __m128 qcy_reals;
typedef __m128i qcy_codes;

QCY_INLINE qcy_sums qcy_zero(void) { return _mm_setzero_si128(); }
QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word) { return _mm_set1_epi32((int)word); }
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b)
{
    __m128i codes = _mm_loadl_epi64((const __m128i *)b);
    return _mm_srai_epi16(_mm_unpacklo_epi8(codes, codes), 8);
}
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    return _mm_add_epi32(sums, _mm_madd_epi16(a, b));
}
QCY_INLINE qcy_sums qcy_sums_load(const int32_t *p) { return _mm_loadu_si128((const __m128i *)p); }
QCY_INLINE void qcy_sums_store(int32_t *p, qcy_sums s) { _mm_storeu_si128((__m128i *)p, s); }
QCY_INLINE qcy_sums qcy_sums_add(qcy_sums s, qcy_sums t) { return _mm_add_epi32(s, t); }
QCY_INLINE qcy_sums qcy_sums_scale(qcy_sums s, int32_t t)
{
    /* SSE2 multiplies 32 bits in even lanes only. */
    __m128i factor = _mm_set1_epi32(t);
    __m128i even = _mm_mul_epu32(s, factor);
    __m128i odd = _mm_mul_epu32(_mm_srli_epi64(s, 32), factor);
    return _mm_unpacklo_epi32(_mm_shuffle_epi32(even, 0x08), _mm_shuffle_epi32(odd, 0x08));
}
QCY_INLINE qcy_reals qcy_scaled(qcy_sums s, const float *multiplier)
{
    return _mm_mul_ps(_mm_cvtepi32_ps(s), _mm_loadu_ps(multiplier));
}
QCY_INLINE qcy_codes qcy_round_pack(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const __m128 high = _mm_set1_ps(QCY_REAL_MAX);
    const __m128i zero = _mm_set1_epi16((short)zero_point);
    __m128i low16 = _mm_packs_epi32(_mm_cvtps_epi32(_mm_min_ps(p0, high)),
                                    _mm_cvtps_epi32(_mm_min_ps(p1, high)));
    __m128i high16 = _mm_packs_epi32(_mm_cvtps_epi32(_mm_min_ps(p2, high)),
                                     _mm_cvtps_epi32(_mm_min_ps(p3, high)));
    return _mm_packus_epi16(_mm_adds_epi16(low16, zero), _mm_adds_epi16(high16, zero));
}
QCY_INLINE qcy_codes qcy_clamp_flip(qcy_codes c, uint8_t low, uint8_t high, uint8_t flip)
{
    c = _mm_max_epu8(c, _mm_set1_epi8((char)low));
    c = _mm_min_epu8(c, _mm_set1_epi8((char)high));
    return _mm_xor_si128(c, _mm_set1_epi8((char)flip));
}
QCY_INLINE void qcy_codes_store(uint8_t *p, qcy_codes c, int vectors)
{
    int four = _mm_cvtsi128_si32(c);
    if (vectors == 2) _mm_storel_epi64((__m128i *)p, c);
    if (vectors == 1) memcpy(p, &four, 4);
}

/* ----------------------------------------------------------------------------------------- NEON */
#elif (defined(QCY_ISA_BASELINE) || defined(QCY_ISA_DOTPROD) || defined(QCY_ISA_I8MM)) \
    && (defined(__aarch64__) || defined(_M_ARM64))
#include <arm_neon.h>
#define QCY_LANES 4
#define QCY_GROUP 4
#define QCY_VECTORS 4
typedef int32x4_t qcy_sums;
typedef int8x16_t qcy_rhs;
typedef float32x4_t qcy_reals;
typedef uint8x16_t qcy_codes;

#if defined(QCY_ISA_I8MM)
#define QCY_ROWS 6
#define QCY_LHS_ZERO 0
typedef uint8x16_t qcy_lhs;
QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word) { return vreinterpretq_u8_u32(vdupq_n_u32(word)); }
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    return vusdotq_s32(sums, a, b);
}
#else
#define QCY_LHS_ZERO 128
typedef int8x16_t qcy_lhs;
QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word)
{
    return vreinterpretq_s8_u32(vdupq_n_u32(word ^ 0x80808080u));
}
#ifdef QCY_ISA_DOTPROD
#define QCY_ROWS 6
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b) { return vdotq_s32(sums, a, b); }
#else
#define QCY_ROWS 4
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(a), vget_high_s8(b)));
    return vaddq_s32(sums, vpaddq_s32(low, high));
}
#endif
#endif

QCY_INLINE qcy_sums qcy_zero(void) { return vdupq_n_s32(0); }
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b) { return vld1q_s8(b); }
QCY_INLINE qcy_sums qcy_sums_load(const int32_t *p) { return vld1q_s32(p); }
QCY_INLINE void qcy_sums_store(int32_t *p, qcy_sums s) { vst1q_s32(p, s); }
QCY_INLINE qcy_sums qcy_sums_add(qcy_sums s, qcy_sums t) { return vaddq_s32(s, t); }
QCY_INLINE qcy_sums qcy_sums_scale(qcy_sums s, int32_t t) { return vmulq_n_s32(s, t); }
QCY_INLINE qcy_reals qcy_scaled(qcy_sums s, const float *multiplier)
{
    return vmulq_f32(vcvtq_f32_s32(s), vld1q_f32(multiplier));
}
QCY_INLINE qcy_codes qcy_round_pack(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const int16x8_t zero = vdupq_n_s16((int16_t)zero_point);
    int16x8_t low16 = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(p0)), vqmovn_s32(vcvtnq_s32_f32(p1)));
    int16x8_t high16 = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(p2)), vqmovn_s32(vcvtnq_s32_f32(p3)));
    return vcombine_u8(vqmovun_s16(vqaddq_s16(low16, zero)), vqmovun_s16(vqaddq_s16(high16, zero)));
}
QCY_INLINE qcy_codes qcy_clamp_flip(qcy_codes c, uint8_t low, uint8_t high, uint8_t flip)
{
    c = vminq_u8(vmaxq_u8(c, vdupq_n_u8(low)), vdupq_n_u8(high));
    return veorq_u8(c, vdupq_n_u8(flip));
}
QCY_INLINE void qcy_codes_store(uint8_t *p, qcy_codes c, int vectors)
{
    uint32_t four;
    if (vectors == 4) vst1q_u8(p, c);
    if (vectors == 2 || vectors == 3) vst1_u8(p, vget_low_u8(c));
    if (vectors == 3) {
        four = vgetq_lane_u32(vreinterpretq_u32_u8(c), 2);
        memcpy(p + 8, &four, 4);
    }
    if (vectors == 1) {
        four = vgetq_lane_u32(vreinterpretq_u32_u8(c), 0);
        memcpy(p, &four, 4);
    }
}

/* -------------------------------------------------------------------------------------- plain C */
#elif defined(QCY_ISA_PORTABLE)
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

#else
#error "setup.py must define one QCY_ISA_... of this architecture"
#endif
#endif
