/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "golden.h"
#include "resize.h"

static OsrCheckpoint *
open_golden(void)
{
  g_autofree char *path = golden_path("golden", "resize.safetensors", NULL);
  g_autoptr(GError) error = NULL;
  OsrCheckpoint *file = osr_checkpoint_open(path, &error);

  g_assert_no_error(error);
  return file;
}

/* [height, width, 3] */
static const OsrCheckpointEntry *
lookup(OsrCheckpoint *file, const char *what, const char *name)
{
  g_autofree char *key = g_strdup_printf("%s.%s", what, name);
  const OsrCheckpointEntry *entry = osr_checkpoint_lookup(file, key);

  g_assert_nonnull(entry);
  g_assert_cmpint(entry->dtype, ==, OSR_DTYPE_U8);
  g_assert_cmpuint(entry->n_dims, ==, 3);
  g_assert_cmpint(entry->dims[2], ==, 3);
  return entry;
}

/* @pad bytes more a row, on both sides, which nobody may write or heed. */
static void
check(OsrResize method, const OsrCheckpointEntry *in, const OsrCheckpointEntry *want, gsize pad)
{
  const guint w = (guint) in->dims[1], h = (guint) in->dims[0];
  const guint to_w = (guint) want->dims[1], to_h = (guint) want->dims[0];
  const gsize stride = w * 3 + pad, to_stride = to_w * 3 + pad;
  g_autofree guint8 *src = g_malloc(h * stride);
  g_autofree guint8 *dst = g_malloc(to_h * to_stride);
  const guint8 *expected = want->data;
  guint n_off = 0;

  memset(src, 0xaa, h * stride);
  memset(dst, 0x55, to_h * to_stride);
  for (guint y = 0; y < h; y++)
    memcpy(src + y * stride, (const guint8 *) in->data + (gsize) y * w * 3, (gsize) w * 3);
  g_assert_true(osr_resize_fill(method, src, w, h, stride, 1.0, dst, to_w, to_h, to_stride, NULL));
  for (guint y = 0; y < to_h; y++) {
    for (guint i = 0; i < to_w * 3; i++) {
      const gint off = ABS(dst[y * to_stride + i] - expected[(gsize) y * to_w * 3 + i]);

      g_assert_cmpint(off, <=, 1); /* a half may be rounded either way */
      n_off += off != 0;
    }
    for (gsize i = 0; i < pad; i++)
      g_assert_cmpuint(dst[y * to_stride + to_w * 3 + i], ==, 0x55);
  }
  g_assert_cmpuint(n_off * 100, <=, to_w * to_h * 3);
}

static void
test_golden(void)
{
  g_autoptr(OsrCheckpoint) file = open_golden();
  guint n = 0;

  for (guint i = 0; i < osr_checkpoint_n_entries(file); i++) {
    const OsrCheckpointEntry *in = osr_checkpoint_nth(file, i);
    const char *name = in->name + 3;

    if (!g_str_has_prefix(in->name, "in."))
      continue;
    g_test_message("%s", name);
    for (gsize pad = 0; pad < 8; pad += 7) {
      check(OSR_RESIZE_PICTURE, in, lookup(file, "picture", name), pad);
      check(OSR_RESIZE_VIDEO, in, lookup(file, "video", name), pad);
    }
    n++;
  }
  g_assert_cmpuint(n, >=, 8);
}

/* Pixels twice as wide as high: 16 x 16 of them are shown as 32 x 16, and half of that is cut off,
 * so that every two of 16 lines stand between columns 4 and 12. */
static void
test_aspect(void)
{
  guint8 src[16][16][3], dst[16][16][3];

  for (guint y = 0; y < 16; y++)
    for (guint x = 0; x < 16; x++)
      for (guint c = 0; c < 3; c++)
        src[y][x][c] = x < 4 || x >= 12 ? 255 : (guint8) (x * 8);
  g_assert_true(osr_resize_fill(OSR_RESIZE_VIDEO, &src[0][0][0], 16, 16, sizeof src[0], 2.0,
                                &dst[0][0][0], 16, 16, sizeof dst[0], NULL));
  for (guint y = 0; y < 16; y++)
    for (guint x = 1; x < 15; x++)
      g_assert_cmpint(ABS(dst[y][x][0] - (gint) (4 * 8 + x * 4 - 2)), <=, 1);
}

/* What scales to sizes that no picture has takes no memory for it. */
static void
test_extremes(void)
{
  const guint n = 65535;
  g_autofree guint8 *line = g_malloc(n * 3);
  g_autofree guint8 *out = g_malloc(n * 3);

  memset(line, 77, n * 3);
  for (guint method = 0; method < 2; method++) {
    memset(out, 0, n * 3);
    g_assert_true(osr_resize_fill((OsrResize) method, line, n, 1, n * 3, 1.0, out, 1, n, 3, NULL));
    for (guint i = 0; i < n * 3; i++)
      g_assert_cmpuint(out[i], ==, 77);
    memset(out, 0, n * 3);
    g_assert_true(osr_resize_fill((OsrResize) method, line, 1, n, 3, 1.0, out, n, 1, n * 3, NULL));
    for (guint i = 0; i < n * 3; i++)
      g_assert_cmpuint(out[i], ==, 77);
  }
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/resize/golden", test_golden);
  g_test_add_func("/resize/aspect", test_aspect);
  g_test_add_func("/resize/extremes", test_extremes);
  return g_test_run();
}
