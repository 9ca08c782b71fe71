/* Probability tables, the range coder and adaptive bits: what the models of the `.few` coder share
 * (docs/format.md, sections 4 to 6). All arithmetic is on integers. Each model is written once, as a function with
 * a compile-time `enc` flag, so that encoder and decoder cannot drift apart.
 */
#ifndef FEWBITS_BITS_H
#define FEWBITS_BITS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_MSC_VER)
#define INLINE static __forceinline
#else
#define INLINE static inline __attribute__((always_inline))
#endif

#if defined(_MSC_VER) && !defined(__clang__) && (!defined(__STDC_VERSION__) || __STDC_VERSION__ < 201112L)
#define _Static_assert(holds, why) typedef char static_assertion[(holds) ? 1 : -1]
#endif

#define IS_POWER(x) ((x) > 0 && ((x) & ((x) - 1)) == 0) /* of two */

#define COUNT(table) (sizeof(table) / sizeof *(table))

_Static_assert(sizeof(int) >= 4, "magnitudes and products of log-odds are held in int");
_Static_assert(-1 >> 1 == -1, "signed right shifts round down");

/* ---------------------------------------------------------------- tables */

static const int32_t SQUASH_NODES[33] = {
    22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
    4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};
static uint16_t squash_table[4096];  /* log-odds (8 fractional bits) + 2048 -> probability of 65536 */
static int16_t stretch_table[4096];  /* probability of 4096 -> log-odds, the inverse of squash */
static uint32_t rate_table[1024];

_Static_assert(COUNT(SQUASH_NODES) == 4096 / 128 + 1, "a node every 128, and one at the end");

static void build_tables(void)
{
    int next = 0;
    for (int x = -2048; x < 2048; x++) {
        int node = (x + 2048) >> 7, part = (x + 2048) & 127;
        int p = (SQUASH_NODES[node] * (128 - part) + SQUASH_NODES[node + 1] * part + 64) >> 7;
        squash_table[x + 2048] = (uint16_t)p;
        for (; next <= p >> 4; next++)
            stretch_table[next] = (int16_t)x;
    }
    for (; next < 4096; next++)
        stretch_table[next] = 2047;
    for (int n = 0; n < 1024; n++)
        rate_table[n] = 131072u / (uint32_t)(2 * n + 3);
}

/* ---------------------------------------------------------------- range coder */

typedef struct {
    uint64_t low;
    uint32_t range, code;
    uint8_t *out; /* encoder */
    size_t size, capacity, pending;
    int cache; /* last byte not yet written, -1 before the first */
    int failed;
    const uint8_t *in; /* decoder */
    size_t in_size, position;
} Coder;

static void put(Coder *c, int byte)
{
    if (c->size == c->capacity) {
        size_t bigger = c->capacity ? c->capacity * 2 : 256;
        uint8_t *moved = bigger > c->capacity ? realloc(c->out, bigger) : NULL;
        if (!moved) {
            c->failed = 1;
            return;
        }
        c->out = moved;
        c->capacity = bigger;
    }
    c->out[c->size++] = (uint8_t)byte;
}

static void shift_low(Coder *c)
{
    if (c->low < 0xFF000000u || c->low > 0xFFFFFFFFu) {
        int carry = (int)(c->low >> 32);
        if (c->cache >= 0)
            put(c, c->cache + carry);
        for (; c->pending; c->pending--)
            put(c, 0xFF + carry);
        c->cache = (int)(c->low >> 24) & 0xFF;
    } else {
        c->pending++;
    }
    c->low = (c->low & 0x00FFFFFFu) << 8;
}

static void start_encoder(Coder *c)
{
    memset(c, 0, sizeof *c);
    c->range = 0xFFFFFFFFu;
    c->cache = -1;
}

static void finish_encoder(Coder *c)
{
    for (int bits = 32; bits >= 0; bits--) {
        uint64_t mask = ((uint64_t)1 << bits) - 1;
        uint64_t value = (c->low + mask) & ~mask;
        if (value - c->low < c->range) {
            c->low = value;
            break;
        }
    }
    for (int i = 0; i < 5; i++)
        shift_low(c);
    while (c->size && c->out[c->size - 1] == 0)
        c->size--;
}

INLINE uint32_t next_byte(Coder *c)
{
    uint32_t byte = c->position < c->in_size ? c->in[c->position] : 0;
    c->position++;
    return byte;
}

static void start_decoder(Coder *c, const uint8_t *data, size_t size)
{
    memset(c, 0, sizeof *c);
    c->range = 0xFFFFFFFFu;
    c->in = data;
    c->in_size = size;
    for (int i = 0; i < 4; i++)
        c->code = c->code << 8 | next_byte(c);
}

/* One bit whose probability of being 1 is p / 65536. */
INLINE int code_bit(Coder *c, uint32_t p, int bit, const int enc)
{
    uint32_t bound = (c->range >> 16) * p;
    if (enc) {
        if (bit) {
            c->range = bound;
        } else {
            c->low += bound;
            c->range -= bound;
        }
        while (c->range < 0x01000000u) {
            c->range <<= 8;
            shift_low(c);
        }
    } else {
        bit = c->code < bound;
        if (bit) {
            c->range = bound;
        } else {
            c->code -= bound;
            c->range -= bound;
        }
        while (c->range < 0x01000000u) {
            c->range <<= 8;
            c->code = c->code << 8 | next_byte(c);
        }
    }
    return bit;
}

/* ---------------------------------------------------------------- adaptive bits */

/* A slot holds a probability of 1 (upper 22 bits) and how often it was used (lower 10 bits). */
#define FRESH (1u << 31)

_Static_assert(COUNT(rate_table) == 1 << 10, "a rate for each count of uses");

INLINE void learn(uint32_t *slot, int bit)
{
    uint32_t count = *slot & 1023, p = *slot >> 10;
    uint64_t rate = rate_table[count];
    if (bit)
        p += (uint32_t)((4194303u - p) * rate >> 16);
    else
        p -= (uint32_t)(p * rate >> 16);
    *slot = p << 10 | (count + (count < 1023));
}

/* One bit predicted by one slot. */
static int single_bit(Coder *c, uint32_t *slot, int bit, const int enc)
{
    uint32_t p = *slot >> 16;
    p = p < 32 ? 32 : p > 65504 ? 65504 : p;
    bit = code_bit(c, p, bit, enc);
    learn(slot, bit);
    return bit;
}

#define WEIGHT_BOUND (1 << 22)

/* One bit predicted by n slots: their log-odds are added with weights (65536 = 1.0) that learn from the error.
 * `chance` receives the probability that the bit was coded with. */
INLINE int told_bit(Coder *c, uint32_t *const *slots, int32_t *weights, const int n, int bit, int32_t *chance,
                    const int enc)
{
    int32_t inputs[6];
    int64_t sum = 0;
    for (int i = 0; i < n; i++) {
        inputs[i] = stretch_table[*slots[i] >> 20];
        sum += (int64_t)inputs[i] * weights[i];
    }
    sum >>= 16;
    int32_t odds = sum > 2047 ? 2047 : sum < -2047 ? -2047 : (int32_t)sum;
    int32_t p = *chance = squash_table[odds + 2048];
    bit = code_bit(c, (uint32_t)p, bit, enc);
    int32_t error = bit ? 65536 - p : -p;
    for (int i = 0; i < n; i++) {
        int32_t weight = weights[i] + ((inputs[i] * error + (1 << 18)) >> 19);
        weights[i] = weight > WEIGHT_BOUND ? WEIGHT_BOUND : weight < -WEIGHT_BOUND ? -WEIGHT_BOUND : weight;
        learn(slots[i], bit);
    }
    return bit;
}

INLINE int mixed_bit(Coder *c, uint32_t *const *slots, int32_t *weights, const int n, int bit, const int enc)
{
    int32_t chance;
    return told_bit(c, slots, weights, n, bit, &chance, enc);
}

/* A fresh model: `slots` slots at one half, then `weights` mixing weights. */
static void start_model(uint32_t *slots, size_t slot_count, int32_t *weights, size_t weight_count, int32_t weight)
{
    for (size_t i = 0; i < slot_count; i++)
        slots[i] = FRESH;
    for (size_t i = 0; i < weight_count; i++)
        weights[i] = weight;
}

INLINE int least(int value, int bound) { return value < bound ? value : bound; }

#endif
