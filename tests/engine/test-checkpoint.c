/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Weights files: hostile ones, conversion, writing, shards. */
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint.h"
#include "error.h"

/* A file of `length` as its header's length, `header`, and `data_size` bytes 0, 1, 2, ... */
static GBytes *
make_file(guint64 length, const char *header, gsize header_size, gsize data_size)
{
  GByteArray *bytes = g_byte_array_new();

  length = GUINT64_TO_LE(length);
  g_byte_array_append(bytes, (const guint8 *) &length, sizeof length);
  g_byte_array_append(bytes, (const guint8 *) header, (guint) header_size);
  for (gsize i = 0; i < data_size; i++)
    g_byte_array_append(bytes, &(guint8){ (guint8) i }, 1);
  return g_byte_array_free_to_bytes(bytes);
}

static GBytes *
make_good(const char *header, gsize data_size)
{
  return make_file(strlen(header), header, strlen(header), data_size);
}

static void
assert_refused(GBytes *bytes, OsrError code, const char *reason)
{
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_checkpoint_open_bytes(bytes, "weights.safetensors", &error));
  g_assert_error(error, OSR_ERROR, (int) code);
  g_assert_true(g_str_has_prefix(error->message, "weights.safetensors: "));
  if (!strstr(error->message, reason))
    g_error("\"%s\" does not say \"%s\"", error->message, reason);
  g_assert_true(g_utf8_validate(error->message, -1, NULL));
}

#define OK_TENSOR "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
#define TENSOR(dtype, shape, offsets)                                                              \
  "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static const struct {
  const char *name, *header;
  gsize data_size;
  OsrError code;
  const char *reason;
} hostile[] = {
  /* JSON */
  { "not-json", "{x", 0, OSR_ERROR_INVALID_FILE, "expected a string at byte 1" },
  { "no-object", "[1, 2]", 0, OSR_ERROR_INVALID_FILE, "does not begin with '{'" },
  { "space-first", " {}", 0, OSR_ERROR_INVALID_FILE, "does not begin with '{'" },
  { "open", "{" OK_TENSOR, 8, OSR_ERROR_INVALID_FILE, "closing bracket" },
  { "trailing-comma", "{" OK_TENSOR ",}", 8, OSR_ERROR_INVALID_FILE, "expected a string" },
  { "two-commas", "{" OK_TENSOR ",,}", 8, OSR_ERROR_INVALID_FILE, "expected a string" },
  { "no-colon", "{\"a\" {}}", 0, OSR_ERROR_INVALID_FILE, "expected ':'" },
  { "text-after", "{" OK_TENSOR "} x", 8, OSR_ERROR_INVALID_FILE, "something follows" },
  { "two-objects", "{}{}", 0, OSR_ERROR_INVALID_FILE, "something follows" },
  { "comment", "{/**/}", 0, OSR_ERROR_INVALID_FILE, "expected a string" },
  { "single-quotes", "{'a':1}", 0, OSR_ERROR_INVALID_FILE, "expected a string" },
  { "open-string", "{\"a", 0, OSR_ERROR_INVALID_FILE, "the string has no end" },
  { "open-escape", "{\"a\\", 0, OSR_ERROR_INVALID_FILE, "bad escape" },
  { "bad-escape", "{\"\\x41\":{}}", 0, OSR_ERROR_INVALID_FILE, "bad escape" },
  { "short-escape", "{\"\\u12\":{}}", 0, OSR_ERROR_INVALID_FILE, "bad \\u escape" },
  { "nul-escape", "{\"a\\u0000b\":{}}", 0, OSR_ERROR_INVALID_FILE, "NUL in a string" },
  { "lone-high", "{\"\\ud800\":{}}", 0, OSR_ERROR_INVALID_FILE, "surrogate" },
  { "lone-low", "{\"\\udc00\":{}}", 0, OSR_ERROR_INVALID_FILE, "surrogate" },
  { "high-high", "{\"\\ud800\\ud800\":{}}", 0, OSR_ERROR_INVALID_FILE, "surrogate" },
  { "control", "{\"a\nb\":{}}", 0, OSR_ERROR_INVALID_FILE, "control character" },
  { "not-utf8", "{\"a\xff\":{}}", 0, OSR_ERROR_INVALID_FILE, "not UTF-8 at byte 3" },
  { "overlong-utf8", "{\"\xc0\x80\":{}}", 0, OSR_ERROR_INVALID_FILE, "not UTF-8" },

  /* the keys of a tensor */
  { "tensor-number", "{\"a\":1}", 0, OSR_ERROR_INVALID_FILE, "tensor 'a': expected an object" },
  { "tensor-null", "{\"a\":null}", 0, OSR_ERROR_INVALID_FILE, "expected an object" },
  { "tensor-empty", "{\"a\":{}}", 0, OSR_ERROR_INVALID_FILE, "'dtype' is missing" },
  { "no-dtype", "{\"a\":{\"shape\":[],\"data_offsets\":[0,4]}}", 4, OSR_ERROR_INVALID_FILE,
    "'dtype' is missing" },
  { "no-shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, OSR_ERROR_INVALID_FILE,
    "'shape' is missing" },
  { "no-offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, OSR_ERROR_INVALID_FILE,
    "'data_offsets' is missing" },
  { "extra-key", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
    OSR_ERROR_INVALID_FILE, "unknown key 'x'" },
  { "key-twice",
    "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
    OSR_ERROR_INVALID_FILE, "'dtype' is there twice" },
  { "name-twice", "{" OK_TENSOR "," OK_TENSOR "}", 8, OSR_ERROR_INVALID_FILE,
    "tensor 'a': the name is there twice" },
  { "name-twice-escaped",
    "{" OK_TENSOR ",\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}", 8,
    OSR_ERROR_INVALID_FILE, "tensor 'a': the name is there twice" },

  /* dtype */
  { "dtype-unknown", TENSOR("\"F7\"", "[1]", "[0,4]"), 4, OSR_ERROR_UNSUPPORTED,
    "tensor 'a': unknown dtype 'F7'" },
  { "dtype-case", TENSOR("\"f32\"", "[1]", "[0,4]"), 4, OSR_ERROR_UNSUPPORTED, "'f32'" },
  { "dtype-number", TENSOR("5", "[1]", "[0,4]"), 4, OSR_ERROR_INVALID_FILE, "expected a string" },

  /* shape */
  { "shape-string", TENSOR("\"F32\"", "\"1\"", "[0,4]"), 4, OSR_ERROR_INVALID_FILE,
    "expected an array" },
  { "dim-negative", TENSOR("\"F32\"", "[-1]", "[0,4]"), 4, OSR_ERROR_INVALID_FILE,
    "non-negative integer" },
  { "dim-float", TENSOR("\"F32\"", "[1.0]", "[0,4]"), 4, OSR_ERROR_INVALID_FILE,
    "non-negative integer" },
  { "dim-exponent", TENSOR("\"F32\"", "[1e0]", "[0,4]"), 4, OSR_ERROR_INVALID_FILE,
    "non-negative integer" },
  { "dim-octal", TENSOR("\"F32\"", "[01]", "[0,4]"), 4, OSR_ERROR_INVALID_FILE,
    "non-negative integer" },
  { "dim-string", TENSOR("\"F32\"", "[\"1\"]", "[0,4]"), 4, OSR_ERROR_INVALID_FILE,
    "non-negative integer" },
  { "dim-nested", TENSOR("\"F32\"", "[[[[[1]]]]]", "[0,4]"), 4, OSR_ERROR_INVALID_FILE,
    "non-negative integer" },
  { "dim-huge", TENSOR("\"F32\"", "[9223372036854775808]", "[0,4]"), 4, OSR_ERROR_INVALID_FILE,
    "too large" },
  { "shape-overflow", TENSOR("\"F32\"", "[1000000000000000000,1000000000000000000]", "[0,4]"), 4,
    OSR_ERROR_INVALID_FILE, "overflows" },
  { "bytes-overflow", TENSOR("\"F32\"", "[4611686018427387905]", "[0,4]"), 4,
    OSR_ERROR_INVALID_FILE, "overflows" },
  { "shape-wraps-to-fit", TENSOR("\"F32\"", "[4294967296,4294967297,4294967296]", "[0,0]"), 0,
    OSR_ERROR_INVALID_FILE, "overflows" },
  { "too-many-dims", TENSOR("\"F32\"", "[1,1,1,1,1,1,1]", "[0,4]"), 4, OSR_ERROR_UNSUPPORTED,
    "7 dimensions" },

  /* data_offsets */
  { "offsets-one", TENSOR("\"F32\"", "[1]", "[0]"), 4, OSR_ERROR_INVALID_FILE, "two numbers" },
  { "offsets-three", TENSOR("\"F32\"", "[1]", "[0,4,4]"), 4, OSR_ERROR_INVALID_FILE,
    "two numbers" },
  { "offsets-negative", TENSOR("\"F32\"", "[1]", "[-4,0]"), 4, OSR_ERROR_INVALID_FILE,
    "non-negative integer" },
  { "offsets-reversed", TENSOR("\"F32\"", "[1]", "[4,0]"), 4, OSR_ERROR_INVALID_FILE,
    "[4, 0] are reversed" },
  { "offsets-outside", TENSOR("\"F32\"", "[2]", "[0,8]"), 7, OSR_ERROR_INVALID_FILE,
    "ends at byte 8, the file has 7" },
  { "offsets-far-outside", TENSOR("\"U8\"", "[9223372036854775807]", "[0,9223372036854775807]"), 7,
    OSR_ERROR_INVALID_FILE, "truncated" },
  { "size-small", TENSOR("\"F32\"", "[2]", "[0,4]"), 4, OSR_ERROR_INVALID_FILE,
    "span 4 bytes, [2] of F32 needs 8" },
  { "size-large", TENSOR("\"F32\"", "[2]", "[0,12]"), 12, OSR_ERROR_INVALID_FILE, "needs 8" },
  { "overlap", "{" OK_TENSOR ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
    12, OSR_ERROR_INVALID_FILE, "tensor 'b': its data overlaps that of 'a'" },
  { "same-place", "{" OK_TENSOR ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
    8, OSR_ERROR_INVALID_FILE, "overlaps" },
  { "empty-inside",
    "{" OK_TENSOR ",\"b\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]}}", 8,
    OSR_ERROR_INVALID_FILE, "overlaps" },
  { "gap", "{" OK_TENSOR ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}", 16,
    OSR_ERROR_INVALID_FILE, "tensor 'b': 4 bytes before its data" },
  { "gap-first", TENSOR("\"F32\"", "[1]", "[4,8]"), 8, OSR_ERROR_INVALID_FILE, "4 bytes before" },
  { "trailing-bytes", "{" OK_TENSOR "}", 13, OSR_ERROR_INVALID_FILE,
    "5 bytes after the last tensor" },
  { "data-without-tensors", "{}", 1, OSR_ERROR_INVALID_FILE, "1 bytes after" },

  /* __metadata__ */
  { "metadata-number", "{\"__metadata__\":{\"k\":1}}", 0, OSR_ERROR_INVALID_FILE,
    "'__metadata__': expected a string" },
  { "metadata-object", "{\"__metadata__\":{\"k\":{}}}", 0, OSR_ERROR_INVALID_FILE,
    "expected a string" },
  { "metadata-string", "{\"__metadata__\":\"k\"}", 0, OSR_ERROR_INVALID_FILE,
    "expected an object" },
  { "metadata-key-twice", "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, OSR_ERROR_INVALID_FILE,
    "has 'k' twice" },
  { "metadata-twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, OSR_ERROR_INVALID_FILE,
    "__metadata__ is there twice" },
};

static void
test_hostile(gconstpointer data)
{
  guint i = GPOINTER_TO_UINT(data);
  g_autoptr(GBytes) bytes = make_good(hostile[i].header, hostile[i].data_size);

  assert_refused(bytes, hostile[i].code, hostile[i].reason);
}

static void
test_hostile_length(void)
{
  static const struct {
    guint64 length;
    const char *reason;
  } cases[] = {
    { 0, "does not begin with '{'" },
    { 3, "the header has 3 bytes, 2 are left" },
    { 99999999, "truncated" },
    { 100000001, "more than the format allows" },
    { G_MAXUINT64, "more than the format" },
    { G_MAXUINT64 - 7, "more than the format" },
    { 1, "expected a string at byte 1" },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GBytes) bytes = make_file(cases[i].length, "{}", 2, 0);

    assert_refused(bytes, OSR_ERROR_INVALID_FILE, cases[i].reason);
  }
  for (gsize size = 0; size < 8; size++) {
    g_autoptr(GBytes) whole = make_good("{}", 0);
    g_autoptr(GBytes) bytes = g_bytes_new_from_bytes(whole, 0, size);
    g_autofree char *reason = g_strdup_printf("truncated: %" G_GSIZE_FORMAT " bytes", size);

    assert_refused(bytes, OSR_ERROR_INVALID_FILE, reason);
  }
}

/* Every cut through a good file is refused. */
static void
test_hostile_truncated(void)
{
  g_autoptr(GBytes) whole = make_good("{" OK_TENSOR "}", 8);

  for (gsize size = 0; size < g_bytes_get_size(whole); size++) {
    g_autoptr(GBytes) bytes = g_bytes_new_from_bytes(whole, 0, size);

    assert_refused(bytes, OSR_ERROR_INVALID_FILE, "");
  }
}

/* A NUL inside the header, which C strings would hide. */
static void
test_hostile_nul(void)
{
  static const char header[] = "{\"a\0b\":{}}";
  g_autoptr(GBytes) bytes = make_file(sizeof header - 1, header, sizeof header - 1, 0);

  assert_refused(bytes, OSR_ERROR_INVALID_FILE, "not UTF-8 at byte 3");
}

/* Millions of brackets must not reach the stack. */
static void
test_hostile_nested(void)
{
  static const char *const starts[] = { "{\"a\":", "{\"__metadata__\":{\"k\":",
                                        "{\"a\":{\"dtype\":\"F32\",\"shape\":" };

  for (guint i = 0; i < G_N_ELEMENTS(starts); i++) {
    for (guint j = 0; j < 2; j++) {
      g_autoptr(GString) header = g_string_new(starts[i]);
      g_autoptr(GBytes) bytes = NULL;

      for (guint k = 0; k < 2000000; k++)
        g_string_append(header, j ? "[" : "{\"a\":");
      bytes = make_good(header->str, 0);
      assert_refused(bytes, OSR_ERROR_INVALID_FILE, "");
    }
  }
}

/* Names reach messages and terminals: cut short, without control characters. */
static void
test_hostile_name(void)
{
  g_autoptr(GString) header = g_string_new("{\"\\u001b[31m");
  g_autoptr(GBytes) bytes = NULL;
  g_autoptr(GError) error = NULL;

  for (guint i = 0; i < 100000; i++)
    g_string_append(header, "\xc3\xa9");
  g_string_append(header, "\":1}");
  bytes = make_good(header->str, 0);
  g_assert_null(osr_checkpoint_open_bytes(bytes, "x", &error));
  g_assert_cmpuint(strlen(error->message), <, 400);
  g_assert_null(strchr(error->message, '\033'));
  g_assert_true(g_utf8_validate(error->message, -1, NULL));
}

static void
test_good(void)
{
  g_autoptr(GBytes) bytes = make_good(
      "{\"b\" : {\"shape\":[1,0,2],\"data_offsets\":[8, 8],\"dtype\":\"I64\"},\r\n\t"
      "\"__metadata__\":{\"\":\"\",\"k\\\"\\\\\\/\\b\\f\\n\\r\\t\":\"\\u00e9\\ud83d\\ude00\"},"
      "\"s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[8,9]}," OK_TENSOR "}   \n",
      9);
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrCheckpoint) checkpoint = osr_checkpoint_open_bytes(bytes, "x", &error);
  const OsrCheckpointEntry *entry;

  g_assert_no_error(error);
  g_assert_cmpstr(osr_checkpoint_get_path(checkpoint), ==, "x");
  g_assert_cmpuint(osr_checkpoint_n_entries(checkpoint), ==, 3);
  g_assert_cmpstr(osr_checkpoint_nth(checkpoint, 0)->name, ==, "a");
  g_assert_cmpstr(osr_checkpoint_nth(checkpoint, 1)->name, ==, "b");
  g_assert_null(osr_checkpoint_lookup(checkpoint, "c"));
  g_assert_null(osr_checkpoint_lookup(checkpoint, "__metadata__"));
  g_assert_null(osr_checkpoint_get_metadata(checkpoint, "a"));
  g_assert_cmpstr(osr_checkpoint_get_metadata(checkpoint, ""), ==, "");
  g_assert_cmpstr(osr_checkpoint_get_metadata(checkpoint, "k\"\\/\b\f\n\r\t"), ==,
                  "\xc3\xa9\xf0\x9f\x98\x80");

  entry = osr_checkpoint_lookup(checkpoint, "b");
  g_assert_cmpint(entry->dtype, ==, OSR_DTYPE_I64);
  g_assert_cmpuint(entry->n_dims, ==, 3);
  g_assert_cmpint(entry->dims[2], ==, 2);
  g_assert_cmpuint(entry->size, ==, 0);
  entry = osr_checkpoint_lookup(checkpoint, "s");
  g_assert_cmpuint(entry->n_dims, ==, 0);
  g_assert_cmpuint(entry->size, ==, 1);
  g_assert_cmpint(*(const guint8 *) entry->data, ==, 8);
}

/* Six bytes of header padding more or less move the data off its alignment. */
static void
test_unaligned(void)
{
  for (guint padding = 0; padding < 9; padding++) {
    g_autoptr(GString) header = g_string_new("{" OK_TENSOR "}");
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(OsrCheckpoint) checkpoint = NULL;
    guint8 got[8];

    for (guint i = 0; i < padding; i++)
      g_string_append_c(header, ' ');
    bytes = make_good(header->str, 8);
    checkpoint = osr_checkpoint_open_bytes(bytes, "x", NULL);
    g_assert_true(
        osr_checkpoint_entry_to_f32(osr_checkpoint_nth(checkpoint, 0), (float *) got, NULL));
    for (guint i = 0; i < 8; i++)
      g_assert_cmpuint(got[i], ==, i);
  }
}

/* @entry->data in a buffer of its own that is off by one byte. */
static void
convert(OsrDType dtype, gconstpointer data, gsize n, float *dst)
{
  gsize size = n * osr_dtype_size(dtype);
  g_autofree guint8 *bytes = g_malloc(size + 1);
  OsrCheckpointEntry entry = { .name = "x", .dtype = dtype, .data = bytes + 1, .size = size };
  g_autoptr(GError) error = NULL;

  memcpy(bytes + 1, data, size);
  g_assert_true(osr_checkpoint_entry_to_f32(&entry, dst, &error));
  g_assert_no_error(error);
}

static void
test_to_f32(void)
{
  static const guint16 halves[] = { 0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0001,
                                    0x03ff, 0x0400, 0x7c00, 0xfc00, 0x3555 };
  static const float half_values[] = { 0.0f,     -0.0f,     1.0f,       -2.0f,
                                       65504.0f, 0x1p-24f,  0x3ffp-24f, 0x1p-14f,
                                       INFINITY, -INFINITY, 0x1.554p-2f };
  static const guint16 brains[] = { 0x3f80, 0xc000, 0x7f80, 0x0001, 0x8000 };
  static const float brain_values[] = { 1.0f, -2.0f, INFINITY, 0x1p-133f, -0.0f };
  static const guint8 eights[] = { 0x00, 0x80, 0x38, 0xb8, 0x01, 0x07, 0x08, 0x7e, 0x78 };
  static const float eight_values[] = { 0.0f,    -0.0f,   1.0f,   -1.0f, 0x1p-9f,
                                        0x7p-9f, 0x1p-6f, 448.0f, 256.0f };
  static const double doubles[] = { 0.1, -1e300, 3 };
  float got[16];

  convert(OSR_DTYPE_F16, halves, G_N_ELEMENTS(halves), got);
  g_assert_cmpmem(got, sizeof half_values, half_values, sizeof half_values);
  convert(OSR_DTYPE_F16, (guint16[]){ 0x7e00 }, 1, got);
  g_assert_true(isnan(got[0]));

  convert(OSR_DTYPE_BF16, brains, G_N_ELEMENTS(brains), got);
  g_assert_cmpmem(got, sizeof brain_values, brain_values, sizeof brain_values);

  convert(OSR_DTYPE_F8_E4M3, eights, G_N_ELEMENTS(eights), got);
  g_assert_cmpmem(got, sizeof eight_values, eight_values, sizeof eight_values);
  convert(OSR_DTYPE_F8_E4M3, (guint8[]){ 0x7f, 0xff }, 2, got);
  g_assert_true(isnan(got[0]) && isnan(got[1]));

  convert(OSR_DTYPE_F64, doubles, G_N_ELEMENTS(doubles), got);
  g_assert_cmpfloat(got[0], ==, 0.1f);
  g_assert_cmpfloat(got[1], ==, -INFINITY);
  g_assert_cmpfloat(got[2], ==, 3.0f);
}

static void
test_to_f32_integers(void)
{
  static const OsrDType dtypes[] = { OSR_DTYPE_I32, OSR_DTYPE_I64, OSR_DTYPE_U8, OSR_DTYPE_BOOL };

  for (guint i = 0; i < G_N_ELEMENTS(dtypes); i++) {
    OsrCheckpointEntry entry = { .name = "ids", .dtype = dtypes[i], .data = "12345678", .size = 8 };
    g_autoptr(GError) error = NULL;
    float got[8];

    g_assert_false(osr_checkpoint_entry_to_f32(&entry, got, &error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED);
    g_assert_nonnull(strstr(error->message, "'ids'"));
  }
}

/* A scratch folder, and files in it. */
typedef struct {
  char *folder;
  OsrDevice *device;
} Fixture;

static void
set_up(Fixture *f, gconstpointer data)
{
  g_autoptr(GError) error = NULL;

  f->folder = g_dir_make_tmp("opensora-XXXXXX", &error);
  g_assert_no_error(error);
  f->device = osr_device_get("ref", &error);
  g_assert_no_error(error);
}

static void
tear_down(Fixture *f, gconstpointer data)
{
  g_autoptr(GDir) dir = g_dir_open(f->folder, 0, NULL);
  OsrPoolStats stats;
  const char *name;

  while ((name = g_dir_read_name(dir))) {
    g_autofree char *path = g_build_filename(f->folder, name, NULL);

    g_remove(path);
  }
  g_rmdir(f->folder);
  g_free(f->folder);
  osr_pool_get_stats(osr_device_get_pool(f->device), &stats);
  g_assert_cmpuint(stats.allocated, ==, 0);
  osr_device_unref(f->device);
}

static char *
in_folder(Fixture *f, const char *name)
{
  return g_build_filename(f->folder, name, NULL);
}

static void
write_text(Fixture *f, const char *name, const char *text)
{
  g_autofree char *path = in_folder(f, name);

  g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void
assert_not_opened(Fixture *f, const char *name, OsrError code, const char *reason)
{
  g_autofree char *path = in_folder(f, name);
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_checkpoint_open(path, &error));
  g_assert_error(error, OSR_ERROR, (int) code);
  g_assert_nonnull(strstr(error->message, path));
  if (!strstr(error->message, reason))
    g_error("\"%s\" does not say \"%s\"", error->message, reason);
}

static void
test_no_file(Fixture *f, gconstpointer data)
{
  g_autofree char *folder = in_folder(f, "folder.safetensors");
  g_autofree char *fifo = in_folder(f, "fifo.safetensors");

  assert_not_opened(f, "missing.safetensors", OSR_ERROR_NOT_FOUND, "No such file");
  assert_not_opened(f, "missing.safetensors.index.json", OSR_ERROR_NOT_FOUND, "No such file");
  write_text(f, "empty.safetensors", "");
  assert_not_opened(f, "empty.safetensors", OSR_ERROR_INVALID_FILE, "truncated: 0 bytes");
  assert_not_opened(f, "empty.safetensors/x", OSR_ERROR_NOT_FOUND, "Not a directory");
  g_assert_cmpint(g_mkdir(folder, 0777), ==, 0);
  assert_not_opened(f, "folder.safetensors", OSR_ERROR_INVALID_FILE, "a folder, not a file");
  g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
  assert_not_opened(f, "fifo.safetensors", OSR_ERROR_INVALID_FILE, "not a file");
}

/* A tensor with the bytes 1, 2, 3, ... */
static OsrTensor *
counting_tensor(OsrDevice *device, OsrDType dtype, guint n_dims, const gint64 *dims)
{
  g_autoptr(GError) error = NULL;
  OsrTensor *tensor = osr_tensor_new(device, dtype, n_dims, dims, &error);

  g_assert_no_error(error);
  for (gsize i = 0; i < tensor->size; i++)
    ((guint8 *) tensor->data)[i] = (guint8) (i + 1);
  return tensor;
}

static void
test_round_trip(Fixture *f, gconstpointer data)
{
  static const char *const names[] = { "f32", "bf16", "f16", "f64",         "i32",
                                       "i64", "u8",   "b",   "\xc3\xa9\"\n" };
  g_autofree char *path = in_folder(f, "out.safetensors");
  g_autoptr(GHashTable) metadata = g_hash_table_new(g_str_hash, g_str_equal);
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrCheckpoint) checkpoint = NULL;
  OsrTensor *tensors[OSR_N_DTYPES];

  g_assert_cmpuint(G_N_ELEMENTS(names), ==, OSR_N_DTYPES);
  g_hash_table_insert(metadata, (char *) "format", (char *) "pt");
  g_hash_table_insert(metadata, (char *) "\"quoted\"", (char *) "a\tb\\");
  for (guint i = 0; i < OSR_N_DTYPES; i++)
    tensors[i] = counting_tensor(f->device, i, i % 3, (gint64[]){ 3, i == 8 ? 0 : 5 });
  g_assert_true(osr_checkpoint_write(path, OSR_N_DTYPES, names, tensors, metadata, &error));
  g_assert_no_error(error);

  checkpoint = osr_checkpoint_open(path, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(osr_checkpoint_n_entries(checkpoint), ==, OSR_N_DTYPES);
  g_assert_cmpstr(osr_checkpoint_get_metadata(checkpoint, "format"), ==, "pt");
  g_assert_cmpstr(osr_checkpoint_get_metadata(checkpoint, "\"quoted\""), ==, "a\tb\\");
  for (guint i = 0; i < OSR_N_DTYPES; i++) {
    const OsrCheckpointEntry *entry = osr_checkpoint_lookup(checkpoint, names[i]);

    g_assert_nonnull(entry);
    g_assert_cmpuint(entry->dtype, ==, i);
    g_assert_cmpuint(entry->n_dims, ==, tensors[i]->n_dims);
    for (guint j = 0; j < entry->n_dims; j++)
      g_assert_cmpint(entry->dims[j], ==, tensors[i]->dims[j]);
    g_assert_cmpmem(entry->data, entry->size, tensors[i]->data, tensors[i]->size);
    osr_tensor_unref(tensors[i]);
  }
}

static guint
count_files(Fixture *f)
{
  g_autoptr(GDir) dir = g_dir_open(f->folder, 0, NULL);
  guint n = 0;

  while (g_dir_read_name(dir))
    n++;
  return n;
}

static void
test_write_refused(Fixture *f, gconstpointer data)
{
  g_autofree char *path = in_folder(f, "out.safetensors");
  g_autofree char *nowhere = in_folder(f, "no/such/folder.safetensors");
  g_autoptr(OsrTensor) tensor = counting_tensor(f->device, OSR_DTYPE_F32, 1, (gint64[]){ 3 });
  OsrTensor *tensors[] = { tensor, tensor };
  g_autoptr(GHashTable) metadata = g_hash_table_new(g_str_hash, g_str_equal);
  g_autoptr(GError) error = NULL;

  g_assert_false(
      osr_checkpoint_write(path, 2, (const char *[]){ "a", "a" }, tensors, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_clear_error(&error);
  g_assert_false(
      osr_checkpoint_write(path, 1, (const char *[]){ "__metadata__" }, tensors, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_clear_error(&error);
  g_assert_false(osr_checkpoint_write(path, 1, (const char *[]){ "\xff" }, tensors, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_clear_error(&error);
  g_hash_table_insert(metadata, (char *) "k", (char *) "\xff");
  g_assert_false(osr_checkpoint_write(path, 1, (const char *[]){ "a" }, tensors, metadata, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_clear_error(&error);
  g_assert_false(osr_checkpoint_write(nowhere, 1, (const char *[]){ "a" }, tensors, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_FAILED);
  g_assert_nonnull(strstr(error->message, nowhere));
  g_clear_error(&error);

  /* The target is a folder: writing works, the last step does not, and leaves nothing. */
  g_assert_cmpint(g_mkdir(path, 0777), ==, 0);
  g_assert_false(osr_checkpoint_write(path, 1, (const char *[]){ "a" }, tensors, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_FAILED);
  g_assert_cmpuint(count_files(f), ==, 1);
}

static void
write_tensors(Fixture *f, const char *file, guint n, const char *const *names)
{
  g_autofree char *path = in_folder(f, file);
  g_autoptr(OsrTensor) tensor = counting_tensor(f->device, OSR_DTYPE_F32, 1, (gint64[]){ 3 });
  OsrTensor *tensors[4] = { tensor, tensor, tensor, tensor };
  g_autoptr(GHashTable) metadata = g_hash_table_new(g_str_hash, g_str_equal);
  g_autoptr(GError) error = NULL;

  g_hash_table_insert(metadata, (char *) "file", (char *) file);
  osr_checkpoint_write(path, n, names, tensors, metadata, &error);
  g_assert_no_error(error);
}

#define INDEX "m.safetensors.index.json"

static void
test_index(Fixture *f, gconstpointer data)
{
  g_autofree char *path = in_folder(f, INDEX);
  g_autoptr(OsrCheckpoint) checkpoint = NULL;
  g_autoptr(GError) error = NULL;

  write_tensors(f, "m-1.safetensors", 2, (const char *[]){ "a", "b" });
  write_tensors(f, "m-2.safetensors", 2, (const char *[]){ "c", "unused" });
  write_text(f, INDEX,
             "{\"metadata\":{\"total_size\":36,\"x\":[true,false,null,-1.5e-3,\"s\",{}]},\n"
             "\"weight_map\":{\"c\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\","
             "\"b\":\"m-1.safetensors\"}}\n");
  checkpoint = osr_checkpoint_open(path, &error);
  g_assert_no_error(error);
  g_assert_cmpstr(osr_checkpoint_get_path(checkpoint), ==, path);
  g_assert_cmpuint(osr_checkpoint_n_entries(checkpoint), ==, 3);
  g_assert_cmpstr(osr_checkpoint_nth(checkpoint, 0)->name, ==, "c");
  g_assert_null(osr_checkpoint_lookup(checkpoint, "unused"));
  g_assert_cmpuint(osr_checkpoint_lookup(checkpoint, "b")->size, ==, 12);
  g_assert_cmpint(((const guint8 *) osr_checkpoint_lookup(checkpoint, "b")->data)[11], ==, 12);
  g_assert_cmpstr(osr_checkpoint_get_metadata(checkpoint, "file"), ==, "m-2.safetensors");
}

static const struct {
  const char *text;
  OsrError code;
  const char *reason;
} bad_indices[] = {
  { "", OSR_ERROR_INVALID_FILE, "empty" },
  { "[]", OSR_ERROR_INVALID_FILE, "expected an object at byte 0" },
  { "{", OSR_ERROR_INVALID_FILE, "expected a string" },
  { "{\"x\":\"\xff\"}", OSR_ERROR_INVALID_FILE, "not UTF-8" },
  { "{\"metadata\":{}}", OSR_ERROR_INVALID_FILE, "there is no 'weight_map'" },
  { "{\"weight_map\":[]}", OSR_ERROR_INVALID_FILE, "expected an object" },
  { "{\"weight_map\":{\"a\":1}}", OSR_ERROR_INVALID_FILE, "expected a string" },
  { "{\"weight_map\":{}} x", OSR_ERROR_INVALID_FILE, "something follows" },
  { "{\"weight_map\":{},\"weight_map\":{}}", OSR_ERROR_INVALID_FILE, "two of 'weight_map'" },
  { "{\"metadata\":[1,],\"weight_map\":{}}", OSR_ERROR_INVALID_FILE, "expected a value" },
  { "{\"metadata\":nul,\"weight_map\":{}}", OSR_ERROR_INVALID_FILE, "expected a value" },
  { "{\"metadata\":-,\"weight_map\":{}}", OSR_ERROR_INVALID_FILE, "bad number" },
  { "{\"metadata\":1.,\"weight_map\":{}}", OSR_ERROR_INVALID_FILE, "bad number" },
  { "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"a\":\"m-1.safetensors\"}}",
    OSR_ERROR_INVALID_FILE, "twice 'a'" },
  { "{\"weight_map\":{\"z\":\"m-1.safetensors\"}}", OSR_ERROR_INVALID_FILE,
    "m-1.safetensors: tensor 'z' is not in the shard" },
  { "{\"weight_map\":{\"a\":\"m-9.safetensors\"}}", OSR_ERROR_NOT_FOUND, "m-9.safetensors" },
  { "{\"weight_map\":{\"a\":\"bad.safetensors\"}}", OSR_ERROR_INVALID_FILE, "bad.safetensors" },
  { "{\"weight_map\":{\"a\":\"\"}}", OSR_ERROR_INVALID_FILE, "leaves its folder" },
  { "{\"weight_map\":{\"a\":\"..\"}}", OSR_ERROR_INVALID_FILE, "leaves its folder" },
  { "{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", OSR_ERROR_INVALID_FILE,
    "leaves its folder" },
  { "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", OSR_ERROR_INVALID_FILE, "'/etc/passwd'" },
  { "{\"weight_map\":{\"a\":\"sub/m-1.safetensors\"}}", OSR_ERROR_INVALID_FILE,
    "leaves its folder" },
  { "{\"weight_map\":{\"a\":\"\\u002e\\u002e\\u002fm\"}}", OSR_ERROR_INVALID_FILE,
    "leaves its folder" },
  { "{\"weight_map\":{\"a\":\"" INDEX "\"}}", OSR_ERROR_INVALID_FILE, INDEX },
};

static void
test_bad_index(Fixture *f, gconstpointer data)
{
  g_autoptr(GString) nested = g_string_new("{\"metadata\":");

  write_tensors(f, "m-1.safetensors", 1, (const char *[]){ "a" });
  write_text(f, "bad.safetensors", "bad");
  for (guint i = 0; i < G_N_ELEMENTS(bad_indices); i++) {
    write_text(f, INDEX, bad_indices[i].text);
    assert_not_opened(f, INDEX, bad_indices[i].code, bad_indices[i].reason);
  }
  for (guint i = 0; i < 1000000; i++)
    g_string_append_c(nested, '[');
  write_text(f, INDEX, nested->str);
  assert_not_opened(f, INDEX, OSR_ERROR_INVALID_FILE, "nested too deep");
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS(hostile); i++) {
    g_autofree char *path = g_strconcat("/checkpoint/hostile/", hostile[i].name, NULL);

    g_test_add_data_func(path, GUINT_TO_POINTER(i), test_hostile);
  }
  g_test_add_func("/checkpoint/hostile/length", test_hostile_length);
  g_test_add_func("/checkpoint/hostile/truncated", test_hostile_truncated);
  g_test_add_func("/checkpoint/hostile/nul", test_hostile_nul);
  g_test_add_func("/checkpoint/hostile/nested", test_hostile_nested);
  g_test_add_func("/checkpoint/hostile/name", test_hostile_name);
  g_test_add_func("/checkpoint/good", test_good);
  g_test_add_func("/checkpoint/unaligned", test_unaligned);
  g_test_add_func("/checkpoint/to-f32", test_to_f32);
  g_test_add_func("/checkpoint/to-f32-integers", test_to_f32_integers);
#define ADD(path, func) g_test_add(path, Fixture, NULL, set_up, func, tear_down)
  ADD("/checkpoint/no-file", test_no_file);
  ADD("/checkpoint/round-trip", test_round_trip);
  ADD("/checkpoint/write-refused", test_write_refused);
  ADD("/checkpoint/index", test_index);
  ADD("/checkpoint/bad-index", test_bad_index);
#undef ADD
  return g_test_run();
}
