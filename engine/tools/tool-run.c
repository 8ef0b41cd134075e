/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tool-run.c: one component on the tensors of a file, in upstream's layouts. What a PyTorch
 * script has saved goes in, what it is compared with comes out.
 */
#include "tool.h"

#include <math.h>
#include <string.h>

#include "model-config.h"
#include "vae-private.h"

#define MAX_OUTPUTS 4

typedef struct {
  OsrDevice *device;
  OsrDType dtype;
  OsrModelDir *dir;       /* or: */
  OsrCheckpoint *weights; /* with @config, which is in @config_name */
  char *config_name;
  OsrConfigSection config;
  OsrCheckpoint *inputs;
  OsrVaeTiling tiling;
  guint n_outputs;
  const char *names[MAX_OUTPUTS];
  OsrTensor *outputs[MAX_OUTPUTS];
} Job;

static void
job_clear(Job *job)
{
  for (guint i = 0; i < job->n_outputs; i++)
    osr_tensor_unref(job->outputs[i]);
  osr_checkpoint_unref(job->inputs);
  osr_checkpoint_unref(job->weights);
  osr_model_dir_free(job->dir);
  g_clear_pointer(&job->config.object, json_object_unref);
  g_free(job->config_name);
  osr_device_unref(job->device);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Job, job_clear)

/* Tensors in and out */

/* "@name" or "@prefix.@name". */
static const OsrCheckpointEntry *
find(OsrCheckpoint *file, const char *prefix, const char *name)
{
  const OsrCheckpointEntry *entry = osr_checkpoint_lookup(file, name);
  g_autofree char *long_name = NULL;

  if (entry)
    return entry;
  long_name = g_strconcat(prefix, ".", name, NULL);
  return osr_checkpoint_lookup(file, long_name);
}

static const OsrCheckpointEntry *
need(Job *job, const char *name, guint n_dims, GError **error)
{
  const OsrCheckpointEntry *entry = find(job->inputs, "in", name);

  if (!entry)
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "%s: the input '%s' is missing",
                osr_checkpoint_get_path(job->inputs), name);
  else if (entry->n_dims != n_dims)
    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE, "%s: '%s' has %u dimensions, not %u",
                osr_checkpoint_get_path(job->inputs), name, entry->n_dims, n_dims);
  else
    return entry;
  return NULL;
}

static float *
floats(const OsrCheckpointEntry *entry, GError **error)
{
  g_autofree float *values = g_try_new(float, MAX(entry->size / osr_dtype_size(entry->dtype), 1));

  if (!values) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY, "no memory for '%s'", entry->name);
    return NULL;
  }
  return osr_checkpoint_entry_to_f32(entry, values, error) ? g_steal_pointer(&values) : NULL;
}

static OsrTensor *
upload(Job *job, const float *values, guint n_dims, const gint64 *dims, GError **error)
{
  g_autoptr(OsrTensor) f32 =
      osr_tensor_new_from_host(job->device, OSR_DTYPE_F32, n_dims, dims, values, error);

  return f32 ? osr_tensor_convert(f32, job->device, job->dtype, error) : NULL;
}

/* As it is in the file. */
static OsrTensor *
input(Job *job, const char *name, guint n_dims, GError **error)
{
  const OsrCheckpointEntry *entry = need(job, name, n_dims, error);
  g_autofree float *values = entry ? floats(entry, error) : NULL;

  return values ? upload(job, values, n_dims, entry->dims, error) : NULL;
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

/* [1, C, T, H, W] of the file as [T, H, W, C]. */
static OsrTensor *
input_video(Job *job, const char *name, GError **error)
{
  const OsrCheckpointEntry *entry = need(job, name, 5, error);
  g_autofree float *values = entry ? floats(entry, error) : NULL;
  g_autofree float *turned = NULL;
  const gint64 *d;

  if (!values)
    return NULL;
  d = entry->dims;
  if (d[0] != 1) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "'%s' is a batch of %" G_GINT64_FORMAT ", one is possible", entry->name, d[0]);
    return NULL;
  }
  turned = transpose(values, 1, d[1], d[2] * d[3] * d[4]);
  return upload(job, turned, 4, (gint64[]){ d[2], d[3], d[4], d[1] }, error);
}

/* Ids of a batch [B, L]. */
static gint32 *
input_ids(Job *job, gint64 dims[2], GError **error)
{
  const OsrCheckpointEntry *entry = need(job, "ids", 2, error);
  g_autofree char *packed = NULL;
  g_autofree gint32 *ids = NULL;
  gsize n;

  if (!entry)
    return NULL;
  if (entry->dtype != OSR_DTYPE_I32 && entry->dtype != OSR_DTYPE_I64) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED, "'%s' is %s, not I32 or I64", entry->name,
                osr_dtype_name(entry->dtype));
    return NULL;
  }
  n = entry->size / osr_dtype_size(entry->dtype);
  ids = g_new(gint32, MAX(n, 1));
  packed = g_malloc(MAX(entry->size, 1));
  osr_checkpoint_entry_pack(entry, packed);
  for (gsize i = 0; i < n; i++) {
    gint64 wide;
    gint32 narrow;

    if (entry->dtype == OSR_DTYPE_I32) {
      memcpy(&narrow, packed + i * sizeof narrow, sizeof narrow);
      wide = narrow;
    } else {
      memcpy(&wide, packed + i * sizeof wide, sizeof wide);
    }
    if (wide < 0 || wide > G_MAXINT32) {
      g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "'%s' has the id %" G_GINT64_FORMAT,
                  entry->name, wide);
      return NULL;
    }
    ids[i] = (gint32) wide;
  }
  dims[0] = entry->dims[0];
  dims[1] = entry->dims[1];
  return g_steal_pointer(&ids);
}

/* Keeps @tensor, in f32, as an output. */
static gboolean
output(Job *job, const char *name, OsrTensor *tensor, GError **error)
{
  OsrTensor *f32 = osr_tensor_convert(tensor, job->device, OSR_DTYPE_F32, error);

  if (!f32)
    return FALSE;
  job->names[job->n_outputs] = name;
  job->outputs[job->n_outputs++] = f32;
  return TRUE;
}

/* [T, H, W, C] as [1, C, T, H, W]. */
static gboolean
output_video(Job *job, const char *name, OsrTensor *video, GError **error)
{
  g_autoptr(OsrTensor) f32 = osr_tensor_convert(video, job->device, OSR_DTYPE_F32, error);
  g_autofree float *values = NULL, *turned = NULL;
  g_autoptr(OsrTensor) result = NULL;
  const gint64 *d = video->dims;

  if (!f32)
    return FALSE;
  values = g_malloc(MAX(f32->size, 1));
  if (!osr_tensor_download(f32, values, f32->size, error))
    return FALSE;
  turned = transpose(values, 1, d[0] * d[1] * d[2], d[3]);
  result = osr_tensor_new_from_host(job->device, OSR_DTYPE_F32, 5,
                                    (gint64[]){ 1, d[3], d[0], d[1], d[2] }, turned, error);
  return result && output(job, name, result, error);
}

/* Rows of a batch that come one by one, [1, ...] each. */
static gboolean
output_batch(Job *job, const char *name, GPtrArray *items, GError **error)
{
  gint64 dims[OSR_TENSOR_MAX_DIMS];
  g_autoptr(OsrTensor) all = NULL;
  const OsrTensor *first;

  if (items->len == 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE, "the batch is empty");
    return FALSE;
  }
  first = g_ptr_array_index(items, 0);
  memcpy(dims, first->dims, sizeof dims);
  dims[0] = items->len;
  all = osr_tensor_new(job->device, first->dtype, first->n_dims, dims, error);
  if (!all)
    return FALSE;
  for (guint i = 0; i < items->len; i++) {
    OsrTensor *item = g_ptr_array_index(items, i);
    g_autofree char *bytes = g_malloc(MAX(item->size, 1));

    if (!osr_tensor_download(item, bytes, item->size, error) ||
        !osr_device_upload(job->device, (char *) all->data + i * item->size, bytes, item->size,
                           error))
      return FALSE;
  }
  return output(job, name, all, error);
}

/* Components */

/* The loader on the component's weights: @part of a model folder, or of the file given. */
static OsrCheckpoint *
open_weights(Job *job, OsrPart part, OsrLoader *loader, GCancellable *cancellable, GError **error)
{
  OsrCheckpoint *file = job->dir ? osr_model_dir_open_part(job->dir, part, error)
                                 : osr_part_select(part, job->weights, error);

  if (file)
    osr_loader_init(loader, file, job->device, job->dtype, cancellable);
  return file;
}

/* The last index of an axis and one. */
static gboolean
grid_of_ids(Job *job, guint grid[3], GError **error)
{
  const OsrCheckpointEntry *entry = need(job, "img_ids", 3, error);
  g_autofree float *ids = entry && entry->dims[2] == 3 ? floats(entry, error) : NULL;

  if (entry && entry->dims[2] != 3)
    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE, "'%s' has not three numbers a token",
                entry->name);
  if (!ids)
    return FALSE;
  for (gint64 i = 0; i < entry->dims[1] * 3; i++)
    if (ids[i] >= 0 && ids[i] < 1 << 20)
      grid[i % 3] = MAX(grid[i % 3], (guint) ids[i] + 1);
  return TRUE;
}

/* A number for every one of @n items. */
static float *
scalars(Job *job, const char *name, gint64 n, GError **error)
{
  const OsrCheckpointEntry *entry = need(job, name, 1, error);

  if (entry && entry->dims[0] != n) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
                "'%s' has %" G_GINT64_FORMAT " numbers, the batch %" G_GINT64_FORMAT " items",
                entry->name, entry->dims[0], n);
    return NULL;
  }
  return entry ? floats(entry, error) : NULL;
}

/* Item @i of a batch, NULL of NULL. */
static OsrTensor *
item_of(OsrTensor *batch, gint64 i)
{
  gint64 dims[OSR_TENSOR_MAX_DIMS];

  if (!batch)
    return NULL;
  memcpy(dims, batch->dims, sizeof dims);
  dims[0] = 1;
  return osr_tensor_view(batch, i * (osr_tensor_n_elements(batch) / batch->dims[0]), batch->n_dims,
                         dims);
}

typedef struct {
  OsrTensor *img, *cond, *txt, *vec;
  float *timesteps, *guidance;
  guint grid[3];
} MmditBatch;

static void
mmdit_batch_clear(MmditBatch *batch)
{
  g_clear_pointer(&batch->img, osr_tensor_unref);
  g_clear_pointer(&batch->cond, osr_tensor_unref);
  g_clear_pointer(&batch->txt, osr_tensor_unref);
  g_clear_pointer(&batch->vec, osr_tensor_unref);
  g_free(batch->timesteps);
  g_free(batch->guidance);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(MmditBatch, mmdit_batch_clear)

static gboolean
same_batch(const OsrTensor *tensor, const char *name, const OsrTensor *img, GError **error)
{
  if (!tensor || tensor->dims[0] == img->dims[0])
    return TRUE;
  g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
              "'%s' has %" G_GINT64_FORMAT " items, 'img' %" G_GINT64_FORMAT, name, tensor->dims[0],
              img->dims[0]);
  return FALSE;
}

static gboolean
mmdit_batch_read(Job *job, const OsrMmditConfig *config, MmditBatch *batch, GError **error)
{
  return (batch->img = input(job, "img", 3, error)) && (batch->txt = input(job, "txt", 3, error)) &&
         (batch->vec = input(job, "y_vec", 2, error)) &&
         (!config->cond_embed || (batch->cond = input(job, "cond", 3, error))) &&
         same_batch(batch->txt, "txt", batch->img, error) &&
         same_batch(batch->vec, "y_vec", batch->img, error) &&
         same_batch(batch->cond, "cond", batch->img, error) &&
         (batch->timesteps = scalars(job, "timesteps", batch->img->dims[0], error)) &&
         (!config->guidance_embed ||
          (batch->guidance = scalars(job, "guidance", batch->img->dims[0], error))) &&
         grid_of_ids(job, batch->grid, error);
}

static OsrTensor *
forward_item(OsrMmdit *mmdit, const MmditBatch *batch, gint64 i, GCancellable *cancellable,
             GError **error)
{
  g_autoptr(OsrTensor) img = item_of(batch->img, i);
  g_autoptr(OsrTensor) cond = item_of(batch->cond, i);
  g_autoptr(OsrTensor) txt = item_of(batch->txt, i);
  g_autoptr(OsrTensor) vec = item_of(batch->vec, i);

  return osr_mmdit_forward(mmdit,
                           &(OsrMmditInput){
                               .img = img,
                               .cond = cond,
                               .txt = txt,
                               .vec = vec,
                               .frames = batch->grid[0],
                               .height = batch->grid[1],
                               .width = batch->grid[2],
                               .timestep = batch->timesteps[i],
                               .guidance = batch->guidance ? batch->guidance[i] : 0,
                           },
                           cancellable, error);
}

/* Item by item: each may have a time of its own. */
static gboolean
run_mmdit(Job *job, GCancellable *cancellable, GError **error)
{
  g_autoptr(GPtrArray) pred = g_ptr_array_new_with_free_func((GDestroyNotify) osr_tensor_unref);
  g_auto(MmditBatch) batch = { .grid = { 1, 1, 1 } };
  g_autoptr(OsrCheckpoint) file = NULL;
  g_autoptr(OsrMmdit) mmdit = NULL;
  OsrMmditConfig config;
  OsrLoader loader;

  if (job->dir)
    config = job->dir->mmdit;
  else if (!osr_config_read_mmdit(&job->config, &config, error))
    return FALSE;
  if (!mmdit_batch_read(job, &config, &batch, error))
    return FALSE;
  file = open_weights(job, OSR_PART_MMDIT, &loader, cancellable, error);
  mmdit = file ? osr_mmdit_load(&config, &loader, error) : NULL;
  if (!mmdit)
    return FALSE;
  for (gint64 i = 0; i < batch.img->dims[0]; i++) {
    OsrTensor *item = forward_item(mmdit, &batch, i, cancellable, error);

    if (!item)
      return FALSE;
    g_ptr_array_add(pred, item);
  }
  return output_batch(job, "pred", pred, error);
}

static gboolean
run_t5(Job *job, GCancellable *cancellable, GError **error)
{
  g_autoptr(GPtrArray) hidden = g_ptr_array_new_with_free_func((GDestroyNotify) osr_tensor_unref);
  OsrT5Config config;
  OsrLoader loader;
  g_autoptr(OsrCheckpoint) file = NULL;
  g_autoptr(OsrT5) t5 = NULL;
  g_autofree gint32 *ids = NULL;
  gint64 dims[2];

  if (job->dir)
    config = job->dir->t5;
  else if (!osr_config_read_t5(&job->config, &config, error))
    return FALSE;
  ids = input_ids(job, dims, error);
  file = ids ? open_weights(job, OSR_PART_T5, &loader, cancellable, error) : NULL;
  t5 = file ? osr_t5_load(&config, &loader, error) : NULL;
  if (!t5)
    return FALSE;
  for (gint64 i = 0; i < dims[0]; i++) {
    OsrTensor *item = osr_t5_encode(t5, ids + i * dims[1], (guint) dims[1], cancellable, error);

    if (!item)
      return FALSE;
    g_ptr_array_add(hidden, item);
  }
  return output_batch(job, "hidden", hidden, error);
}

static gboolean
run_clip(Job *job, GCancellable *cancellable, GError **error)
{
  g_autoptr(GPtrArray) pooled = g_ptr_array_new_with_free_func((GDestroyNotify) osr_tensor_unref);
  g_autoptr(GPtrArray) hidden = g_ptr_array_new_with_free_func((GDestroyNotify) osr_tensor_unref);
  OsrClipConfig config;
  OsrLoader loader;
  g_autoptr(OsrCheckpoint) file = NULL;
  g_autoptr(OsrClip) clip = NULL;
  g_autofree gint32 *ids = NULL;
  gint64 dims[2];

  if (job->dir)
    config = job->dir->clip;
  else if (!osr_config_read_clip(&job->config, &config, error))
    return FALSE;
  ids = input_ids(job, dims, error);
  file = ids ? open_weights(job, OSR_PART_CLIP, &loader, cancellable, error) : NULL;
  clip = file ? osr_clip_load(&config, &loader, error) : NULL;
  if (!clip)
    return FALSE;
  for (gint64 i = 0; i < dims[0]; i++) {
    OsrTensor *states = NULL;
    OsrTensor *item =
        osr_clip_encode(clip, ids + i * dims[1], (guint) dims[1], &states, cancellable, error);

    if (!item)
      return FALSE;
    g_ptr_array_add(pooled, item);
    g_ptr_array_add(hidden, states);
  }
  return output_batch(job, "pooled", pooled, error) && output_batch(job, "hidden", hidden, error);
}

typedef gboolean (*ReadVae)(const OsrConfigSection *section, OsrVaeConfig *config, GError **error);

static OsrVae *
load_vae(Job *job, ReadVae read, gboolean encoder, gboolean decoder, GCancellable *cancellable,
         GError **error)
{
  g_autoptr(OsrCheckpoint) file = NULL;
  OsrPart part = OSR_PART_VAE; /* of a model folder, whichever it has */
  OsrVaeConfig config;
  OsrLoader loader;

  if (job->dir)
    config = job->dir->vae;
  else if (!read(&job->config, &config, error))
    return NULL;
  if (!job->dir && config.type == OSR_VAE_FLUX)
    part = OSR_PART_FLUX_AE;
  file = open_weights(job, part, &loader, cancellable, error);
  return file ? osr_vae_load(&config, encoder, decoder, &loader, error) : NULL;
}

static gboolean
encode(Job *job, OsrVae *vae, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrTensor) video = input_video(job, "video", error);
  g_autoptr(OsrTensor) moments = NULL;
  g_autoptr(OsrTensor) latent = NULL;
  g_autoptr(OsrTensor) noise = NULL;
  g_autoptr(OsrTensor) sample = NULL;

  if (!video)
    return FALSE;
  latent = osr_vae_encode(vae, video, job->tiling, NULL, &moments, cancellable, error);
  if (!latent || !output_video(job, "moments", moments, error) ||
      !output_video(job, "latent", latent, error))
    return FALSE;
  if (!find(job->inputs, "in", "noise"))
    return TRUE;
  noise = input_video(job, "noise", error);
  if (noise && osr_tensor_n_elements(noise) != osr_tensor_n_elements(latent)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE, "'noise' is not as large as the latent");
    return FALSE;
  }
  sample = noise ? osr_vae_posterior(vae, moments, noise, error) : NULL;
  return sample && output_video(job, "sample", sample, error);
}

static gboolean
decode(Job *job, OsrVae *vae, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrTensor) latent = input_video(job, "latent", error);
  g_autoptr(OsrTensor) video = NULL;

  if (!latent)
    return FALSE;
  video = osr_vae_decode(vae, latent, job->tiling, NULL, NULL, cancellable, error);
  return video && output_video(job, "video", video, error);
}

static gboolean
run_vae_encode(Job *job, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrVae) vae = load_vae(job, osr_config_read_vae, TRUE, FALSE, cancellable, error);

  return vae && encode(job, vae, cancellable, error);
}

static gboolean
run_vae_decode(Job *job, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrVae) vae = load_vae(job, osr_config_read_vae, FALSE, TRUE, cancellable, error);

  return vae && decode(job, vae, cancellable, error);
}

/* Either way, or both, by what is in the file. */
static gboolean
run_flux_ae(Job *job, GCancellable *cancellable, GError **error)
{
  const gboolean has_video = find(job->inputs, "in", "video") != NULL;
  const gboolean has_latent = find(job->inputs, "in", "latent") != NULL;
  g_autoptr(OsrVae) ae = NULL;

  if (!has_video && !has_latent) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
                "%s: the input 'video' or 'latent' is missing",
                osr_checkpoint_get_path(job->inputs));
    return FALSE;
  }
  ae = load_vae(job, osr_config_read_ae, has_video, has_latent, cancellable, error);
  return ae && (!has_video || encode(job, ae, cancellable, error)) &&
         (!has_latent || decode(job, ae, cancellable, error));
}

static const struct {
  const char *name;
  gboolean (*run)(Job *job, GCancellable *cancellable, GError **error);
} components[] = {
  { "mmdit", run_mmdit },
  { "t5", run_t5 },
  { "clip", run_clip },
  { "vae-encode", run_vae_encode },
  { "vae-decode", run_vae_decode },
  { "flux", run_mmdit },
  { "flux-ae", run_flux_ae },
};

/* Comparison */

/* ||got - want|| / ||want||; NaN if anything is. */
static gboolean
compare(OsrTensor *got, const OsrCheckpointEntry *entry, double *relative, GError **error)
{
  g_autofree float *want = floats(entry, error);
  g_autofree float *values = NULL;
  double difference = 0, norm = 0;
  gint64 n = osr_tensor_n_elements(got);

  if (!want)
    return FALSE;
  if (got->n_dims != entry->n_dims ||
      memcmp(got->dims, entry->dims, got->n_dims * sizeof *got->dims) != 0) {
    g_autofree char *has = osr_dims_to_string(got->n_dims, got->dims);
    g_autofree char *needs = osr_dims_to_string(entry->n_dims, entry->dims);

    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE, "'%s' is %s, the result %s", entry->name, needs,
                has);
    return FALSE;
  }
  values = g_malloc(MAX(got->size, 1));
  if (!osr_tensor_download(got, values, got->size, error))
    return FALSE;
  for (gint64 i = 0; i < n; i++) {
    double d = (double) values[i] - want[i];

    difference += d * d;
    norm += (double) want[i] * want[i];
  }
  *relative = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
  return TRUE;
}

static gboolean
compare_all(const Job *job, const char *path, double tolerance, GError **error)
{
  g_autoptr(OsrCheckpoint) file = osr_checkpoint_open(path, error);
  guint compared = 0, failed = 0;

  if (!file)
    return FALSE;
  for (guint i = 0; i < job->n_outputs; i++) {
    const OsrCheckpointEntry *entry = find(file, "out", job->names[i]);
    double relative;

    if (!entry)
      continue;
    if (!compare(job->outputs[i], entry, &relative, error))
      return FALSE;
    printf("%-8s relative error %.3g\n", job->names[i], relative);
    compared++;
    failed += !(relative <= tolerance);
  }
  if (compared == 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "%s has none of the outputs", path);
    return FALSE;
  }
  if (failed > 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_FAILED,
                "%u of %u outputs differ from %s by more than %g", failed, compared, path,
                tolerance);
    return FALSE;
  }
  return TRUE;
}

/* The command */

static const char description[] =
    "Tensors and their names (\"in.\" before a name may be there):\n"
    "  mmdit       img [B, L, C], txt [B, M, D], y_vec [B, V], timesteps [B],\n"
    "              img_ids [B, L, 3], cond [B, L, C + p p], guidance [B] -> pred [B, L, C]\n"
    "  t5          ids [B, L] -> hidden [B, L, D]\n"
    "  clip        ids [B, L] -> pooled [B, D], hidden [B, L, D]\n"
    "  vae-encode  video [1, 3, T, H, W], noise [1, C, t, h, w] (optional)\n"
    "              -> moments [1, 2 C, t, h, w], latent and, with noise, sample [1, C, t, h, w]\n"
    "  vae-decode  latent [1, C, t, h, w] -> video [1, 3, T, H, W]\n"
    "  flux        as mmdit, without cond\n"
    "  flux-ae     as vae-encode and vae-decode, what is in the file; T pictures\n"
    "The config of --weights has the keys of upstream's configs (T5 and CLIP: Hugging Face's).\n"
    "Without --config it is taken from the file's metadata \"config\".\n";

/* Of a file of its own or of the weights' metadata. */
static gboolean
open_config(Job *job, const char *path, GError **error)
{
  const char *weights = osr_checkpoint_get_path(job->weights);
  const char *inside = osr_checkpoint_get_metadata(job->weights, "config");

  if (!path && !inside) {
    tool_usage_error(error, "%s has no config in its metadata: --config is needed", weights);
    return FALSE;
  }
  job->config_name = path ? g_strdup(path) : g_strconcat(weights, ": config", NULL);
  job->config = (OsrConfigSection){
    .file = job->config_name,
    .prefix = "",
    .object = path ? osr_config_read_file(path, error)
                   : osr_config_read_text(inside, strlen(inside), job->config_name, error),
  };
  return job->config.object != NULL;
}

static gboolean
open_files(Job *job, const char *component, const char *model, const char *weights,
           const char *config, GError **error)
{
  if (model) {
    g_autofree char *image = NULL;

    if (g_str_has_prefix(component, "flux") && !g_str_has_prefix(model, OSR_MODEL_DIR_IMAGE))
      image = g_strconcat(OSR_MODEL_DIR_IMAGE, model, NULL);
    job->dir = osr_model_dir_open(image ? image : model, error);
    return job->dir != NULL;
  }
  job->weights = osr_checkpoint_open(weights, error);
  return job->weights && open_config(job, config, error);
}

static gboolean
run_job(Job *job, const char *component, GCancellable *cancellable, GError **error)
{
  for (guint i = 0; i < G_N_ELEMENTS(components); i++)
    if (g_str_equal(component, components[i].name))
      return components[i].run(job, cancellable, error);
  tool_usage_error(error, "no component '%s'", component);
  return FALSE;
}

gboolean
tool_run(int argc, char **argv, GCancellable *cancellable, GError **error)
{
  g_autofree char *component = NULL, *model = NULL, *weights = NULL, *config = NULL;
  g_autofree char *inputs = NULL, *result = NULL, *expected = NULL, *device = NULL, *tiling = NULL;
  double tolerance = 1e-4;
  const GOptionEntry entries[] = {
    { "component", 'c', 0, G_OPTION_ARG_STRING, &component,
      "mmdit, t5, clip, vae-encode, vae-decode, flux or flux-ae", "NAME" },
    { "model", 'm', 0, G_OPTION_ARG_FILENAME, &model, "model folder with the component", "DIR" },
    { "weights", 'w', 0, G_OPTION_ARG_FILENAME, &weights, "or: its weights alone", "FILE" },
    { "config", 0, 0, G_OPTION_ARG_FILENAME, &config, "JSON config of --weights", "FILE" },
    { "inputs", 'i', 0, G_OPTION_ARG_FILENAME, &inputs, "safetensors file of the inputs", "FILE" },
    { "output", 'o', 0, G_OPTION_ARG_FILENAME, &result, "safetensors file for the results",
      "FILE" },
    { "compare", 0, 0, G_OPTION_ARG_FILENAME, &expected,
      "fails if the results differ from those "
      "in FILE (\"out.\" before a name may be there)",
      "FILE" },
    { "tolerance", 0, 0, G_OPTION_ARG_DOUBLE, &tolerance,
      "relative error for --compare, default 1e-4", "E" },
    { "device", 'd', 0, G_OPTION_ARG_STRING, &device, "auto (default), cpu, cuda:N or ref",
      "NAME" },
    { "tiling", 0, 0, G_OPTION_ARG_STRING, &tiling,
      "of the VAE: off (default), spatial, temporal or both", "HOW" },
    G_OPTION_ENTRY_NULL,
  };
  g_auto(Job) job = { 0 };

  if (!tool_parse(argc, argv, NULL, "Runs one component of a model on tensors from a file.",
                  description, entries, NULL, NULL, error))
    return FALSE;
  if (!component || !inputs || (!result && !expected)) {
    tool_usage_error(error, "--component, --inputs and --output or --compare are needed");
    return FALSE;
  }
  if (!model == !weights) {
    tool_usage_error(error, "one of --model and --weights is needed");
    return FALSE;
  }
  if (!tool_tiling_from_name(tiling, &job.tiling, error))
    return FALSE;
  job.device = osr_device_get(device ? device : "auto", error);
  if (!job.device)
    return FALSE;
  job.dtype = osr_device_get_dtype(job.device);
  job.inputs = osr_checkpoint_open(inputs, error);
  if (!job.inputs || !open_files(&job, component, model, weights, config, error) ||
      !run_job(&job, component, cancellable, error))
    return FALSE;
  if (result && !osr_checkpoint_write(result, job.n_outputs, job.names, job.outputs, NULL, error))
    return FALSE;
  return !expected || compare_all(&job, expected, tolerance, error);
}
