/* The `.few` bit coder for Python (docs/format.md, part 2): its models are in the headers beside this file.
 *
 * The pure-Python reference modules write and read exactly the same bytes.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "bytes.h"
#include "fast.h"
#include "levels.h"
#include "small.h"

_Static_assert(sizeof(int16_t) == 2 && sizeof(size_t) >= sizeof(Py_ssize_t), "buffers of levels are counted so");

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

typedef int (*Binary)(Coder *, const Grid *, int16_t *, int);

static int binary_encode(Binary model, const Grid *g, int16_t *levels, uint8_t **out, size_t *size)
{
    Coder c;
    start_encoder(&c);
    int status = model(&c, g, levels, 1);
    finish_encoder(&c);
    *out = c.out;
    *size = c.size;
    return status == 0 && c.failed ? 2 : status;
}

static int binary_decode(Binary model, const Grid *g, int16_t *levels, const uint8_t *data, size_t size)
{
    Coder c;
    start_decoder(&c, data, size);
    int status = model(&c, g, levels, 0);
    return status == 0 && c.position < c.in_size ? 1 : status;
}

static PyObject *encode_with(Binary model, int plain, PyObject *args) /* no model: coder 5, or 4 if plain */
{
    Py_buffer levels;
    Py_ssize_t rows, columns, kernel;
    Grid g;
    uint8_t *out = NULL;
    size_t size = 0;
    int status = 1;
    if (!PyArg_ParseTuple(args, "y*nnnii", &levels, &rows, &columns, &kernel, &g.lowest, &g.highest))
        return NULL;
    if (sound(rows, columns, kernel, &g, &levels)) {
        g.rows = (size_t)rows, g.columns = (size_t)columns, g.kernel = (size_t)kernel;
        int16_t *values = levels.buf;
        const Py_ssize_t count = levels.len / 2;
        Py_BEGIN_ALLOW_THREADS
        status = 0;
        for (Py_ssize_t i = 0; i < count; i++)
            status |= values[i] < g.lowest || values[i] > g.highest;
        if (status == 0)
            status = model ? binary_encode(model, &g, values, &out, &size) : fast_encode(&g, values, plain, &out, &size);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&levels);
    PyObject *result = status == 0 ? PyBytes_FromStringAndSize((const char *)out, (Py_ssize_t)size)
                                   : failure(status, "levels that do not fit their grid");
    free(out);
    return result;
}

static PyObject *decode_with(Binary model, int plain, PyObject *args)
{
    Py_buffer data, levels;
    Py_ssize_t rows, columns, kernel;
    Grid g;
    int status = 1;
    if (!PyArg_ParseTuple(args, "y*w*nnnii", &data, &levels, &rows, &columns, &kernel, &g.lowest, &g.highest))
        return NULL;
    if (sound(rows, columns, kernel, &g, &levels)) {
        g.rows = (size_t)rows, g.columns = (size_t)columns, g.kernel = (size_t)kernel;
        Py_BEGIN_ALLOW_THREADS
        status = model ? binary_decode(model, &g, levels.buf, data.buf, (size_t)data.len)
                       : fast_decode(data.buf, (size_t)data.len, &g, plain, levels.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&levels);
    if (status)
        return failure(status, "coded levels that break the rules of the coder");
    Py_RETURN_NONE;
}

static PyObject *levels_chances(PyObject *self, PyObject *args)
{
    Py_buffer levels, chances;
    Py_ssize_t rows, columns, kernel;
    Grid g = {0, 0, 0, -32768, 32767};
    int status = 1;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*w*nnn", &levels, &chances, &rows, &columns, &kernel))
        return NULL;
    if (sound(rows, columns, kernel, &g, &levels) && chances.len == levels.len && (uintptr_t)chances.buf % 2 == 0) {
        g.rows = (size_t)rows, g.columns = (size_t)columns, g.kernel = (size_t)kernel;
        Py_BEGIN_ALLOW_THREADS
        status = level_chances(&g, levels.buf, chances.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&levels);
    PyBuffer_Release(&chances);
    if (status)
        return failure(status, "levels that do not fit their grid");
    Py_RETURN_NONE;
}

#define LEVEL_CODER(name, model, flag)                                                                  \
    static PyObject *name##_encode(PyObject *self, PyObject *args)                                       \
    {                                                                                                    \
        (void)self;                                                                                      \
        return encode_with(model, flag, args);                                                           \
    }                                                                                                    \
    static PyObject *name##_decode(PyObject *self, PyObject *args)                                       \
    {                                                                                                    \
        (void)self;                                                                                      \
        return decode_with(model, flag, args);                                                           \
    }

LEVEL_CODER(levels, code_levels, 0)
LEVEL_CODER(small, code_small, 0)
LEVEL_CODER(plain, NULL, 1)
LEVEL_CODER(fastest, NULL, 0)

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
    {"levels_chances", levels_chances, METH_VARARGS,
     "levels_chances(levels, chances, rows, columns, kernel) fills chances, of 65536, that a level is not zero"},
    {"small_encode", small_encode, METH_VARARGS, "as levels_encode"},
    {"small_decode", small_decode, METH_VARARGS, "as levels_decode"},
    {"plain_encode", plain_encode, METH_VARARGS, "as levels_encode"},
    {"plain_decode", plain_decode, METH_VARARGS, "as levels_decode"},
    {"fast_encode", fastest_encode, METH_VARARGS, "as levels_encode"},
    {"fast_decode", fastest_decode, METH_VARARGS, "as levels_decode"},
    {"bytes_encode", bytes_encode, METH_VARARGS, "bytes_encode(data, stride, prime) -> bytes"},
    {"bytes_decode", bytes_decode, METH_VARARGS, "bytes_decode(data, result, stride, prime) fills result"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_coder", "The bit coder of .few files.", -1, methods,
                                 NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__coder(void)
{
    build_tables();
    build_small_tables();
    build_fast_tables();
    return PyModule_Create(&definition);
}
