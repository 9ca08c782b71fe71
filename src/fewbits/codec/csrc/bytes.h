/* The byte model of coder 2 and of the directory (docs/format.md, section 8). */
#ifndef FEWBITS_BYTES_H
#define FEWBITS_BYTES_H

#include "bits.h"

typedef struct {
    uint32_t order0[8][256], order1[256][256], above[256][256], order2[65536], order3[65536], order5[65536];
    int32_t weights[8][2][8][6];
} ByteModel;

_Static_assert(COUNT(((ByteModel *)0)->order2) == 1 << 16 && COUNT(((ByteModel *)0)->order3) == 1 << 16 &&
                   COUNT(((ByteModel *)0)->order5) == 1 << 16,
               "hashes have 16 bits");

/* Plane p of the data is bytes p * stride .. (p + 1) * stride - 1; stride 0 means one endless plane. */
INLINE void model_bytes(Coder *c, ByteModel *m, uint8_t *data, size_t size, size_t stride, const int enc)
{
    uint64_t history = 0; /* the latest byte lowest */
    size_t plane = 0, column = 0;
    for (size_t i = 0; i < size; i++) {
        const uint32_t up = stride && i >= stride ? data[i - stride] : 0;
        const uint32_t hash2 = (uint32_t)(history & 0xFFFF) * 0x9E3779B1u;
        const uint32_t hash3 = (uint32_t)(history & 0xFFFFFF) * 0x9E3779B1u;
        const uint32_t hash5 = (uint32_t)((history & 0xFFFFFFFFFFu) * 0x9E3779B97F4A7C15u >> 32);
        uint32_t node = 1;
        for (int depth = 0; depth < 8; depth++) {
            const uint32_t salt = node * 0x85EBCA6Bu;
            uint32_t *slots[6] = {
                &m->order0[plane][node],
                &m->order1[history & 255][node],
                &m->above[up][node],
                &m->order2[(hash2 + salt) >> 16],
                &m->order3[(hash3 + salt) >> 16],
                &m->order5[(hash5 + salt) >> 16],
            };
            const int bit = enc ? data[i] >> (7 - depth) & 1 : 0;
            node = node << 1 | (uint32_t)mixed_bit(c, slots, m->weights[plane][up != 0][depth], 6, bit, enc);
        }
        if (!enc)
            data[i] = (uint8_t)node;
        history = history << 8 | (node & 255);
        if (++column == stride) {
            column = 0;
            plane += plane < 7;
        }
    }
}

/* 0, or 2 without memory. The model first codes `prime` into nowhere, to learn from it. */
static int code_bytes(Coder *c, uint8_t *data, size_t size, size_t stride, uint8_t *prime, size_t prime_size, int enc)
{
    ByteModel *m = malloc(sizeof *m);
    if (!m)
        return 2;
    start_model((uint32_t *)m, offsetof(ByteModel, weights) / 4, &m->weights[0][0][0][0], 8 * 2 * 8 * 6,
                stride ? 12000 : 20000);
    if (prime_size) {
        Coder nowhere;
        start_encoder(&nowhere);
        model_bytes(&nowhere, m, prime, prime_size, 0, 1);
        free(nowhere.out);
    }
    if (enc)
        model_bytes(c, m, data, size, stride, 1);
    else
        model_bytes(c, m, data, size, stride, 0);
    free(m);
    return 0;
}

#endif
