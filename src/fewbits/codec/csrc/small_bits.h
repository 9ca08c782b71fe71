/* Shares, and bits mixed from several inputs, as coder 3 has them (docs/format.md, section 10). */
#ifndef FEWBITS_SMALL_BITS_H
#define FEWBITS_SMALL_BITS_H

#include "levels.h"

#define SMALL_CLASSES 19   /* of a share's log-odds */
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

_Static_assert(SMALL_CLASSES == ((281 + 2047) >> 7) + 1, "281 is the last entry of small_log");

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

#endif
