/* Coders 4 and 5: integer levels, fast (docs/format.md, section 11): what the symbols of rans.h mean. */
#ifndef FEWBITS_FAST_H
#define FEWBITS_FAST_H

#include "fast_tables.h"

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

INLINE uint32_t step(uint32_t x, int target, int rate) { return x + (uint32_t)((target - (int)x) >> rate); }

static const uint8_t ONES[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
static const uint16_t SHARES[5][5] = {{0}, {0, 65535}, {0}, {0, 21845, 43690, 65535}, {0, 16384, 32768, 49152, 65535}};

static const int LEFT[9] = {0, -1, -1, 0, -1, -1, 0, -1, -1}, UP[9] = {0, 0, 0, -1, -1, -1, -1, -1, -1}; /* masks */

/* `size` weights are a chunk, `per` chunks a unit. Each loop over symbols takes its first half and its second half in
 * turn, and its contexts know all but the latest symbol: two symbols can then be decoded at the same time.
 */
INLINE int fast_model(Rans *shared, FastModel *m, Unit *units, const Grid *g, int16_t *levels, const int size,
                      const int per, const int view, const int enc)
{
    const int wide = size * per, n = 1 << size, most = (1 << per) - 1, last = last_value(g), lowest = g->lowest;
    const uint32_t reach = (uint32_t)(g->highest - lowest);
    const size_t all = g->columns / (size_t)wide + (g->columns % (size_t)wide != 0);
    uint32_t all_full = 16384, all_dense = 16384, all_size = 384, list[UNITS * 16 + 4], notes[UNITS * 4];
    uint16_t chunks[UNITS * 4 + 4];
    uint8_t full[UNITS], got[UNITS], masks[UNITS * 4];
    Rans local = *shared, *const c = &local; /* in registers, as nothing else sees it */
    for (size_t r = 0; r < g->rows; r++, levels += g->columns) {
        const int rate = r < 1 ? 1 : r < 3 ? 2 : r < 7 ? 3 : r < 31 ? 4 : 5;
        uint32_t row_full = all_full, row_dense = all_dense, row_size = all_size;
        uint32_t next_full = row_full, next_dense = row_dense, next_size = row_size;
        int before_full = 0, before = 0, next_before_full = 0, next_before = 0, lean = 0, next_lean = 0;
        for (size_t first = 0; first < all; first += UNITS) {
            const int count = all - first < UNITS ? (int)(all - first) : UNITS;
            const size_t left = g->columns - first * (size_t)wide;
            const int width = left < (size_t)(count * wide) ? (int)left : count * wide;
            int16_t *at = levels + first * (size_t)wide;
            Unit *unit = units + first;
            int chunk_count = 0, value_count = 0, sum_full = 0, sum_ones = 0, bad = 0;
            if (r == 0)
                for (int u = 0; u < count; u++) {
                    const Unit fresh = {(uint16_t)all_full, (uint16_t)all_dense, (uint16_t)all_size, 0};
                    unit[u] = fresh;
                }
            if (enc) {
                memset(full, 0, sizeof full);
                memset(masks, 0, sizeof masks);
                for (int u = 0, j = 0; u < count; u++)
                    for (int q = 0; q < per; q++) {
                        for (int k = 0; k < size && j < width; k++)
                            masks[u * 4 + q] |= (uint8_t)((at[j++] != 0) << k);
                        full[u] |= (uint8_t)((masks[u * 4 + q] != 0) << q);
                    }
            } else {
                *shared = local;
                if (begin_segment(shared))
                    return 1;
                local = *shared;
                memset(at, 0, (size_t)width * 2);
            }
            for (int i = 0, half = (count + 1) / 2; i < half && per > 1; i++)
                for (int u = i; u < count; u += half) {
                    const int column = m->share_class[unit[u].full >> 7], row = m->share_class[row_full >> 7];
                    const int near = FULL_NEAR + (before_full * 5 + unit[u].above) * 16 + (column + row) / 2;
                    const int symbol = enc ? most - full[u] : 0;
                    const int x = most - code_symbol(c, m, FULL_LINES + column * 16 + row, near, symbol, 1 << per, enc);
                    const int some = ONES[x];
                    full[u] = (uint8_t)x;
                    before_full = next_before_full;
                    next_before_full = some;
                    row_full = next_full;
                    next_full = step(next_full, SHARES[per][some], 2);
                    unit[u].full = (uint16_t)step(unit[u].full, SHARES[per][some], rate);
                }
            for (int u = 0; u < count; u++)
                for (int q = 0; q < per; q++) {
                    chunks[chunk_count] = (uint16_t)(u * 4 + q);
                    chunk_count += per > 1 ? full[u] >> q & 1 : 1;
                }
            for (int i = 0, half = (chunk_count + 1) / 2; i < half; i++)
                for (int k = i; k < chunk_count; k += half) {
                    const int chunk = chunks[k], u = chunk >> 2, q = chunk & 3;
                    const int column = m->share_class[unit[u].dense >> 7], row = m->share_class[row_dense >> 7];
                    int lines = MASK_LINES + column * 16 + row;
                    int near = MASK_NEAR + (before * 5 + unit[u].above) * 16 + (column + row) / 2;
                    if (per > 1) {
                        lines = MASK_LINES + (q * 4 + ONES[full[u]] - 1) * 64 + column / 2 * 8 + row / 2;
                        near = MASK_NEAR + (before * (view == KERNEL ? 3 : 4) + q) * 5 + unit[u].above;
                    }
                    const int symbol = enc ? n - 1 - masks[chunk] : 0;
                    const int x = n - 1 - code_symbol(c, m, lines, near, symbol, n, enc), some = ONES[x];
                    bad |= per > 1 && x == 0;
                    masks[chunk] = (uint8_t)x;
                    const int third = view == KERNEL ? (int)((per > 1 ? (size_t)q : first + (size_t)u) % 3) : 0;
                    notes[chunk] = (uint32_t)(u * wide + q * size + ((column + row) / 2 << 16) + (some << 24)) +
                                   ((uint32_t)third * 3 << 28);
                    before = next_before;
                    next_before = view == KERNEL && per > 1 ? x : some;
                    row_dense = next_dense;
                    next_dense = step(next_dense, SHARES[size][some], 3);
                }
            memset(got, 0, sizeof got);
            for (int i = 0; i < chunk_count; i++) {
                const int chunk = chunks[i], x = masks[chunk];
                got[chunk >> 2] = (uint8_t)(got[chunk >> 2] + ONES[x]);
                for (int k = 0; k < size; k++) {
                    list[value_count] = notes[chunk] + (uint32_t)k * 0x10000001u;
                    value_count += x >> k & 1;
                }
            }
            for (int u = 0; u < count; u++) {
                const int held = per > 1 ? ONES[full[u]] : 1;
                sum_full += held;
                sum_ones += got[u];
                if (held)
                    unit[u].dense = (uint16_t)step(unit[u].dense, m->part[size * held][got[u]], rate);
                unit[u].above = (uint16_t)least(got[u], 4);
            }
            if (bad || (value_count && (int)(list[value_count - 1] & 65535) >= width))
                return 1;
            int half = (value_count + 1) / 2;
            if (view == KERNEL) /* whole kernels: a value's neighbours are never in the other half */
                while (half < value_count && list[half] >> 28 > list[half - 1] >> 28 &&
                       (list[half] & 65535) - (list[half - 1] & 65535) < 9)
                    half++;
            for (int i = 0; i < half; i++)
                for (int k = i; k < value_count; k += half) {
                    const int j = (int)(list[k] & 65535), dense = list[k] >> 16 & 255, some = list[k] >> 24 & 15;
                    Unit *const own = &unit[j / wide];
                    const int level = enc ? at[j] : 0, target = level < 0 ? -level : level;
                    const int usual = m->size_class[(own->size + row_size) >> 5], in_row = m->size_class[row_size >> 4];
                    int a = VALUE_SIZE + usual * 16 + dense, b = VALUE_NEAR + (in_row * 4 + some - 1) * 3 + lean;
                    if (view != PLAIN) {
                        int trend = 2 + (lean == 1) - (lean == 2);
                        if (view == KERNEL) {
                            const int place = (int)(list[k] >> 28), left = LEFT[place], up = UP[place];
                            const int sum = (at[(j - 1) & left] & left) + (at[(j - 3) & up] & up);
                            trend = 2 + (sum > 0) - (sum < 0) + (sum > 1) - (sum < -1);
                        }
                        a = VALUE_SIZE + usual * 5 + trend;
                        b = VALUE_NEAR + (in_row * 4 + some - 1) * 5 + trend;
                    }
                    const int symbol = enc ? last - (least(target, 8) * 2 - 2 + (level < 0)) : 0;
                    const int x = last - (last == 7 ? code_symbol(c, m, a, b, symbol, 8, enc)
                                                    : code_symbol(c, m, a, b, symbol, 16, enc));
                    int magnitude = (x >> 1) + 1;
                    if (magnitude == 8)
                        magnitude = 7 + (int)code_escape(c, m, enc ? (uint32_t)target - 7 : 0, enc);
                    if (!enc) {
                        const int value = x & 1 ? -magnitude : magnitude;
                        bad |= (uint32_t)(value - lowest) > reach;
                        at[j] = (int16_t)value;
                    }
                    lean = next_lean;
                    next_lean = 1 + (x & 1);
                    row_size = next_size;
                    next_size = step(next_size, least(magnitude, 15) << 8, 5);
                    own->size = (uint16_t)step(own->size, least(magnitude, 15) << 8, 1);
                }
            all_full = step(all_full, sum_full * 1024 / (count * per) * 64, 2);
            all_dense = step(all_dense, sum_full ? sum_ones * 1024 / (sum_full * size) * 64 : 0, 2);
            all_size = step(all_size, (int)row_size, 1);
            if (!enc)
                c->count += (size_t)((per > 1 ? count : 0) + chunk_count + value_count);
            if (bad || (!enc && c->in > c->end))
                return 1;
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
