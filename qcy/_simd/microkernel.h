/* The tile: a few rows of A times one panel of packed weights, from bytes to finished output.
 *
 * An outer product built on dot. A row of A is `n_taps` runs of `depth` bytes, each found through
 * a pointer, so that a matrix (one tap) and an image (one tap per kernel cell, or per kernel row)
 * are the same thing. A panel holds, for each tap and each 32-bit word of A, the weights of every
 * column: [tap][ceil(depth / 4)][columns][QCY_GROUP], padded with zeros. The sums stay in registers
 * from the first product to the finished code: equations (7), (9), (22) of docs/quantization.md. */
#ifndef QCY_MICROKERNEL_H
#define QCY_MICROKERNEL_H

#include "operations.h"

#define QCY_PANEL (QCY_LANES * QCY_VECTORS)     /* columns of the widest panel */
#define QCY_ROWS_MAX 12                         /* rows of the tallest tile, for narrow panels */
#define QCY_AHEAD 4096                          /* bytes of weights fetched ahead of a single row */

typedef struct {
    ptrdiff_t n_taps;
    ptrdiff_t depth;
    const uint8_t *blank;       /* a tap whose rows all lie here adds nothing; or NULL */
    const int8_t *panel;
    const int32_t *offset;      /* (columns) bias and zero points, folded */
    const int32_t *row_weight;  /* (columns) or NULL: added to the sums, times row_term */
    const int32_t *row_term;    /* (rows) sum, or zero point, of each row; read with row_weight */
    const float *multiplier;    /* (columns) or NULL: the output is then int32 */
    const float *row_scale;     /* (rows) or NULL: with it the output is float32, equation (22) */
    const float *bias;          /* (columns) of float32 output */
    const uint8_t *table;       /* (256) that codes are looked up in at last; or NULL */
    void *out;
    ptrdiff_t stride;           /* elements between rows of out */
    ptrdiff_t n_columns;        /* valid columns of this panel */
    int zero_point;             /* of the output, as uint8 */
    uint8_t low, high;          /* output clamp, as uint8 */
    uint8_t flip;               /* 0x80 makes uint8 codes int8 */
    uint8_t is_wild;            /* sums times multiplier may pass 2^31 */
} qcy_tile;

/* Pointers to the taps of each row, one row after another. */
typedef void (*qcy_tile_function)(const uint8_t *const *taps, const qcy_tile *tile);

/* Store one row of finished sums: int32, float32 or codes. */
QCY_INLINE void qcy_finish_row(const int vectors, const int r, const qcy_sums *acc, const qcy_tile *tile)
{
    const ptrdiff_t first = r * tile->stride;
    const int is_narrow = tile->n_columns < (ptrdiff_t)vectors * QCY_LANES;
    qcy_reals real[4];
    int v;
    if (tile->multiplier == NULL) {
        int32_t *out = (int32_t *)tile->out + first;
        QCY_UNROLL
        for (v = 0; v < vectors; v++) {
            if (is_narrow) qcy_sums_store_some(out, acc[v], tile->n_columns, v);
            else qcy_sums_store(out + v * QCY_LANES, acc[v]);
        }
        return;
    }
    if (tile->row_scale != NULL) {
        float *out = (float *)tile->out + first;
        const qcy_reals scale = qcy_reals_set(tile->row_scale[r]);
        QCY_UNROLL
        for (v = 0; v < vectors; v++) {
            const qcy_reals both =
                qcy_reals_mul(scale, qcy_reals_load(tile->multiplier + v * QCY_LANES));
            real[0] = qcy_reals_add(qcy_reals_mul(qcy_reals_of(acc[v]), both),
                                    qcy_reals_load(tile->bias + v * QCY_LANES));
            if (is_narrow) qcy_reals_store_some(out, real[0], tile->n_columns, v);
            else qcy_reals_store(out + v * QCY_LANES, real[0]);
        }
        return;
    }
    QCY_UNROLL
    for (v = 0; v < 4; v++) {
        const int w = v < vectors ? v : 0;      /* a narrow panel repeats itself, unread */
        real[v] = qcy_reals_mul(qcy_reals_of(acc[w]),
                                qcy_reals_load(tile->multiplier + w * QCY_LANES));
    }
    if (tile->is_wild) {
        QCY_UNROLL
        for (v = 0; v < 4; v++) real[v] = qcy_reals_tame(real[v]);
    }
    {
        qcy_codes codes = qcy_round_pack(real[0], real[1], real[2], real[3], tile->zero_point);
        if (tile->low | (255 - tile->high) | tile->flip)
            codes = qcy_clamp_flip(codes, tile->low, tile->high, tile->flip);
        if (tile->table != NULL) codes = qcy_lookup(codes, qcy_table_load(tile->table));
        if (is_narrow) qcy_codes_store_some((uint8_t *)tile->out + first, codes, tile->n_columns);
        else qcy_codes_store((uint8_t *)tile->out + first, codes, vectors);
    }
}

QCY_INLINE void qcy_tile_body(
    const int n_rows, const int vectors, const uint8_t *const *taps, const qcy_tile *tile)
{
    const ptrdiff_t step = (ptrdiff_t)vectors * QCY_LANES * QCY_GROUP;
    const ptrdiff_t n_taps = tile->n_taps, depth = tile->depth;
    const ptrdiff_t whole = depth & ~(ptrdiff_t)3, rest = depth & 3;
    const int8_t *b = tile->panel;
    qcy_sums acc[QCY_ROWS_MAX][QCY_VECTORS];
    ptrdiff_t tap, k;
    int r, v, part;

    QCY_UNROLL
    for (v = 0; v < vectors; v++) {
        const qcy_sums offset = qcy_sums_load(tile->offset + v * QCY_LANES);
        QCY_UNROLL
        for (r = 0; r < n_rows; r++) acc[r][v] = offset;
    }
    if (tile->row_weight != NULL) {
        QCY_UNROLL
        for (v = 0; v < vectors; v++) {
            const qcy_sums weight = qcy_sums_load(tile->row_weight + v * QCY_LANES);
            QCY_UNROLL
            for (r = 0; r < n_rows; r++)
                acc[r][v] = qcy_sums_add(
                    acc[r][v], qcy_sums_mul(weight, qcy_sums_set(tile->row_term[r])));
        }
    }
    for (tap = 0; tap < n_taps; tap++) {
        const uint8_t *a[QCY_ROWS_MAX];
        uint8_t last[QCY_ROWS_MAX][4];
        QCY_UNROLL
        for (r = 0; r < n_rows; r++) a[r] = taps[r * n_taps + tap];
        if (tile->blank != NULL) {
            int is_blank = 1;
            QCY_UNROLL
            for (r = 0; r < n_rows; r++) is_blank &= a[r] == tile->blank;
            if (is_blank) {
                b += (depth + 3) / 4 * step;
                continue;
            }
        }
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
                for (v = 0; v < vectors; v++) {
                    right[v] = qcy_rhs_load(b + v * QCY_LANES * QCY_GROUP);
                    if (n_rows <= 2) qcy_prefetch(b + v * QCY_LANES * QCY_GROUP + QCY_AHEAD);
                }
                QCY_UNROLL
                for (r = 0; r < n_rows; r++) {
                    const qcy_lhs left = qcy_lhs_word(qcy_load32(a[r] + k));
                    QCY_UNROLL
                    for (v = 0; v < vectors; v++) acc[r][v] = qcy_dot(acc[r][v], left, right[v]);
                }
                b += step;
            }
        }
    }
    QCY_UNROLL
    for (r = 0; r < n_rows; r++) qcy_finish_row(vectors, r, acc[r], tile);
}

/* One function per shape of tile. */
#define QCY_TILE(rows, vectors)                                                                   \
    QCY_NOINLINE void qcy_tile_##rows##x##vectors(const uint8_t *const *a, const qcy_tile *tile)  \
    {                                                                                             \
        qcy_tile_body(rows, vectors, a, tile);                                                    \
    }
#define QCY_TILES_3(vectors) QCY_TILE(1, vectors) QCY_TILE(2, vectors) QCY_TILE(3, vectors)
#define QCY_TILES_4(vectors) QCY_TILES_3(vectors) QCY_TILE(4, vectors)
#define QCY_TILES_6(vectors) QCY_TILES_4(vectors) QCY_TILE(5, vectors) QCY_TILE(6, vectors)
#define QCY_NAMES_3(vectors) qcy_tile_1x##vectors, qcy_tile_2x##vectors, qcy_tile_3x##vectors
#define QCY_NAMES_4(vectors) QCY_NAMES_3(vectors), qcy_tile_4x##vectors
#define QCY_NAMES_6(vectors) QCY_NAMES_4(vectors), qcy_tile_5x##vectors, qcy_tile_6x##vectors
#if QCY_ROWS == 6
#define QCY_TILES QCY_TILES_6
#define QCY_NAMES QCY_NAMES_6
#elif QCY_ROWS == 4
#define QCY_TILES QCY_TILES_4
#define QCY_NAMES QCY_NAMES_4
#else
#define QCY_TILES QCY_TILES_3
#define QCY_NAMES QCY_NAMES_3
#endif

/* A narrow panel gets a taller tile where registers allow: few sums would wait for each other. */
#if QCY_VECTORS == 4
QCY_TILES(1) QCY_TILES(2) QCY_TILES(3) QCY_TILES(4)
QCY_TILE(12, 1)
#if QCY_ROWS == 6
#define QCY_TALL {12, 12, 8, 0}
QCY_TILE(12, 2) QCY_TILE(8, 3)
static const qcy_tile_function qcy_tall[4] = {
    qcy_tile_12x1, qcy_tile_12x2, qcy_tile_8x3, NULL};
#else
#define QCY_TALL {12, 6, 4, 0}
QCY_TILE(6, 2) QCY_TILE(4, 3)
static const qcy_tile_function qcy_tall[4] = {
    qcy_tile_12x1, qcy_tile_6x2, qcy_tile_4x3, NULL};
#endif
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
