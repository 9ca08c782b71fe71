/* Coder 3: integer levels, smaller files (docs/format.md, section 10): rows and groups of levels. */
#ifndef FEWBITS_SMALL_H
#define FEWBITS_SMALL_H

#include "small_level.h"

/* 0, or 1 where the stream breaks the rules (decoding only). */
INLINE int small_model(Coder *c, SmallModel *m, const SmallMemory *y, const Grid *g, int16_t *levels,
                       const int flat, const int grouped, const int enc)
{
    const SmallShape shape = small_shape(g, flat);
    const size_t margin = shape.kernel + 16, span = margin + g->columns;
    int8_t *now = y->lines + margin, *above = now + span, *above2 = above + span;
    SmallAverages all = {.share = 400000u << 10, .groups = FRESH, .size = 256};
    uint32_t places[64];
    for (size_t r = 0; r < g->rows; r++, levels += g->columns) {
        SmallRow row = small_start_row(&all, places, shape.kernel);
        for (size_t j = 0; j < g->columns; j++) {
            if (grouped && row.left == 0) {
                const size_t rest = g->columns - j, n = rest < shape.group ? rest : shape.group;
                int full = 0;
                for (size_t i = 0; enc && i < n; i++)
                    full |= levels[j + i] != 0;
                if (!small_group(c, m, y, &all, &row, full, enc)) {
                    memset(now + j, 0, n);
                    if (!enc)
                        memset(levels + j, 0, 2 * n);
                    j += n - 1, row.channel++;
                    continue;
                }
                row.left = n, row.any = 0;
            }
            const SmallShares at = small_shares(y, &row, j, flat);
            SmallContext x;
            small_look(m, &shape, &row, &at, now + j, above + j, above2 + j, &x, flat);
            int value = enc ? levels[j] : 0, kept = 0;
            uint32_t target = 0;
            if (small_zero(c, m, &row, &at, &x, value != 0, flat, grouped, enc)) {
                const int either = g->lowest < 0 && g->highest > 0;
                const int negative = either ? small_sign(c, m, &row, &at, &x, value < 0, enc) : g->lowest < 0;
                const int bound = negative ? -g->lowest : g->highest;
                if (bound == 0)
                    return 1;
                const int size = small_magnitude(c, m, &all, &x, negative, bound, small_size(value), enc);
                if (size > bound)
                    return 1;
                value = negative ? -size : size;
                kept = small_within(value, 7);
                target = (uint32_t)least(size, 3) * 1398101u;
                all.size += ((uint32_t)size << 5) - (all.size >> 3);
                *at.lean = track(*at.lean, !negative, 3);
                row.lean = track(row.lean, !negative, 4);
            }
            if (!enc)
                levels[j] = (int16_t)value;
            now[j] = (int8_t)kept;
            small_learn_level(&row, &at, target, shape.kernel, flat, grouped);
        }
        small_learn(&all.share, row.share >> 10, 30);
        int8_t *oldest = above2;
        above2 = above, above = now, now = oldest;
    }
    return 0;
}

/* Kernels of a square of 2..8 are seen as squares; all other rows as one line. */
static int small_flat(const Grid *g)
{
    size_t width = 2;
    while (width < 8 && width * width < g->kernel)
        width++;
    return width * width != g->kernel || g->columns % g->kernel != 0;
}

static int small_start(Coder *c, SmallModel *m, const SmallMemory *y, const Grid *g, int16_t *levels, int flat, int enc)
{
    static const int32_t group[5] = {2000, 20000, 25000, 12000, 8000}, sign[4] = {30000, 21000, 20000, 15000};
    static const int32_t zero[9] = {2000, 16000, 15000, 11000, 6000, 12000, 2500, 8000, 8000};
    static const int32_t more[4] = {9000, 11500, 11500, 15000};
    static const int32_t pull[SMALL_NEAR] = {46000, 42000, -8000, 4000, 800, 400};
    uint32_t *slots = (uint32_t *)m;
    for (size_t i = 0; i < offsetof(SmallModel, ages) / sizeof *slots; i++)
        slots[i] = FRESH + 1; /* the first bit moves a slot by 2/5 only */
    memset(m->ages, 0, sizeof m->ages);
    memcpy(m->group_weights, group, sizeof group);
    memcpy(m->zero_weights, zero, sizeof zero);
    memcpy(m->sign_weights, sign, sizeof sign);
    for (int i = 0; i < SMALL_FLAGS; i++)
        memcpy(m->more_weights[i], more, sizeof more);
    for (int i = 0; i < 64; i++)
        for (int k = 0; k < SMALL_NEAR; k++)
            m->pull[i][k] = flat ? 0 : pull[k];
    int grouped = 0;
    if (enc) { /* groups pay, and save time, where most are empty */
        const size_t group_size = flat ? SMALL_GROUP : g->kernel;
        size_t count = 0, empty = 0;
        for (size_t r = 0; r < g->rows; r++) {
            const int16_t *row = levels + r * g->columns;
            for (size_t j = 0; j < g->columns; j += group_size) {
                int full = 0;
                for (size_t i = j; i < j + group_size && i < g->columns; i++)
                    full |= row[i] != 0;
                count++, empty += !full;
            }
        }
        grouped = empty > count / 2;
    }
    grouped = code_bit(c, 32768, grouped, enc);
    if (flat)
        return grouped ? small_model(c, m, y, g, levels, 1, 1, enc) : small_model(c, m, y, g, levels, 1, 0, enc);
    return grouped ? small_model(c, m, y, g, levels, 0, 1, enc) : small_model(c, m, y, g, levels, 0, 0, enc);
}

/* 0, or 1 where the stream breaks the rules (decoding only), or 2 without memory. */
static int code_small(Coder *c, const Grid *g, int16_t *levels, int enc)
{
    const int flat = small_flat(g);
    const size_t span = g->columns + (flat ? 1 : g->kernel) + 16, most = SMALL_MASK + 1;
    const size_t states = g->columns < most ? g->columns : most;
    SmallModel *m = malloc(sizeof *m);
    SmallMemory y = {calloc(span, 3), calloc(states, 4), calloc(states, 4), calloc(states, 4), calloc(states, 2)};
    int status = 2;
    if (m && y.lines && y.columns && y.channels && y.groups && y.leans)
        status = enc ? small_start(c, m, &y, g, levels, flat, 1) : small_start(c, m, &y, g, levels, flat, 0);
    free(m);
    free(y.lines);
    free(y.columns);
    free(y.channels);
    free(y.groups);
    free(y.leans);
    return status;
}

#endif
