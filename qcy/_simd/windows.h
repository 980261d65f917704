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

/* The channels of one cell from `p` on: a block, or all `n` if those are fewer. */
QCY_INLINE qcy_codes qcy_cell(const uint8_t *p, ptrdiff_t n, const int is_flipped)
{
    const qcy_codes c = n < QCY_BLOCK ? qcy_codes_load_some(p, n) : qcy_codes_load(p);
    return is_flipped ? qcy_codes_xor(c, qcy_codes_set(0x80)) : c;
}
QCY_INLINE qcy_taps qcy_four_cells(
    const uint8_t *const *t, ptrdiff_t start, ptrdiff_t n, const int is_flipped)
{
    return qcy_interleave(
        qcy_cell(t[0] + start, n, is_flipped), qcy_cell(t[1] + start, n, is_flipped),
        qcy_cell(t[2] + start, n, is_flipped), qcy_cell(t[3] + start, n, is_flipped));
}

/* Store the finished sums of a block: codes, or int32 where there is no multiplier. */
QCY_INLINE void qcy_finish_block(
    const qcy_sums *sums, const float *multiplier, ptrdiff_t start, ptrdiff_t n,
    const qcy_output *output, void *out)
{
    qcy_reals real[4];
    qcy_codes codes;
    int v, j;
    if (multiplier == NULL) {
        int32_t lane[4][QCY_LANES];
        QCY_UNROLL
        for (v = 0; v < 4; v++) qcy_sums_store(lane[v], sums[v]);
        for (v = 0; v < 4; v++)
            for (j = 0; j < QCY_LANES; j++)
                if (start + qcy_lane_channel(v, j) < n)
                    ((int32_t *)out)[start + qcy_lane_channel(v, j)] = lane[v][j];
        return;
    }
    QCY_UNROLL
    for (v = 0; v < 4; v++) {
        real[v] = qcy_reals_mul(qcy_reals_of(sums[v]), qcy_reals_load(multiplier + v * QCY_LANES));
        if (output->is_wild) real[v] = qcy_reals_tame(real[v]);
    }
    codes = qcy_round_pack_lanes(real[0], real[1], real[2], real[3], output->zero_point);
    codes = qcy_clamp_flip(codes, output->low, output->high, output->flip);
    if (n < QCY_BLOCK) qcy_codes_store_some((uint8_t *)out, codes, n);
    else qcy_codes_store((uint8_t *)out + start, codes, 4);
}

QCY_INLINE void qcy_load_offset(qcy_sums *sums, const int32_t *offset)
{
    int v;
    QCY_UNROLL
    for (v = 0; v < 4; v++) sums[v] = qcy_sums_load(offset + v * QCY_LANES);
}

/* A row of output pixels, equations (7) and (9). Groups are kernel columns of three or four rows:
 * `cells` has four pointers for each image column under the row, which a window three columns wide
 * uses three times as it slides by one. */
QCY_INLINE void qcy_depthwise_columns(
    const uint8_t *const *cells, ptrdiff_t n_out, ptrdiff_t stride, ptrdiff_t dilation,
    const qcy_depthwise *d, const int is_flipped, const int is_rolling, uint8_t *out)
{
    const ptrdiff_t n = d->n_channels, step = d->multiplier == NULL ? 4 * n : n;
    ptrdiff_t b, g, x;
    for (b = 0; b < qcy_n_blocks(n); b++) {
        const ptrdiff_t start = qcy_block_start(b, n);
        const int8_t *weights = d->weights + b * d->n_groups * 4 * QCY_BLOCK;
        const int32_t *offset = d->offset + b * QCY_BLOCK;
        const float *multiplier = d->multiplier == NULL ? NULL : d->multiplier + b * QCY_BLOCK;
        const qcy_output output = d->out;
        qcy_sums sums[4];
        if (is_rolling) {
            qcy_taps left = qcy_four_cells(cells, start, n, is_flipped);
            qcy_taps middle = qcy_four_cells(cells + 4, start, n, is_flipped);
            for (x = 0; x < n_out; x++) {
                const qcy_taps right = qcy_four_cells(cells + 4 * (x + 2), start, n, is_flipped);
                qcy_load_offset(sums, offset);
                qcy_dot_taps(sums, left, weights);
                qcy_dot_taps(sums, middle, weights + 4 * QCY_BLOCK);
                qcy_dot_taps(sums, right, weights + 8 * QCY_BLOCK);
                qcy_finish_block(sums, multiplier, start, n, &output, out + x * step);
                left = middle;
                middle = right;
            }
            continue;
        }
        for (x = 0; x < n_out; x++) {
            qcy_load_offset(sums, offset);
            for (g = 0; g < d->n_groups; g++)
                qcy_dot_taps(sums, qcy_four_cells(cells + 4 * (x * stride + g * dilation), start, n,
                                                  is_flipped),
                             weights + g * 4 * QCY_BLOCK);
            qcy_finish_block(sums, multiplier, start, n, &output, out + x * step);
        }
    }
}

static void qcy_depthwise_row(
    const uint8_t *const *cells, ptrdiff_t n_out, ptrdiff_t stride, ptrdiff_t dilation,
    const qcy_depthwise *d, uint8_t *out)
{
    if (d->n_groups == 3 && stride == 1 && dilation == 1) {
        if (d->x_flip) qcy_depthwise_columns(cells, n_out, 1, 1, d, 1, 1, out);
        else qcy_depthwise_columns(cells, n_out, 1, 1, d, 0, 1, out);
    } else {
        if (d->x_flip) qcy_depthwise_columns(cells, n_out, stride, dilation, d, 1, 0, out);
        else qcy_depthwise_columns(cells, n_out, stride, dilation, d, 0, 0, out);
    }
}

/* One pixel, from groups of any four cells. */
static void qcy_depthwise_pixel(
    const uint8_t *const *taps, const qcy_depthwise *d, uint8_t *out)
{
    const ptrdiff_t n = d->n_channels;
    const int8_t *weights = d->weights;
    ptrdiff_t b, g;
    for (b = 0; b < qcy_n_blocks(n); b++) {
        const ptrdiff_t start = qcy_block_start(b, n);
        qcy_sums sums[4];
        qcy_load_offset(sums, d->offset + b * QCY_BLOCK);
        for (g = 0; g < d->n_groups; g++) {
            const qcy_taps four = d->x_flip ? qcy_four_cells(taps + 4 * g, start, n, 1)
                                            : qcy_four_cells(taps + 4 * g, start, n, 0);
            qcy_dot_taps(sums, four, weights);
            weights += 4 * QCY_BLOCK;
        }
        qcy_finish_block(sums, d->multiplier == NULL ? NULL : d->multiplier + b * QCY_BLOCK, start,
                         n, &d->out, out);
    }
}

/* The same for a few channels, where a vector holds those of several pixels: first the largest of
 * each column of rows, then of each window's columns. `line` and `result` are room for a row of the
 * image and of the output, and a block more each. */
static void qcy_max_narrow_row(
    const uint8_t *const *rows, ptrdiff_t n_rows, ptrdiff_t width, ptrdiff_t n_out,
    ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t pad, ptrdiff_t n,
    uint8_t x_flip, uint8_t *line, uint8_t *result, uint8_t *out)
{
    const qcy_codes flip = qcy_codes_set(x_flip);
    ptrdiff_t x, i, y, k;
    for (i = 0; i < width * n; i += QCY_BLOCK) {
        const ptrdiff_t left = width * n - i;
        qcy_codes most = qcy_codes_set(0);
        for (y = 0; y < n_rows; y++)
            most = qcy_codes_max(most, qcy_codes_xor(
                left < QCY_BLOCK ? qcy_codes_load_some(rows[y] + i, left)
                                 : qcy_codes_load(rows[y] + i), flip));
        qcy_codes_store(line + i, most, 4);
    }
    for (x = 0; x < n_out; x++) {
        ptrdiff_t first = x * stride - pad, n_cells = kernel;
        const uint8_t *p;
        qcy_codes most;
        for (; first < 0; first += dilation) n_cells--;
        while (first + (n_cells - 1) * dilation >= width) n_cells--;
        p = line + first * n;
        most = qcy_codes_load(p);
        for (k = 1; k < n_cells; k++) most = qcy_codes_max(most, qcy_codes_load(p + k * dilation * n));
        qcy_codes_store(result + x * n, qcy_codes_xor(most, flip), 4);
    }
    memcpy(out, result, (size_t)(n_out * n));
}

/* A row of output pixels, the largest of each channel: `rows` lead to the image rows under it,
 * those inside. Equation (13) leaves out cells outside. */
static void qcy_max_row(
    const uint8_t *const *rows, ptrdiff_t n_rows, ptrdiff_t width, ptrdiff_t n_out,
    ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t pad, ptrdiff_t n,
    uint8_t x_flip, uint8_t *out)
{
    const qcy_codes flip = qcy_codes_set(x_flip);
    ptrdiff_t x, b, y, k;
    for (x = 0; x < n_out; x++, out += n) {
        ptrdiff_t first = x * stride - pad, n_cells = kernel;
        for (; first < 0; first += dilation) n_cells--;
        while (first + (n_cells - 1) * dilation >= width) n_cells--;
        for (b = 0; b < qcy_n_blocks(n); b++) {
            const ptrdiff_t start = qcy_block_start(b, n);
            qcy_codes most = qcy_codes_xor(qcy_cell(rows[0] + first * n + start, n, 0), flip);
            for (y = 0; y < n_rows; y++) {
                const uint8_t *p = rows[y] + first * n + start;
                for (k = 0; k < n_cells; k++, p += dilation * n)
                    most = qcy_codes_max(most, qcy_codes_xor(qcy_cell(p, n, 0), flip));
            }
            most = qcy_codes_xor(most, flip);
            if (n < QCY_BLOCK) qcy_codes_store_some(out, most, n);
            else qcy_codes_store(out + start, most, 4);
        }
    }
}

#define QCY_ONES16 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
#define QCY_ONES64 QCY_ONES16, QCY_ONES16, QCY_ONES16, QCY_ONES16

/* The mean of each channel, equation (16), over cells in whole groups of four: `n_even` groups
 * that lie `stride` bytes apart from `first` on, and `n_groups` that pointers lead to, the last
 * filled up with cells of code 0. `offset` holds what zero points add to each sum. */
QCY_INLINE void qcy_mean_channels(
    const uint8_t *first, ptrdiff_t stride, ptrdiff_t n_even, const uint8_t *const *taps,
    ptrdiff_t n_groups, ptrdiff_t n, const int is_flipped, int32_t offset, float multiplier,
    const qcy_output *output, uint8_t *out)
{
    static const int8_t ones[256] = {QCY_ONES64, QCY_ONES64, QCY_ONES64, QCY_ONES64};
    float factor[QCY_BLOCK];
    ptrdiff_t b, g;
    int v;
    for (v = 0; v < QCY_BLOCK; v++) factor[v] = multiplier;
    for (b = 0; b < qcy_n_blocks(n); b++) {
        const ptrdiff_t start = qcy_block_start(b, n);
        const uint8_t *four[4];
        qcy_sums sums[4];
        for (v = 0; v < 4; v++) sums[v] = qcy_sums_set(offset);
        for (g = 0; g < n_even; g++) {
            for (v = 0; v < 4; v++) four[v] = first + (4 * g + v) * stride;
            qcy_dot_taps(sums, qcy_four_cells(four, start, n, is_flipped), ones);
        }
        for (g = 0; g < n_groups; g++)
            qcy_dot_taps(sums, qcy_four_cells(taps + 4 * g, start, n, is_flipped), ones);
        qcy_finish_block(sums, factor, start, n, output, out);
    }
}

static void qcy_mean_pixel(
    const uint8_t *first, ptrdiff_t stride, ptrdiff_t n_even, const uint8_t *const *taps,
    ptrdiff_t n_groups, ptrdiff_t n, uint8_t x_flip, int32_t offset, float multiplier,
    const qcy_output *output, uint8_t *out)
{
    if (x_flip)
        qcy_mean_channels(first, stride, n_even, taps, n_groups, n, 1, offset, multiplier, output,
                          out);
    else
        qcy_mean_channels(first, stride, n_even, taps, n_groups, n, 0, offset, multiplier, output,
                          out);
}

/* ----------------------------------------------------------------- windows as rows of a matrix */

/* Where the windows of an image lie, and what becomes of them. */
typedef struct {
    ptrdiff_t per_line;         /* windows side by side */
    ptrdiff_t step;             /* bytes from one to the next */
    ptrdiff_t line_step;        /* bytes from a line of them to the next */
    ptrdiff_t row_step;         /* bytes from one row of a window to the next */
    ptrdiff_t n_rows;           /* of a window */
    ptrdiff_t row_bytes;
    ptrdiff_t bytes;            /* of a row of the matrix */
} qcy_windows;

QCY_INLINE void qcy_bring(
    const uint8_t *copy, const qcy_windows *given, ptrdiff_t first, ptrdiff_t n, const size_t chunk,
    uint8_t *out)
{
    const qcy_windows w = *given;       /* out may alias what a pointer leads to */
    const uint8_t *line = copy + first / w.per_line * w.line_step;
    ptrdiff_t x = first % w.per_line, i, y;
    for (i = 0; i < n; i++, out += w.bytes) {
        const uint8_t *from = line + x * w.step;
        uint8_t *to = out;
        for (y = 0; y < w.n_rows; y++, from += w.row_step, to += w.row_bytes)
            memcpy(to, from, chunk);
        if (++x == w.per_line) {
            x = 0;
            line += w.line_step;
        }
    }
}

/* Write the rows of each window one after another. Rows of up to 64 bytes are moved as 8, 16, 32 or
 * 64 of them: what is too much is overwritten by the next, and past the last there is room. */
static void qcy_bring_windows(
    const uint8_t *copy, const qcy_windows *w, ptrdiff_t first, ptrdiff_t n, uint8_t *out)
{
    if (w->row_bytes <= 8) qcy_bring(copy, w, first, n, 8, out);
    else if (w->row_bytes <= 16) qcy_bring(copy, w, first, n, 16, out);
    else if (w->row_bytes <= 32) qcy_bring(copy, w, first, n, 32, out);
    else if (w->row_bytes <= 64) qcy_bring(copy, w, first, n, 64, out);
    else qcy_bring(copy, w, first, n, (size_t)w->row_bytes, out);
}

#endif
