/* The `.few` bit coder: a mixing binary range coder and its two models (docs/format.md, part 2).
 *
 * The pure-Python reference.py writes and reads exactly the same bytes; all arithmetic is on integers. Each model
 * is written once, as a function with a compile-time `enc` flag, so that encoder and decoder cannot drift apart.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_MSC_VER)
#define INLINE static __forceinline
#else
#define INLINE static inline __attribute__((always_inline))
#endif

/* ---------------------------------------------------------------- tables */

static const int32_t SQUASH_NODES[33] = {
    22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
    4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};
static uint16_t squash_table[4096];  /* log-odds (8 fractional bits) + 2048 -> probability of 65536 */
static int16_t stretch_table[4096];  /* probability of 4096 -> log-odds, the inverse of squash */
static uint32_t rate_table[1024];

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

typedef char signed_right_shifts_round_down[(-1 >> 1) == -1 ? 1 : -1];

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

/* One bit predicted by n slots: their log-odds are added with weights (65536 = 1.0) that learn from the error. */
INLINE int mixed_bit(Coder *c, uint32_t *const *slots, int32_t *weights, const int n, int bit, const int enc)
{
    int32_t inputs[6];
    int64_t sum = 0;
    for (int i = 0; i < n; i++) {
        inputs[i] = stretch_table[*slots[i] >> 20];
        sum += (int64_t)inputs[i] * weights[i];
    }
    sum >>= 16;
    int32_t odds = sum > 2047 ? 2047 : sum < -2047 ? -2047 : (int32_t)sum;
    int32_t p = squash_table[odds + 2048];
    bit = code_bit(c, (uint32_t)p, bit, enc);
    int32_t error = bit ? 65536 - p : -p;
    for (int i = 0; i < n; i++) {
        int32_t weight = weights[i] + ((inputs[i] * error + (1 << 18)) >> 19);
        weights[i] = weight > WEIGHT_BOUND ? WEIGHT_BOUND : weight < -WEIGHT_BOUND ? -WEIGHT_BOUND : weight;
        learn(slots[i], bit);
    }
    return bit;
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

/* ---------------------------------------------------------------- model 1: integer levels */

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

INLINE int model_levels(Coder *c, LevelModel *m, const LevelMemory *y, const Grid *g, int16_t *levels, const int enc)
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
            const int left = now[j - 1], behind = now[j - reach], up = above[j];
            const int a = left & MAGNITUDE, b = now[j - 2] & MAGNITUDE, d = behind & MAGNITUDE;
            const int e = now[j - 2 * reach] & MAGNITUDE, f = up & MAGNITUDE, h = above2[j] & MAGNITUDE;
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
            const int nonzero = mixed_bit(c, zero, m->zero_weights[busy], 6, value != 0, enc);
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
static int code_levels(Coder *c, const Grid *g, int16_t *levels, int enc)
{
    const size_t span = g->columns + 2 * (g->kernel > 1 ? g->kernel : 3);
    LevelModel *m = malloc(sizeof *m);
    LevelMemory y = {calloc(span, 3), malloc(g->columns * 2), malloc(g->columns * 2), malloc(g->columns * 2)};
    int status = 2;
    if (m && y.lines && y.columns && y.leans && y.channels) {
        start_model((uint32_t *)m, offsetof(LevelModel, zero_weights) / 4, &m->zero_weights[0][0], 13 * 6, 11000);
        start_model(NULL, 0, m->sign_weights, 3, 21000);
        start_model(NULL, 0, &m->more_weights[0][0], FLAGS * 3, 21000);
        status = enc ? model_levels(c, m, &y, g, levels, 1) : model_levels(c, m, &y, g, levels, 0);
    }
    free(m);
    free(y.lines);
    free(y.columns);
    free(y.leans);
    free(y.channels);
    return status;
}

/* ---------------------------------------------------------------- model 2: bytes */

typedef struct {
    uint32_t order0[8][256], order1[256][256], above[256][256], order2[65536], order3[65536], order5[65536];
    int32_t weights[8][2][8][6];
} ByteModel;

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

/* ---------------------------------------------------------------- Python */

static PyObject *failure(int status, const char *what)
{
    if (status == 2)
        return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, what);
    return NULL;
}

static PyObject *finished(Coder *c, int status, const char *what)
{
    PyObject *result = NULL;
    if (status == 0 && c->failed)
        status = 2;
    if (status == 0)
        result = PyBytes_FromStringAndSize((const char *)c->out, (Py_ssize_t)c->size);
    else
        failure(status, what);
    free(c->out);
    return result;
}

/* Whether the grid is sound and the buffer holds exactly its int16 levels. */
static int sound(const Py_ssize_t rows, const Py_ssize_t columns, const Py_ssize_t kernel, const Grid *g,
                 const Py_buffer *levels)
{
    return rows > 0 && columns > 0 && kernel > 0 && kernel <= columns && levels->len % 2 == 0 &&
           levels->len / 2 / rows == columns && levels->len / 2 % rows == 0 &&
           (uintptr_t)levels->buf % 2 == 0 && g->lowest <= 0 && g->lowest >= -32768 && g->highest >= 0 &&
           g->highest <= 32767;
}

static PyObject *levels_encode(PyObject *self, PyObject *args)
{
    Py_buffer levels;
    Py_ssize_t rows, columns, kernel;
    Grid g;
    Coder c;
    int status = 1;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*nnnii", &levels, &rows, &columns, &kernel, &g.lowest, &g.highest))
        return NULL;
    start_encoder(&c);
    if (sound(rows, columns, kernel, &g, &levels)) {
        g.rows = (size_t)rows, g.columns = (size_t)columns, g.kernel = (size_t)kernel;
        int16_t *values = levels.buf;
        const Py_ssize_t count = levels.len / 2;
        Py_BEGIN_ALLOW_THREADS
        status = 0;
        for (Py_ssize_t i = 0; i < count; i++)
            status |= values[i] < g.lowest || values[i] > g.highest;
        if (status == 0) {
            status = code_levels(&c, &g, values, 1);
            finish_encoder(&c);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&levels);
    return finished(&c, status, "levels that do not fit their grid");
}

static PyObject *levels_decode(PyObject *self, PyObject *args)
{
    Py_buffer data, levels;
    Py_ssize_t rows, columns, kernel;
    Grid g;
    int status = 1;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*w*nnnii", &data, &levels, &rows, &columns, &kernel, &g.lowest, &g.highest))
        return NULL;
    if (sound(rows, columns, kernel, &g, &levels)) {
        Coder c;
        g.rows = (size_t)rows, g.columns = (size_t)columns, g.kernel = (size_t)kernel;
        Py_BEGIN_ALLOW_THREADS
        start_decoder(&c, data.buf, (size_t)data.len);
        status = code_levels(&c, &g, levels.buf, 0);
        if (status == 0 && c.position < c.in_size)
            status = 1;
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&levels);
    if (status)
        return failure(status, "coded levels that break the rules of the coder");
    Py_RETURN_NONE;
}

static PyObject *bytes_encode(PyObject *self, PyObject *args)
{
    Py_buffer data, prime;
    Py_ssize_t stride;
    Coder c;
    int status = 1;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*ny*", &data, &stride, &prime))
        return NULL;
    start_encoder(&c);
    if (stride >= 0) {
        Py_BEGIN_ALLOW_THREADS
        status = code_bytes(&c, data.buf, (size_t)data.len, (size_t)stride, prime.buf, (size_t)prime.len, 1);
        finish_encoder(&c);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&prime);
    return finished(&c, status, "the stride must not be negative");
}

static PyObject *bytes_decode(PyObject *self, PyObject *args)
{
    Py_buffer data, result, prime;
    Py_ssize_t stride;
    int status = 1;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*w*ny*", &data, &result, &stride, &prime))
        return NULL;
    if (stride >= 0) {
        Coder c;
        Py_BEGIN_ALLOW_THREADS
        start_decoder(&c, data.buf, (size_t)data.len);
        status = code_bytes(&c, result.buf, (size_t)result.len, (size_t)stride, prime.buf, (size_t)prime.len, 0);
        if (status == 0 && c.position < c.in_size)
            status = 1;
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&result);
    PyBuffer_Release(&prime);
    if (status)
        return failure(status, "coded bytes that break the rules of the coder");
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"levels_encode", levels_encode, METH_VARARGS,
     "levels_encode(levels, rows, columns, kernel, lowest, highest) -> bytes"},
    {"levels_decode", levels_decode, METH_VARARGS,
     "levels_decode(data, levels, rows, columns, kernel, lowest, highest) fills levels"},
    {"bytes_encode", bytes_encode, METH_VARARGS, "bytes_encode(data, stride, prime) -> bytes"},
    {"bytes_decode", bytes_decode, METH_VARARGS, "bytes_decode(data, result, stride, prime) fills result"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_coder", "The bit coder of .few files.", -1, methods,
                                 NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__coder(void)
{
    build_tables();
    return PyModule_Create(&definition);
}
