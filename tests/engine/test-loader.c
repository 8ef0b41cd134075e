/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How models read their weights, and golden.c, which other tests stand on. */
#include <glib/gstdio.h>
#include <string.h>

#include "error.h"
#include "golden.h"

typedef struct {
  char *path;
  OsrDevice *device;
} Fixture;

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

/* "block.0.bf16" [2, 3] of 0x0201, 0x0403, ...; "f32" = (1.5, -7); "more" = 1 in F16; "ids"
 * [2]; "conv" [2, 3, 1, 2, 2] of 0, 1, 2, ... */
static void
set_up(Fixture *f, gconstpointer data)
{
  static const char *const names[] = { "block.0.bf16", "f32", "more", "ids", "conv" };
  g_autoptr(GError) error = NULL;
  OsrTensor *tensors[5];
  int fd;

  f->device = osr_device_get("ref", &error);
  g_assert_no_error(error);
  fd = g_file_open_tmp("opensora-XXXXXX-mmdit.safetensors", &f->path, &error);
  g_assert_no_error(error);
  g_close(fd, NULL);
  tensors[0] = counting_tensor(f->device, OSR_DTYPE_BF16, 2, (gint64[]){ 2, 3 });
  tensors[1] = counting_tensor(f->device, OSR_DTYPE_F32, 1, (gint64[]){ 2 });
  tensors[2] = counting_tensor(f->device, OSR_DTYPE_F16, 1, (gint64[]){ 1 });
  tensors[3] = counting_tensor(f->device, OSR_DTYPE_I32, 1, (gint64[]){ 2 });
  tensors[4] = counting_tensor(f->device, OSR_DTYPE_F32, 5, (gint64[]){ 2, 3, 1, 2, 2 });
  for (guint i = 0; i < 24; i++)
    ((float *) tensors[4]->data)[i] = (float) i;
  memcpy(tensors[1]->data, (float[]){ 1.5f, -7 }, 8);
  memcpy(tensors[2]->data, (guint16[]){ 0x3c00 }, 2);
  osr_checkpoint_write(f->path, 5, names, tensors, NULL, &error);
  g_assert_no_error(error);
  for (guint i = 0; i < 5; i++)
    osr_tensor_unref(tensors[i]);
}

static void
tear_down(Fixture *f, gconstpointer data)
{
  OsrPoolStats stats;

  g_unlink(f->path);
  g_free(f->path);
  osr_pool_get_stats(osr_device_get_pool(f->device), &stats);
  g_assert_cmpuint(stats.allocated, ==, 0);
  osr_device_unref(f->device);
}

static OsrCheckpoint *
loader_checkpoint(Fixture *f)
{
  g_autoptr(GError) error = NULL;
  OsrCheckpoint *checkpoint = osr_checkpoint_open(f->path, &error);

  g_assert_no_error(error);
  return checkpoint;
}

static void
assert_floats(OsrTensor *tensor, guint n, const float *want)
{
  g_assert_nonnull(tensor);
  g_assert_cmpint(tensor->dtype, ==, OSR_DTYPE_F32);
  g_assert_cmpmem(tensor->data, tensor->size, want, n * sizeof *want);
}

static void
test_loader(Fixture *f, gconstpointer data)
{
  static const guint16 brains[] = { 0x0201, 0x0403, 0x0605, 0x0807, 0x0a09, 0x0c0b };
  g_autoptr(OsrCheckpoint) checkpoint = loader_checkpoint(f);
  g_autoptr(OsrTensor) matrix = NULL, vector = NULL, same = NULL, stack = NULL, rows = NULL;
  g_autoptr(OsrTensor) conv = NULL, picture = NULL, pointwise = NULL, raw = NULL;
  g_autoptr(GError) error = NULL;
  OsrLoader loader, raw_loader;
  float want[24], want_matrix[6];

  osr_loader_init(&loader, checkpoint, f->device, OSR_DTYPE_F32, NULL);
  g_assert_true(osr_loader_has(&loader, "block.%d.bf16", 0));
  g_assert_false(osr_loader_has(&loader, "block.%d.bf16", 1));

  matrix = osr_loader_matrix(&loader, 2, 3, "block.%d.%s", 0, "bf16");
  for (guint i = 0; i < 6; i++) {
    guint32 bits = (guint32) brains[i] << 16;

    memcpy(&want[i], &bits, sizeof bits);
  }
  assert_floats(matrix, 6, want);
  memcpy(want_matrix, want, sizeof want_matrix);
  g_assert_cmpuint(loader.n_parameters, ==, 6);
  g_assert_cmpuint(loader.n_bytes, ==, 24);

  vector = osr_loader_vector(&loader, 2, "f32");
  assert_floats(vector, 2, (float[]){ 1.5f, -7 });
  same = osr_loader_get(&loader, 1, (gint64[]){ 2 }, "f%d", 32);
  assert_floats(same, 2, (float[]){ 1.5f, -7 });

  /* Different types: by way of f32. */
  stack = osr_loader_stack(&loader, (const char *[]){ "f32", "more", "f32", NULL },
                           (gint64[]){ 2, 1, 2 }, 0);
  assert_floats(stack, 5, (float[]){ 1.5f, -7, 1, 1.5f, -7 });
  g_assert_cmpuint(stack->n_dims, ==, 1);
  g_assert_cmpint(stack->dims[0], ==, 5);

  memcpy(want + 6, want, 6 * sizeof *want);
  rows = osr_loader_stack(&loader, (const char *[]){ "block.0.bf16", "block.0.bf16", NULL },
                          (gint64[]){ 2, 2 }, 3);
  assert_floats(rows, 12, want);
  g_assert_cmpuint(rows->n_dims, ==, 2);
  g_assert_cmpint(rows->dims[0], ==, 4);

  conv = osr_loader_conv3d(&loader, 2, 3, 1, 2, 2, "conv");
  for (guint o = 0; o < 2; o++)
    for (guint i = 0; i < 3; i++)
      for (guint k = 0; k < 4; k++)
        want[(o * 4 + k) * 3 + i] = (float) ((o * 3 + i) * 4 + k);
  assert_floats(conv, 24, want);
  g_assert_cmpuint(conv->n_dims, ==, 5);
  g_assert_cmpint(conv->dims[0], ==, 2);
  g_assert_cmpint(conv->dims[1], ==, 1);
  g_assert_cmpint(conv->dims[4], ==, 3);

  /* Dimensions of one may be there or not. */
  picture = osr_loader_get(&loader, 4, (gint64[]){ 2, 3, 2, 2 }, "conv");
  g_assert_cmpuint(picture->n_dims, ==, 4);
  g_assert_cmpint(picture->dims[3], ==, 2);
  pointwise = osr_loader_conv3d(&loader, 2, 3, 1, 1, 1, "block.0.bf16");
  assert_floats(pointwise, 6, want_matrix);
  g_assert_cmpuint(pointwise->n_dims, ==, 5);
  g_assert_true(osr_loader_finish(&loader, &error));
  g_assert_no_error(error);

  /* A type that the file has already is taken as it is. */
  osr_loader_init(&raw_loader, checkpoint, f->device, OSR_DTYPE_BF16, NULL);
  raw = osr_loader_matrix(&raw_loader, 2, 3, "block.0.bf16");
  g_assert_cmpint(raw->dtype, ==, OSR_DTYPE_BF16);
  g_assert_cmpmem(raw->data, raw->size, brains, sizeof brains);
  g_clear_pointer(&raw, osr_tensor_unref);
  raw = osr_loader_vector(&raw_loader, 2, "f32");
  g_assert_cmpint(raw->dtype, ==, OSR_DTYPE_BF16);
  g_assert_cmpmem(raw->data, raw->size, ((guint16[]){ 0x3fc0, 0xc0e0 }), 4);
  g_assert_true(osr_loader_finish(&raw_loader, &error));
}

static void
assert_loader_failed(OsrLoader *loader, OsrError code, const char *message)
{
  g_autoptr(GError) error = NULL;

  /* Stuck: what is there is not loaded either. */
  g_assert_null(osr_loader_vector(loader, 2, "f32"));
  g_assert_null(osr_loader_vector(loader, 2, "also missing"));
  g_assert_null(osr_loader_stack(loader, (const char *[]){ "f32", NULL }, (gint64[]){ 2 }, 0));
  g_assert_null(osr_loader_conv3d(loader, 2, 3, 1, 2, 2, "conv"));
  g_assert_false(osr_loader_finish(loader, &error));
  g_assert_error(error, OSR_ERROR, (int) code);
  if (!g_str_has_suffix(error->message, message))
    g_error("\"%s\" does not end in \"%s\"", error->message, message);
  g_assert_null(loader->error);
}

static void
test_loader_errors(Fixture *f, gconstpointer data)
{
  g_autoptr(OsrCheckpoint) checkpoint = loader_checkpoint(f);
  OsrLoader loader;

  osr_loader_init(&loader, checkpoint, f->device, OSR_DTYPE_F32, NULL);
  g_assert_null(osr_loader_vector(&loader, 2, "block.%d.x", 7));
  assert_loader_failed(&loader, OSR_ERROR_NOT_FOUND,
                       "mmdit.safetensors: tensor 'block.7.x' is missing");

  g_assert_null(osr_loader_matrix(&loader, 2, 4, "block.0.bf16"));
  assert_loader_failed(
      &loader, OSR_ERROR_SHAPE,
      "mmdit.safetensors: tensor 'block.0.bf16' is [2, 3], the model needs [2, 4]");

  g_assert_null(osr_loader_vector(&loader, 6, "block.0.bf16"));
  assert_loader_failed(&loader, OSR_ERROR_SHAPE, "is [2, 3], the model needs [6]");

  g_assert_null(osr_loader_get(&loader, 4, (gint64[]){ 2, 3, 4, 1 }, "conv"));
  assert_loader_failed(&loader, OSR_ERROR_SHAPE,
                       "is [2, 3, 1, 2, 2], the model needs [2, 3, 4, 1]");

  g_assert_null(osr_loader_get(&loader, 0, NULL, "f32"));
  assert_loader_failed(&loader, OSR_ERROR_SHAPE, "is [2], the model needs []");

  g_assert_null(osr_loader_conv3d(&loader, 2, 3, 2, 2, 1, "conv"));
  assert_loader_failed(&loader, OSR_ERROR_SHAPE,
                       "is [2, 3, 1, 2, 2], the model needs [2, 3, 2, 2, 1]");

  g_assert_null(
      osr_loader_stack(&loader, (const char *[]){ "f32", "more", NULL }, (gint64[]){ 2, 2 }, 0));
  assert_loader_failed(&loader, OSR_ERROR_SHAPE, "tensor 'more' is [1], the model needs [2]");

  g_assert_null(osr_loader_vector(&loader, 2, "ids"));
  assert_loader_failed(&loader, OSR_ERROR_UNSUPPORTED,
                       "mmdit.safetensors: tensor 'ids' is of I32 and cannot be taken as floats");

  g_assert_null(
      osr_loader_stack(&loader, (const char *[]){ "f32", "ids", NULL }, (gint64[]){ 2, 2 }, 0));
  assert_loader_failed(&loader, OSR_ERROR_UNSUPPORTED, "cannot be taken as floats");
  g_assert_cmpuint(loader.n_parameters, ==, 0);
}

static void
test_loader_memory(Fixture *f, gconstpointer data)
{
  g_autoptr(OsrCheckpoint) checkpoint = loader_checkpoint(f);
  g_autoptr(GError) error = NULL;
  OsrLoader loader;

  osr_pool_trim(osr_device_get_pool(f->device), 0);
  osr_pool_set_limit(osr_device_get_pool(f->device), 100);
  osr_loader_init(&loader, checkpoint, f->device, OSR_DTYPE_F32, NULL);
  g_assert_null(osr_loader_matrix(&loader, 2, 3, "block.0.bf16"));
  g_assert_false(osr_loader_finish(&loader, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
}

static void
test_loader_cancelled(Fixture *f, gconstpointer data)
{
  g_autoptr(OsrCheckpoint) checkpoint = loader_checkpoint(f);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(OsrTensor) before = NULL;
  g_autoptr(GError) error = NULL;
  OsrLoader loader;

  osr_loader_init(&loader, checkpoint, f->device, OSR_DTYPE_F32, cancellable);
  before = osr_loader_vector(&loader, 2, "f32");
  g_assert_nonnull(before);
  g_cancellable_cancel(cancellable);
  g_assert_null(osr_loader_vector(&loader, 2, "f32"));
  g_assert_null(osr_loader_conv3d(&loader, 2, 3, 1, 2, 2, "conv"));
  g_assert_false(osr_loader_finish(&loader, &error));
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
}

/* The goldens are files of another writer, and golden.c is what other tests stand on. */
static void
test_golden(Fixture *f, gconstpointer data)
{
  g_autoptr(Golden) golden = golden_open("vae-t5");
  const gint64 *dims = golden_entry(golden, "in.video")->dims;
  g_autoptr(OsrTensor) video = golden_video(golden, "in.video", f->device);
  g_autofree float *values = golden_floats(golden, "in.video", NULL);
  g_autofree float *there = golden_download(video);
  g_autofree float *back = golden_channels_first(there, video->dims);
  gsize n = (gsize) osr_tensor_n_elements(video);

  g_assert_cmpint(video->dims[1], ==, dims[2]);
  g_assert_cmpint(video->dims[4], ==, dims[1]);
  g_assert_cmpmem(back, n * sizeof *back, values, n * sizeof *values);
  g_assert_cmpfloat(there[1], ==, values[dims[2] * dims[3] * dims[4]]);
  g_assert_cmpfloat(golden_video_error(golden, "in.video", video), ==, 0);
  g_assert_cmpfloat(golden_error((float[]){ 3, 0 }, (float[]){ 3, 4 }, 2), ==, 0.8);
  g_assert_cmpint(json_object_get_int_member(golden->config, "latent_channels"), ==, 4);
  g_assert_cmpuint(osr_checkpoint_n_entries(golden->weights), >, 0);
  g_assert_cmpuint(osr_checkpoint_n_entries(golden->weights), <,
                   osr_checkpoint_n_entries(golden->file));
  g_assert_nonnull(osr_checkpoint_lookup(golden->weights, "decoder.conv_in.conv.bias"));
  g_assert_null(osr_checkpoint_lookup(golden->weights, "out.video"));
}

static void
assert_same(OsrTensor *a, OsrTensor *b, gboolean same)
{
  g_assert_cmpuint(a->size, ==, b->size);
  g_assert_cmpint(memcmp(a->data, b->data, a->size) == 0, ==, same);
}

/* Weights without a file: normal with deviation 1 / sqrt(inputs), the same for the same seed. */
static void
test_loader_random(Fixture *f, gconstpointer data)
{
  static const char *const names[] = { "a.weight", "b.weight", NULL };
  static const char *const biases[] = { "a.bias", "b.bias", NULL };
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrTensor) m = NULL, other = NULL, again = NULL, stack = NULL, conv = NULL;
  g_autoptr(OsrTensor) bias = NULL, norm = NULL;
  double sum = 0, squares = 0;
  OsrLoader loader, second;
  const float *v;

  osr_loader_init_random(&loader, f->device, OSR_DTYPE_F32, 7, NULL);
  osr_loader_init_random(&second, f->device, OSR_DTYPE_F32, 7, NULL);
  g_assert_true(osr_loader_has(&loader, "anything"));
  m = osr_loader_matrix(&loader, 200, 400, "m.weight");
  other = osr_loader_matrix(&loader, 200, 400, "m.weight");
  again = osr_loader_matrix(&second, 200, 400, "m.weight");
  stack = osr_loader_stack(&loader, names, (gint64[]){ 3, 5 }, 4);
  bias = osr_loader_stack(&loader, biases, (gint64[]){ 3, 5 }, 0);
  norm = osr_loader_vector(&loader, 6, "norm.scale");
  conv = osr_loader_conv3d(&loader, 2, 3, 1, 2, 2, "conv.weight");
  g_assert_true(osr_loader_finish(&loader, &error));
  g_assert_no_error(error);
  assert_same(m, again, TRUE);
  assert_same(m, other, FALSE);

  v = m->data;
  for (guint i = 0; i < 80000; i++) {
    sum += v[i];
    squares += (double) v[i] * v[i];
  }
  g_assert_cmpfloat_with_epsilon(sum / 80000, 0.0, 0.001);
  g_assert_cmpfloat_with_epsilon(squares / 80000, 1.0 / 400, 0.0001);
  g_assert_true(stack->dims[0] == 8 && stack->dims[1] == 4);
  g_assert_true(conv->n_dims == 5 && conv->dims[1] == 1 && conv->dims[4] == 3);
  g_assert_cmpint(bias->dims[0], ==, 8);
  for (guint i = 0; i < 8; i++)
    g_assert_cmpfloat(((const float *) bias->data)[i], ==, 0.0f);
  for (guint i = 0; i < 6; i++)
    g_assert_cmpfloat(((const float *) norm->data)[i], ==, 1.0f);
  g_assert_cmpuint(loader.n_parameters, ==, 2 * 80000 + 32 + 8 + 6 + 24);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
#define ADD(path, func) g_test_add(path, Fixture, NULL, set_up, func, tear_down)
  ADD("/loader/load", test_loader);
  ADD("/loader/errors", test_loader_errors);
  ADD("/loader/memory", test_loader_memory);
  ADD("/loader/cancelled", test_loader_cancelled);
  ADD("/loader/random", test_loader_random);
  ADD("/golden/read", test_golden);
#undef ADD
  return g_test_run();
}
