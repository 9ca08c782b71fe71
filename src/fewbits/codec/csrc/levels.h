/* Coder 1: integer levels (docs/format.md, section 7). */
#ifndef FEWBITS_LEVELS_H
#define FEWBITS_LEVELS_H

#include "bits.h"

#define FLAGS 2       /* magnitudes 1 and 2 are coded by flags, larger ones by an escape */
#define SUFFIX 32     /* bits of an escape that follow fewer than 5 bits are adaptive */
#define MAGNITUDE 7   /* a remembered neighbour: magnitude clipped to 7, and 8 where it is negative */

typedef struct {
    size_t rows, columns, kernel;
    int lowest, highest; /* lowest <= 0 <= highest */
} Grid;

typedef struct {
    uint32_t around[243], lines[16][16], place[64][9], recent[16][13], channel[16][16], trend[16][16];
    uint32_t sign_around[27], sign_place[64][3], sign_lines[16][16];
    uint32_t more_around[FLAGS][16], more_size[FLAGS][16][2], more_place[FLAGS][64];
    uint32_t prefix[16][16], suffix[16][SUFFIX];
    int32_t zero_weights[13][6], sign_weights[3], more_weights[FLAGS][3];
} LevelModel;

_Static_assert(COUNT(((LevelModel *)0)->around) == 3 * 3 * 3 * 3 * 3, "five neighbours of 0, 1 or more");
_Static_assert(IS_POWER(SUFFIX) && IS_POWER(MAGNITUDE + 1), "both bound fields of bits");

typedef struct {
    uint8_t *lines;                    /* three rows of neighbours, each behind a margin of zeros */
    uint16_t *columns, *leans, *channels; /* running shares: non-zeros and positive signs per column, per channel */
} LevelMemory;

/* A running share of ones (65535 = all), moved towards `bit` by 2 ** -rate. */
INLINE uint16_t track(uint16_t share, int bit, const int rate)
{
    return (uint16_t)(bit ? share + ((65535 - share) >> rate) : share - (share >> rate));
}

/* 16 classes of a running share, evenly spaced in log-odds. */
INLINE int class_of(uint16_t share) { return (stretch_table[share >> 4] + 2048) >> 8; }

INLINE int trit(int neighbour) { return neighbour ? 1 + (neighbour >> 3) : 0; }

static int bit_length(uint32_t value)
{
    int n = 0;
    for (; value; value >>= 1)
        n++;
    return n;
}

/* value >= 1 as Exp-Golomb: its bit length in unary, then the bits below the top one. Bounded by 2 ** 16 - 1. */
static uint32_t escape(Coder *c, LevelModel *m, int class, uint32_t value, const int enc)
{
    int n = 0, length = bit_length(value) - 1;
    while (n < 15 && single_bit(c, &m->prefix[class][n], n < length, enc))
        n++;
    uint32_t got = 1;
    for (int i = n - 1; i >= 0; i--) {
        int bit = value >> i & 1;
        bit = got < SUFFIX ? single_bit(c, &m->suffix[n][got], bit, enc) : code_bit(c, 32768, bit, enc);
        got = got << 1 | (uint32_t)bit;
    }
    return got;
}

/* With `chances`, the probability (of 65536) of each level not to be zero goes there. */
INLINE int model_levels(Coder *c, LevelModel *m, const LevelMemory *y, const Grid *g, int16_t *levels,
                        uint16_t *chances, const int enc)
{
    const size_t reach = g->kernel > 1 ? g->kernel : 3, margin = 2 * reach, span = margin + g->columns;
    uint8_t *now = y->lines + margin, *above = now + span, *above2 = above + span;
    uint16_t fast = 8192, slow = 8192;
    uint32_t size_average = 256; /* of non-zero magnitudes, 256 = 1.0 */
    for (size_t r = 0; r < g->rows; r++, levels += g->columns) {
        uint16_t row = slow, row_lean = 32768;
        size_t place = 0, channel = 0;
        int filled = 0; /* non-zeros so far in this channel of this row */
        for (size_t j = 0; j < g->columns; j++) {
            if (r == 0) {
                y->columns[j] = fast;
                y->leans[j] = 32768;
                if (place == 0)
                    y->channels[channel] = fast;
            }
            const uint8_t *at = now + j; /* an unsigned index below 0 would be undefined */
            const int left = at[-1], behind = *(at - reach), up = above[j];
            const int a = left & MAGNITUDE, b = at[-2] & MAGNITUDE, d = behind & MAGNITUDE;
            const int e = *(at - 2 * reach) & MAGNITUDE, f = up & MAGNITUDE, h = above2[j] & MAGNITUDE;
            const int a2 = least(a, 2), b2 = least(b, 2), d2 = least(d, 2), e2 = least(e, 2), f2 = least(f, 2);
            const int busy = a2 + b2 + d2 + e2 + f2 + least(h, 2);
            const int spot = place < 63 ? (int)place : 63, recent = class_of(fast);
            uint32_t *zero[6] = {
                &m->around[(((a2 * 3 + b2) * 3 + d2) * 3 + f2) * 3 + e2],
                &m->lines[class_of(y->columns[j])][class_of(row)],
                &m->place[spot][(!!d + !!e) * 3 + !!f + !!h],
                &m->recent[recent][busy],
                &m->channel[class_of(y->channels[channel])][least(filled, 15)],
                &m->trend[class_of(slow)][recent],
            };
            int value = enc ? levels[j] : 0, neighbour = 0;
            int32_t chance;
            const int nonzero = told_bit(c, zero, m->zero_weights[busy], 6, value != 0, &chance, enc);
            if (chances)
                *chances++ = (uint16_t)chance;
            if (nonzero) {
                int negative = value < 0;
                if (g->lowest < 0 && g->highest > 0) {
                    const int before = trit(behind);
                    uint32_t *sign[3] = {
                        &m->sign_around[(trit(left) * 3 + before) * 3 + trit(up)],
                        &m->sign_place[spot][before],
                        &m->sign_lines[y->leans[j] >> 12][row_lean >> 12],
                    };
                    negative = mixed_bit(c, sign, m->sign_weights, 3, negative, enc);
                } else {
                    negative = g->lowest < 0;
                }
                const int bound = negative ? -g->lowest : g->highest, target = value < 0 ? -value : value;
                if (bound == 0)
                    return 1;
                const int near = least(a + b + d + f, 15), usual = least((int)(size_average >> 7), 15);
                int size = 1, more = 1;
                while (more && size <= FLAGS && size < bound) {
                    const int k = size - 1;
                    uint32_t *larger[3] = {&m->more_around[k][near], &m->more_size[k][usual][negative],
                                           &m->more_place[k][spot]};
                    more = mixed_bit(c, larger, m->more_weights[k], 3, target > size, enc);
                    size += more;
                }
                if (more && size < bound) {
                    const int class = least(bit_length(size_average >> 8), 15);
                    size += (int)escape(c, m, class, enc ? (uint32_t)(target - size + 1) : 0, enc) - 1;
                    if (size > bound)
                        return 1;
                }
                value = negative ? -size : size;
                neighbour = least(size, MAGNITUDE) | negative << 3;
                size_average += ((uint32_t)size << 5) - (size_average >> 3);
                filled++;
                y->leans[j] = track(y->leans[j], !negative, 3);
                row_lean = track(row_lean, !negative, 4);
            }
            if (!enc)
                levels[j] = (int16_t)value;
            now[j] = (uint8_t)neighbour;
            fast = track(fast, nonzero, 4);
            slow = track(slow, nonzero, 9);
            row = track(row, nonzero, 6);
            y->columns[j] = track(y->columns[j], nonzero, 4);
            y->channels[channel] = track(y->channels[channel], nonzero, 5);
            if (++place == g->kernel) {
                place = 0;
                filled = 0;
                channel++;
            }
        }
        uint8_t *oldest = above2;
        above2 = above;
        above = now;
        now = oldest;
    }
    return 0;
}

/* 0, or 1 where the stream breaks the rules (decoding only), or 2 without memory. */
static int run_levels(Coder *c, const Grid *g, int16_t *levels, uint16_t *chances, int enc)
{
    const size_t span = g->columns + 2 * (g->kernel > 1 ? g->kernel : 3);
    LevelModel *m = malloc(sizeof *m);
    LevelMemory y = {calloc(span, 3), malloc(g->columns * 2), malloc(g->columns * 2), malloc(g->columns * 2)};
    int status = 2;
    if (m && y.lines && y.columns && y.leans && y.channels) {
        start_model((uint32_t *)m, offsetof(LevelModel, zero_weights) / 4, &m->zero_weights[0][0], 13 * 6, 11000);
        start_model(NULL, 0, m->sign_weights, 3, 21000);
        start_model(NULL, 0, &m->more_weights[0][0], FLAGS * 3, 21000);
        status = chances ? model_levels(c, m, &y, g, levels, chances, 1)
                 : enc   ? model_levels(c, m, &y, g, levels, NULL, 1)
                         : model_levels(c, m, &y, g, levels, NULL, 0);
    }
    free(m);
    free(y.lines);
    free(y.columns);
    free(y.leans);
    free(y.channels);
    return status;
}

static int code_levels(Coder *c, const Grid *g, int16_t *levels, int enc)
{
    return run_levels(c, g, levels, NULL, enc);
}

/* The probability with which each level would be coded as not zero, given all before it; 0, or 2 without memory. */
static int level_chances(const Grid *g, int16_t *levels, uint16_t *chances)
{
    Coder nowhere;
    start_encoder(&nowhere);
    const int status = run_levels(&nowhere, g, levels, chances, 1);
    const int failed = nowhere.failed;
    free(nowhere.out);
    return failed ? 2 : status;
}

#endif
