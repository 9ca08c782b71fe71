/* Coder 3: integer levels, smaller files (docs/format.md, section 10). */
#ifndef FEWBITS_SMALL_H
#define FEWBITS_SMALL_H

#include "levels.h"

#define SMALL_FLAGS 6      /* magnitudes 1 .. 6 are coded by flags, larger ones by an escape */
#define SMALL_NEAR 6       /* neighbours */
#define SMALL_CLASSES 19   /* of a share's log-odds */
#define SMALL_GROUP 8      /* columns of a group where rows have no kernels */
#define SMALL_MASK 65535   /* columns, channels and groups this far apart share their shares: bounds the memory */
#define SMALL_ONE 4194303u /* a share of 1 */

static int16_t small_log[4096]; /* 256 ln(3 (i + 1/2) / 4096): the mean magnitude whose share is i of 4096 */
static uint8_t small_step[128]; /* 15 classes of a prediction's strength / 16 */

/* 256 ln x for 0 < x < 2^15, from ten binary digits of log2 x. */
static int small_ln(uint32_t x)
{
    int log2 = 15;
    for (; x < 1u << 15; x <<= 1)
        log2--;
    for (int i = 0; i < 10; i++) {
        x = x * x >> 15;
        log2 = log2 << 1 | (int)(x >> 16);
        x >>= x >> 16;
    }
    return (log2 * 22713 + (1 << 16)) >> 17;
}

/* Once, beside build_tables. */
static void build_small_tables(void)
{
    static const int bounds[15] = {1, 3, 5, 9, 13, 18, 24, 32, 40, 50, 63, 79, 94, 113, 128};
    for (int i = 0; i < 4096; i++)
        small_log[i] = (int16_t)(small_ln(2 * (uint32_t)i + 1) - 2026);
    for (int i = 0, class = 0; i < 128; i++) {
        class += i >= bounds[class];
        small_step[i] = (uint8_t)class;
    }
}

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

_Static_assert(SMALL_CLASSES == ((281 + 2047) >> 7) + 1, "281 is the last entry of small_log");
_Static_assert(IS_POWER(SMALL_MASK + 1), "a mask of low bits");

typedef struct {
    int8_t *lines; /* three rows of levels within -7 .. 7, each behind a margin of zeros */
    uint32_t *columns, *channels, *groups;
    uint16_t *leans;
} SmallMemory;

/* A slot moves towards a target of at most SMALL_ONE; its count stops at `limit`, which keeps it moving. */
INLINE void small_learn(uint32_t *slot, const uint32_t target, const uint32_t limit)
{
    const uint32_t count = *slot & 1023;
    const int64_t p = *slot >> 10;
    const int64_t moved = p + (((int64_t)target - p) * (int64_t)rate_table[count] >> 16);
    *slot = (uint32_t)moved << 10 | (count + (count < limit));
}

INLINE void small_bit(uint32_t *slot, int bit) { small_learn(slot, bit ? SMALL_ONE : 0, 1023); }

/* A share that starts where another one stands. */
INLINE uint32_t small_child(uint32_t share, uint32_t count) { return (share & ~1023u) | count; }

INLINE int small_odds(uint32_t share)
{
    const int odds = share >= 1u << 26 ? small_log[share >> 20] : small_log[share >> 14] - 1065;
    return odds < -2047 ? -2047 : odds;
}

INLINE int small_class(int odds) { return (odds + 2047) >> 7; }

INLINE int small_stretch(const uint32_t *slot) { return stretch_table[*slot >> 20]; }

INLINE int small_within(int value, int bound) { return value < -bound ? -bound : value > bound ? bound : value; }

INLINE int small_size(int value) { return value < 0 ? -value : value; }

INLINE int small_trit(int level) { return level ? 1 + (level < 0) : 0; }

/* One bit: inputs in log-odds are added with weights that learn from the error, faster at first. Sums wrap. */
INLINE int small_mixed(Coder *c, const int *inputs, int32_t *weights, const int n, uint32_t *age, int *odds, int bit,
                       const int enc)
{
    uint32_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += (uint32_t)inputs[i] * (uint32_t)weights[i];
    *odds = small_within((int32_t)sum >> 16, 2047);
    const int32_t p = squash_table[*odds + 2048];
    bit = code_bit(c, (uint32_t)p, bit, enc);
    const int32_t haste = *age < 4000 ? *age < 500 ? 8 : 4 : *age < 30000 ? 2 : 1;
    const int32_t error = (bit ? 65536 - p : -p) * haste;
    *age += *age < 30000;
    for (int i = 0; i < n; i++)
        weights[i] = (int32_t)((uint32_t)weights[i] + (uint32_t)((inputs[i] * error + (1 << 16)) >> 17));
    return bit;
}

INLINE int small_single(Coder *c, uint32_t *slot, int bit, const int enc)
{
    const uint32_t p = *slot >> 16;
    bit = code_bit(c, p < 32 ? 32 : p > 65504 ? 65504 : p, bit, enc);
    small_bit(slot, bit);
    return bit;
}

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

INLINE int small_model(Coder *c, SmallModel *m, const SmallMemory *y, const Grid *g, int16_t *levels,
                       const int flat, const int grouped, const int enc)
{
    const size_t kernel = flat ? 1 : g->kernel, group = flat ? SMALL_GROUP : kernel;
    const size_t margin = kernel + 16, span = margin + g->columns;
    size_t width = 1;
    while (width * width < kernel)
        width++;
    const size_t second = flat ? 2 : width, third = flat ? 3 : width + 1, fourth = flat ? 1 : width - 1;
    int masks[64][4]; /* which of the neighbours in the kernel are there */
    for (size_t p = 0; p < 64; p++) {
        const int x = p % width > 0, up = p / width > 0;
        masks[p][0] = -(flat || x), masks[p][1] = -(flat || up), masks[p][2] = -(flat || (x && up));
        masks[p][3] = -(!flat && up && p % width + 1 < width);
    }
    int8_t *now = y->lines + margin, *above = now + span, *above2 = above + span;
    uint32_t all = 400000u << 10, all_groups = FRESH, size_average = 256;
    for (size_t r = 0; r < g->rows; r++, levels += g->columns) {
        uint32_t row = small_child(all, 4), row_groups = small_child(all_groups, 4), kernel_share = 0, places[64];
        uint32_t group_share = 0;
        uint16_t row_lean = 32768;
        size_t place = 0, channel = 0, group_number = 0, left = 0;
        int any = 0, before = 0;
        for (size_t i = 0; i < kernel; i++)
            places[i] = small_child(all, 5);
        for (size_t j = 0; j < g->columns; j++) {
            if (grouped && left == 0) {
                const size_t rest = g->columns - j, n = rest < group ? rest : group;
                int full = 0, odds;
                for (size_t i = 0; enc && i < n; i++)
                    full |= levels[j + i] != 0;
                uint32_t *share = &y->groups[group_number++ & SMALL_MASK];
                if ((*share & 1023) == 0)
                    *share = small_child(row_groups, 1);
                group_share = *share;
                const int in_row = small_odds(row_groups), here = small_odds(*share);
                uint32_t *lines = &m->group_lines[small_class(in_row)][small_class(here)];
                uint32_t *last = &m->group_before[before];
                const int in[5] = {256, in_row, here, small_stretch(lines), small_stretch(last)};
                full = small_mixed(c, in, m->group_weights, 5, &m->ages[0], &odds, full, enc);
                small_bit(lines, full), small_bit(last, full);
                const uint32_t target = full ? SMALL_ONE : 0;
                small_learn(&row_groups, target, 250), small_learn(share, target, 80);
                small_learn(&all_groups, target, 1000);
                before = (before << 1 & 2) | full;
                if (!full) {
                    memset(now + j, 0, n);
                    if (!enc)
                        memset(levels + j, 0, 2 * n);
                    j += n - 1, channel++;
                    continue;
                }
                left = n, any = 0;
            }
            uint32_t *column = &y->columns[j & SMALL_MASK], *of_channel = &y->channels[channel & SMALL_MASK];
            uint16_t *lean = &y->leans[j & SMALL_MASK];
            if ((*column & 1023) == 0)
                *column = small_child(row, 2), *lean = 32768;
            if (!flat && place == 0) {
                if ((*of_channel & 1023) == 0)
                    *of_channel = small_child(row, 1);
                kernel_share = small_child(*of_channel, 1);
            }
            const int *mask = masks[place];
            const int8_t *at = now + j;
            const int near[SMALL_NEAR] = {at[-1] & mask[0], *(at - second) & mask[1], *(at - third) & mask[2],
                                          *(at - fourth) & mask[3], flat ? above2[j] : *(at - kernel), above[j]};
            int32_t *pull = m->pull[place];
            int sign = 0, s[SMALL_NEAR];
            for (int i = 0; i < SMALL_NEAR; i++) {
                sign += near[i] * pull[i];
                s[i] = small_size(near[i]);
            }
            sign = small_within(sign >> 8, 2047);
            const int strength = small_step[small_size(sign) >> 4];
            int busy = 3 * (least(s[0], 3) + least(s[1], 3)) + least(s[2], 3) + least(s[3], 3);
            busy = least(busy + least(s[4], 2) + least(s[5], 2), 31);
            const int shape = (small_within(near[0], 2) * 5 + small_within(near[1], 2)) * 9 +
                              small_within(near[2], 1) * 3 + small_within(near[3], 1) + 112;
            const int in_row = small_odds(row), in_column = small_odds(*column);
            uint32_t *active = &m->active[small_class(in_row)][strength][busy], *shaped = &m->shape[shape];
            uint32_t *within = grouped ? &m->within[left - 1][any] : NULL;
            const int in[9] = {256, in_row, in_column, small_stretch(active), small_stretch(shaped),
                               grouped ? small_odds(group_share) : flat ? 0 : small_odds(*of_channel),
                               flat ? 0 : small_odds(places[place]), flat ? 0 : small_odds(kernel_share),
                               grouped ? small_stretch(within) : 0};
            int value = enc ? levels[j] : 0, nonzero = 1, odds = 0, kept = 0;
            uint32_t target = 0;
            if (!grouped || left > 1 || any) { /* else it is the last of a group that is not empty */
                nonzero = small_mixed(c, in, m->zero_weights, 9, &m->ages[1], &odds, value != 0, enc);
                if (grouped)
                    small_bit(within, nonzero);
            }
            small_bit(active, nonzero), small_bit(shaped, nonzero);
            if (nonzero) {
                int negative = value < 0, unused;
                if (g->lowest < 0 && g->highest > 0) {
                    const int trits = (small_trit(near[0]) * 3 + small_trit(near[1])) * 9 + small_trit(near[2]) * 3;
                    uint32_t *signs[3] = {&m->sign_around[trits + small_trit(near[3])],
                                          &m->sign_lines[*lean >> 12][row_lean >> 12],
                                          &m->sign_pull[strength][sign < 0]};
                    const int si[4] = {-sign, small_stretch(signs[0]), small_stretch(signs[1]),
                                       small_stretch(signs[2])};
                    negative = small_mixed(c, si, m->sign_weights, 4, &m->ages[2], &unused, negative, enc);
                    for (int i = 0; i < 3; i++)
                        small_bit(signs[i], negative);
                    const int error = (negative ? 65536 : 0) - squash_table[2048 - sign];
                    for (int i = 0; i < SMALL_NEAR; i++)
                        pull[i] = small_within(pull[i] - (near[i] * error >> 7), 1 << 20);
                } else {
                    negative = g->lowest < 0;
                }
                const int bound = negative ? -g->lowest : g->highest, true_size = small_size(value);
                if (bound == 0)
                    return 1;
                int size = 1, more = 1;
                while (more && size <= SMALL_FLAGS && size < bound) {
                    const int k = size - 1;
                    uint32_t *lines = &m->more_lines[k][small_class(in_row)][small_class(in_column)];
                    uint32_t *scored = &m->more_odds[k][(odds + 2048) >> 6], *side = &m->more_sign[k][negative];
                    const int mi[4] = {negative ? -sign : sign, small_stretch(lines), small_stretch(scored),
                                       small_stretch(side)};
                    more = small_mixed(c, mi, m->more_weights[k], 4, &m->ages[3 + k], &unused, true_size > size, enc);
                    small_bit(lines, more), small_bit(scored, more), small_bit(side, more);
                    size += more;
                }
                if (more && size < bound) {
                    size += small_escape(c, m, least(bit_length(size_average >> 8), 15), true_size - size + 1, enc) - 1;
                    if (size > bound)
                        return 1;
                }
                value = negative ? -size : size;
                kept = small_within(value, 7);
                target = (uint32_t)least(size, 3) * 1398101u;
                size_average += ((uint32_t)size << 5) - (size_average >> 3);
                *lean = track(*lean, !negative, 3);
                row_lean = track(row_lean, !negative, 4);
            }
            if (!enc)
                levels[j] = (int16_t)value;
            now[j] = (int8_t)kept;
            small_learn(&row, target, 250), small_learn(column, target, 80);
            if (grouped)
                left--, any |= nonzero;
            if (!flat) {
                small_learn(of_channel, target, 120), small_learn(&places[place], target, 100);
                small_learn(&kernel_share, target, 16);
                if (++place == kernel)
                    place = 0, channel++;
            }
        }
        small_learn(&all, row >> 10, 30);
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
