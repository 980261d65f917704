/* Rows of codes or sums that are finished by numbers of the row itself: attention and layer norm.
 *
 * Every operation is one of IEEE float32 or float64, rounded once and in this order, or exact: so
 * rows are the same on every machine. */
#ifndef QCY_ROWS_H
#define QCY_ROWS_H

#include <math.h>

#include "elementwise.h"

/* -------------------------------------------------------------------- attention, equation (25) */

/* Weights of a row of scores: 255 * 2^(-step * (largest - score)), rounded to the nearest code.
 * Returns their sum. The largest is 255, and what is 16 powers of two below it is 0. Scores and
 * weights have room for whole blocks. */
static uint32_t qcy_attention_weights(
    const int32_t *scores, ptrdiff_t n, float step, uint8_t *weights)
{
    const qcy_reals steps = qcy_reals_set(step), most = qcy_reals_set(16.0f);
    /* 1.5 * 2^23: a sum with it has no bits left for a fraction, and its last bits count. */
    const qcy_reals whole = qcy_reals_set(12582912.0f), less = qcy_reals_set(-12582912.0f);
    const qcy_reals minus = qcy_reals_set(-1.0f), one = qcy_reals_set(1.0f);
    int32_t largest = INT32_MIN;
    uint32_t total = 0;
    ptrdiff_t j;
    for (j = 0; j < n; j++) largest = scores[j] > largest ? scores[j] : largest;
    for (j = 0; j < n; j += QCY_BLOCK) {
        qcy_reals real[4];
        int v;
        QCY_UNROLL
        for (v = 0; v < 4; v++) {
            const qcy_sums distance = qcy_sums_sub(
                qcy_sums_set(largest), qcy_sums_load(scores + j + v * QCY_LANES));
            const qcy_reals x = qcy_reals_min(qcy_reals_mul(qcy_reals_of(distance), steps), most);
            const qcy_reals n_halvings = qcy_reals_add(x, whole);
            const qcy_reals part =
                qcy_reals_add(x, qcy_reals_mul(qcy_reals_add(n_halvings, less), minus));
            /* 2^-part for parts within 1/2: off by 1.02e-4 of it at most, a fortieth
             * of a code. */
            qcy_reals power = qcy_reals_mul(part, qcy_reals_set(-0.05500893f));
            power = qcy_reals_mul(qcy_reals_add(power, qcy_reals_set(0.24221095f)), part);
            power = qcy_reals_mul(qcy_reals_add(power, qcy_reals_set(-0.6932829f)), part);
            power = qcy_reals_halve(qcy_reals_add(power, one), n_halvings);
            real[v] = qcy_reals_mul(power, qcy_reals_set(255.0f));
        }
        qcy_codes_store(weights + j, qcy_round_pack(real[0], real[1], real[2], real[3], 0), 4);
    }
    for (j = 0; j < n; j++) total += weights[j];
    return total;
}

/* One row of weighted sums of values: less their zero point, times `factor`, to codes. `sums` has
 * room for whole blocks. */
static void qcy_attention_row(
    const int32_t *sums, ptrdiff_t n, int32_t shift, float factor, const qcy_output *given,
    uint8_t *out)
{
    const qcy_output output = *given;
    const qcy_sums zero = qcy_sums_set(shift);
    const qcy_reals scale = qcy_reals_set(factor);
    ptrdiff_t i;
    for (i = 0; i < n; i += QCY_BLOCK) {
        qcy_reals real[4];
        qcy_codes codes;
        int v;
        QCY_UNROLL
        for (v = 0; v < 4; v++)
            real[v] = qcy_reals_mul(
                qcy_reals_of(qcy_sums_sub(qcy_sums_load(sums + i + v * QCY_LANES), zero)), scale);
        codes = qcy_finish(real[0], real[1], real[2], real[3], &output);
        if (i + QCY_BLOCK <= n) qcy_codes_store(out + i, codes, 4);
        else qcy_codes_store_some(out + i, codes, n - i);
    }
}

/* ------------------------------------------------------------------- layer norm, equation (24) */

typedef struct {
    double epsilon;             /* in units of (a step of the input times n)^2 */
    const float *factor;        /* (n, padded to whole blocks) of the output, in its steps */
    const float *shift;
    uint8_t flip;               /* 0x80: the input is int8 */
    qcy_output out;
} qcy_norm;

QCY_INLINE qcy_codes qcy_norm_block(
    const uint8_t *codes, const qcy_norm *norm, float n, float minus_sum, float root,
    const float *factor, const float *shift)
{
    qcy_reals x[4];
    int v;
    if (norm->flip) qcy_distances(codes, 1, -128, x);
    else qcy_distances(codes, 0, 0, x);
    QCY_UNROLL
    for (v = 0; v < 4; v++) {
        /* n * code - sum is below 2^24, so exact. */
        x[v] = qcy_reals_add(qcy_reals_mul(x[v], qcy_reals_set(n)), qcy_reals_set(minus_sum));
        x[v] = qcy_reals_mul(x[v], qcy_reals_set(root));
        x[v] = qcy_reals_add(qcy_reals_mul(x[v], qcy_reals_load(factor + v * QCY_LANES)),
                             qcy_reals_load(shift + v * QCY_LANES));
    }
    return qcy_finish(x[0], x[1], x[2], x[3], &norm->out);
}

static void qcy_norm_row(const uint8_t *codes, ptrdiff_t n, const qcy_norm *given, uint8_t *out)
{
    const qcy_norm norm = *given;
    uint32_t sum = 0;
    uint64_t squares = 0, spread;
    float root = 0.0f;
    ptrdiff_t i, j;
    for (i = 0; i < n; i += 16384) {
        const ptrdiff_t end = n - i < 16384 ? n : i + 16384;
        uint32_t some = 0;
        for (j = i; j < end; j++) {
            const uint32_t code = codes[j] ^ norm.flip;
            sum += code;
            some += code * code;
        }
        squares += some;
    }
    spread = (uint64_t)n * squares - (uint64_t)sum * sum;
    /* Equal codes are at their mean, whatever epsilon is: its root may be beyond float32. */
    if (spread > 0) root = (float)(1.0 / sqrt((double)spread + norm.epsilon));
    for (i = 0; i + QCY_BLOCK <= n; i += QCY_BLOCK)
        qcy_codes_store(out + i, qcy_norm_block(
            codes + i, &norm, (float)n, -(float)sum, root, norm.factor + i, norm.shift + i), 4);
    if (i < n) {
        uint8_t rest[QCY_BLOCK] = {0};
        memcpy(rest, codes + i, (size_t)(n - i));
        qcy_codes_store_some(out + i, qcy_norm_block(
            rest, &norm, (float)n, -(float)sum, root, norm.factor + i, norm.shift + i), n - i);
    }
}

#endif
