/* Coder 4: integer levels, fast (docs/format.md, section 11): what the symbols of rans.h mean. */
#ifndef FEWBITS_FAST_H
#define FEWBITS_FAST_H

#include "rans.h"

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

INLINE int last_value(const Grid *g) { return g->lowest >= -4 && g->highest <= 4 ? 7 : 15; }

/* `size` weights are a chunk, `per` chunks a unit. Each loop over symbols takes its first half and its second half in
 * turn, and its contexts know all but the latest symbol: two symbols can then be decoded at the same time.
 */
INLINE int fast_model(Rans *shared, FastModel *m, Unit *units, const Grid *g, int16_t *levels, const int size,
                      const int per, const int enc)
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
                        near = MASK_NEAR + (before * 4 + q) * 5 + unit[u].above;
                    }
                    const int symbol = enc ? n - 1 - masks[chunk] : 0;
                    const int x = n - 1 - code_symbol(c, m, lines, near, symbol, n, enc), some = ONES[x];
                    bad |= per > 1 && x == 0;
                    masks[chunk] = (uint8_t)x;
                    notes[chunk] = (uint32_t)(u * wide + q * size + ((column + row) / 2 << 16) + (some << 24));
                    before = next_before;
                    next_before = some;
                    row_dense = next_dense;
                    next_dense = step(next_dense, SHARES[size][some], 3);
                }
            memset(got, 0, sizeof got);
            for (int i = 0; i < chunk_count; i++) {
                const int chunk = chunks[i], x = masks[chunk];
                got[chunk >> 2] = (uint8_t)(got[chunk >> 2] + ONES[x]);
                for (int k = 0; k < size; k++) {
                    list[value_count] = notes[chunk] + (uint32_t)k;
                    value_count += x >> k & 1;
                }
            }
            for (int u = 0; u < count; u++) {
                const int held = per > 1 ? ONES[full[u]] : 1;
                sum_full += held;
                sum_ones += got[u];
                if (held)
                    unit[u].dense = (uint16_t)step(unit[u].dense, got[u] * 65535 / (size * held), rate);
                unit[u].above = (uint16_t)least(got[u], 4);
            }
            if (bad || (value_count && (int)(list[value_count - 1] & 65535) >= width))
                return 1;
            for (int i = 0, half = (value_count + 1) / 2; i < half; i++)
                for (int k = i; k < value_count; k += half) {
                    const int j = (int)(list[k] & 65535), dense = list[k] >> 16 & 255, some = (int)(list[k] >> 24);
                    Unit *const own = &unit[j / wide];
                    const int level = enc ? at[j] : 0, target = level < 0 ? -level : level;
                    const int a = VALUE_SIZE + m->size_class[(own->size + row_size) >> 5] * 16 + dense;
                    const int b = VALUE_NEAR + (m->size_class[row_size >> 4] * 4 + some - 1) * 3 + lean;
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

/* A table whose symbols have frequencies in proportion to their weights, and at least 1. */
static void set_table(FastModel *m, int table, const uint32_t *weights, int n)
{
    uint32_t sum = 0, below = 0;
    for (int k = 0; k < n; k++)
        sum += weights[k];
    const uint64_t scale = ((uint64_t)(ONE - (uint32_t)n) << 32) / sum;
    for (int k = 0; k < 16; k++) {
        m->start[table][k] = (uint16_t)(k && k < n ? (below * scale >> 32) + (uint32_t)k : ONE);
        below += k < n ? weights[k] : 0;
    }
}

static void copy_table(FastModel *m, int table, int copies)
{
    for (int k = 1; k <= copies; k++)
        memcpy(m->start[table + k], m->start[table], sizeof m->start[0]);
}

/* Masks of bits that are independently 1 with the probability of these log-odds. */
static void set_masks(FastModel *m, int table, int bits, int odds, int with_empty)
{
    const uint32_t p = squash_table[odds + 2048];
    uint32_t weights[16];
    for (int mask = 0; mask < 1 << bits; mask++) {
        uint32_t x = 1 << 16;
        for (int k = 0; k < bits; k++)
            x = x * (mask >> k & 1 ? p >> 1 : 32768 - (p >> 1)) >> 15;
        weights[(1 << bits) - 1 - mask] = mask || with_empty ? x + 1 : 0;
    }
    set_table(m, table, weights, 1 << bits);
}

static void start_fast(FastModel *m, const Grid *g, int size, int per)
{
    static const uint8_t SIZES[16] = {17, 20, 23, 26, 30, 35, 41, 48, 56, 65, 77, 92, 110, 135, 170, 210};
    const int last = last_value(g), lines = per > 1 ? FULL_LINES : MASK_LINES, near = per > 1 ? FULL_NEAR : MASK_NEAR;
    const int bits = per > 1 ? per : size;
    uint32_t weights[16];
    for (int k = 0; k < 128; k++)
        m->rate[k] = (uint8_t)(4 + (k >= 68) + (k >= 102) + (k >= 119) + (k >= 127));
    for (int k = 0, i = 0; k < 256; k++) {
        while (i < 15 && k * 19 / 8 >= SIZES[i] + SIZES[i + 1])
            i++;
        m->size_class[k] = (uint8_t)i;
    }
    for (int k = 0; k < 512; k++) {
        const int x = (stretch_table[k << 3] + 1536) >> 7;
        m->share_class[k] = (uint8_t)(x < 0 ? 0 : least(x, 15));
    }
    for (int s = 0; s < 16; s++)
        for (int k = 0; k < 16; k++)
            m->target[s][k] = (uint16_t)(k == 0 ? 65535 : k <= s ? 5 * k : (int)ONE - 5 * (16 - k));
    for (int k = 0; k < 256; k++)
        set_masks(m, lines + k, bits, 48 * (k >> 4) + 64 * (k & 15) - 1288, 1);
    for (int k = 0; k < 25 * 16; k++)
        if (k < 16)
            set_masks(m, near + k, bits, k * 128 - 1472, 1);
        else
            memcpy(m->start[near + k], m->start[near + k - 16], sizeof m->start[0]);
    if (per > 1) {
        for (int k = 0; k < 16 * 64; k++)
            if (k < 64)
                set_masks(m, MASK_LINES + k, size, 96 * (k >> 3) + 128 * (k & 7) - 1232, 0);
            else
                memcpy(m->start[MASK_LINES + k], m->start[MASK_LINES + k - 64], sizeof m->start[0]);
        set_masks(m, MASK_NEAR, size, -280, 0);
        copy_table(m, MASK_NEAR, 99);
    }
    for (int i = 0; i < 16; i++) {
        uint32_t x = 1 << 20;
        memset(weights, 0, sizeof weights);
        for (int k = 0; k < 8; k++) {
            const uint32_t weight = (k == 7 ? x * SIZES[i] / 16 : x) + 16;
            if (k < g->highest && 2 * k < last)
                weights[last - 2 * k] = weight;
            if (k < -g->lowest && 2 * k < last)
                weights[last - 1 - 2 * k] = weight;
            x = x * (uint32_t)(SIZES[i] - 16) / SIZES[i];
        }
        weights[0] += g->lowest == g->highest; /* no value at all: any table */
        set_table(m, VALUE_SIZE + i * 16, weights, last + 1);
        copy_table(m, VALUE_SIZE + i * 16, 15);
        memcpy(m->start[VALUE_NEAR + i * 12], m->start[VALUE_SIZE + i * 16], 12 * sizeof m->start[0]);
    }
    for (int length = 0; length < 16; length++) {
        for (int k = 0; k < 16; k++)
            weights[k] = length ? (k < 1 << least(length, 4) ? 64 : 1) : k < 4 ? 64 : k < 8 ? 16 : 1;
        set_table(m, LENGTH + length, weights, 16);
    }
}

typedef struct {
    FastModel model;
    uint8_t words[2 * (MOST + BLOCK) + 8], tail[4 * MOST + 16];
    uint32_t record[MOST + BLOCK];
} FastMemory;

/* Shapes: 0 chunks of 3, 1 units of 3 chunks of 3, 2 units of 4 chunks of 4. */
static int fast_run(Rans *c, const Grid *g, int16_t *levels, int shape, int enc)
{
    const int size = shape == 2 ? 4 : 3, per = shape == 0 ? 1 : size;
    void *memory = malloc(sizeof(FastMemory) + 63);
    Unit *units = malloc((g->columns / (size_t)(size * per) + 1) * sizeof *units);
    int status = 2;
    if (memory && units) {
        FastMemory *y = (FastMemory *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
        FastModel *m = &y->model;
        c->words = y->words;
        c->tail = y->tail;
        c->record = y->record;
        start_fast(m, g, size, per);
        if (enc)
            status = shape == 0   ? fast_model(c, m, units, g, levels, 3, 1, 1)
                     : shape == 1 ? fast_model(c, m, units, g, levels, 3, 3, 1)
                                  : fast_model(c, m, units, g, levels, 4, 4, 1);
        else
            status = shape == 0   ? fast_model(c, m, units, g, levels, 3, 1, 0)
                     : shape == 1 ? fast_model(c, m, units, g, levels, 3, 3, 0)
                                  : fast_model(c, m, units, g, levels, 4, 4, 0);
    }
    free(memory);
    free(units);
    return status;
}

/* 0, or 2 without memory. *out is the caller's to free. */
static int fast_encode(const Grid *g, const int16_t *levels, uint8_t **out, size_t *size)
{
    const size_t total = g->rows * g->columns;
    size_t filled = 0;
    Rans c;
    memset(&c, 0, sizeof c);
    for (size_t i = 0; i < total; i++)
        filled += levels[i] != 0;
    const int kernels = g->kernel % 9 == 0 && g->kernel <= 81; /* units are (slices of) 3x3 kernels */
    c.capacity = 64;
    c.out = malloc(c.capacity);
    if (!c.out)
        return 2;
    c.out[c.size++] = (uint8_t)(kernels ? filled < total / 2 : filled < total / 8 ? 2 : 0);
    const int status = fast_run(&c, g, (int16_t *)levels, c.out[0], 1); /* an encoder writes no level */
    if (status)
        free(c.out);
    *out = status ? NULL : c.out;
    *size = status ? 0 : c.size;
    return status;
}

/* 0, or 1 where the stream breaks the rules, or 2 without memory. */
static int fast_decode(const uint8_t *data, size_t size, const Grid *g, int16_t *levels)
{
    Rans c;
    if (size == 0 || data[0] > 2)
        return 1;
    memset(&c, 0, sizeof c);
    c.in = data + 1;
    c.end = data + size;
    const int status = fast_run(&c, g, levels, data[0], 0);
    return status ? status : c.in != c.end;
}

#endif
