/* Coders 4 and 5: integer levels, fast (docs/format.md, section 11): rows, cut into segments, and blocks. */
#ifndef FEWBITS_FAST_H
#define FEWBITS_FAST_H

#include "fast_values.h"

INLINE int fast_model(Rans *shared, FastModel *m, Unit *units, const Grid *g, int16_t *levels, const int size,
                      const int per, const int view, const int enc)
{
    const int wide = size * per;
    const size_t all_units = g->columns / (size_t)wide + (g->columns % (size_t)wide != 0);
    Averages all = {16384, 16384, 384};
    Lists lists;
    Rans local = *shared, *const c = &local; /* in registers, as nothing else sees it */
    for (size_t r = 0; r < g->rows; r++, levels += g->columns) {
        Row row = start_row(&all, r);
        for (size_t first = 0; first < all_units; first += UNITS) {
            const size_t start = first * (size_t)wide, left = g->columns - start;
            const int count = all_units - first < UNITS ? (int)(all_units - first) : UNITS;
            const int width = left < (size_t)(count * wide) ? (int)left : count * wide;
            Segment s = {.units = units + first, .at = levels + start, .first = first, .count = count, .width = width};
            if (r == 0)
                start_units(&s, &all);
            if (enc) {
                see_masks(&s, &lists, size, per);
            } else {
                *shared = local;
                if (begin_segment(shared))
                    return 1;
                local = *shared;
                memset(s.at, 0, (size_t)width * 2);
            }
            if (per > 1)
                code_full(c, m, &s, &lists, &row, per, enc);
            list_chunks(&s, &lists, per);
            if (code_masks(c, m, &s, &lists, &row, size, per, view, enc))
                return 1;
            if (list_values(&s, &lists, size))
                return 1;
            learn_masks(m, &s, &lists, &row, size, per);
            if (code_values(c, m, &s, &lists, &row, g, wide, view, enc))
                return 1;
            learn_segment(&all, &s, &row, size, per);
            if (!enc) {
                c->count += (size_t)((per > 1 ? count : 0) + s.chunk_count + s.value_count);
                if (c->in > c->end)
                    return 1;
            }
            if (c->count >= BLOCK) {
                *shared = local;
                const int status = end_block(shared, enc);
                if (status)
                    return status;
                local = *shared;
            }
        }
    }
    *shared = local;
    return local.count ? end_block(shared, enc) : 0;
}

typedef struct {
    FastModel model;
    uint8_t words[2 * (MOST + BLOCK) + 8], tail[4 * MOST + 16];
    uint32_t record[MOST + BLOCK];
} FastMemory;

_Static_assert(offsetof(FastMemory, model) == 0, "the model has the alignment of the memory");

/* Shapes of coder 4: 0 chunks of 3, 1 units of 3 chunks of 3, 2 units of 4 chunks of 4; of coder 5 besides: 3 chunks of
 * 3 and 4 units of 3 chunks of 3, in 3x3 kernels. */
static int fast_run(Rans *c, const Grid *g, int16_t *levels, int shape, int plain, int enc)
{
    const int size = shape == 2 ? 4 : 3, per = shape % 3 == 0 ? 1 : size;
    const int view = plain ? PLAIN : shape > 2 ? KERNEL : LINE;
    void *memory = malloc(sizeof(FastMemory) + 63);
    Unit *units = malloc((g->columns / (size_t)(size * per) + 1) * sizeof *units);
    int status = 2;
    if (memory && units) {
        FastMemory *y = (FastMemory *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
        FastModel *m = &y->model;
        c->words = y->words;
        c->tail = y->tail;
        c->record = y->record;
        *m = fast_starts[shape % 3];
        start_values(m, g, view);
#define MODEL(size, per, view) \
    enc ? fast_model(c, m, units, g, levels, size, per, view, 1) : fast_model(c, m, units, g, levels, size, per, view, 0)
        if (plain)
            status = shape == 0 ? MODEL(3, 1, PLAIN) : shape == 1 ? MODEL(3, 3, PLAIN) : MODEL(4, 4, PLAIN);
        else if (view == LINE)
            status = shape == 0 ? MODEL(3, 1, LINE) : shape == 1 ? MODEL(3, 3, LINE) : MODEL(4, 4, LINE);
        else
            status = shape == 3 ? MODEL(3, 1, KERNEL) : MODEL(3, 3, KERNEL);
#undef MODEL
    }
    free(memory);
    free(units);
    return status;
}

/* 0, or 2 without memory. *out is the caller's to free. */
static int fast_encode(const Grid *g, const int16_t *levels, int plain, uint8_t **out, size_t *size)
{
    const size_t total = g->rows * g->columns;
    size_t filled = 0;
    Rans c;
    memset(&c, 0, sizeof c);
    for (size_t i = 0; i < total; i++)
        filled += levels[i] != 0;
    const int kernels = g->kernel % 9 == 0 && g->kernel <= 81; /* units are (slices of) 3x3 kernels */
    const int picture = !plain && g->kernel == 9 && g->columns % 9 == 0;
    c.capacity = 64;
    c.out = malloc(c.capacity);
    if (!c.out)
        return 2;
    c.out[c.size++] = (uint8_t)((kernels ? filled < total / 2 : filled < total / 8 ? 2 : 0) + (picture ? 3 : 0));
    const int status = fast_run(&c, g, (int16_t *)levels, c.out[0], plain, 1); /* an encoder writes no level */
    if (status)
        free(c.out);
    *out = status ? NULL : c.out;
    *size = status ? 0 : c.size;
    return status;
}

/* 0, or 1 where the stream breaks the rules, or 2 without memory. */
static int fast_decode(const uint8_t *data, size_t size, const Grid *g, int plain, int16_t *levels)
{
    Rans c;
    if (size == 0 || data[0] > (plain ? 2 : 4))
        return 1;
    memset(&c, 0, sizeof c);
    c.in = data + 1;
    c.end = data + size;
    const int status = fast_run(&c, g, levels, data[0], plain, 0);
    return status ? status : c.in != c.end;
}

#endif
