/* The values of a segment's weights that are not zero: its third pass (docs/format.md, section 11). */
#ifndef FEWBITS_FAST_VALUES_H
#define FEWBITS_FAST_VALUES_H

#include "fast_segment.h"

/* By place in a 3x3 kernel: masks, -1 where there is a neighbour on the left or above. */
static const int LEFT[9] = {0, -1, -1, 0, -1, -1, 0, -1, -1}, UP[9] = {0, 0, 0, -1, -1, -1, -1, -1, -1};

/* A number of 1..65535: its bit length, its up to 4 next bits, the others as they are. */
INLINE uint32_t code_escape(Rans *c, FastModel *m, uint32_t value, const int enc)
{
    const int length = code_symbol(c, m, LENGTH, LENGTH, enc ? bit_length(value) - 1 : 0, 16, enc);
    const int top = least(length, 4), rest = length - top;
    uint32_t got = 1;
    if (top) {
        const int next = (int)(value >> rest & ((1u << top) - 1));
        got = (1u << top) + (uint32_t)code_symbol(c, m, TOP + length, TOP + length, next, 16, enc);
    }
    if (rest) {
        const uint32_t low = enc ? value & ((1u << rest) - 1) : (c->state & 32767) >> (15 - rest);
        code_range(c, low << (15 - rest), 1u << (15 - rest), enc);
        got = (got << rest) + low;
    }
    if (!enc)
        c->count += (size_t)(1 + !!top + !!rest);
    return got;
}

/* 0..4, negative to positive: what the latest sign, or in a kernel the weights on the left and above, let expect. */
INLINE int trend_of(const int16_t *at, int j, int place, int lean, const int view)
{
    if (view != KERNEL)
        return 2 + (lean == 1) - (lean == 2);
    const int left = LEFT[place], up = UP[place];
    const int sum = (at[(j - 1) & left] & left) + (at[(j - 3) & up] & up);
    return 2 + (sum > 0) - (sum < 0) + (sum > 1) - (sum < -1);
}

/* How many values are the first half. A 3x3 kernel is never cut: neighbours are then in the same half. */
INLINE int first_half(const Lists *l, int count, const int view)
{
    const uint32_t *values = l->values;
    int half = (count + 1) / 2;
    if (view == KERNEL)
        while (half < count && values[half] >> 28 > values[half - 1] >> 28 &&
               (values[half] & 65535) - (values[half - 1] & 65535) < 9)
            half++;
    return half;
}

/* Third pass: signs and magnitudes. 1 where a value does not fit the grid. */
INLINE int code_values(Rans *c, FastModel *m, const Segment *s, const Lists *l, Row *row, const Grid *g, const int wide,
                       const int view, const int enc)
{
    const int last = last_value(g), lowest = g->lowest, half = first_half(l, s->value_count, view);
    const uint32_t reach = (uint32_t)(g->highest - lowest);
    int bad = 0;
    for (int i = 0; i < half; i++)
        for (int k = i; k < s->value_count; k += half) {
            const uint32_t value = l->values[k];
            const int j = (int)(value & 65535), dense = value >> 16 & 255, some = value >> 24 & 15;
            Unit *const unit = &s->units[j / wide];
            const int level = enc ? s->at[j] : 0, target = level < 0 ? -level : level, lean = (int)row->lean.now;
            const int usual = m->size_class[(unit->size + row->size.now) >> 5];
            const int in_row = m->size_class[row->size.now >> 4] * 4 + some - 1;
            int a = VALUE_SIZE + usual * 16 + dense, b = VALUE_NEAR + in_row * 3 + lean;
            if (view != PLAIN) {
                const int trend = trend_of(s->at, j, (int)(value >> 28), lean, view);
                a = VALUE_SIZE + usual * 5 + trend;
                b = VALUE_NEAR + in_row * 5 + trend;
            }
            const int symbol = enc ? last - (least(target, 8) * 2 - 2 + (level < 0)) : 0;
            const int x = last - (last == 7 ? code_symbol(c, m, a, b, symbol, 8, enc)
                                            : code_symbol(c, m, a, b, symbol, 16, enc));
            int magnitude = (x >> 1) + 1;
            if (magnitude == 8)
                magnitude = 7 + (int)code_escape(c, m, enc ? (uint32_t)target - 7 : 0, enc);
            if (!enc) {
                const int got = x & 1 ? -magnitude : magnitude;
                bad |= (uint32_t)(got - lowest) > reach;
                s->at[j] = (int16_t)got;
            }
            follow(&row->lean, 1 + (x & 1));
            follow(&row->size, step(row->size.next, least(magnitude, 15) << 8, 5));
            unit->size = (uint16_t)step(unit->size, least(magnitude, 15) << 8, 1);
        }
    return bad;
}

#endif
