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
#define QCY_ROWS_MAX 8                         /* rows of the tallest tile, for narrow panels */
#define QCY_AHEAD 16384                         /* bytes of weights fetched ahead of a single row */

typedef struct {
    ptrdiff_t n_taps;
    ptrdiff_t depth;
    ptrdiff_t row_step;         /* pointers from one row to the next */
    ptrdiff_t tap_step;         /* ... from one tap to the next: 0, if all taps share a pointer */
    ptrdiff_t tap_bytes;        /* and then lie that far apart */
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
    uint8_t is_far;             /* the weights do not fit the second-level cache */
} qcy_tile;

/* Pointers to rows, and to their taps unless these lie evenly. */
typedef void (*qcy_tile_function)(const uint8_t *const *rows, const qcy_tile *tile);

/* Store one row of sums as float32, equation (22). */
QCY_INLINE void qcy_finish_reals(
    const int vectors, const int r, const qcy_sums *acc, const int is_narrow, const qcy_tile *tile)
{
    const qcy_reals scale = qcy_reals_set(tile->row_scale[r]);
    float *out = (float *)tile->out + r * tile->stride;
    int v;
    QCY_UNROLL
    for (v = 0; v < vectors; v++) {
        const qcy_reals both =
            qcy_reals_mul(scale, qcy_reals_load(tile->multiplier + v * QCY_LANES));
        const qcy_reals real = qcy_reals_add(qcy_reals_mul(qcy_reals_of(acc[v]), both),
                                             qcy_reals_load(tile->bias + v * QCY_LANES));
        if (is_narrow) qcy_reals_store_some(out, real, tile->n_columns, v);
        else qcy_reals_store(out + v * QCY_LANES, real);
    }
}

/* Requantize four vectors of sums to one of codes: a row of four vectors, or several of fewer. */
QCY_INLINE qcy_codes qcy_finish_codes(
    const int vectors, const qcy_sums *acc, const int is_wild, const qcy_tile *tile)
{
    qcy_reals real[4];
    qcy_codes codes;
    int v;
    QCY_UNROLL
    for (v = 0; v < 4; v++)
        real[v] = qcy_reals_mul(qcy_reals_of(acc[v]),
                                qcy_reals_load(tile->multiplier + v % vectors * QCY_LANES));
    if (is_wild) {
        QCY_UNROLL
        for (v = 0; v < 4; v++) real[v] = qcy_reals_tame(real[v]);
    }
    codes = qcy_round_pack(real[0], real[1], real[2], real[3], tile->zero_point);
    if (tile->low | (255 - tile->high) | tile->flip)
        codes = qcy_clamp_flip(codes, tile->low, tile->high, tile->flip);
    return codes;
}

QCY_INLINE void qcy_store_codes(const int vectors, const int r, qcy_codes codes, const qcy_tile *tile)
{
    uint8_t *out = (uint8_t *)tile->out + r * tile->stride;
    if (tile->n_columns < (ptrdiff_t)vectors * QCY_LANES)
        qcy_codes_store_some(out, codes, tile->n_columns);
    else
        qcy_codes_store(out, codes, vectors);
}

QCY_INLINE int qcy_is_rare(const int vectors, const qcy_tile *tile)
{
    if (tile->multiplier == NULL || tile->row_scale != NULL)
        return tile->n_columns < (ptrdiff_t)vectors * QCY_LANES;
#ifdef QCY_TABLE
    return tile->is_wild;
#else
    return tile->is_wild || tile->table != NULL;
#endif
}

/* Store a whole tile of sums, [rows][vectors][QCY_LANES], as what is rarer than whole panels: narrow
 * ones of int32 and float32, codes that are wild, or looked up where registers hold no table. It is
 * written once and not into every tile, where rows are unrolled: that would be half of their code. */
QCY_NOINLINE void qcy_finish_rare(
    int n_rows, int vectors, const int32_t *sums, const qcy_tile *tile)
{
    int r, v;
    for (r = 0; r < n_rows; r++) {
        qcy_sums acc[4];
        qcy_codes codes;
        for (v = 0; v < 4; v++)
            acc[v] = qcy_sums_load(sums + (v < vectors ? v : 0) * QCY_LANES);
        sums += vectors * QCY_LANES;
        if (tile->multiplier == NULL) {
            int32_t *out = (int32_t *)tile->out + r * tile->stride;
            for (v = 0; v < vectors; v++) qcy_sums_store_some(out, acc[v], tile->n_columns, v);
        } else if (tile->row_scale != NULL) {
            qcy_finish_reals(vectors, r, acc, 1, tile);
        } else {
            codes = qcy_finish_codes(vectors, acc, tile->is_wild, tile);
            if (tile->table != NULL) codes = qcy_lookup(codes, qcy_table_load(tile->table));
            qcy_store_codes(vectors, r, codes, tile);
        }
    }
}

/* Store codes of as many rows as fill a vector of codes, from row r on. */
QCY_INLINE void qcy_finish_rows(
    const int n_rows, const int vectors, const int r, qcy_sums (*acc)[QCY_VECTORS],
    const qcy_tile *tile)
{
    const int together = 4 / vectors;           /* rows: three vectors leave the fourth unread */
    qcy_sums four[4];
    qcy_codes codes;
    int v, i;
    QCY_UNROLL
    for (v = 0; v < 4; v++)
        four[v] = acc[r + v / vectors < n_rows && v / vectors < together ? r + v / vectors : r]
                     [v % vectors];
    codes = qcy_finish_codes(vectors, four, 0, tile);
#ifdef QCY_TABLE
    if (tile->table != NULL) codes = qcy_lookup(codes, qcy_table_load(tile->table));
#endif
    if (vectors > 2) {
        qcy_store_codes(vectors, r, codes, tile);
        return;
    }
    QCY_UNROLL
    for (i = 0; i < together; i++)
        if (r + i < n_rows)
            qcy_codes_store_part((uint8_t *)tile->out + (r + i) * tile->stride, codes, i, vectors,
                                 tile->n_columns);
}

QCY_INLINE void qcy_tile_body(
    const int n_rows, const int vectors, const uint8_t *const *rows, const qcy_tile *tile)
{
    const ptrdiff_t step = (ptrdiff_t)vectors * QCY_LANES * QCY_GROUP;
    const ptrdiff_t n_taps = tile->n_taps, depth = tile->depth;
    const ptrdiff_t whole = depth & ~(ptrdiff_t)3, rest = depth & 3;
    const int is_far = tile->is_far;
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
        for (r = 0; r < n_rows; r++)
            a[r] = rows[r * tile->row_step + tap * tile->tap_step] + tap * tile->tap_bytes;
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
                }
                /* One line of the weights of a step: the machine finds the others by itself. */
                if (n_rows <= 2 && is_far) qcy_prefetch(b + QCY_AHEAD);
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
    if (qcy_is_rare(vectors, tile)) {
        int32_t sums[QCY_ROWS_MAX * QCY_PANEL];
        QCY_UNROLL
        for (r = 0; r < n_rows; r++) {
            QCY_UNROLL
            for (v = 0; v < vectors; v++)
                qcy_sums_store(sums + (r * vectors + v) * QCY_LANES, acc[r][v]);
        }
        qcy_finish_rare(n_rows, vectors, sums, tile);
    } else if (tile->multiplier == NULL) {
        QCY_UNROLL
        for (r = 0; r < n_rows; r++) {
            int32_t *out = (int32_t *)tile->out + r * tile->stride;
            QCY_UNROLL
            for (v = 0; v < vectors; v++) qcy_sums_store(out + v * QCY_LANES, acc[r][v]);
        }
    } else if (tile->row_scale != NULL) {
        QCY_UNROLL
        for (r = 0; r < n_rows; r++) qcy_finish_reals(vectors, r, acc[r], 0, tile);
    } else {
        QCY_UNROLL
        for (r = 0; r < n_rows; r += 4 / vectors) qcy_finish_rows(n_rows, vectors, r, acc, tile);
    }
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
#if QCY_ROWS == 6
#define QCY_TALL {8, 8, 8, 0}
QCY_TILES(1) QCY_TILES(2) QCY_TILES(3) QCY_TILES(4)
QCY_TILE(8, 1) QCY_TILE(8, 2) QCY_TILE(8, 3)
static const qcy_tile_function qcy_tall[4] = {
    qcy_tile_8x1, qcy_tile_8x2, qcy_tile_8x3, NULL};
#else
#define QCY_TALL {8, 6, 0, 0}
QCY_TILES(1) QCY_TILES(2) QCY_TILES(3) QCY_TILES(4)
QCY_TILE(8, 1) QCY_TILE(6, 2)
static const qcy_tile_function qcy_tall[4] = {qcy_tile_8x1, qcy_tile_6x2, NULL, NULL};
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
