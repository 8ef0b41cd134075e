/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pickle.c: reads Python pickles (PEP 3154 and pickletools.py of CPython) that describe data.
 *
 * A pickle is a program for a machine with a stack and a memo, which may call any function of
 * Python. This machine calls none: it knows the opcodes that build containers, and takes note of
 * calls of a few globals. Values live until the pickle is freed, so references need no count.
 */
#include "pickle-private.h"

#include <stdarg.h>
#include <string.h>

#include "checkpoint-private.h"
#include "error.h"

/* Weights of models with 100,000 tensors have fewer. They bound the memory that a hostile file
 * can make us take. */
#define MAX_SIZE (64u << 20)
#define MAX_VALUES (1u << 22)

struct _OsrPickle {
  GPtrArray *values; /* all of them, owned */
  OsrPickleValue *root;
};

typedef struct {
  OsrPickle *pickle;
  const char *name;
  const guint8 *start, *at, *end;
  GPtrArray *stack; /* OsrPickleValue */
  GArray *marks;    /* guint: heights of the stack */
  GPtrArray *memo;  /* OsrPickleValue, NULL where none was put */
  guint copied;     /* items that are in a second container, too */
  gboolean stopped;
  GError *error;
} Machine;

typedef gboolean (*Opcode)(Machine *m);

/* Everything that a state dict is made of. */
static const char *const globals[] = {
  "collections.OrderedDict",
  "torch._utils._rebuild_tensor",
  "torch._utils._rebuild_tensor_v2",
  "torch._utils._rebuild_tensor_v3",
  "torch._utils._rebuild_parameter",
  "torch._utils._rebuild_parameter_with_state",
  "torch._tensor._rebuild_from_type_v2",
  "torch.nn.parameter.Parameter",
  "torch.Tensor",
  "torch.Size",
  "torch.device",
  "torch.FloatStorage",
  "torch.DoubleStorage",
  "torch.HalfStorage",
  "torch.BFloat16Storage",
  "torch.LongStorage",
  "torch.IntStorage",
  "torch.ShortStorage",
  "torch.CharStorage",
  "torch.ByteStorage",
  "torch.BoolStorage",
  "torch.storage.UntypedStorage",
  "torch.float32",
  "torch.float64",
  "torch.float16",
  "torch.bfloat16",
  "torch.float8_e4m3fn",
  "torch.float8_e5m2",
  "torch.int64",
  "torch.int32",
  "torch.int16",
  "torch.int8",
  "torch.uint8",
  "torch.bool",
  "_codecs.encode",
  "builtins.set",
  "__builtin__.set",
};

/* The machine */

static void G_GNUC_PRINTF(2, 3) note(Machine *m, const char *format, ...)
{
  g_autofree char *reason = NULL;
  va_list args;

  va_start(args, format);
  reason = g_strdup_vprintf(format, args);
  va_end(args);
  g_clear_error(&m->error);
  g_set_error(&m->error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: byte %" G_GSIZE_FORMAT ": %s",
              m->name, (gsize) (m->at - m->start), reason);
}

/* Always FALSE, which compilers see. */
#define fail(m, ...) (note(m, __VA_ARGS__), FALSE)

static OsrPickleValue *
new_value(Machine *m, OsrPickleType type)
{
  OsrPickleValue *value;

  if (m->pickle->values->len >= MAX_VALUES) {
    note(m, "more than %u values", MAX_VALUES);
    return NULL;
  }
  value = g_new0(OsrPickleValue, 1);
  value->type = type;
  g_ptr_array_add(m->pickle->values, value);
  return value;
}

static gboolean
has_items(const OsrPickleValue *value)
{
  switch (value->type) {
  case OSR_PICKLE_TUPLE:
  case OSR_PICKLE_LIST:
  case OSR_PICKLE_DICT:
  case OSR_PICKLE_CALL:
  case OSR_PICKLE_PERSISTENT:
    return TRUE;
  default:
    return FALSE;
  }
}

static void
value_free(gpointer data)
{
  OsrPickleValue *value = data;

  if (has_items(value))
    g_free(value->items);
  g_free(value);
}

/* @value NULL: a failure that has been noted. */
static gboolean
push(Machine *m, OsrPickleValue *value)
{
  if (!value)
    return FALSE;
  if (m->stack->len >= MAX_VALUES)
    return fail(m, "more than %u values on the stack", MAX_VALUES);
  g_ptr_array_add(m->stack, value);
  return TRUE;
}

static gboolean
push_integer(Machine *m, OsrPickleType type, gint64 integer)
{
  OsrPickleValue *value = new_value(m, type);

  if (value)
    value->integer = integer;
  return push(m, value);
}

static guint
floor_of_stack(const Machine *m)
{
  return m->marks->len > 0 ? g_array_index(m->marks, guint, m->marks->len - 1) : 0;
}

/* NULL if nothing is left above the last mark. */
static OsrPickleValue *
pop(Machine *m)
{
  if (m->stack->len <= floor_of_stack(m)) {
    note(m, "the stack is empty");
    return NULL;
  }
  return g_ptr_array_steal_index(m->stack, m->stack->len - 1);
}

static OsrPickleValue *
top(Machine *m)
{
  if (m->stack->len <= floor_of_stack(m)) {
    note(m, "the stack is empty");
    return NULL;
  }
  return g_ptr_array_index(m->stack, m->stack->len - 1);
}

static void
append(OsrPickleValue *container, OsrPickleValue *const *items, guint n)
{
  if (n > container->capacity - container->n_items) {
    container->capacity = MAX(container->n_items + n, 2 * container->n_items);
    container->items = g_renew(OsrPickleValue *, container->items, container->capacity);
  }
  for (guint i = 0; i < n; i++)
    container->items[container->n_items++] = items[i];
}

/* The last @n values become the items of a new one, or of @container. */
static gboolean
take_items(Machine *m, OsrPickleValue *container, guint n)
{
  guint first = m->stack->len - n;

  if (!container || n == 0)
    return container != NULL;
  append(container, (OsrPickleValue *const *) m->stack->pdata + first, n);
  g_ptr_array_set_size(m->stack, (gint) first);
  return TRUE;
}

/* Removes the last mark; *n: how many values are above it. */
static gboolean
pop_mark(Machine *m, guint *n)
{
  if (m->marks->len == 0)
    return fail(m, "there is no mark");
  *n = m->stack->len - floor_of_stack(m);
  g_array_set_size(m->marks, m->marks->len - 1);
  return TRUE;
}

/* What follows an opcode */

static gboolean
take(Machine *m, gsize size, const guint8 **bytes)
{
  if (size > (gsize) (m->end - m->at))
    return fail(m, "the pickle ends early (is it truncated?)");
  *bytes = m->at;
  m->at += size;
  return TRUE;
}

static gboolean
take_uint(Machine *m, gsize size, guint64 *number)
{
  const guint8 *bytes;

  if (!take(m, size, &bytes))
    return FALSE;
  *number = 0;
  for (gsize i = size; i-- > 0;)
    *number = *number << 8 | bytes[i];
  return TRUE;
}

/* Up to the end of the line, which is left out. */
static gboolean
take_line(Machine *m, const char **line, gsize *length)
{
  const guint8 *end = memchr(m->at, '\n', (gsize) (m->end - m->at));

  if (!end)
    return fail(m, "the pickle ends early (is it truncated?)");
  *line = (const char *) m->at;
  *length = (gsize) (end - m->at);
  m->at = end + 1;
  return TRUE;
}

/* Opcodes: numbers */

static gboolean
op_none(Machine *m)
{
  return push_integer(m, OSR_PICKLE_NONE, 0);
}

static gboolean
op_true(Machine *m)
{
  return push_integer(m, OSR_PICKLE_BOOL, TRUE);
}

static gboolean
op_false(Machine *m)
{
  return push_integer(m, OSR_PICKLE_BOOL, FALSE);
}

static gboolean
op_uint8(Machine *m)
{
  guint64 n;

  return take_uint(m, 1, &n) && push_integer(m, OSR_PICKLE_INT, (gint64) n);
}

static gboolean
op_uint16(Machine *m)
{
  guint64 n;

  return take_uint(m, 2, &n) && push_integer(m, OSR_PICKLE_INT, (gint64) n);
}

static gboolean
op_int32(Machine *m)
{
  guint64 n;

  return take_uint(m, 4, &n) && push_integer(m, OSR_PICKLE_INT, (gint32) (guint32) n);
}

/* Two's complement of that many bytes. */
static gboolean
push_long(Machine *m, guint64 size)
{
  const guint8 *bytes;
  guint64 n = 0;

  if (size > 8)
    return fail(m, "an integer of more than 64 bits");
  if (!take(m, size, &bytes))
    return FALSE;
  if (size > 0 && bytes[size - 1] & 0x80)
    n = G_MAXUINT64;
  for (gsize i = size; i-- > 0;)
    n = n << 8 | bytes[i];
  return push_integer(m, OSR_PICKLE_INT, (gint64) n);
}

static gboolean
op_long1(Machine *m)
{
  guint64 size;

  return take_uint(m, 1, &size) && push_long(m, size);
}

static gboolean
op_long4(Machine *m)
{
  guint64 size;

  return take_uint(m, 4, &size) && push_long(m, size);
}

/* A line of digits: "12", "12L"; "00" and "01" are False and True. */
static gboolean
op_int_line(Machine *m)
{
  g_autofree char *digits = NULL;
  const char *line;
  char *end;
  gsize length;
  gint64 n;

  if (!take_line(m, &line, &length))
    return FALSE;
  digits = g_strndup(line, MIN(length, 32));
  if (length == 2 && digits[0] == '0' && (digits[1] == '0' || digits[1] == '1'))
    return push_integer(m, OSR_PICKLE_BOOL, digits[1] == '1');
  n = g_ascii_strtoll(digits, &end, 10);
  if (end == digits || !(*end == '\0' || g_str_equal(end, "L")) || length > 24)
    return fail(m, "an integer is expected");
  return push_integer(m, OSR_PICKLE_INT, n);
}

static gboolean
op_float(Machine *m)
{
  const guint8 *bytes;

  return take(m, 8, &bytes) && push_integer(m, OSR_PICKLE_FLOAT, 0);
}

/* Opcodes: text */

static gboolean
push_text(Machine *m, OsrPickleType type, guint64 size)
{
  const guint8 *bytes;
  OsrPickleValue *value;

  if (!take(m, size, &bytes))
    return FALSE;
  if (type == OSR_PICKLE_TEXT && !g_utf8_validate_len((const char *) bytes, size, NULL))
    return fail(m, "a text is not UTF-8");
  value = new_value(m, type);
  if (value) {
    value->text = (const char *) bytes;
    value->length = size;
  }
  return push(m, value);
}

/* Python 2 wrote both texts and bytes as these. */
static gboolean
push_string(Machine *m, guint64 size)
{
  gboolean text =
      size <= (gsize) (m->end - m->at) && g_utf8_validate_len((const char *) m->at, size, NULL);

  return push_text(m, text ? OSR_PICKLE_TEXT : OSR_PICKLE_BYTES, size);
}

static gboolean
op_text8(Machine *m)
{
  guint64 size;

  return take_uint(m, 1, &size) && push_text(m, OSR_PICKLE_TEXT, size);
}

static gboolean
op_text32(Machine *m)
{
  guint64 size;

  return take_uint(m, 4, &size) && push_text(m, OSR_PICKLE_TEXT, size);
}

static gboolean
op_text64(Machine *m)
{
  guint64 size;

  return take_uint(m, 8, &size) && push_text(m, OSR_PICKLE_TEXT, size);
}

static gboolean
op_bytes8(Machine *m)
{
  guint64 size;

  return take_uint(m, 1, &size) && push_text(m, OSR_PICKLE_BYTES, size);
}

static gboolean
op_bytes32(Machine *m)
{
  guint64 size;

  return take_uint(m, 4, &size) && push_text(m, OSR_PICKLE_BYTES, size);
}

static gboolean
op_bytes64(Machine *m)
{
  guint64 size;

  return take_uint(m, 8, &size) && push_text(m, OSR_PICKLE_BYTES, size);
}

static gboolean
op_string8(Machine *m)
{
  guint64 size;

  return take_uint(m, 1, &size) && push_string(m, size);
}

static gboolean
op_string32(Machine *m)
{
  guint64 size;

  return take_uint(m, 4, &size) && push_string(m, size);
}

/* Opcodes: containers */

static gboolean
op_empty_tuple(Machine *m)
{
  return push(m, new_value(m, OSR_PICKLE_TUPLE));
}

static gboolean
op_empty_list(Machine *m)
{
  return push(m, new_value(m, OSR_PICKLE_LIST));
}

static gboolean
op_empty_dict(Machine *m)
{
  return push(m, new_value(m, OSR_PICKLE_DICT));
}

static gboolean
op_mark(Machine *m)
{
  if (m->marks->len >= MAX_VALUES)
    return fail(m, "more than %u marks", MAX_VALUES);
  g_array_append_val(m->marks, m->stack->len);
  return TRUE;
}

static gboolean
push_tuple(Machine *m, guint n)
{
  OsrPickleValue *tuple = new_value(m, OSR_PICKLE_TUPLE);

  if (m->stack->len - floor_of_stack(m) < n)
    return fail(m, "the stack is empty");
  return take_items(m, tuple, n) && push(m, tuple);
}

static gboolean
op_tuple1(Machine *m)
{
  return push_tuple(m, 1);
}

static gboolean
op_tuple2(Machine *m)
{
  return push_tuple(m, 2);
}

static gboolean
op_tuple3(Machine *m)
{
  return push_tuple(m, 3);
}

/* What is above the mark as a new container. */
static gboolean
push_marked(Machine *m, OsrPickleType type)
{
  OsrPickleValue *container;
  guint n;

  if (!pop_mark(m, &n))
    return FALSE;
  if (type == OSR_PICKLE_DICT && n % 2 != 0)
    return fail(m, "a key without a value");
  container = new_value(m, type);
  return take_items(m, container, n) && push(m, container);
}

static gboolean
op_tuple(Machine *m)
{
  return push_marked(m, OSR_PICKLE_TUPLE);
}

static gboolean
op_list(Machine *m)
{
  return push_marked(m, OSR_PICKLE_LIST);
}

static gboolean
op_dict(Machine *m)
{
  return push_marked(m, OSR_PICKLE_DICT);
}

/* The last @n values go into the container below them. */
static gboolean
add_items(Machine *m, OsrPickleType type, guint n)
{
  OsrPickleValue *container;

  if (m->stack->len - floor_of_stack(m) < n + 1)
    return fail(m, "the stack is empty");
  container = g_ptr_array_index(m->stack, m->stack->len - n - 1);
  if (container->type != type)
    return fail(m, "items for %s", osr_pickle_type_name(container));
  if (type == OSR_PICKLE_DICT && n % 2 != 0)
    return fail(m, "a key without a value");
  return take_items(m, container, n);
}

static gboolean
op_append(Machine *m)
{
  return add_items(m, OSR_PICKLE_LIST, 1);
}

static gboolean
op_set_item(Machine *m)
{
  return add_items(m, OSR_PICKLE_DICT, 2);
}

static gboolean
op_appends(Machine *m)
{
  guint n;

  return pop_mark(m, &n) && add_items(m, OSR_PICKLE_LIST, n);
}

static gboolean
op_set_items(Machine *m)
{
  guint n;

  return pop_mark(m, &n) && add_items(m, OSR_PICKLE_DICT, n);
}

static gboolean
op_pop(Machine *m)
{
  return pop(m) != NULL;
}

static gboolean
op_pop_mark(Machine *m)
{
  guint n;

  if (!pop_mark(m, &n))
    return FALSE;
  g_ptr_array_set_size(m->stack, (gint) (m->stack->len - n));
  return TRUE;
}

/* Opcodes: the memo */

static gboolean
put(Machine *m, guint64 i)
{
  OsrPickleValue *value = top(m);

  if (!value)
    return FALSE;
  if (i >= MAX_VALUES)
    return fail(m, "memo %" G_GUINT64_FORMAT " is beyond all that can be", i);
  if (i >= m->memo->len)
    g_ptr_array_set_size(m->memo, (gint) i + 1);
  g_ptr_array_index(m->memo, i) = value;
  return TRUE;
}

static gboolean
get(Machine *m, guint64 i)
{
  if (i >= m->memo->len || !g_ptr_array_index(m->memo, i))
    return fail(m, "nothing is in memo %" G_GUINT64_FORMAT, i);
  return push(m, g_ptr_array_index(m->memo, i));
}

static gboolean
op_put8(Machine *m)
{
  guint64 i;

  return take_uint(m, 1, &i) && put(m, i);
}

static gboolean
op_put32(Machine *m)
{
  guint64 i;

  return take_uint(m, 4, &i) && put(m, i);
}

static gboolean
op_memoize(Machine *m)
{
  return put(m, m->memo->len);
}

static gboolean
op_get8(Machine *m)
{
  guint64 i;

  return take_uint(m, 1, &i) && get(m, i);
}

static gboolean
op_get32(Machine *m)
{
  guint64 i;

  return take_uint(m, 4, &i) && get(m, i);
}

/* Opcodes: globals and calls */

static gboolean
push_global(Machine *m, const char *module, gsize module_length, const char *name,
            gsize name_length)
{
  g_autofree char *raw = g_strdup_printf("%.*s.%.*s", (int) MIN(module_length, 256), module,
                                         (int) MIN(name_length, 256), name);
  g_autofree char *full = g_utf8_make_valid(raw, -1);
  g_autofree char *shown = NULL;
  OsrPickleValue *value;

  for (guint i = 0; i < G_N_ELEMENTS(globals); i++) {
    if (!g_str_equal(full, globals[i]))
      continue;
    value = new_value(m, OSR_PICKLE_GLOBAL);
    if (value) {
      value->text = globals[i];
      value->length = strlen(globals[i]);
    }
    return push(m, value);
  }
  shown = osr_printable(full);
  return fail(m, "the pickle uses '%s', which no weights need; it is not run", shown);
}

static gboolean
op_global(Machine *m)
{
  const char *module, *name;
  gsize module_length, name_length;

  return take_line(m, &module, &module_length) && take_line(m, &name, &name_length) &&
         push_global(m, module, module_length, name, name_length);
}

static gboolean
op_stack_global(Machine *m)
{
  OsrPickleValue *name = pop(m), *module = name ? pop(m) : NULL;

  if (!module)
    return FALSE;
  if (name->type != OSR_PICKLE_TEXT || module->type != OSR_PICKLE_TEXT)
    return fail(m, "the name of a global is not text");
  return push_global(m, module->text, module->length, name->text, name->length);
}

/* An OrderedDict of nothing, or of a list of pairs. */
static gboolean
call_ordered_dict(Machine *m, const OsrPickleValue *args)
{
  OsrPickleValue *dict = new_value(m, OSR_PICKLE_DICT);
  const OsrPickleValue *pairs;

  if (!dict || args->n_items == 0)
    return push(m, dict);
  pairs = args->items[0];
  if (args->n_items != 1 || pairs->type != OSR_PICKLE_LIST)
    return fail(m, "an OrderedDict of %s", osr_pickle_type_name(pairs));
  if (pairs->n_items > MAX_VALUES - m->copied)
    return fail(m, "more than %u values", MAX_VALUES);
  m->copied += pairs->n_items;
  for (guint i = 0; i < pairs->n_items; i++) {
    const OsrPickleValue *pair = pairs->items[i];

    if ((pair->type != OSR_PICKLE_LIST && pair->type != OSR_PICKLE_TUPLE) || pair->n_items != 2)
      return fail(m, "an OrderedDict of what are no pairs");
    append(dict, pair->items, 2);
  }
  return push(m, dict);
}

static gboolean
op_reduce(Machine *m)
{
  OsrPickleValue *args = pop(m), *function = args ? pop(m) : NULL, *call;

  if (!function)
    return FALSE;
  if (function->type != OSR_PICKLE_GLOBAL || args->type != OSR_PICKLE_TUPLE)
    return fail(m, "a call of %s with %s", osr_pickle_type_name(function),
                osr_pickle_type_name(args));
  if (osr_pickle_is(function, OSR_PICKLE_GLOBAL, "collections.OrderedDict"))
    return call_ordered_dict(m, args);
  call = new_value(m, OSR_PICKLE_CALL);
  if (call)
    append(call, (OsrPickleValue *const[]){ function, args }, 2);
  return push(m, call);
}

/* Attributes of a dict ("_metadata" of a state dict) or of what a call returned. */
static gboolean
op_build(Machine *m)
{
  OsrPickleValue *object = pop(m) ? top(m) : NULL;

  if (!object)
    return FALSE;
  if (object->type != OSR_PICKLE_DICT && object->type != OSR_PICKLE_CALL)
    return fail(m, "attributes for %s", osr_pickle_type_name(object));
  return TRUE;
}

static gboolean
op_persistent(Machine *m)
{
  OsrPickleValue *id = pop(m), *value = id ? new_value(m, OSR_PICKLE_PERSISTENT) : NULL;

  if (value)
    append(value, &id, 1);
  return push(m, value);
}

/* Opcodes: the program */

static gboolean
op_protocol(Machine *m)
{
  guint64 version;

  if (!take_uint(m, 1, &version))
    return FALSE;
  return version <= 5 || fail(m, "pickle protocol %" G_GUINT64_FORMAT " is not known", version);
}

static gboolean
op_frame(Machine *m)
{
  const guint8 *bytes;

  return take(m, 8, &bytes);
}

static gboolean
op_stop(Machine *m)
{
  if (m->stack->len != 1 || m->marks->len != 0)
    return fail(m, "the pickle stops with %u values on the stack", m->stack->len);
  m->pickle->root = g_ptr_array_index(m->stack, 0);
  m->stopped = TRUE;
  return TRUE;
}

static const Opcode opcodes[256] = {
  ['('] = op_mark,          [')'] = op_empty_tuple, ['.'] = op_stop,        ['0'] = op_pop,
  ['1'] = op_pop_mark,      ['B'] = op_bytes32,     ['C'] = op_bytes8,      ['G'] = op_float,
  ['I'] = op_int_line,      ['J'] = op_int32,       ['K'] = op_uint8,       ['L'] = op_int_line,
  ['M'] = op_uint16,        ['N'] = op_none,        ['Q'] = op_persistent,  ['R'] = op_reduce,
  ['T'] = op_string32,      ['U'] = op_string8,     ['X'] = op_text32,      [']'] = op_empty_list,
  ['a'] = op_append,        ['b'] = op_build,       ['c'] = op_global,      ['d'] = op_dict,
  ['e'] = op_appends,       ['h'] = op_get8,        ['j'] = op_get32,       ['l'] = op_list,
  ['q'] = op_put8,          ['r'] = op_put32,       ['s'] = op_set_item,    ['t'] = op_tuple,
  ['u'] = op_set_items,     ['}'] = op_empty_dict,  [0x80] = op_protocol,   [0x81] = op_reduce,
  [0x85] = op_tuple1,       [0x86] = op_tuple2,     [0x87] = op_tuple3,     [0x88] = op_true,
  [0x89] = op_false,        [0x8a] = op_long1,      [0x8b] = op_long4,      [0x8c] = op_text8,
  [0x8d] = op_text64,       [0x8e] = op_bytes64,    [0x8f] = op_empty_list, [0x90] = op_appends,
  [0x93] = op_stack_global, [0x94] = op_memoize,    [0x95] = op_frame,
};

static gboolean
run(Machine *m)
{
  while (!m->stopped) {
    const guint8 *opcode;

    if (!take(m, 1, &opcode))
      return FALSE;
    if (!opcodes[*opcode])
      return fail(m, "opcode 0x%02x is none that weights need", *opcode);
    if (!opcodes[*opcode](m))
      return FALSE;
  }
  return TRUE;
}

OsrPickle *
osr_pickle_read(const guint8 *data, gsize size, const char *name, GError **error)
{
  g_autoptr(OsrPickle) pickle = g_new0(OsrPickle, 1);
  Machine m = { .pickle = pickle, .name = name, .start = data, .at = data, .end = data + size };
  gboolean ok;

  pickle->values = g_ptr_array_new_with_free_func(value_free);
  m.stack = g_ptr_array_new();
  m.marks = g_array_new(FALSE, FALSE, sizeof(guint));
  m.memo = g_ptr_array_new();
  ok = size <= MAX_SIZE ? run(&m) : fail(&m, "a pickle of more than %u bytes", MAX_SIZE);
  g_ptr_array_unref(m.stack);
  g_array_unref(m.marks);
  g_ptr_array_unref(m.memo);
  if (ok)
    return g_steal_pointer(&pickle);
  g_propagate_error(error, m.error);
  return NULL;
}

void
osr_pickle_free(OsrPickle *pickle)
{
  if (!pickle)
    return;
  g_ptr_array_unref(pickle->values);
  g_free(pickle);
}

/* What was read */

const OsrPickleValue *
osr_pickle_root(const OsrPickle *pickle)
{
  return pickle->root;
}

gboolean
osr_pickle_is(const OsrPickleValue *value, OsrPickleType type, const char *text)
{
  return value->type == type && value->length == strlen(text) &&
         memcmp(value->text, text, value->length) == 0;
}

const OsrPickleValue *
osr_pickle_dict_get(const OsrPickleValue *dict, const char *key)
{
  if (dict->type != OSR_PICKLE_DICT)
    return NULL;
  for (guint i = dict->n_items; i >= 2; i -= 2)
    if (osr_pickle_is(dict->items[i - 2], OSR_PICKLE_TEXT, key))
      return dict->items[i - 1];
  return NULL;
}

const char *
osr_pickle_type_name(const OsrPickleValue *value)
{
  static const char *const names[] = {
    [OSR_PICKLE_NONE] = "None",      [OSR_PICKLE_BOOL] = "a truth value",
    [OSR_PICKLE_INT] = "an integer", [OSR_PICKLE_FLOAT] = "a float",
    [OSR_PICKLE_TEXT] = "a text",    [OSR_PICKLE_BYTES] = "bytes",
    [OSR_PICKLE_TUPLE] = "a tuple",  [OSR_PICKLE_LIST] = "a list",
    [OSR_PICKLE_DICT] = "a dict",    [OSR_PICKLE_GLOBAL] = "a class",
    [OSR_PICKLE_CALL] = "an object", [OSR_PICKLE_PERSISTENT] = "a storage",
  };

  return names[value->type];
}
