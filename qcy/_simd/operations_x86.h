/* The operations of operations.h in the instructions of x86: AVX-VNNI, AVX2, SSE2; AVX-512 has a file of
 * its own. */
#ifndef QCY_OPERATIONS_X86_H
#define QCY_OPERATIONS_X86_H

#define qcy_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)

#if defined(QCY_ISA_AVX512VNNI) || defined(QCY_ISA_AVX512VBMI)
#include "operations_avx512.h"

/* ---------------------------------------------------------------------------- AVX-VNNI and AVX2 */
#elif defined(QCY_ISA_AVXVNNI) || defined(QCY_ISA_AVX2)
#include <immintrin.h>
#define QCY_LANES 8
#define QCY_VECTORS 2
#define QCY_ROWS 6
#define QCY_LHS_ZERO 0
#define QCY_HAS_FMA 1
typedef __m256i qcy_sums;
typedef __m256i qcy_lhs;
typedef __m256i qcy_rhs;
typedef __m256 qcy_reals;
typedef __m256i qcy_codes;

#ifdef QCY_ISA_AVXVNNI
#define QCY_GROUP 4
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b) { return _mm256_loadu_si256((const __m256i *)b); }
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    return _mm256_dpbusd_avx_epi32(sums, a, b);
}
typedef struct { __m256i part[4]; } qcy_taps;
QCY_INLINE qcy_taps qcy_interleave(qcy_codes t0, qcy_codes t1, qcy_codes t2, qcy_codes t3)
{
    const __m256i low01 = _mm256_unpacklo_epi8(t0, t1), low23 = _mm256_unpacklo_epi8(t2, t3);
    const __m256i high01 = _mm256_unpackhi_epi8(t0, t1), high23 = _mm256_unpackhi_epi8(t2, t3);
    qcy_taps t;
    t.part[0] = _mm256_unpacklo_epi16(low01, low23);
    t.part[1] = _mm256_unpackhi_epi16(low01, low23);
    t.part[2] = _mm256_unpacklo_epi16(high01, high23);
    t.part[3] = _mm256_unpackhi_epi16(high01, high23);
    return t;
}
#define QCY_TAPS_ARE_LEFT
#else
#define QCY_GROUP 2     /* the products of a pair of 16-bit numbers fit 32 bits */
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)b));
}
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    return _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
}
typedef struct { __m256i part[8]; } qcy_taps;
QCY_INLINE void qcy_interleave_pair(__m256i *part, qcy_codes t0, qcy_codes t1)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i low0 = _mm256_unpacklo_epi8(t0, zero), low1 = _mm256_unpacklo_epi8(t1, zero);
    const __m256i high0 = _mm256_unpackhi_epi8(t0, zero), high1 = _mm256_unpackhi_epi8(t1, zero);
    part[0] = _mm256_unpacklo_epi16(low0, low1);
    part[1] = _mm256_unpackhi_epi16(low0, low1);
    part[2] = _mm256_unpacklo_epi16(high0, high1);
    part[3] = _mm256_unpackhi_epi16(high0, high1);
}
#define QCY_TAPS_IN_PAIRS
#endif

QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word) { return _mm256_set1_epi32((int)word); }
QCY_INLINE qcy_sums qcy_sums_load(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
QCY_INLINE void qcy_sums_store(int32_t *p, qcy_sums s) { _mm256_storeu_si256((__m256i *)p, s); }
QCY_INLINE qcy_sums qcy_sums_set(int32_t t) { return _mm256_set1_epi32(t); }
QCY_INLINE qcy_sums qcy_sums_add(qcy_sums s, qcy_sums t) { return _mm256_add_epi32(s, t); }
QCY_INLINE qcy_sums qcy_sums_sub(qcy_sums s, qcy_sums t) { return _mm256_sub_epi32(s, t); }
QCY_INLINE qcy_sums qcy_sums_mul(qcy_sums s, qcy_sums t) { return _mm256_mullo_epi32(s, t); }
QCY_INLINE qcy_sums qcy_widen(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
QCY_INLINE qcy_sums qcy_widen_signed(const uint8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
QCY_INLINE qcy_reals qcy_reals_of(qcy_sums s) { return _mm256_cvtepi32_ps(s); }
QCY_INLINE qcy_reals qcy_reals_set(float x) { return _mm256_set1_ps(x); }
QCY_INLINE qcy_reals qcy_reals_load(const float *p) { return _mm256_loadu_ps(p); }
QCY_INLINE void qcy_reals_store(float *p, qcy_reals x) { _mm256_storeu_ps(p, x); }
QCY_INLINE qcy_reals qcy_reals_add(qcy_reals x, qcy_reals y) { return _mm256_add_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_mul(qcy_reals x, qcy_reals y) { return _mm256_mul_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_div(qcy_reals x, qcy_reals y) { return _mm256_div_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_min(qcy_reals x, qcy_reals y) { return _mm256_min_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_max(qcy_reals x, qcy_reals y) { return _mm256_max_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_within(qcy_reals x, qcy_reals most)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_max_ps(_mm256_min_ps(x, most), _mm256_or_ps(most, sign));
}
QCY_INLINE qcy_reals qcy_reals_tame(qcy_reals x)
{
    return _mm256_min_ps(_mm256_set1_ps(QCY_REAL_MAX), x);     /* the second, if that is a NaN */
}
QCY_INLINE qcy_reals qcy_reals_fma(qcy_reals x, qcy_reals y, qcy_reals z)
{
    return _mm256_fmadd_ps(x, y, z);
}
QCY_INLINE qcy_reals qcy_reals_halve(qcy_reals x, qcy_reals n)
{
    return _mm256_castsi256_ps(_mm256_sub_epi32(
        _mm256_castps_si256(x), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
}
QCY_INLINE int qcy_reals_have_nan(qcy_reals x, qcy_reals y)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_UNORD_Q)) != 0;
}
QCY_INLINE qcy_codes qcy_round_pack_lanes(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const __m256i zero = _mm256_set1_epi16((short)zero_point);
    __m256i low16 = _mm256_packs_epi32(_mm256_cvtps_epi32(p0), _mm256_cvtps_epi32(p1));
    __m256i high16 = _mm256_packs_epi32(_mm256_cvtps_epi32(p2), _mm256_cvtps_epi32(p3));
    return _mm256_packus_epi16(_mm256_adds_epi16(low16, zero), _mm256_adds_epi16(high16, zero));
}
QCY_INLINE qcy_codes qcy_round_pack(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const __m256i lanes = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm256_permutevar8x32_epi32(qcy_round_pack_lanes(p0, p1, p2, p3, zero_point), lanes);
}
QCY_INLINE qcy_codes qcy_codes_set(uint8_t c) { return _mm256_set1_epi8((char)c); }
QCY_INLINE qcy_codes qcy_codes_load(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
QCY_INLINE qcy_codes qcy_codes_max(qcy_codes c, qcy_codes d) { return _mm256_max_epu8(c, d); }
QCY_INLINE qcy_codes qcy_codes_min(qcy_codes c, qcy_codes d) { return _mm256_min_epu8(c, d); }
QCY_INLINE qcy_codes qcy_codes_xor(qcy_codes c, qcy_codes d) { return _mm256_xor_si256(c, d); }
QCY_INLINE void qcy_codes_store(uint8_t *p, qcy_codes c, int vectors)
{
    const __m128i low = _mm256_castsi256_si128(c);
    if (vectors == 4) _mm256_storeu_si256((__m256i *)p, c);
    if (vectors == 2) _mm_storeu_si128((__m128i *)p, low);
    if (vectors == 1) _mm_storel_epi64((__m128i *)p, low);
}
#define QCY_LOOKUP_16
QCY_INLINE qcy_codes qcy_lookup_16(qcy_codes c, const uint8_t *table)
{
    /* Sixteen entries at a time: an index outside 0..15 gets its top bit set, and gives 0. */
    __m256i found = _mm256_setzero_si256();
    int i;
    for (i = 0; i < 16; i++) {
        const __m256i index = _mm256_adds_epu8(c, _mm256_set1_epi8(0x70));
        found = _mm256_or_si256(found, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(
            _mm_loadu_si128((const __m128i *)(table + 16 * i))), index));
        c = _mm256_sub_epi8(c, _mm256_set1_epi8(16));
    }
    return found;
}

/* ----------------------------------------------------------------------------------------- SSE2 */
#else
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
typedef struct { __m128i part[8]; } qcy_taps;
QCY_INLINE void qcy_interleave_pair(__m128i *part, qcy_codes t0, qcy_codes t1)
{
    const __m128i zero = _mm_setzero_si128();
    const __m128i low0 = _mm_unpacklo_epi8(t0, zero), low1 = _mm_unpacklo_epi8(t1, zero);
    const __m128i high0 = _mm_unpackhi_epi8(t0, zero), high1 = _mm_unpackhi_epi8(t1, zero);
    part[0] = _mm_unpacklo_epi16(low0, low1);
    part[1] = _mm_unpackhi_epi16(low0, low1);
    part[2] = _mm_unpacklo_epi16(high0, high1);
    part[3] = _mm_unpackhi_epi16(high0, high1);
}
#define QCY_TAPS_IN_PAIRS
QCY_INLINE qcy_sums qcy_sums_load(const int32_t *p) { return _mm_loadu_si128((const __m128i *)p); }
QCY_INLINE void qcy_sums_store(int32_t *p, qcy_sums s) { _mm_storeu_si128((__m128i *)p, s); }
QCY_INLINE qcy_sums qcy_sums_set(int32_t t) { return _mm_set1_epi32(t); }
QCY_INLINE qcy_sums qcy_sums_add(qcy_sums s, qcy_sums t) { return _mm_add_epi32(s, t); }
QCY_INLINE qcy_sums qcy_sums_sub(qcy_sums s, qcy_sums t) { return _mm_sub_epi32(s, t); }
QCY_INLINE qcy_sums qcy_sums_mul(qcy_sums s, qcy_sums t)
{
    /* SSE2 multiplies 32 bits in even lanes only. */
    __m128i even = _mm_mul_epu32(s, t);
    __m128i odd = _mm_mul_epu32(_mm_srli_epi64(s, 32), _mm_srli_epi64(t, 32));
    return _mm_unpacklo_epi32(_mm_shuffle_epi32(even, 0x08), _mm_shuffle_epi32(odd, 0x08));
}
QCY_INLINE qcy_sums qcy_widen(const uint8_t *p)
{
    const __m128i zero = _mm_setzero_si128();
    int32_t four;
    memcpy(&four, p, 4);
    return _mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero);
}
QCY_INLINE qcy_sums qcy_widen_signed(const uint8_t *p)
{
    __m128i codes;
    int32_t four;
    memcpy(&four, p, 4);
    codes = _mm_cvtsi32_si128(four);
    codes = _mm_unpacklo_epi8(codes, codes);
    return _mm_srai_epi32(_mm_unpacklo_epi16(codes, codes), 24);
}
QCY_INLINE qcy_reals qcy_reals_of(qcy_sums s) { return _mm_cvtepi32_ps(s); }
QCY_INLINE qcy_reals qcy_reals_set(float x) { return _mm_set1_ps(x); }
QCY_INLINE qcy_reals qcy_reals_load(const float *p) { return _mm_loadu_ps(p); }
QCY_INLINE void qcy_reals_store(float *p, qcy_reals x) { _mm_storeu_ps(p, x); }
QCY_INLINE qcy_reals qcy_reals_add(qcy_reals x, qcy_reals y) { return _mm_add_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_mul(qcy_reals x, qcy_reals y) { return _mm_mul_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_div(qcy_reals x, qcy_reals y) { return _mm_div_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_min(qcy_reals x, qcy_reals y) { return _mm_min_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_max(qcy_reals x, qcy_reals y) { return _mm_max_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_tame(qcy_reals x)
{
    return _mm_min_ps(_mm_set1_ps(QCY_REAL_MAX), x);     /* the second, if that is a NaN */
}
QCY_INLINE qcy_reals qcy_reals_halve(qcy_reals x, qcy_reals n)
{
    return _mm_castsi128_ps(_mm_sub_epi32(
        _mm_castps_si128(x), _mm_slli_epi32(_mm_castps_si128(n), 23)));
}
QCY_INLINE int qcy_reals_have_nan(qcy_reals x, qcy_reals y)
{
    return _mm_movemask_ps(_mm_cmpunord_ps(x, y)) != 0;
}
QCY_INLINE qcy_codes qcy_round_pack(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const __m128i zero = _mm_set1_epi16((short)zero_point);
    __m128i low16 = _mm_packs_epi32(_mm_cvtps_epi32(p0), _mm_cvtps_epi32(p1));
    __m128i high16 = _mm_packs_epi32(_mm_cvtps_epi32(p2), _mm_cvtps_epi32(p3));
    return _mm_packus_epi16(_mm_adds_epi16(low16, zero), _mm_adds_epi16(high16, zero));
}
#define qcy_round_pack_lanes qcy_round_pack
QCY_INLINE qcy_codes qcy_codes_set(uint8_t c) { return _mm_set1_epi8((char)c); }
QCY_INLINE qcy_codes qcy_codes_load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}
QCY_INLINE qcy_codes qcy_codes_max(qcy_codes c, qcy_codes d) { return _mm_max_epu8(c, d); }
QCY_INLINE qcy_codes qcy_codes_min(qcy_codes c, qcy_codes d) { return _mm_min_epu8(c, d); }
QCY_INLINE qcy_codes qcy_codes_xor(qcy_codes c, qcy_codes d) { return _mm_xor_si128(c, d); }
QCY_INLINE void qcy_codes_store(uint8_t *p, qcy_codes c, int vectors)
{
    int four = _mm_cvtsi128_si32(c);
    if (vectors == 4) _mm_storeu_si128((__m128i *)p, c);
    if (vectors == 2) _mm_storel_epi64((__m128i *)p, c);
    if (vectors == 1) memcpy(p, &four, 4);
}
#endif

#endif
