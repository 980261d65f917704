/* The most that dot can do on this machine: a tile whose weights and sums never leave the registers.
 *
 * What a product reaches is told in per cent of it. The words of A change from step to step, or
 * compilers would multiply only once. */
#ifndef QCY_PEAK_H
#define QCY_PEAK_H

#include "operations.h"

#define QCY_PEAK_WORDS 8        /* a power of two */
#define QCY_PEAK_OPS ((ptrdiff_t)2 * QCY_ROWS * QCY_VECTORS * QCY_LANES * QCY_GROUP)

/* Run n steps of QCY_PEAK_OPS operations each. A has QCY_PEAK_WORDS + QCY_ROWS words, b one step of a
 * panel; out gets all sums, so that none is in vain. */
QCY_NOINLINE void qcy_peak_run(const uint8_t *a, const int8_t *b, ptrdiff_t n, int32_t *out)
{
    qcy_sums acc[QCY_ROWS][QCY_VECTORS];
    qcy_rhs right[QCY_VECTORS];
    ptrdiff_t k;
    int r, v;
    QCY_UNROLL
    for (v = 0; v < QCY_VECTORS; v++) {
        right[v] = qcy_rhs_load(b + v * QCY_LANES * QCY_GROUP);
        QCY_UNROLL
        for (r = 0; r < QCY_ROWS; r++) acc[r][v] = qcy_sums_set(0);
    }
    for (k = 0; k < n; k++) {
        const uint8_t *words = a + 4 * (k & (QCY_PEAK_WORDS - 1));
        QCY_UNROLL
        for (r = 0; r < QCY_ROWS; r++) {
            const qcy_lhs left = qcy_lhs_word(qcy_load32(words + 4 * r));
            QCY_UNROLL
            for (v = 0; v < QCY_VECTORS; v++) acc[r][v] = qcy_dot(acc[r][v], left, right[v]);
        }
    }
    QCY_UNROLL
    for (r = 0; r < QCY_ROWS; r++) {
        QCY_UNROLL
        for (v = 0; v < QCY_VECTORS; v++)
            qcy_sums_store(out + (r * QCY_VECTORS + v) * QCY_LANES, acc[r][v]);
    }
}

#endif
