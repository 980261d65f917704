/* The operations of operations.h in AVX-512: VNNI, and VBMI where it is. */
#ifndef QCY_OPERATIONS_AVX512_H
#define QCY_OPERATIONS_AVX512_H

#include <immintrin.h>
#define QCY_LANES 16
#define QCY_VECTORS 4
#define QCY_ROWS 6
#define QCY_GROUP 4
#define QCY_LHS_ZERO 0
#define QCY_HAS_FMA 1
typedef __m512i qcy_sums;
typedef __m512i qcy_lhs;
typedef __m512i qcy_rhs;
typedef __m512 qcy_reals;
typedef __m512i qcy_codes;

/* A mask of the first n of 64, or of the lanes of vector v among n numbers. */
#define qcy_first(n) ((n) >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n)) - 1)
#define qcy_first_of(n, v) ((__mmask16)(qcy_first(n) >> (16 * (v))))

QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word) { return _mm512_set1_epi32((int)word); }
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b) { return _mm512_loadu_si512(b); }
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    return _mm512_dpbusd_epi32(sums, a, b);
}
QCY_INLINE qcy_sums qcy_sums_load(const int32_t *p) { return _mm512_loadu_si512(p); }
QCY_INLINE void qcy_sums_store(int32_t *p, qcy_sums s) { _mm512_storeu_si512(p, s); }
QCY_INLINE void qcy_sums_store_some(int32_t *p, qcy_sums s, ptrdiff_t n, int v)
{
    _mm512_mask_storeu_epi32(p + 16 * v, qcy_first_of(n, v), s);
}
QCY_INLINE qcy_sums qcy_sums_set(int32_t t) { return _mm512_set1_epi32(t); }
QCY_INLINE qcy_sums qcy_sums_add(qcy_sums s, qcy_sums t) { return _mm512_add_epi32(s, t); }
QCY_INLINE qcy_sums qcy_sums_sub(qcy_sums s, qcy_sums t) { return _mm512_sub_epi32(s, t); }
QCY_INLINE qcy_sums qcy_sums_mul(qcy_sums s, qcy_sums t) { return _mm512_mullo_epi32(s, t); }
QCY_INLINE qcy_sums qcy_widen(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
QCY_INLINE qcy_sums qcy_widen_signed(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}
QCY_INLINE qcy_reals qcy_reals_of(qcy_sums s) { return _mm512_cvtepi32_ps(s); }
QCY_INLINE qcy_reals qcy_reals_set(float x) { return _mm512_set1_ps(x); }
QCY_INLINE qcy_reals qcy_reals_load(const float *p) { return _mm512_loadu_ps(p); }
QCY_INLINE void qcy_reals_store(float *p, qcy_reals x) { _mm512_storeu_ps(p, x); }
QCY_INLINE void qcy_reals_store_some(float *p, qcy_reals x, ptrdiff_t n, int v)
{
    _mm512_mask_storeu_ps(p + 16 * v, qcy_first_of(n, v), x);
}
QCY_INLINE qcy_reals qcy_reals_add(qcy_reals x, qcy_reals y) { return _mm512_add_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_mul(qcy_reals x, qcy_reals y) { return _mm512_mul_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_div(qcy_reals x, qcy_reals y) { return _mm512_div_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_min(qcy_reals x, qcy_reals y) { return _mm512_min_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_max(qcy_reals x, qcy_reals y) { return _mm512_max_ps(x, y); }
QCY_INLINE qcy_reals qcy_reals_within(qcy_reals x, qcy_reals most)
{
    return _mm512_range_ps(x, most, 0x02);      /* the smaller magnitude, with the sign of x */
}
QCY_INLINE qcy_reals qcy_reals_tame(qcy_reals x)
{
    return _mm512_min_ps(_mm512_set1_ps(QCY_REAL_MAX), x);     /* the second, if that is a NaN */
}
QCY_INLINE qcy_reals qcy_reals_fma(qcy_reals x, qcy_reals y, qcy_reals z)
{
    return _mm512_fmadd_ps(x, y, z);
}
QCY_INLINE qcy_reals qcy_reals_halve(qcy_reals x, qcy_reals n)
{
    return _mm512_castsi512_ps(_mm512_sub_epi32(
        _mm512_castps_si512(x), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
}
#define QCY_REDUCE
QCY_INLINE float qcy_reals_least(qcy_reals x) { return _mm512_reduce_min_ps(x); }
QCY_INLINE float qcy_reals_most(qcy_reals x) { return _mm512_reduce_max_ps(x); }
QCY_INLINE int qcy_reals_have_nan(qcy_reals x, qcy_reals y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_UNORD_Q) != 0;
}
QCY_INLINE qcy_codes qcy_round_pack_lanes(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const __m512i zero = _mm512_set1_epi16((short)zero_point);
    __m512i low16 = _mm512_packs_epi32(_mm512_cvtps_epi32(p0), _mm512_cvtps_epi32(p1));
    __m512i high16 = _mm512_packs_epi32(_mm512_cvtps_epi32(p2), _mm512_cvtps_epi32(p3));
    if (zero_point != 0) {
        low16 = _mm512_adds_epi16(low16, zero);
        high16 = _mm512_adds_epi16(high16, zero);
    }
    return _mm512_packus_epi16(low16, high16);
}
QCY_INLINE qcy_codes qcy_round_pack(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(lanes, qcy_round_pack_lanes(p0, p1, p2, p3, zero_point));
}
QCY_INLINE qcy_codes qcy_codes_set(uint8_t c) { return _mm512_set1_epi8((char)c); }
QCY_INLINE qcy_codes qcy_codes_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
QCY_INLINE qcy_codes qcy_codes_load_some(const uint8_t *p, ptrdiff_t n)
{
    return _mm512_maskz_loadu_epi8(qcy_first(n), p);
}
QCY_INLINE qcy_codes qcy_codes_max(qcy_codes c, qcy_codes d) { return _mm512_max_epu8(c, d); }
QCY_INLINE qcy_codes qcy_codes_min(qcy_codes c, qcy_codes d) { return _mm512_min_epu8(c, d); }
QCY_INLINE qcy_codes qcy_codes_xor(qcy_codes c, qcy_codes d) { return _mm512_xor_si512(c, d); }
QCY_INLINE void qcy_codes_store_some(uint8_t *p, qcy_codes c, ptrdiff_t n)
{
    _mm512_mask_storeu_epi8(p, qcy_first(n), c);
}
QCY_INLINE void qcy_codes_store(uint8_t *p, qcy_codes c, int vectors)
{
    if (vectors == 4) _mm512_storeu_si512(p, c);
    else qcy_codes_store_some(p, c, 16 * vectors);
}
#define QCY_STORE_PART
QCY_INLINE void qcy_codes_store_part(
    uint8_t *p, qcy_codes c, const int part, const int vectors, ptrdiff_t n)
{
    const __mmask64 first = qcy_first(n);
    if (vectors == 1)
        _mm_mask_storeu_epi8(p, (__mmask16)first, part == 0 ? _mm512_castsi512_si128(c)
            : part == 1 ? _mm512_extracti32x4_epi32(c, 1)
            : part == 2 ? _mm512_extracti32x4_epi32(c, 2) : _mm512_extracti32x4_epi32(c, 3));
    else
        _mm256_mask_storeu_epi8(p, (__mmask32)first, part == 0 ? _mm512_castsi512_si256(c)
                                                               : _mm512_extracti64x4_epi64(c, 1));
}
typedef struct { __m512i part[4]; } qcy_taps;
QCY_INLINE qcy_taps qcy_interleave(qcy_codes t0, qcy_codes t1, qcy_codes t2, qcy_codes t3)
{
    const __m512i low01 = _mm512_unpacklo_epi8(t0, t1), low23 = _mm512_unpacklo_epi8(t2, t3);
    const __m512i high01 = _mm512_unpackhi_epi8(t0, t1), high23 = _mm512_unpackhi_epi8(t2, t3);
    qcy_taps t;
    t.part[0] = _mm512_unpacklo_epi16(low01, low23);
    t.part[1] = _mm512_unpackhi_epi16(low01, low23);
    t.part[2] = _mm512_unpacklo_epi16(high01, high23);
    t.part[3] = _mm512_unpackhi_epi16(high01, high23);
    return t;
}
#define QCY_TAPS_ARE_LEFT
#ifdef QCY_ISA_AVX512VBMI
#define QCY_DISTANCES
QCY_INLINE void qcy_distances(
    const uint8_t *p, const int is_signed, int zero_point, qcy_reals *distance)
{
    /* The bits of 2^23 + code are those of 2^23 with the code in the last byte: one shuffle makes
     * them, and one exact subtraction the distance. */
    const __m512i power = _mm512_set1_epi32(0x4B000000);
    const __m512 zero = _mm512_set1_ps(8388608.0f + (float)(zero_point + (is_signed ? 128 : 0)));
    __m512i codes = _mm512_loadu_si512(p);
    __m512i index = _mm512_add_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32(0x43404000));
    int v;
    if (is_signed) codes = _mm512_xor_si512(codes, _mm512_set1_epi8((char)0x80));
    for (v = 0; v < 4; v++) {
        distance[v] = _mm512_sub_ps(
            _mm512_castsi512_ps(_mm512_permutex2var_epi8(codes, index, power)), zero);
        index = _mm512_add_epi32(index, _mm512_set1_epi32(16));
    }
}
#define QCY_TABLE
typedef struct { __m512i part[4]; } qcy_table;
QCY_INLINE qcy_table qcy_table_load(const uint8_t *entries)
{
    qcy_table t;
    int i;
    for (i = 0; i < 4; i++) t.part[i] = _mm512_loadu_si512(entries + 64 * i);
    return t;
}
QCY_INLINE qcy_codes qcy_lookup(qcy_codes c, qcy_table t)
{
    const __m512i low = _mm512_permutex2var_epi8(t.part[0], c, t.part[1]);
    const __m512i high = _mm512_permutex2var_epi8(t.part[2], c, t.part[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(c), low, high);
}
#else
#define QCY_LOOKUP_16
QCY_INLINE qcy_codes qcy_lookup_16(qcy_codes c, const uint8_t *table)
{
    /* Sixteen entries at a time: an index outside 0..15 gets its top bit set, and gives 0. */
    __m512i found = _mm512_setzero_si512();
    int i;
    for (i = 0; i < 16; i++) {
        const __m512i index = _mm512_adds_epu8(c, _mm512_set1_epi8(0x70));
        found = _mm512_or_si512(found, _mm512_shuffle_epi8(_mm512_broadcast_i32x4(
            _mm_loadu_si128((const __m128i *)(table + 16 * i))), index));
        c = _mm512_sub_epi8(c, _mm512_set1_epi8(16));
    }
    return found;
}
#endif

#endif
