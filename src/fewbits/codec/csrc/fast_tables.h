/* The tables with which coders 4 and 5 start (docs/format.md, section 11). */
#ifndef FEWBITS_FAST_TABLES_H
#define FEWBITS_FAST_TABLES_H

#include "rans.h"

enum { PLAIN, LINE, KERNEL }; /* contexts: coder 4; coder 5; coder 5 with 3x3 kernels seen as pictures */

INLINE int last_value(const Grid *g) { return g->lowest >= -4 && g->highest <= 4 ? 7 : 15; }

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

static const uint8_t SIZES[16] = {17, 20, 23, 26, 30, 35, 41, 48, 56, 65, 77, 92, 110, 135, 170, 210};

/* All that is the same for every tensor of these chunks and units. */
static void start_chunks(FastModel *m, int size, int per)
{
    const int lines = per > 1 ? FULL_LINES : MASK_LINES, near = per > 1 ? FULL_NEAR : MASK_NEAR;
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
    for (int k = 1; k < 17; k++)
        for (int i = 0; i <= k; i++)
            m->part[k][i] = (uint16_t)(i * 65535 / k);
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
        copy_table(m, MASK_NEAR, 119);
    }
    for (int length = 0; length < 16; length++) {
        for (int k = 0; k < 16; k++)
            weights[k] = length ? (k < 1 << least(length, 4) ? 64 : 1) : k < 4 ? 64 : k < 8 ? 16 : 1;
        set_table(m, LENGTH + length, weights, 16);
    }
}

static FastModel fast_starts[3]; /* by shape modulo 3 */

/* Once, after build_tables. */
static void build_fast_tables(void)
{
    start_chunks(&fast_starts[0], 3, 1);
    start_chunks(&fast_starts[1], 3, 3);
    start_chunks(&fast_starts[2], 4, 4);
}

/* What depends on the values that there can be. In kernels, signs are expected to follow those of the neighbours. */
static void start_values(FastModel *m, const Grid *g, int view)
{
    static const uint32_t LIKELY[5] = {4, 5, 8, 11, 12};
    const int last = last_value(g), trends = view == PLAIN ? 1 : 5;
    uint32_t weights[16];
    for (int i = 0; i < 16 * trends; i++) {
        const int size = SIZES[i / trends];
        const uint32_t up = view == KERNEL ? LIKELY[i % 5] : 8, down = 16 - up;
        uint32_t x = 1 << 20;
        memset(weights, 0, sizeof weights);
        for (int k = 0; k < 8; k++) {
            const uint32_t weight = (k == 7 ? x * (uint32_t)size / 16 : x) + 16;
            if (k < g->highest && 2 * k < last)
                weights[last - 2 * k] = weight * up / 8;
            if (k < -g->lowest && 2 * k < last)
                weights[last - 1 - 2 * k] = weight * down / 8;
            x = x * (uint32_t)(size - 16) / (uint32_t)size;
        }
        weights[0] += g->lowest == g->highest; /* no value at all: any table */
        set_table(m, VALUE_SIZE + (view == PLAIN ? 16 * i : i), weights, last + 1);
        if (view == PLAIN) {
            copy_table(m, VALUE_SIZE + 16 * i, 15);
            memcpy(m->start[VALUE_NEAR + 12 * i], m->start[VALUE_SIZE + 16 * i], 12 * sizeof m->start[0]);
        } else {
            for (int some = 0; some < 4; some++)
                memcpy(m->start[VALUE_NEAR + i / 5 * 20 + some * 5 + i % 5], m->start[VALUE_SIZE + i], sizeof m->start[0]);
        }
    }
}

#endif
