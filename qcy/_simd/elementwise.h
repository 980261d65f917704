/* Runs of codes and reals, element by element, in blocks of one vector of codes.
 *
 * A run shares its parameters. Zero points, clamps and flips are those of codes as uint8: `flip`
 * 0x80 turns int8 bytes into uint8 and back. The last, broken block goes through a buffer. */
#ifndef QCY_ELEMENTWISE_H
#define QCY_ELEMENTWISE_H

#include "operations.h"

/* How codes come out of reals. */
typedef struct {
    int zero_point;
    uint8_t low, high, flip;
    uint8_t is_wild;            /* reals may pass 2^31 */
} qcy_output;

QCY_INLINE qcy_codes qcy_finish(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, const qcy_output *out)
{
    qcy_codes codes;
    if (out->is_wild) {
        p0 = qcy_reals_tame(p0);
        p1 = qcy_reals_tame(p1);
        p2 = qcy_reals_tame(p2);
        p3 = qcy_reals_tame(p3);
    }
    codes = qcy_round_pack(p0, p1, p2, p3, out->zero_point);
    if (out->low | (255 - out->high) | out->flip)
        codes = qcy_clamp_flip(codes, out->low, out->high, out->flip);
    return codes;
}

/* ------------------------------------------------------------------------------------- quantize */

typedef struct {
    float scale;
    float inverse;              /* 1 / scale */
    int divide;                 /* the scale is too extreme for the corrected quotient */
    qcy_output out;             /* wild where it divides */
} qcy_quantizer;

/* x / scale, up to what rounding to a code can see: x * inverse and one correction of its error.
 * tests/prove_quantize.py compares the codes with those of true division for every float32. */
QCY_INLINE qcy_reals qcy_quotient(qcy_reals x, const qcy_quantizer *q, const int is_bounded)
{
#ifdef QCY_HAS_FMA
    if (!q->divide) {
        /* Far outside every code; ±infinity would make the correction NaN. */
        const qcy_reals most = qcy_reals_set(1024.0f * q->scale);
        const qcy_reals inverse = qcy_reals_set(q->inverse);
        qcy_reals quotient, error;
        if (!is_bounded) x = qcy_reals_within(x, most);
        quotient = qcy_reals_mul(x, inverse);
        error = qcy_reals_fma(quotient, qcy_reals_set(-q->scale), x);
        return qcy_reals_fma(error, inverse, quotient);
    }
#else
    (void)is_bounded;
#endif
    return qcy_reals_div(x, qcy_reals_set(q->scale));
}

/* One block; returns whether a NaN was among the reals. */
QCY_INLINE int qcy_quantize_block(
    const float *x, const qcy_quantizer *q, const int is_bounded, uint8_t *codes)
{
    const qcy_reals x0 = qcy_reals_load(x), x1 = qcy_reals_load(x + QCY_LANES);
    const qcy_reals x2 = qcy_reals_load(x + 2 * QCY_LANES), x3 = qcy_reals_load(x + 3 * QCY_LANES);
    const int have_nan = qcy_reals_have_nan(x0, x1) | qcy_reals_have_nan(x2, x3);
    qcy_codes_store(codes, qcy_finish(
        qcy_quotient(x0, q, is_bounded), qcy_quotient(x1, q, is_bounded),
        qcy_quotient(x2, q, is_bounded), qcy_quotient(x3, q, is_bounded), &q->out), 4);
    return have_nan;
}

/* Returns whether a NaN was among the reals. `is_bounded`: none is far outside the codes. */
QCY_INLINE int qcy_quantize_blocks(
    const float *x, ptrdiff_t n, const qcy_quantizer *given, const int is_bounded, uint8_t *codes)
{
    const qcy_quantizer q = *given;     /* codes may alias what a pointer leads to */
    ptrdiff_t i;
    int have_nan = 0;
    for (i = 0; i + QCY_BLOCK <= n; i += QCY_BLOCK)
        have_nan |= qcy_quantize_block(x + i, &q, is_bounded, codes + i);
    if (i < n) {
        float rest[QCY_BLOCK] = {0};
        uint8_t last[QCY_BLOCK];
        memcpy(rest, x + i, (size_t)(n - i) * sizeof *x);
        have_nan |= qcy_quantize_block(rest, &q, is_bounded, last);
        memcpy(codes + i, last, (size_t)(n - i));
    }
    return have_nan;
}

/* Equation (4); returns how many reals are NaN. */
static ptrdiff_t qcy_quantize_run(
    const float *x, ptrdiff_t n, const qcy_quantizer *q, uint8_t *codes)
{
    ptrdiff_t i, n_nan = 0;
    if (qcy_quantize_blocks(x, n, q, 0, codes))
        for (i = 0; i < n; i++) n_nan += x[i] != x[i];
    return n_nan;
}

/* ----------------------------------------------------------------------------------- dequantize */

QCY_INLINE void qcy_dequantize_block(
    const uint8_t *codes, float scale, int zero_point, const int is_signed, float *x)
{
    qcy_reals distance[4];
    int v;
    qcy_distances(codes, is_signed, zero_point, distance);
    QCY_UNROLL
    for (v = 0; v < 4; v++)
        qcy_reals_store(x + v * QCY_LANES, qcy_reals_mul(qcy_reals_set(scale), distance[v]));
}

QCY_INLINE void qcy_dequantize_codes(
    const uint8_t *codes, ptrdiff_t n, float scale, int zero_point, const int is_signed, float *x)
{
    ptrdiff_t i;
    for (i = 0; i + QCY_BLOCK <= n; i += QCY_BLOCK)
        qcy_dequantize_block(codes + i, scale, zero_point, is_signed, x + i);
    if (i < n) {
        uint8_t rest[QCY_BLOCK] = {0};
        float last[QCY_BLOCK];
        memcpy(rest, codes + i, (size_t)(n - i));
        qcy_dequantize_block(rest, scale, zero_point, is_signed, last);
        memcpy(x + i, last, (size_t)(n - i) * sizeof *x);
    }
}

/* Equation (5); the zero point is of the codes' own dtype. */
static void qcy_dequantize_run(
    const uint8_t *codes, ptrdiff_t n, float scale, int zero_point, int is_signed, float *x)
{
    if (is_signed) qcy_dequantize_codes(codes, n, scale, zero_point, 1, x);
    else qcy_dequantize_codes(codes, n, scale, zero_point, 0, x);
}

/* -------------------------------------------------------------------------------- two operands */

typedef struct {
    int a_zero, b_zero;         /* of the operands' own dtypes */
    int a_signed, b_signed;
    float a_multiplier, b_multiplier;       /* of a product: the first */
    qcy_output out;
} qcy_pair;

QCY_INLINE void qcy_pair_block(
    const int is_product, const int a_signed, const int b_signed, const uint8_t *a,
    const uint8_t *b, const qcy_pair *pair, uint8_t *out)
{
    const qcy_reals left = qcy_reals_set(pair->a_multiplier);
    const qcy_reals right = qcy_reals_set(pair->b_multiplier);
    qcy_reals x[4], y[4], real[4];
    int v;
    qcy_distances(a, a_signed, pair->a_zero, x);
    qcy_distances(b, b_signed, pair->b_zero, y);
    QCY_UNROLL
    for (v = 0; v < 4; v++)
        /* A product of two codes is below 2^24, so exact in float32. */
        real[v] = is_product ? qcy_reals_mul(qcy_reals_mul(x[v], y[v]), left)
                             : qcy_reals_add(qcy_reals_mul(x[v], left), qcy_reals_mul(y[v], right));
    qcy_codes_store(out, qcy_finish(real[0], real[1], real[2], real[3], &pair->out), 4);
}

QCY_INLINE void qcy_pair_codes(
    const int is_product, const int a_signed, const int b_signed, const uint8_t *a,
    const uint8_t *b, ptrdiff_t n, const qcy_pair *given, uint8_t *out)
{
    const qcy_pair pair = *given;
    ptrdiff_t i;
    for (i = 0; i + QCY_BLOCK <= n; i += QCY_BLOCK)
        qcy_pair_block(is_product, a_signed, b_signed, a + i, b + i, &pair, out + i);
    if (i < n) {
        uint8_t a_rest[QCY_BLOCK] = {0}, b_rest[QCY_BLOCK] = {0}, last[QCY_BLOCK];
        memcpy(a_rest, a + i, (size_t)(n - i));
        memcpy(b_rest, b + i, (size_t)(n - i));
        qcy_pair_block(is_product, a_signed, b_signed, a_rest, b_rest, &pair, last);
        memcpy(out + i, last, (size_t)(n - i));
    }
}

#define QCY_PAIR_RUN(name, is_product)                                                            \
    static void qcy_##name##_run(                                                                 \
        const uint8_t *a, const uint8_t *b, ptrdiff_t n, const qcy_pair *pair, uint8_t *out)      \
    {                                                                                             \
        if (pair->a_signed && pair->b_signed)                                                     \
            qcy_pair_codes(is_product, 1, 1, a, b, n, pair, out);                                 \
        else if (pair->a_signed) qcy_pair_codes(is_product, 1, 0, a, b, n, pair, out);            \
        else if (pair->b_signed) qcy_pair_codes(is_product, 0, 1, a, b, n, pair, out);            \
        else qcy_pair_codes(is_product, 0, 0, a, b, n, pair, out);                                \
    }
QCY_PAIR_RUN(add, 0)    /* equation (15) */
QCY_PAIR_RUN(mul, 1)

/* --------------------------------------------------------------------------- codes to codes */

/* Equation (14): ReLU and its kin. `flip` applies before and after. */
static void qcy_clamp_run(
    const uint8_t *codes, ptrdiff_t n, uint8_t low, uint8_t high, uint8_t flip, uint8_t *out)
{
    const qcy_codes bits = qcy_codes_set(flip);
    ptrdiff_t i;
    for (i = 0; i + QCY_BLOCK <= n; i += QCY_BLOCK) {
        const qcy_codes c = qcy_codes_xor(qcy_codes_load(codes + i), bits);
        qcy_codes_store(out + i, qcy_clamp_flip(c, low, high, flip), 4);
    }
    if (i < n) {
        const qcy_codes c = qcy_codes_xor(qcy_codes_load_some(codes + i, n - i), bits);
        qcy_codes_store_some(out + i, qcy_clamp_flip(c, low, high, flip), n - i);
    }
}

/* Equation (17). */
static void qcy_lookup_run(
    const uint8_t *codes, ptrdiff_t n, const uint8_t *entries, uint8_t *out)
{
    const qcy_table table = qcy_table_load(entries);
    ptrdiff_t i;
    for (i = 0; i + QCY_BLOCK <= n; i += QCY_BLOCK)
        qcy_codes_store(out + i, qcy_lookup(qcy_codes_load(codes + i), table), 4);
    if (i < n)
        qcy_codes_store_some(out + i, qcy_lookup(qcy_codes_load_some(codes + i, n - i), table),
                             n - i);
}

/* ----------------------------------------------------------------------- parameters from data */

typedef struct {
    float scale;
    int zero_point;
} qcy_dynamic;

/* The smallest and the largest of some reals and 0; NaNs are passed over. */
static void qcy_range_run(const float *x, ptrdiff_t n, float *low, float *high)
{
    qcy_reals least[4], most[4];
    float lowest, highest;
    ptrdiff_t i;
    int v;
    for (v = 0; v < 4; v++) least[v] = most[v] = qcy_reals_set(0.0f);
    for (i = 0; i + QCY_BLOCK <= n; i += QCY_BLOCK) {
        QCY_UNROLL
        for (v = 0; v < 4; v++) {
            const qcy_reals y = qcy_reals_load(x + i + v * QCY_LANES);
            /* The new one first: where it is a NaN, the second is kept. */
            least[v] = qcy_reals_min(y, least[v]);
            most[v] = qcy_reals_max(y, most[v]);
        }
    }
    for (v = 1; v < 4; v++) {
        least[0] = qcy_reals_min(least[v], least[0]);
        most[0] = qcy_reals_max(most[v], most[0]);
    }
    lowest = qcy_reals_least(least[0]);
    highest = qcy_reals_most(most[0]);
    for (; i < n; i++) {
        lowest = x[i] < lowest ? x[i] : lowest;
        highest = x[i] > highest ? x[i] : highest;
    }
    *low = lowest;
    *high = highest;
}

/* Equation (6), float32 throughout; returns whether the range has no scale. */
static int qcy_dynamic_params(float low, float high, qcy_dynamic *params)
{
    float zero;
    params->scale = (high - low) / 255.0f;
    if (!(params->scale <= 3.4028234663852886e38f)) {
        params->scale = 1.0f;
        params->zero_point = 0;
        return 1;
    }
    if (params->scale < 1.1754943508222875e-38f) params->scale = 1.1754943508222875e-38f;
    if (high == low) params->scale = 1.0f;
    zero = -low / params->scale;
    zero = zero > 0.0f ? zero : 0.0f;
    zero = zero < 255.0f ? zero : 255.0f;
    params->zero_point = (int)((zero + 12582912.0f) - 12582912.0f);
    return 0;
}

static qcy_quantizer qcy_quantizer_of(float scale, int zero_point, uint8_t flip)
{
    qcy_quantizer q;
    q.scale = scale;
    q.inverse = 1.0f / scale;
    /* 2^-100 to 2^100: neither the inverse nor the error of the quotient is denormal. */
    q.divide = scale < 7.8886090522101181e-31f || scale > 1.2676506002282294e30f;
    q.out.zero_point = zero_point;
    q.out.low = 0;
    q.out.high = 255;
    q.out.flip = flip;
    q.out.is_wild = 1;
#ifdef QCY_HAS_FMA
    q.out.is_wild = (uint8_t)q.divide;
#endif
    return q;
}

/* Quantize a run to uint8 with the parameters of equation (6), of a range that holds it; returns
 * whether a NaN was among the reals. */
static int qcy_dynamic_run(
    const float *x, ptrdiff_t n, const qcy_dynamic *params, uint8_t *codes)
{
    const qcy_quantizer q = qcy_quantizer_of(params->scale, params->zero_point, 0);
    return qcy_quantize_blocks(x, n, &q, 1, codes);
}

#endif
