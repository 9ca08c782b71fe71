/* The passes over one weight of coder 3 (docs/format.md, section 10): its group, its neighbours, whether it is zero,
 * its sign, its magnitude. Where `flat`, a row is one line; else it is kernels, seen as pictures. Where `grouped`,
 * weights come in groups, which may be empty.
 */
#ifndef FEWBITS_SMALL_LEVEL_H
#define FEWBITS_SMALL_LEVEL_H

#include "small_bits.h"

#define SMALL_FLAGS 6      /* magnitudes 1 .. 6 are coded by flags, larger ones by an escape */
#define SMALL_NEAR 6       /* neighbours */
#define SMALL_GROUP 8      /* columns of a group where rows have no kernels */
#define SMALL_MASK 65535   /* columns, channels and groups this far apart share their shares: bounds the memory */

typedef struct {
    uint32_t active[SMALL_CLASSES][16][32], shape[225], within[64][2];
    uint32_t group_lines[SMALL_CLASSES][SMALL_CLASSES], group_before[4];
    uint32_t sign_around[81], sign_lines[16][16], sign_pull[16][2];
    uint32_t more_lines[SMALL_FLAGS][SMALL_CLASSES][SMALL_CLASSES], more_odds[SMALL_FLAGS][64];
    uint32_t more_sign[SMALL_FLAGS][2];
    uint32_t prefix[16][16], suffix[16][SUFFIX];
    uint32_t ages[3 + SMALL_FLAGS]; /* bits mixed so far: of groups, zero flags, signs, each magnitude flag */
    int32_t group_weights[5], zero_weights[9], sign_weights[4], more_weights[SMALL_FLAGS][4], pull[64][SMALL_NEAR];
} SmallModel;

_Static_assert(IS_POWER(SMALL_MASK + 1), "a mask of low bits");

typedef struct {
    int8_t *lines; /* three rows of levels within -7 .. 7, each behind a margin of zeros */
    uint32_t *columns, *channels, *groups;
    uint16_t *leans;
} SmallMemory;

typedef struct {
    uint32_t share, groups, size; /* of the tensor so far: share, share of groups that are not empty, 256 * magnitude */
} SmallAverages;

typedef struct {
    uint32_t share, groups, kernel, group; /* of the row, of its groups, of this kernel; of this group: in all rows */
    uint32_t *places;                      /* by place in the kernel */
    uint16_t lean;
    size_t place, channel, group_number;
    size_t left;     /* weights of this group that are still to come */
    int any, before; /* whether this group had a weight that is not zero; which of the two last groups held something */
} SmallRow;

typedef struct {
    size_t kernel, group, width; /* weights of a kernel and of a group, columns of a kernel */
    int masks[64][4];            /* by place: -1 where a neighbour in the kernel is there */
} SmallShape;

typedef struct {
    uint32_t *column, *channel;
    uint16_t *lean;
} SmallShares;

typedef struct {
    int near[SMALL_NEAR]; /* levels within -7 .. 7: left, above, above left, above right, in the previous channel or two
                           * rows above, in the previous row */
    int sign, strength;   /* log-odds of a positive sign, and their class */
    int busy, shape;      /* classes of the neighbours' magnitudes, and of the nearest levels */
    int in_row, in_column, odds;
} SmallContext;

/* As the escape of coder 1. */
INLINE int small_escape(Coder *c, SmallModel *m, int class, int value, const int enc)
{
    int n = 0, length = enc ? bit_length((uint32_t)value) - 1 : 0, got = 1;
    while (n < 15 && small_single(c, &m->prefix[class][n], n < length, enc))
        n++;
    for (int i = n - 1; i >= 0; i--) {
        int bit = value >> i & 1;
        bit = got < SUFFIX ? small_single(c, &m->suffix[n][got], bit, enc) : code_bit(c, 32768, bit, enc);
        got = got << 1 | bit;
    }
    return got;
}

INLINE SmallShape small_shape(const Grid *g, const int flat)
{
    SmallShape shape = {.kernel = flat ? 1 : g->kernel, .group = flat ? SMALL_GROUP : g->kernel, .width = 1};
    while (shape.width * shape.width < shape.kernel)
        shape.width++;
    for (size_t p = 0; p < 64; p++) {
        const int x = p % shape.width > 0, up = p / shape.width > 0;
        shape.masks[p][0] = -(flat || x), shape.masks[p][1] = -(flat || up), shape.masks[p][2] = -(flat || (x && up));
        shape.masks[p][3] = -(!flat && up && p % shape.width + 1 < shape.width);
    }
    return shape;
}

INLINE SmallRow small_start_row(const SmallAverages *all, uint32_t *places, size_t kernel)
{
    const SmallRow row = {
        .share = small_child(all->share, 4), .groups = small_child(all->groups, 4), .places = places, .lean = 32768};
    for (size_t i = 0; i < kernel; i++)
        places[i] = small_child(all->share, 5);
    return row;
}

/* Whether the next group holds something. */
INLINE int small_group(Coder *c, SmallModel *m, const SmallMemory *y, SmallAverages *all, SmallRow *row, int full,
                       const int enc)
{
    uint32_t *share = &y->groups[row->group_number++ & SMALL_MASK];
    if ((*share & 1023) == 0)
        *share = small_child(row->groups, 1);
    row->group = *share;
    const int in_row = small_odds(row->groups), here = small_odds(*share);
    uint32_t *lines = &m->group_lines[small_class(in_row)][small_class(here)], *last = &m->group_before[row->before];
    const int in[5] = {256, in_row, here, small_stretch(lines), small_stretch(last)};
    int odds;
    full = small_mixed(c, in, m->group_weights, 5, &m->ages[0], &odds, full, enc);
    small_bit(lines, full), small_bit(last, full);
    const uint32_t target = full ? SMALL_ONE : 0;
    small_learn(&row->groups, target, 250), small_learn(share, target, 80);
    small_learn(&all->groups, target, 1000);
    row->before = (row->before << 1 & 2) | full;
    return full;
}

/* The shares of column j and of the channel; those that are new start where the row stands. */
INLINE SmallShares small_shares(const SmallMemory *y, SmallRow *row, size_t j, const int flat)
{
    const SmallShares at = {&y->columns[j & SMALL_MASK], &y->channels[row->channel & SMALL_MASK],
                            &y->leans[j & SMALL_MASK]};
    if ((*at.column & 1023) == 0)
        *at.column = small_child(row->share, 2), *at.lean = 32768;
    if (!flat && row->place == 0) {
        if ((*at.channel & 1023) == 0)
            *at.channel = small_child(row->share, 1);
        row->kernel = small_child(*at.channel, 1);
    }
    return at;
}

/* What the neighbours let expect; `now`, `above` and `above2` point to this column of three rows. */
INLINE void small_look(const SmallModel *m, const SmallShape *shape, const SmallRow *row, const SmallShares *at,
                       const int8_t *now, const int8_t *above, const int8_t *above2, SmallContext *x, const int flat)
{
    const size_t second = flat ? 2 : shape->width, third = flat ? 3 : shape->width + 1;
    const size_t fourth = flat ? 1 : shape->width - 1;
    const int *mask = shape->masks[row->place];
    const int near[SMALL_NEAR] = {now[-1] & mask[0], *(now - second) & mask[1], *(now - third) & mask[2],
                                  *(now - fourth) & mask[3], flat ? *above2 : *(now - shape->kernel), *above};
    const int32_t *pull = m->pull[row->place];
    int sum = 0, s[SMALL_NEAR];
    for (int i = 0; i < SMALL_NEAR; i++) {
        x->near[i] = near[i];
        sum += near[i] * pull[i];
        s[i] = small_size(near[i]);
    }
    x->sign = small_within(sum >> 8, 2047);
    x->strength = small_step[small_size(x->sign) >> 4];
    x->busy = 3 * (least(s[0], 3) + least(s[1], 3)) + least(s[2], 3) + least(s[3], 3);
    x->busy = least(x->busy + least(s[4], 2) + least(s[5], 2), 31);
    x->shape = (small_within(near[0], 2) * 5 + small_within(near[1], 2)) * 9 + small_within(near[2], 1) * 3 +
              small_within(near[3], 1) + 112;
    x->in_row = small_odds(row->share), x->in_column = small_odds(*at->column);
    x->odds = 0;
}

/* Whether a level is not zero. The last of a group that holds something needs no bit if all before it were zero. */
INLINE int small_zero(Coder *c, SmallModel *m, const SmallRow *row, const SmallShares *at, SmallContext *x, int nonzero,
                      const int flat, const int grouped, const int enc)
{
    uint32_t *active = &m->active[small_class(x->in_row)][x->strength][x->busy], *shaped = &m->shape[x->shape];
    uint32_t *within = grouped ? &m->within[row->left - 1][row->any] : NULL;
    const int in[9] = {256, x->in_row, x->in_column, small_stretch(active), small_stretch(shaped),
                       grouped ? small_odds(row->group) : flat ? 0 : small_odds(*at->channel),
                       flat ? 0 : small_odds(row->places[row->place]), flat ? 0 : small_odds(row->kernel),
                       grouped ? small_stretch(within) : 0};
    if (!grouped || row->left > 1 || row->any) {
        nonzero = small_mixed(c, in, m->zero_weights, 9, &m->ages[1], &x->odds, nonzero, enc);
        if (grouped)
            small_bit(within, nonzero);
    } else {
        nonzero = 1;
    }
    small_bit(active, nonzero), small_bit(shaped, nonzero);
    return nonzero;
}

/* Whether a level is negative, where it may be either. */
INLINE int small_sign(Coder *c, SmallModel *m, const SmallRow *row, const SmallShares *at, const SmallContext *x,
                      int negative, const int enc)
{
    const int trits = (small_trit(x->near[0]) * 3 + small_trit(x->near[1])) * 9 + small_trit(x->near[2]) * 3;
    uint32_t *slots[3] = {&m->sign_around[trits + small_trit(x->near[3])],
                          &m->sign_lines[*at->lean >> 12][row->lean >> 12], &m->sign_pull[x->strength][x->sign < 0]};
    const int in[4] = {-x->sign, small_stretch(slots[0]), small_stretch(slots[1]), small_stretch(slots[2])};
    int odds;
    negative = small_mixed(c, in, m->sign_weights, 4, &m->ages[2], &odds, negative, enc);
    for (int i = 0; i < 3; i++)
        small_bit(slots[i], negative);
    const int error = (negative ? 65536 : 0) - squash_table[2048 - x->sign];
    int32_t *pull = m->pull[row->place];
    for (int i = 0; i < SMALL_NEAR; i++)
        pull[i] = small_within(pull[i] - (x->near[i] * error >> 7), 1 << 20);
    return negative;
}

/* The magnitude of a level that is not zero: flags, then an escape. More than `bound` where the stream is broken. */
INLINE int small_magnitude(Coder *c, SmallModel *m, const SmallAverages *all, const SmallContext *x, int negative,
                           int bound, int target, const int enc)
{
    int size = 1, more = 1, odds;
    while (more && size <= SMALL_FLAGS && size < bound) {
        const int k = size - 1;
        uint32_t *lines = &m->more_lines[k][small_class(x->in_row)][small_class(x->in_column)];
        uint32_t *scored = &m->more_odds[k][(x->odds + 2048) >> 6], *side = &m->more_sign[k][negative];
        const int in[4] = {negative ? -x->sign : x->sign, small_stretch(lines), small_stretch(scored),
                           small_stretch(side)};
        more = small_mixed(c, in, m->more_weights[k], 4, &m->ages[3 + k], &odds, target > size, enc);
        small_bit(lines, more), small_bit(scored, more), small_bit(side, more);
        size += more;
    }
    if (more && size < bound)
        size += small_escape(c, m, least(bit_length(all->size >> 8), 15), target - size + 1, enc) - 1;
    return size;
}

/* What the shares learn from a level: the target is 0, or a third of SMALL_ONE for each 1 of its magnitude up to 3. */
INLINE void small_learn_level(SmallRow *row, const SmallShares *at, uint32_t target, const size_t kernel,
                              const int flat, const int grouped)
{
    small_learn(&row->share, target, 250), small_learn(at->column, target, 80);
    if (grouped)
        row->left--, row->any |= target != 0;
    if (!flat) {
        small_learn(at->channel, target, 120), small_learn(&row->places[row->place], target, 100);
        small_learn(&row->kernel, target, 16);
        if (++row->place == kernel)
            row->place = 0, row->channel++;
    }
}

#endif
