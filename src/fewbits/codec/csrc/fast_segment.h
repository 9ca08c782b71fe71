/* A segment of a row, as coders 4 and 5 see it (docs/format.md, section 11): units, which are a few chunks each,
 * chunks, which are a few weights each, and the values of the weights that are not zero. `size` weights are a chunk,
 * `per` chunks a unit. A file of its own codes the values: fast_values.h.
 *
 * Each pass over symbols takes its first half and its second half in turn, and its contexts know all but the latest
 * symbol: two symbols can then be decoded at the same time.
 */
#ifndef FEWBITS_FAST_SEGMENT_H
#define FEWBITS_FAST_SEGMENT_H

#include "fast_tables.h"

static const uint8_t ONES[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
static const uint16_t SHARES[5][5] = {{0}, {0, 65535}, {0}, {0, 21845, 43690, 65535}, {0, 16384, 32768, 49152, 65535}};

typedef struct {
    uint32_t now, next; /* what a context may know, and what it will know one symbol later */
} Late;

typedef struct {
    uint32_t full, dense, size; /* of the tensor so far; as in Unit */
} Averages;

typedef struct {
    Late full, dense, size;         /* running shares and magnitude of this row; as in Unit */
    Late before_full, before, lean; /* the previous full mask (its ones), chunk mask and sign (1 +, 2 -) */
    int rate;                       /* at which the shares of units follow */
} Row;

typedef struct {
    Unit *units;
    int16_t *at;      /* its levels */
    size_t first;     /* its first unit in the row */
    int count, width; /* of its units, of its weights */
    int chunk_count, value_count;
    int held, ones; /* chunks that hold something, weights that are not zero */
} Segment;

typedef struct {
    uint8_t full[UNITS], got[UNITS]; /* by unit: which chunks hold something; how many weights are not zero */
    uint8_t masks[UNITS * 4];        /* by chunk, unit * 4 + number in it: which weights are not zero */
    uint32_t notes[UNITS * 4];       /* by chunk: what its first value would be in `values` */
    uint16_t chunks[UNITS * 4 + 4];  /* those that hold something */
    uint32_t values[UNITS * 16 + 4]; /* place | class of its chunk's shares << 16 | its ones << 24 | in kernel << 28 */
} Lists;

_Static_assert(COUNT(((FastModel *)0)->rate) == 1 << 7, "a rate for the upper bits of a count");
_Static_assert(UNITS * 4 <= 1 << 16, "the number of a chunk in its segment has 16 bits");

INLINE uint32_t step(uint32_t x, int target, int rate) { return x + (uint32_t)((target - (int)x) >> rate); }

INLINE void follow(Late *x, uint32_t latest)
{
    x->now = x->next;
    x->next = latest;
}

INLINE Row start_row(const Averages *all, size_t r)
{
    const Row row = {
        .full = {all->full, all->full},
        .dense = {all->dense, all->dense},
        .size = {all->size, all->size},
        .rate = r < 1 ? 1 : r < 3 ? 2 : r < 7 ? 3 : r < 31 ? 4 : 5,
    };
    return row;
}

INLINE void start_units(const Segment *s, const Averages *all)
{
    const Unit fresh = {(uint16_t)all->full, (uint16_t)all->dense, (uint16_t)all->size, 0};
    for (int u = 0; u < s->count; u++)
        s->units[u] = fresh;
}

/* Encoder: all masks, from the levels. */
INLINE void see_masks(const Segment *s, Lists *l, const int size, const int per)
{
    memset(l->full, 0, sizeof l->full);
    memset(l->masks, 0, sizeof l->masks);
    for (int u = 0, j = 0; u < s->count; u++)
        for (int q = 0; q < per; q++) {
            for (int k = 0; k < size && j < s->width; k++)
                l->masks[u * 4 + q] |= (uint8_t)((s->at[j++] != 0) << k);
            l->full[u] |= (uint8_t)((l->masks[u * 4 + q] != 0) << q);
        }
}

/* First pass: which chunks of each unit hold something. */
INLINE void code_full(Rans *c, FastModel *m, const Segment *s, Lists *l, Row *row, const int per, const int enc)
{
    const int most = (1 << per) - 1;
    for (int i = 0, half = (s->count + 1) / 2; i < half; i++)
        for (int u = i; u < s->count; u += half) {
            Unit *const unit = &s->units[u];
            const int in_column = m->share_class[unit->full >> 7], in_row = m->share_class[row->full.now >> 7];
            const int lines = FULL_LINES + in_column * 16 + in_row;
            const int near = FULL_NEAR + ((int)row->before_full.now * 5 + unit->above) * 16 + (in_column + in_row) / 2;
            const int x = most - code_symbol(c, m, lines, near, enc ? most - l->full[u] : 0, 1 << per, enc);
            const int some = ONES[x];
            l->full[u] = (uint8_t)x;
            follow(&row->before_full, (uint32_t)some);
            follow(&row->full, step(row->full.next, SHARES[per][some], 2));
            unit->full = (uint16_t)step(unit->full, SHARES[per][some], row->rate);
        }
}

/* The chunks that the second pass codes. */
INLINE void list_chunks(Segment *s, Lists *l, const int per)
{
    int count = 0;
    for (int u = 0; u < s->count; u++)
        for (int q = 0; q < per; q++) {
            l->chunks[count] = (uint16_t)(u * 4 + q);
            count += per > 1 ? l->full[u] >> q & 1 : 1;
        }
    s->chunk_count = count;
}

/* Second pass: which weights of each chunk are not zero. 1 where a chunk should hold something, but does not. */
INLINE int code_masks(Rans *c, FastModel *m, const Segment *s, Lists *l, Row *row, const int size, const int per,
                      const int view, const int enc)
{
    const int n = 1 << size;
    int bad = 0;
    for (int i = 0, half = (s->chunk_count + 1) / 2; i < half; i++)
        for (int k = i; k < s->chunk_count; k += half) {
            const int chunk = l->chunks[k], u = chunk >> 2, q = chunk & 3;
            const int in_column = m->share_class[s->units[u].dense >> 7], in_row = m->share_class[row->dense.now >> 7];
            const int before = (int)row->before.now, above = s->units[u].above;
            int lines = MASK_LINES + in_column * 16 + in_row;
            int near = MASK_NEAR + (before * 5 + above) * 16 + (in_column + in_row) / 2;
            if (per > 1) {
                lines = MASK_LINES + (q * 4 + ONES[l->full[u]] - 1) * 64 + in_column / 2 * 8 + in_row / 2;
                near = MASK_NEAR + (before * (view == KERNEL ? 3 : 4) + q) * 5 + above;
            }
            const int x = n - 1 - code_symbol(c, m, lines, near, enc ? n - 1 - l->masks[chunk] : 0, n, enc);
            const int some = ONES[x];
            const int third = view == KERNEL ? (int)((per > 1 ? (size_t)q : s->first + (size_t)u) % 3) : 0;
            bad |= per > 1 && x == 0;
            l->masks[chunk] = (uint8_t)x;
            l->notes[chunk] = (uint32_t)((u * per + q) * size + ((in_column + in_row) / 2 << 16) + (some << 24)) +
                              ((uint32_t)third * 3 << 28);
            follow(&row->before, (uint32_t)(view == KERNEL && per > 1 ? x : some));
            follow(&row->dense, step(row->dense.next, SHARES[size][some], 3));
        }
    return bad;
}

/* The values that the third pass codes. 1 where one lies behind the end of the row. */
INLINE int list_values(Segment *s, Lists *l, const int size)
{
    int count = 0;
    memset(l->got, 0, sizeof l->got);
    for (int i = 0; i < s->chunk_count; i++) {
        const int chunk = l->chunks[i], x = l->masks[chunk];
        l->got[chunk >> 2] = (uint8_t)(l->got[chunk >> 2] + ONES[x]);
        for (int k = 0; k < size; k++) {
            l->values[count] = l->notes[chunk] + (uint32_t)k * 0x10000001u;
            count += x >> k & 1;
        }
    }
    s->value_count = count;
    return count && (int)(l->values[count - 1] & 65535) >= s->width;
}

/* What the units learn from the masks. */
INLINE void learn_masks(const FastModel *m, Segment *s, const Lists *l, const Row *row, const int size, const int per)
{
    s->held = s->ones = 0;
    for (int u = 0; u < s->count; u++) {
        Unit *const unit = &s->units[u];
        const int held = per > 1 ? ONES[l->full[u]] : 1;
        s->held += held;
        s->ones += l->got[u];
        if (held)
            unit->dense = (uint16_t)step(unit->dense, m->part[size * held][l->got[u]], row->rate);
        unit->above = (uint16_t)least(l->got[u], 4);
    }
}

/* What the tensor learns from a segment. */
INLINE void learn_segment(Averages *all, const Segment *s, const Row *row, const int size, const int per)
{
    all->full = step(all->full, s->held * 1024 / (s->count * per) * 64, 2);
    all->dense = step(all->dense, s->held ? s->ones * 1024 / (s->held * size) * 64 : 0, 2);
    all->size = step(all->size, (int)row->size.now, 1);
}

#endif
