/* rANS for the fast coder (docs/format.md, section 11): symbols of 8 or 16 values, each predicted by the mean of two
 * adaptive tables, coded by two states in turn. As in levels.h, encoder and decoder are one function.
 */
#ifndef FEWBITS_RANS_H
#define FEWBITS_RANS_H

#include "levels.h"

#if defined(__SSE2__) && !defined(FAST_SCALAR)
#include <emmintrin.h>
#define FAST_SSE2
#endif

#define ONE 32768u    /* probability 1 */
#define START 65536u  /* first state of an encoder, last of a decoder, and the lowest between symbols */
#define UNITS 256     /* a segment: at most so many units of a row */
#define BLOCK 65536   /* a block ends with the first segment that brings it to so many symbols */
#define MOST (UNITS * 5 + UNITS * 16 * 4) /* symbols of a segment, at most */

enum { /* tables: for most symbols one by running shares and one by neighbours */
    FULL_LINES = 0,
    FULL_NEAR = FULL_LINES + 256,
    MASK_LINES = FULL_NEAR + 25 * 16,
    MASK_NEAR = MASK_LINES + 16 * 64,
    VALUE_SIZE = MASK_NEAR + 25 * 16,
    VALUE_NEAR = VALUE_SIZE + 16 * 16,
    LENGTH = VALUE_NEAR + 16 * 20,
    TOP = LENGTH,
    TABLES = LENGTH + 16
};

typedef struct {
    uint16_t start[TABLES][16]; /* where each symbol starts, of ONE; the first entry counts uses: 32768 and upwards */
    uint16_t target[16][16];    /* what a table moves towards after each symbol */
    uint8_t rate[128], size_class[256], share_class[512];
    uint16_t part[17][17];      /* i / k of 65535 */
} FastModel;

_Static_assert(IS_POWER(ONE) && ONE == 1 << 15 && START == ONE << 1, "slots are the low 15 bits of a state");
_Static_assert(UNITS * 16 <= 1 << 16, "the place of a weight in its segment has 16 bits");
_Static_assert(sizeof ((FastModel *)0)->start[0] == 32 && offsetof(FastModel, target) % 16 == 0,
               "tables are loaded by 16 bytes");

typedef struct {
    uint16_t full, dense, size; /* running shares of chunks that hold something and of non-zeros, running magnitude */
    uint16_t above;             /* non-zeros in the previous row, at most 4 */
} Unit;

typedef struct {
    uint32_t state, other; /* of the next symbol, of the one after it */
    const uint8_t *in, *end;
    uint32_t *record; /* encoder: start << 16 | frequency of every symbol of the block */
    uint8_t *words, *out, *tail;
    size_t count, size, capacity; /* symbols of the block; bytes written */
    int tailed;
} Rans;

INLINE uint32_t read32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Decoder: MOST words can be read afterwards without a check; near the end, from a copy with zeros behind it. */
static int begin_segment(Rans *c)
{
    const size_t left = (size_t)(c->end - c->in);
    if (!c->tailed && left < 2 * MOST + 8) {
        memcpy(c->tail, c->in, left);
        memset(c->tail + left, 0, 4 * MOST + 16 - left);
        c->in = c->tail;
        c->end = c->tail + left;
        c->tailed = 1;
    }
    if (c->count)
        return 0;
    c->state = read32(c->in);
    c->other = read32(c->in + 4);
    c->in += 8;
    return c->in > c->end || c->state < START || c->other < START;
}

/* Decoder: 1 unless both states are back at their start. Encoder: codes the record backwards; 2 without memory. */
static int end_block(Rans *c, int enc)
{
    uint8_t *const end = c->words + 2 * (MOST + BLOCK) + 8, *word = end;
    uint32_t state[2] = {START, START};
    if (!enc) {
        c->count = 0;
        return c->state != START || c->other != START;
    }
    while (c->count) {
        const uint32_t symbol = c->record[--c->count], frequency = symbol & 65535;
        uint32_t x = state[c->count & 1];
        if (x >> 17 >= frequency) {
            *--word = (uint8_t)(x >> 8);
            *--word = (uint8_t)x;
            x >>= 16;
        }
        state[c->count & 1] = (x / frequency << 15) + x % frequency + (symbol >> 16);
    }
    for (int k = 7; k >= 0; k--)
        *--word = (uint8_t)(state[k >> 2] >> 8 * (k & 3));
    const size_t size = (size_t)(end - word);
    if (size > c->capacity - c->size) {
        const size_t bigger = c->capacity * 2 + size;
        uint8_t *moved = realloc(c->out, bigger);
        if (!moved)
            return 2;
        c->out = moved;
        c->capacity = bigger;
    }
    memcpy(c->out + c->size, word, size);
    c->size += size;
    return 0;
}

INLINE void code_range(Rans *c, uint32_t start, uint32_t frequency, const int enc)
{
    if (enc) {
        c->record[c->count++] = start << 16 | frequency;
    } else {
        uint32_t x = frequency * (c->state >> 15) + (c->state & 32767) - start;
        const uint32_t low = x < START; /* no branch: it would often be mispredicted */
        x = x << (low << 4) | ((c->in[0] | (uint32_t)c->in[1] << 8) & (0 - low));
        c->in += low << 1;
        c->state = c->other;
        c->other = x;
    }
}

INLINE void adapt(FastModel *m, int table, int symbol, const int n)
{
    uint16_t *x = m->start[table];
    const uint16_t *target = m->target[symbol];
    const int rate = m->rate[x[0] >> 8 & 127];
#ifdef FAST_SSE2
    const __m128i shift = _mm_cvtsi32_si128(rate);
    for (int k = 0; k < n; k += 8) {
        const __m128i old = _mm_load_si128((const __m128i *)(x + k));
        const __m128i way = _mm_sub_epi16(_mm_load_si128((const __m128i *)(target + k)), old);
        _mm_store_si128((__m128i *)(x + k), _mm_add_epi16(old, _mm_sra_epi16(way, shift)));
    }
#else
    for (int k = 0; k < n; k++)
        x[k] = (uint16_t)(x[k] + ((target[k] - x[k]) >> rate));
#endif
}

/* A symbol of n values (8 or 16), predicted by the mean of tables i and j. */
INLINE int code_symbol(Rans *c, FastModel *m, int i, int j, int symbol, const int n, const int enc)
{
    const uint16_t *a = m->start[i], *b = m->start[j];
    uint16_t mean[17];
    if (enc) {
        mean[symbol] = (uint16_t)((a[symbol] + b[symbol] + 1) >> 1);
        if (symbol + 1 < n)
            mean[symbol + 1] = (uint16_t)((a[symbol + 1] + b[symbol + 1] + 1) >> 1);
    } else {
#ifdef FAST_SSE2
        const __m128i slot = _mm_set1_epi16((short)(c->state & 32767));
        const __m128i low = _mm_avg_epu16(_mm_load_si128((const __m128i *)a), _mm_load_si128((const __m128i *)b));
        __m128i high = _mm_set1_epi16(-1);
        _mm_storeu_si128((__m128i *)mean, low);
        if (n == 16) {
            high = _mm_avg_epu16(_mm_load_si128((const __m128i *)(a + 8)), _mm_load_si128((const __m128i *)(b + 8)));
            _mm_storeu_si128((__m128i *)(mean + 8), high);
            high = _mm_cmpgt_epi16(high, slot);
        } /* the first entry is negative for this comparison, so never above */
        high = _mm_packs_epi16(_mm_cmpgt_epi16(low, slot), high);
        symbol = __builtin_ctz((unsigned)_mm_movemask_epi8(high) | 1u << n) - 1;
#else
        const uint32_t slot = c->state & 32767;
        symbol = 0;
        for (int k = 1; k < n; k++) {
            mean[k] = (uint16_t)((a[k] + b[k] + 1) >> 1);
            symbol += mean[k] <= slot;
        }
#endif
    }
    mean[0] = 0;
    mean[n] = ONE;
    code_range(c, mean[symbol], (uint32_t)(mean[symbol + 1] - mean[symbol]), enc);
    adapt(m, i, symbol, n);
    if (i != j)
        adapt(m, j, symbol, n);
    return symbol;
}

#endif
