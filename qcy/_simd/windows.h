/* One output pixel of a window that slides over channels-last images, all channels side by side:
 * depthwise convolution, the largest, the mean.
 *
 * The window's cells come as pointers to their first channel, so that a cell outside the image can
 * be a row of any codes. Channels are taken a block at a time; the last block reaches back over
 * the one before it rather than past the end, and finds the same codes again. */
#ifndef QCY_WINDOWS_H
#define QCY_WINDOWS_H

#include "elementwise.h"

typedef struct {
    ptrdiff_t n_channels;
    ptrdiff_t n_groups;         /* of four taps; the last is filled up with any cells, weights 0 */
    const int8_t *weights;      /* [blocks][groups], each as dot_taps takes them */
    const int32_t *offset;      /* [blocks][QCY_BLOCK] in the order of dot_taps' sums */
    const float *multiplier;    /* the same; or NULL: the output is then int32 */
    uint8_t x_flip;             /* 0x80: the images are int8 */
    qcy_output out;
} qcy_depthwise;

/* Where block `b` of the channels begins. */
QCY_INLINE ptrdiff_t qcy_block_start(ptrdiff_t b, ptrdiff_t n_channels)
{
    const ptrdiff_t last = n_channels - QCY_BLOCK;
    return last <= 0 ? 0 : (b * QCY_BLOCK < last ? b * QCY_BLOCK : last);
}
QCY_INLINE ptrdiff_t qcy_n_blocks(ptrdiff_t n_channels)
{
    return (n_channels + QCY_BLOCK - 1) / QCY_BLOCK;
}
/* The channel, in its block, of lane j of vector v: see operations.h. */
QCY_INLINE ptrdiff_t qcy_lane_channel(ptrdiff_t v, ptrdiff_t j)
{
    return 16 * (j / 4) + 4 * v + j % 4;
}

QCY_INLINE qcy_codes qcy_cell(const uint8_t *p, ptrdiff_t n, qcy_codes flip)
{
    return qcy_codes_xor(n < QCY_BLOCK ? qcy_codes_load_some(p, n) : qcy_codes_load(p), flip);
}

/* Products with int8 weights, equations (7) and (9). */
static void qcy_depthwise_pixel(
    const uint8_t *const *taps, const qcy_depthwise *d, void *out)
{
    const ptrdiff_t n = d->n_channels, n_blocks = qcy_n_blocks(n);
    const qcy_codes flip = qcy_codes_set(d->x_flip);
    const int8_t *weights = d->weights;
    ptrdiff_t b, g;
    int v, j;
    for (b = 0; b < n_blocks; b++) {
        const ptrdiff_t start = qcy_block_start(b, n);
        const int32_t *offset = d->offset + b * QCY_BLOCK;
        qcy_sums sums[4];
        QCY_UNROLL
        for (v = 0; v < 4; v++) sums[v] = qcy_sums_load(offset + v * QCY_LANES);
        for (g = 0; g < d->n_groups; g++) {
            const uint8_t *const *t = taps + 4 * g;
            qcy_dot_taps(sums, qcy_cell(t[0] + start, n, flip), qcy_cell(t[1] + start, n, flip),
                         qcy_cell(t[2] + start, n, flip), qcy_cell(t[3] + start, n, flip),
                         weights);
            weights += 4 * QCY_BLOCK;
        }
        if (d->multiplier == NULL) {
            int32_t lane[4][QCY_LANES];
            QCY_UNROLL
            for (v = 0; v < 4; v++) qcy_sums_store(lane[v], sums[v]);
            for (v = 0; v < 4; v++)
                for (j = 0; j < QCY_LANES; j++)
                    if (start + qcy_lane_channel(v, j) < n)
                        ((int32_t *)out)[start + qcy_lane_channel(v, j)] = lane[v][j];
        } else {
            const float *multiplier = d->multiplier + b * QCY_BLOCK;
            qcy_reals real[4];
            qcy_codes codes;
            QCY_UNROLL
            for (v = 0; v < 4; v++) {
                real[v] = qcy_reals_mul(qcy_reals_of(sums[v]),
                                        qcy_reals_load(multiplier + v * QCY_LANES));
                if (d->out.is_wild) real[v] = qcy_reals_tame(real[v]);
            }
            codes = qcy_round_pack_lanes(real[0], real[1], real[2], real[3], d->out.zero_point);
            codes = qcy_clamp_flip(codes, d->out.low, d->out.high, d->out.flip);
            if (n < QCY_BLOCK) qcy_codes_store_some((uint8_t *)out, codes, n);
            else qcy_codes_store((uint8_t *)out + start, codes, 4);
        }
    }
}

/* The largest of each channel; equation (13) leaves out cells outside. */
static void qcy_max_pixel(
    const uint8_t *const *taps, ptrdiff_t n_taps, ptrdiff_t n, uint8_t x_flip, uint8_t *out)
{
    const qcy_codes flip = qcy_codes_set(x_flip);
    ptrdiff_t b, i;
    for (b = 0; b < qcy_n_blocks(n); b++) {
        const ptrdiff_t start = qcy_block_start(b, n);
        qcy_codes most = qcy_cell(taps[0] + start, n, flip);
        for (i = 1; i < n_taps; i++)
            most = qcy_codes_max(most, qcy_cell(taps[i] + start, n, flip));
        most = qcy_codes_xor(most, flip);
        if (n < QCY_BLOCK) qcy_codes_store_some(out, most, n);
        else qcy_codes_store(out + start, most, 4);
    }
}

#define QCY_ONES16 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
#define QCY_ONES64 QCY_ONES16, QCY_ONES16, QCY_ONES16, QCY_ONES16

/* The mean of each channel, equation (16), over cells in whole groups of four: `n_even` groups
 * that lie `stride` bytes apart from `first` on, and `n_groups` that pointers lead to, the last
 * filled up with cells of code 0. `offset` holds what zero points add to each sum. */
static void qcy_mean_pixel(
    const uint8_t *first, ptrdiff_t stride, ptrdiff_t n_even, const uint8_t *const *taps,
    ptrdiff_t n_groups, ptrdiff_t n, uint8_t x_flip, int32_t offset, float multiplier,
    const qcy_output *output, uint8_t *out)
{
    static const int8_t ones[256] = {QCY_ONES64, QCY_ONES64, QCY_ONES64, QCY_ONES64};
    const qcy_codes flip = qcy_codes_set(x_flip);
    const qcy_reals factor = qcy_reals_set(multiplier);
    ptrdiff_t b, g;
    int v;
    for (b = 0; b < qcy_n_blocks(n); b++) {
        const ptrdiff_t start = qcy_block_start(b, n);
        const uint8_t *p = first + start;
        qcy_sums sums[4];
        qcy_reals real[4];
        qcy_codes codes;
        QCY_UNROLL
        for (v = 0; v < 4; v++) sums[v] = qcy_sums_set(offset);
        for (g = 0; g < n_even; g++, p += 4 * stride)
            qcy_dot_taps(sums, qcy_cell(p, n, flip), qcy_cell(p + stride, n, flip),
                         qcy_cell(p + 2 * stride, n, flip), qcy_cell(p + 3 * stride, n, flip),
                         ones);
        for (g = 0; g < n_groups; g++) {
            const uint8_t *const *t = taps + 4 * g;
            qcy_dot_taps(sums, qcy_cell(t[0] + start, n, flip), qcy_cell(t[1] + start, n, flip),
                         qcy_cell(t[2] + start, n, flip), qcy_cell(t[3] + start, n, flip), ones);
        }
        QCY_UNROLL
        for (v = 0; v < 4; v++) {
            real[v] = qcy_reals_mul(qcy_reals_of(sums[v]), factor);
            if (output->is_wild) real[v] = qcy_reals_tame(real[v]);
        }
        codes = qcy_round_pack_lanes(real[0], real[1], real[2], real[3], output->zero_point);
        codes = qcy_clamp_flip(codes, output->low, output->high, output->flip);
        if (n < QCY_BLOCK) qcy_codes_store_some(out, codes, n);
        else qcy_codes_store(out + start, codes, 4);
    }
}

#endif
