/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* PyTorch files, made by PyTorch (tests/reference/make_checkpoints.py), and broken ones. */
#include <glib/gstdio.h>
#include <string.h>

#include "checkpoint.h"
#include "error.h"

static char *
data_path(const char *name)
{
  return g_test_build_filename(G_TEST_DIST, "data", "checkpoints", name, NULL);
}

static OsrCheckpoint *
open_ok(const char *name)
{
  g_autofree char *path = data_path(name);
  g_autoptr(GError) error = NULL;
  OsrCheckpoint *checkpoint = osr_checkpoint_open(path, &error);

  g_assert_no_error(error);
  g_assert_cmpstr(osr_checkpoint_get_format(checkpoint), ==, "PyTorch");
  return checkpoint;
}

/* That the entry has these values, one after the other. */
static void
assert_values(OsrCheckpoint *checkpoint, const char *name, guint n_dims, const gint64 *dims,
              const float *want)
{
  const OsrCheckpointEntry *entry = osr_checkpoint_lookup(checkpoint, name);
  g_autoptr(GError) error = NULL;
  g_autofree float *got = NULL;
  gint64 n = 1;

  if (!entry)
    g_error("there is no '%s'", name);
  g_assert_cmpuint(entry->n_dims, ==, n_dims);
  for (guint i = 0; i < n_dims; i++) {
    g_assert_cmpint(entry->dims[i], ==, dims[i]);
    n *= dims[i];
  }
  g_assert_cmpuint(entry->size, ==, (gsize) n * osr_dtype_size(entry->dtype));
  got = g_new(float, n + 1);
  g_assert_true(osr_checkpoint_entry_to_f32(entry, got, &error));
  g_assert_no_error(error);
  for (gint64 i = 0; i < n; i++)
    if (got[i] != want[i])
      g_error("%s: element %" G_GINT64_FORMAT " is %g, not %g", name, i, got[i], want[i]);
}

/* make_checkpoints.py's values from @start on. */
static const float *
counted(guint n, guint start)
{
  static float values[64];

  for (guint i = 0; i < n; i++)
    values[i] = (float) ((i + start) % 15) - 7;
  return values;
}

static void
assert_refused(const char *name, OsrError code, const char *reason)
{
  g_autofree char *path = data_path(name);
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_checkpoint_open(path, &error));
  g_assert_error(error, OSR_ERROR, (int) code);
  g_assert_true(g_str_has_prefix(error->message, path));
  if (!strstr(error->message, reason))
    g_error("\"%s\" does not say \"%s\"", error->message, reason);
}

/* What PyTorch writes */

static void
test_types(gconstpointer data)
{
  g_autofree char *name = g_strdup_printf("types-protocol%u.pt", GPOINTER_TO_UINT(data));
  g_autoptr(OsrCheckpoint) checkpoint = open_ok(name);
  const OsrCheckpointEntry *entry;

  g_assert_cmpuint(osr_checkpoint_n_entries(checkpoint), ==, 11);
  assert_values(checkpoint, "f32", 2, (gint64[]){ 2, 3 }, counted(6, 0));
  assert_values(checkpoint, "bf16", 2, (gint64[]){ 2, 3 }, counted(6, 1));
  assert_values(checkpoint, "f16", 2, (gint64[]){ 2, 3 }, counted(6, 2));
  assert_values(checkpoint, "f64", 2, (gint64[]){ 2, 3 }, counted(6, 3));
  assert_values(checkpoint, "parameter", 2, (gint64[]){ 2, 2 }, counted(4, 7));
  assert_values(checkpoint, "scalar", 0, NULL, (float[]){ 2.5f });
  assert_values(checkpoint, "empty", 2, (gint64[]){ 0, 3 }, NULL);

  entry = osr_checkpoint_lookup(checkpoint, "i64");
  g_assert_cmpint(entry->dtype, ==, OSR_DTYPE_I64);
  g_assert_cmpmem(entry->data, entry->size, ((gint64[]){ -3, -2, -1, 0 }), 32);
  entry = osr_checkpoint_lookup(checkpoint, "i32");
  g_assert_cmpint(entry->dtype, ==, OSR_DTYPE_I32);
  g_assert_cmpmem(entry->data, entry->size, ((gint32[]){ -2, -1, 0, 1 }), 16);
  entry = osr_checkpoint_lookup(checkpoint, "u8");
  g_assert_cmpint(entry->dtype, ==, OSR_DTYPE_U8);
  g_assert_cmpmem(entry->data, entry->size, ((guint8[]){ 6, 7, 8, 9 }), 4);
  entry = osr_checkpoint_lookup(checkpoint, "bool");
  g_assert_cmpint(entry->dtype, ==, OSR_DTYPE_BOOL);
  g_assert_cmpmem(entry->data, entry->size, ((guint8[]){ 1, 0, 1 }), 3);
}

static void
test_float8(void)
{
  g_autoptr(OsrCheckpoint) checkpoint = open_ok("float8.pt");

  assert_values(checkpoint, "w", 2, (gint64[]){ 2, 3 }, counted(6, 0));
  g_assert_cmpint(osr_checkpoint_lookup(checkpoint, "w")->dtype, ==, OSR_DTYPE_F8_E4M3);
}

/* Of one storage, and in place: no tensor has a copy of its own. */
static void
test_views(void)
{
  g_autoptr(OsrCheckpoint) checkpoint = open_ok("views.pt");
  const OsrCheckpointEntry *whole = osr_checkpoint_lookup(checkpoint, "whole");
  const OsrCheckpointEntry *rows = osr_checkpoint_lookup(checkpoint, "rows");
  const OsrCheckpointEntry *transposed = osr_checkpoint_lookup(checkpoint, "transposed");
  const float *base = counted(24, 0);
  float want[24], packed[24];

  assert_values(checkpoint, "whole", 2, (gint64[]){ 4, 6 }, base);
  assert_values(checkpoint, "rows", 2, (gint64[]){ 2, 6 }, base + 6);
  g_assert_true((const char *) rows->data == (const char *) whole->data + 24);
  g_assert_false(whole->strided);
  g_assert_false(rows->strided);

  for (guint i = 0; i < 4; i++)
    memcpy(want + 2 * i, base + 6 * i + 2, 8);
  assert_values(checkpoint, "columns", 2, (gint64[]){ 4, 2 }, want);
  for (guint i = 0; i < 12; i++)
    want[i] = base[2 * i];
  assert_values(checkpoint, "every_other", 2, (gint64[]){ 4, 3 }, want);
  for (guint i = 0; i < 4; i++)
    want[i] = base[6 * i + 1];
  assert_values(checkpoint, "one_wide", 2, (gint64[]){ 4, 1 }, want);
  for (guint i = 0; i < 24; i++)
    want[i] = base[i % 4 * 6 + i / 4];
  assert_values(checkpoint, "transposed", 2, (gint64[]){ 6, 4 }, want);
  g_assert_true(transposed->strided && transposed->data == whole->data);
  osr_checkpoint_entry_pack(transposed, packed);
  g_assert_cmpmem(packed, sizeof packed, want, sizeof want);

  /* [2, 3, 4] as [4, 2, 3] */
  base = counted(24, 5);
  for (guint i = 0; i < 24; i++)
    want[i] = base[i % 6 / 3 * 12 + i % 3 * 4 + i / 6];
  assert_values(checkpoint, "permuted", 3, (gint64[]){ 4, 2, 3 }, want);
}

static void
test_nested(void)
{
  static const char *const names[] = { "nested-state-dict.pt", "nested-model.pt",
                                       "nested-only.pt" };

  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    g_autoptr(OsrCheckpoint) checkpoint = open_ok(names[i]);

    g_assert_cmpuint(osr_checkpoint_n_entries(checkpoint), ==, 1);
    assert_values(checkpoint, "a", 1, (gint64[]){ 3 }, counted(3, 0));
  }
}

/* A module's own state dict, whose dict has attributes; a parameter that has one. */
static void
test_module(void)
{
  g_autoptr(OsrCheckpoint) module = open_ok("module.pt"), attribute = open_ok("attribute.pt");

  g_assert_cmpuint(osr_checkpoint_n_entries(module), ==, 2);
  assert_values(module, "weight", 2, (gint64[]){ 3, 2 }, counted(6, 0));
  assert_values(module, "bias", 1, (gint64[]){ 3 }, counted(3, 1));
  assert_values(attribute, "p", 2, (gint64[]){ 3, 2 }, counted(6, 0));
}

static void
test_zip64(void)
{
  g_autoptr(OsrCheckpoint) checkpoint = open_ok("zip64.pt");

  assert_values(checkpoint, "w", 2, (gint64[]){ 2, 3 }, counted(6, 0));
}

static void
test_sharded(void)
{
  g_autoptr(OsrCheckpoint) checkpoint = open_ok("sharded/pytorch_model.bin.index.json");
  g_autofree char *second = data_path("sharded/pytorch_model-00002-of-00002.bin");

  g_assert_cmpuint(osr_checkpoint_n_entries(checkpoint), ==, 3);
  assert_values(checkpoint, "a", 1, (gint64[]){ 3 }, counted(3, 0));
  assert_values(checkpoint, "b", 2, (gint64[]){ 2, 2 }, counted(4, 1));
  assert_values(checkpoint, "c", 1, (gint64[]){ 4 }, counted(4, 2));
  g_assert_cmpstr(osr_checkpoint_lookup(checkpoint, "c")->path, ==, second);
}

/* What is refused */

static void
test_refused(void)
{
  g_autofree char *trace = g_strdup("/tmp/opensora-evil");

  assert_refused("evil.pt", OSR_ERROR_INVALID_FILE, "data.pkl: byte ");
  assert_refused("evil.pt", OSR_ERROR_INVALID_FILE, "uses 'posix.system', which no weights need");
  g_assert_false(g_file_test(trace, G_FILE_TEST_EXISTS));
  assert_refused("whole-module.pt", OSR_ERROR_INVALID_FILE, "'torch.nn.modules.linear.Linear'");
  assert_refused("legacy.pt", OSR_ERROR_UNSUPPORTED, "of before version 1.6");
  assert_refused("script.pt", OSR_ERROR_UNSUPPORTED, "a TorchScript program");
  assert_refused("compressed.pt", OSR_ERROR_UNSUPPORTED, "its members are compressed");
  assert_refused("other.zip", OSR_ERROR_INVALID_FILE, "there is no data.pkl in it");
  assert_refused("expanded.pt", OSR_ERROR_INVALID_FILE, "tensor 'a': an expanded tensor");
  assert_refused("int16.pt", OSR_ERROR_INVALID_FILE, "tensor 'w': torch.ShortStorage cannot");
  assert_refused("float8-e5m2.pt", OSR_ERROR_INVALID_FILE, "tensor 'w': torch.float8_e5m2 cannot");
  assert_refused("list.pt", OSR_ERROR_INVALID_FILE, "no state dict: it is a list");
  assert_refused("nested-none.pt", OSR_ERROR_INVALID_FILE, "a dict of 'first', 'second', without");
}

static void
assert_bytes_refused(gconstpointer data, gsize size, const char *reason)
{
  g_autoptr(GBytes) bytes = g_bytes_new(data, size);
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_checkpoint_open_bytes(bytes, "w.pt", &error));
  g_assert_nonnull(error);
  if (!g_str_has_prefix(error->message, "w.pt: ") || !strstr(error->message, reason))
    g_error("\"%s\" does not say \"%s\"", error->message, reason);
}

static void
test_impostors(void)
{
  static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
  static const char page[] = "<!DOCTYPE html><html></html>";

  assert_bytes_refused(pointer, sizeof pointer, "a pointer of Git LFS");
  assert_bytes_refused(page, sizeof page, "a web page");
  assert_bytes_refused("GGUF\3\0\0\0\0\0\0\0", 12, "a GGUF file");
  assert_bytes_refused("\x80\x04}q\0X\1\0\0\0a", 11, "a bare pickle");
}

/* Every length of a good file ends in an error, not in a crash or in other values. */
static void
test_truncated(void)
{
  g_autofree char *path = data_path("zip64.pt"), *bytes = NULL;
  gsize size;

  g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
  for (gsize n = 0; n < size; n++)
    assert_bytes_refused(bytes, n, n < 8 ? "truncated" : "");
  assert_bytes_refused(bytes, size / 2, "has no end record (is it truncated?)");
}

/* A good file with one place of it changed. */
static void
assert_changed_refused(const char *name, const char *find, const char *with, gsize size,
                       const char *reason)
{
  g_autofree char *path = data_path(name), *bytes = NULL;
  gsize length;
  char *at;

  g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
  at = memmem(bytes, length, find, size);
  g_assert_nonnull(at);
  memcpy(at, with, size);
  assert_bytes_refused(bytes, length, reason);
}

static void
test_changed(void)
{
  static const char *const name = "float8.pt";

  assert_changed_refused(name, "data.pkl", "data.pkk", 8, "not where the directory says");
  assert_changed_refused(name, "X\7\0\0\0storage", "X\7\0\0\0storoge", 12,
                         "tensor 'w': its storage is described in no known way");
  assert_changed_refused(name, "K\2K\3\x86", "K\2K\x13\x86", 5, "end at 22 of a storage of 6");
  assert_changed_refused(name, "K\3K\1\x86", "K\4K\1\x86", 5, "end at 7 of a storage of 6");
  assert_changed_refused(name,
                         "X\1\0\0\0"
                         "0",
                         "X\1\0\0\0"
                         "7",
                         6, "its storage 'float8/data/7' is not in the file");
  assert_changed_refused(name, "K\6tq", "K\7tq", 4, "fewer than 7 elements take");
  assert_changed_refused(name, "little", "bigbig", 6, "big-endian");
  assert_changed_refused(name, "torch\nfloat8_e4m3fn", "torch\nfloat9_e4m3fn", 19,
                         "'torch.float9_e4m3fn', which no weights need");
  assert_changed_refused(name, "\x80\2}", "\x80\x9}", 3, "pickle protocol 9 is not known");
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  for (guint protocol = 1; protocol <= 5; protocol++) {
    g_autofree char *path = g_strdup_printf("/pytorch/types/protocol-%u", protocol);

    g_test_add_data_func(path, GUINT_TO_POINTER(protocol), test_types);
  }
  g_test_add_func("/pytorch/float8", test_float8);
  g_test_add_func("/pytorch/views", test_views);
  g_test_add_func("/pytorch/nested", test_nested);
  g_test_add_func("/pytorch/module", test_module);
  g_test_add_func("/pytorch/zip64", test_zip64);
  g_test_add_func("/pytorch/sharded", test_sharded);
  g_test_add_func("/pytorch/refused", test_refused);
  g_test_add_func("/pytorch/impostors", test_impostors);
  g_test_add_func("/pytorch/truncated", test_truncated);
  g_test_add_func("/pytorch/changed", test_changed);
  return g_test_run();
}
