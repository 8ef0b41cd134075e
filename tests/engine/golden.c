/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "golden.h"

#include <math.h>
#include <string.h>

const char *const *
golden_devices(void)
{
  static const char *const hosts[] = { "ref", "cpu", NULL };
  static char **named;
  const char *names = g_getenv("GOLDEN_DEVICES");

  if (!names || !*names)
    return hosts;
  if (!named)
    named = g_strsplit(names, " ", -1);
  return (const char *const *) named;
}

char *
golden_path(const char *first, ...)
{
  g_autoptr(GPtrArray) parts = g_ptr_array_new();
  g_autofree char *data = g_test_build_filename(G_TEST_DIST, "data", NULL);
  va_list args;

  g_ptr_array_add(parts, data);
  va_start(args, first);
  for (const char *part = first; part; part = va_arg(args, const char *))
    g_ptr_array_add(parts, (char *) part);
  va_end(args);
  g_ptr_array_add(parts, NULL);
  return g_build_filenamev((char **) parts->pdata);
}

static void
add_shape(JsonBuilder *builder, const OsrCheckpointEntry *entry)
{
  json_builder_set_member_name(builder, "shape");
  json_builder_begin_array(builder);
  for (guint i = 0; i < entry->n_dims; i++)
    json_builder_add_int_value(builder, entry->dims[i]);
  json_builder_end_array(builder);
}

/* A safetensors file in memory with the "w." tensors of @file under their own names. */
static GBytes *
build_weights(OsrCheckpoint *file)
{
  g_autoptr(JsonBuilder) builder = json_builder_new();
  g_autoptr(JsonNode) root = NULL;
  g_autofree char *header = NULL;
  g_autoptr(GByteArray) data = g_byte_array_new();
  GByteArray *bytes = g_byte_array_new();
  guint64 length;

  json_builder_begin_object(builder);
  for (guint i = 0; i < osr_checkpoint_n_entries(file); i++) {
    const OsrCheckpointEntry *entry = osr_checkpoint_nth(file, i);

    if (!g_str_has_prefix(entry->name, "w."))
      continue;
    json_builder_set_member_name(builder, entry->name + 2);
    json_builder_begin_object(builder);
    json_builder_set_member_name(builder, "dtype");
    json_builder_add_string_value(builder, osr_dtype_name(entry->dtype));
    add_shape(builder, entry);
    json_builder_set_member_name(builder, "data_offsets");
    json_builder_begin_array(builder);
    json_builder_add_int_value(builder, data->len);
    g_byte_array_append(data, entry->data, entry->size);
    json_builder_add_int_value(builder, data->len);
    json_builder_end_array(builder);
    json_builder_end_object(builder);
  }
  json_builder_end_object(builder);

  root = json_builder_get_root(builder);
  header = json_to_string(root, FALSE);
  length = GUINT64_TO_LE(strlen(header));
  g_byte_array_append(bytes, (const guint8 *) &length, sizeof length);
  g_byte_array_append(bytes, (const guint8 *) header, strlen(header));
  g_byte_array_append(bytes, data->data, data->len);
  return g_byte_array_free_to_bytes(bytes);
}

Golden *
golden_open(const char *name)
{
  Golden *golden = g_new0(Golden, 1);
  g_autofree char *file_name = g_strconcat(name, ".safetensors", NULL);
  g_autofree char *path = golden_path("golden", file_name, NULL);
  g_autoptr(GBytes) weights = NULL;
  g_autoptr(JsonNode) config = NULL;
  g_autoptr(GError) error = NULL;
  const char *text;

  golden->file = osr_checkpoint_open(path, &error);
  g_assert_no_error(error);

  weights = build_weights(golden->file);
  golden->weights = osr_checkpoint_open_bytes(weights, path, &error);
  g_assert_no_error(error);

  text = osr_checkpoint_get_metadata(golden->file, "config");
  g_assert_nonnull(text);
  config = json_from_string(text, &error);
  g_assert_no_error(error);
  g_assert_true(config && JSON_NODE_HOLDS_OBJECT(config));
  golden->config = json_node_dup_object(config);
  return golden;
}

void
golden_free(Golden *golden)
{
  if (!golden)
    return;
  osr_checkpoint_unref(golden->file);
  osr_checkpoint_unref(golden->weights);
  json_object_unref(golden->config);
  g_free(golden);
}

JsonNode *
golden_json(const char *name)
{
  g_autofree char *file_name = g_strconcat(name, ".json", NULL);
  g_autofree char *path = golden_path("golden", file_name, NULL);
  g_autoptr(JsonParser) parser = json_parser_new();
  g_autoptr(GError) error = NULL;

  json_parser_load_from_file(parser, path, &error);
  g_assert_no_error(error);
  return json_parser_steal_root(parser);
}

gboolean
golden_has(Golden *golden, const char *name)
{
  return osr_checkpoint_lookup(golden->file, name) != NULL;
}

const OsrCheckpointEntry *
golden_entry(Golden *golden, const char *name)
{
  const OsrCheckpointEntry *entry = osr_checkpoint_lookup(golden->file, name);

  if (!entry)
    g_error("%s has no tensor '%s'", osr_checkpoint_get_path(golden->file), name);
  return entry;
}

static gsize
entry_length(const OsrCheckpointEntry *entry)
{
  return entry->size / osr_dtype_size(entry->dtype);
}

static gboolean
entry_is_int(const OsrCheckpointEntry *entry)
{
  return entry->dtype == OSR_DTYPE_I32 || entry->dtype == OSR_DTYPE_I64;
}

float *
golden_floats(Golden *golden, const char *name, gsize *n)
{
  const OsrCheckpointEntry *entry = golden_entry(golden, name);
  float *values = g_new(float, MAX(entry_length(entry), 1));
  g_autoptr(GError) error = NULL;

  osr_checkpoint_entry_to_f32(entry, values, &error);
  g_assert_no_error(error);
  if (n)
    *n = entry_length(entry);
  return values;
}

gint32 *
golden_ints(Golden *golden, const char *name, gsize *n)
{
  const OsrCheckpointEntry *entry = golden_entry(golden, name);
  gsize length = entry_length(entry), item = osr_dtype_size(entry->dtype);
  gint32 *values = g_new(gint32, MAX(length, 1));

  g_assert_true(entry_is_int(entry));
  for (gsize i = 0; i < length; i++) {
    const char *at = (const char *) entry->data + i * item;

    if (entry->dtype == OSR_DTYPE_I32) {
      memcpy(&values[i], at, sizeof values[i]);
    } else {
      gint64 wide;

      memcpy(&wide, at, sizeof wide);
      g_assert_true(wide >= G_MININT32 && wide <= G_MAXINT32);
      values[i] = (gint32) wide;
    }
  }
  if (n)
    *n = length;
  return values;
}

static OsrTensor *
upload_floats(const float *values, guint n_dims, const gint64 *dims, OsrDevice *device)
{
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrTensor) tensor =
      osr_tensor_new_from_host(device, OSR_DTYPE_F32, n_dims, dims, values, &error);
  OsrTensor *converted;

  g_assert_no_error(error);
  converted = osr_tensor_convert(tensor, device, osr_device_get_dtype(device), &error);
  g_assert_no_error(error);
  return converted;
}

OsrTensor *
golden_tensor(Golden *golden, const char *name, OsrDevice *device)
{
  const OsrCheckpointEntry *entry = golden_entry(golden, name);
  g_autofree float *values = NULL;
  g_autoptr(GError) error = NULL;
  OsrTensor *tensor;

  if (entry_is_int(entry)) {
    tensor = osr_tensor_new_from_host(device, entry->dtype, entry->n_dims, entry->dims, entry->data,
                                      &error);
    g_assert_no_error(error);
    return tensor;
  }
  values = golden_floats(golden, name, NULL);
  return upload_floats(values, entry->n_dims, entry->dims, device);
}

OsrTensor *
golden_video(Golden *golden, const char *name, OsrDevice *device)
{
  const OsrCheckpointEntry *entry = golden_entry(golden, name);
  g_autofree float *values = golden_floats(golden, name, NULL);
  g_autofree float *video = NULL;
  const gint64 *d = entry->dims;

  g_assert_cmpuint(entry->n_dims, ==, 5);
  video = golden_channels_last(values, d);
  return upload_floats(video, 5, (gint64[]){ d[0], d[2], d[3], d[4], d[1] }, device);
}

float *
golden_download(OsrTensor *tensor)
{
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrTensor) f32 = osr_tensor_convert(tensor, tensor->device, OSR_DTYPE_F32, &error);
  float *values;

  g_assert_no_error(error);
  values = g_malloc(MAX(f32->size, 1));
  osr_tensor_download(f32, values, f32->size, &error);
  g_assert_no_error(error);
  return values;
}

/* [n, rows, columns] -> [n, columns, rows] */
static float *
transpose(const float *src, gint64 n, gint64 rows, gint64 columns)
{
  float *dst = g_new(float, MAX(n * rows * columns, 1));

  for (gint64 i = 0; i < n; i++)
    for (gint64 r = 0; r < rows; r++)
      for (gint64 c = 0; c < columns; c++)
        dst[(i * columns + c) * rows + r] = src[(i * rows + r) * columns + c];
  return dst;
}

float *
golden_channels_last(const float *src, const gint64 dims[5])
{
  return transpose(src, dims[0], dims[1], dims[2] * dims[3] * dims[4]);
}

float *
golden_channels_first(const float *src, const gint64 dims[5])
{
  return transpose(src, dims[0], dims[1] * dims[2] * dims[3], dims[4]);
}

double
golden_error(const float *got, const float *want, gsize n)
{
  double difference = 0, norm = 0;

  for (gsize i = 0; i < n; i++) {
    double d = (double) got[i] - want[i];

    difference += d * d;
    norm += (double) want[i] * want[i];
  }
  return norm == 0 ? sqrt(difference) : sqrt(difference / norm);
}

static double
compare(const OsrCheckpointEntry *entry, const float *want, OsrTensor *got)
{
  g_autofree float *values = golden_download(got);

  if ((gsize) osr_tensor_n_elements(got) != entry_length(entry)) {
    g_autofree char *got_dims = osr_dims_to_string(got->n_dims, got->dims);
    g_autofree char *want_dims = osr_dims_to_string(entry->n_dims, entry->dims);

    g_error("'%s' is %s in the golden file, the result is %s", entry->name, want_dims, got_dims);
  }
  return golden_error(values, want, entry_length(entry));
}

double
golden_tensor_error(Golden *golden, const char *name, OsrTensor *got)
{
  g_autofree float *want = golden_floats(golden, name, NULL);

  return compare(golden_entry(golden, name), want, got);
}

double
golden_video_error(Golden *golden, const char *name, OsrTensor *got)
{
  const OsrCheckpointEntry *entry = golden_entry(golden, name);
  g_autofree float *want = golden_floats(golden, name, NULL);
  g_autofree float *video = NULL;

  g_assert_cmpuint(entry->n_dims, ==, 5);
  video = golden_channels_last(want, entry->dims);
  return compare(entry, video, got);
}
