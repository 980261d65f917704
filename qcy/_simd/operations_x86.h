/* The operations of operations.h in the instructions of x86: AVX-512 VNNI, AVX-VNNI, AVX2, SSE2. */
#ifndef QCY_OPERATIONS_X86_H
#define QCY_OPERATIONS_X86_H

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
#endif

#endif
