/* The tile: a few rows of A times one panel of packed weights, from bytes to finished output.
 *
 * An outer product built on dot. A row of A is `n_taps` runs of `depth` bytes, each found through
 * a pointer, so that a matrix (one tap) and an image (one tap per kernel cell) are the same thing.
 * A panel holds, for each tap and each 32-bit word of A, the weights of every column:
 * [tap][ceil(depth / 4)][columns][QCY_GROUP], padded with zeros. The sums stay in registers from the first
 * product to the requantized code; equations (7) and (9) of docs/quantization.md. */
#ifndef QCY_MICROKERNEL_H
#define QCY_MICROKERNEL_H

#include "operations.h"

#define QCY_PANEL (QCY_LANES * QCY_VECTORS)     /* columns of the widest panel */
#define QCY_ROWS_MAX 12                         /* rows of the tallest tile, for narrow panels */

typedef struct {
    ptrdiff_t n_taps;
    ptrdiff_t depth;
    const int8_t *panel;
    const int32_t *offset;      /* (columns) bias and zero points, folded */
    const int32_t *b_zero;      /* (columns) or NULL: minus the zero point of each column */
    const int32_t *row_sums;    /* (rows) sum of each row of A; read only with b_zero */
    const float *multiplier;    /* (columns) or NULL: the output is then int32 */
    void *out;
    ptrdiff_t stride;           /* elements between rows of out */
    ptrdiff_t n_columns;        /* valid columns of this panel */
    int zero_point;             /* of the output, as uint8 */
    uint8_t low, high;          /* output clamp, as uint8 */
    uint8_t flip;               /* 0x80 makes uint8 codes int8 */
} qcy_tile;

typedef void (*qcy_tile_function)(const uint8_t *const *rows, const qcy_tile *tile);

/* Copy the valid columns of a tile that was wider than its output. */
QCY_NOINLINE void qcy_copy_tile(
    uint8_t *out, ptrdiff_t out_bytes, const uint8_t *tile, ptrdiff_t tile_bytes, int n_rows,
    size_t n_bytes)
{
    int r;
    for (r = 0; r < n_rows; r++) memcpy(out + r * out_bytes, tile + r * tile_bytes, n_bytes);
}

QCY_INLINE void qcy_tile_body(
    const int n_rows, const int vectors, const uint8_t *const *rows, const qcy_tile *tile)
{
    const ptrdiff_t width = (ptrdiff_t)vectors * QCY_LANES;
    const ptrdiff_t whole = tile->depth & ~(ptrdiff_t)3, rest = tile->depth & 3;
    const int8_t *b = tile->panel;
    int32_t narrow[QCY_ROWS_MAX * QCY_PANEL];
    const int is_narrow = tile->n_columns < width;
    const ptrdiff_t stride = is_narrow ? width : tile->stride;
    void *const out = is_narrow ? narrow : tile->out;
    qcy_sums acc[QCY_ROWS_MAX][QCY_VECTORS];
    ptrdiff_t tap, k;
    int r, v, part;

    QCY_UNROLL
    for (v = 0; v < vectors; v++) {
        const qcy_sums offset = qcy_sums_load(tile->offset + v * QCY_LANES);
        QCY_UNROLL
        for (r = 0; r < n_rows; r++) acc[r][v] = offset;
    }
    if (tile->b_zero != NULL) {
        QCY_UNROLL
        for (v = 0; v < vectors; v++) {
            const qcy_sums zero = qcy_sums_load(tile->b_zero + v * QCY_LANES);
            QCY_UNROLL
            for (r = 0; r < n_rows; r++)
                acc[r][v] = qcy_sums_add(acc[r][v], qcy_sums_scale(zero, tile->row_sums[r]));
        }
    }
    for (tap = 0; tap < tile->n_taps; tap++) {
        const uint8_t *a[QCY_ROWS_MAX];
        uint8_t last[QCY_ROWS_MAX][4];
        QCY_UNROLL
        for (r = 0; r < n_rows; r++) a[r] = rows[tap * n_rows + r];
        for (part = 0; part < 2; part++) {
            const ptrdiff_t length = part == 0 ? whole : rest;
            if (part == 1 && rest != 0) {
                /* One to three bytes are left. They get a word of their own, since four may not
                 * be read past the end of A: its first, middle and last byte, which may coincide. */
                QCY_UNROLL
                for (r = 0; r < n_rows; r++) {
                    const uint8_t *end = a[r] + whole;
                    memset(last[r], 0, 4);
                    last[r][0] = end[0];
                    last[r][rest >> 1] = end[rest >> 1];
                    last[r][rest - 1] = end[rest - 1];
                    a[r] = last[r];
                }
            }
            for (k = 0; k < length; k += 4) {
                qcy_rhs right[QCY_VECTORS];
                QCY_UNROLL
                for (v = 0; v < vectors; v++) right[v] = qcy_rhs_load(b + v * QCY_LANES * QCY_GROUP);
                QCY_UNROLL
                for (r = 0; r < n_rows; r++) {
                    const qcy_lhs left = qcy_lhs_word(qcy_load32(a[r] + k));
                    QCY_UNROLL
                    for (v = 0; v < vectors; v++) acc[r][v] = qcy_dot(acc[r][v], left, right[v]);
                }
                b += width * QCY_GROUP;
            }
        }
    }
    if (tile->multiplier == NULL) {
        QCY_UNROLL
        for (r = 0; r < n_rows; r++) {
            QCY_UNROLL
            for (v = 0; v < vectors; v++)
                qcy_sums_store((int32_t *)out + r * stride + v * QCY_LANES, acc[r][v]);
        }
    } else {
        QCY_UNROLL
        for (r = 0; r < n_rows; r++) {
            qcy_reals real[4];
            qcy_codes codes;
            QCY_UNROLL
            for (v = 0; v < 4; v++) {
                const int w = v < vectors ? v : 0;      /* a narrow panel repeats itself, unread */
                real[v] = qcy_scaled(acc[r][w], tile->multiplier + w * QCY_LANES);
            }
            codes = qcy_round_pack(real[0], real[1], real[2], real[3], tile->zero_point);
            codes = qcy_clamp_flip(codes, tile->low, tile->high, tile->flip);
            qcy_codes_store((uint8_t *)out + r * stride, codes, vectors);
        }
    }
    if (is_narrow) {
        const ptrdiff_t size = tile->multiplier == NULL ? (ptrdiff_t)sizeof(int32_t) : 1;
        qcy_copy_tile((uint8_t *)tile->out, tile->stride * size, (const uint8_t *)narrow,
                      width * size, n_rows, (size_t)(tile->n_columns * size));
    }
}

/* One function per shape of tile. */
#define QCY_TILE(rows, vectors)                                                                   \
    QCY_NOINLINE void qcy_tile_##rows##x##vectors(const uint8_t *const *a, const qcy_tile *tile)  \
    {                                                                                             \
        qcy_tile_body(rows, vectors, a, tile);                                                    \
    }
#define QCY_TILES_4(vectors) \
    QCY_TILE(1, vectors) QCY_TILE(2, vectors) QCY_TILE(3, vectors) QCY_TILE(4, vectors)
#define QCY_TILES_6(vectors) QCY_TILES_4(vectors) QCY_TILE(5, vectors) QCY_TILE(6, vectors)
#define QCY_NAMES_4(vectors) \
    qcy_tile_1x##vectors, qcy_tile_2x##vectors, qcy_tile_3x##vectors, qcy_tile_4x##vectors
#define QCY_NAMES_6(vectors) QCY_NAMES_4(vectors), qcy_tile_5x##vectors, qcy_tile_6x##vectors
#if QCY_ROWS == 6
#define QCY_TILES QCY_TILES_6
#define QCY_NAMES QCY_NAMES_6
#else
#define QCY_TILES QCY_TILES_4
#define QCY_NAMES QCY_NAMES_4
#endif

/* A narrow panel gets a taller tile where registers allow: few sums would wait for each other. */
#if QCY_VECTORS == 4
#define QCY_TALL {12, 12, 8, 0}
QCY_TILES(1) QCY_TILES(2) QCY_TILES(3) QCY_TILES(4)
QCY_TILE(12, 1) QCY_TILE(12, 2) QCY_TILE(8, 3)
static const qcy_tile_function qcy_tall[4] = {
    qcy_tile_12x1, qcy_tile_12x2, qcy_tile_8x3, NULL};
static const qcy_tile_function qcy_tiles[4][QCY_ROWS] = {
    {QCY_NAMES(1)}, {QCY_NAMES(2)}, {QCY_NAMES(3)}, {QCY_NAMES(4)}};
#elif QCY_VECTORS == 2
#define QCY_TALL {8, 0, 0, 0}
QCY_TILES(1) QCY_TILES(2) QCY_TILE(8, 1)
static const qcy_tile_function qcy_tall[2] = {qcy_tile_8x1, NULL};
static const qcy_tile_function qcy_tiles[2][QCY_ROWS] = {{QCY_NAMES(1)}, {QCY_NAMES(2)}};
#else
#define QCY_TALL {0, 0, 0, 0}
QCY_TILES(1)
static const qcy_tile_function qcy_tall[1] = {NULL};
static const qcy_tile_function qcy_tiles[1][QCY_ROWS] = {{QCY_NAMES(1)}};
#endif

/* The tallest tile for `n_rows` remaining rows of a panel of `vectors` vectors, and its height. */
QCY_INLINE qcy_tile_function qcy_tile_for(int vectors, ptrdiff_t n_rows, int *height)
{
    static const int tall[4] = QCY_TALL;
    if (tall[vectors - 1] != 0 && n_rows >= tall[vectors - 1]) {
        *height = tall[vectors - 1];
        return qcy_tall[vectors - 1];
    }
    *height = n_rows < QCY_ROWS ? (int)n_rows : QCY_ROWS;
    return qcy_tiles[vectors - 1][*height - 1];
}

#endif
