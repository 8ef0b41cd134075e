/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plan.h"

#include <string.h>

#include "clip.h"
#include "dry.h"
#include "error.h"
#include "mmdit-private.h"
#include "pool-private.h"
#include "sampler-private.h"
#include "t5.h"

#define MAX_BATCH 3

const char *
osr_offload_name(OsrOffload offload)
{
  static const char *const names[] = { "auto", "none", "text", "model", "layer" };

  g_return_val_if_fail(offload >= OSR_OFFLOAD_AUTO && offload <= OSR_OFFLOAD_LAYER, NULL);
  return names[offload - OSR_OFFLOAD_AUTO];
}

gboolean
osr_offload_from_name(const char *name, OsrOffload *offload)
{
  for (gint i = OSR_OFFLOAD_AUTO; i <= OSR_OFFLOAD_LAYER; i++) {
    if (g_str_equal(name, osr_offload_name(i))) {
      *offload = i;
      return TRUE;
    }
  }
  return FALSE;
}

const char *
osr_plan_stage_name(OsrPlanStageId stage)
{
  static const char *const names[OSR_PLAN_N_STAGES] = { "t5", "clip", "encode", "denoise",
                                                        "decode" };

  g_return_val_if_fail((guint) stage < OSR_PLAN_N_STAGES, NULL);
  return names[stage];
}

/* A clip on a device that computes nothing. What a stage hands on stays here, so that it counts
 * in the later ones. */
typedef struct {
  const OsrModelDir *dir;
  const OsrPlanOptions *options;
  OsrDevice *device;
  OsrTensor *txt[2], *vec[2]; /* of the prompt, of the negative one */
  OsrTensor *refs[2];
  OsrMmdit *mmdit;
  OsrTensor *latent;
  guint dims[4]; /* of the latent */

  OsrLoaderSizes weights[OSR_PLAN_N_STAGES];
  guint64 kept[OSR_PLAN_N_STAGES]; /* bytes of tables that a part makes for itself */
  guint64 loaded;                  /* bytes of the part that is on the device */
  double before[OSR_N_WORK];
} Dry;

static void
dry_clear(Dry *dry)
{
  for (guint i = 0; i < 2; i++) {
    g_clear_pointer(&dry->txt[i], osr_tensor_unref);
    g_clear_pointer(&dry->vec[i], osr_tensor_unref);
    g_clear_pointer(&dry->refs[i], osr_tensor_unref);
  }
  g_clear_pointer(&dry->latent, osr_tensor_unref);
  g_clear_pointer(&dry->mmdit, osr_mmdit_free);
  g_clear_pointer(&dry->device, osr_device_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Dry, dry_clear)

static guint64
allocated(const Dry *dry, gboolean at_peak)
{
  OsrPoolStats stats;

  osr_pool_get_stats(osr_device_get_pool(dry->device), &stats);
  return at_peak ? stats.peak_allocated : stats.allocated;
}

/* Parts */

/* A part's load() by its stage; what it returns. */
static gpointer
load_part(const OsrModelDir *dir, OsrPlanStageId stage, OsrLoader *loader, GError **error)
{
  switch (stage) {
  case OSR_PLAN_T5:
    return osr_t5_load(&dir->t5, loader, error);
  case OSR_PLAN_CLIP:
    return osr_clip_load(&dir->clip, loader, error);
  case OSR_PLAN_ENCODE:
    return osr_vae_load(&dir->vae, TRUE, FALSE, loader, error);
  case OSR_PLAN_DENOISE:
    return osr_mmdit_load(&dir->mmdit, loader, error);
  case OSR_PLAN_DECODE:
    return osr_vae_load(&dir->vae, FALSE, TRUE, loader, error);
  case OSR_PLAN_N_STAGES:
    break;
  }
  g_return_val_if_reached(NULL);
}

static void
free_part(OsrPlanStageId stage, gpointer part)
{
  switch (stage) {
  case OSR_PLAN_T5:
    osr_t5_free(part);
    break;
  case OSR_PLAN_CLIP:
    osr_clip_free(part);
    break;
  case OSR_PLAN_DENOISE:
    osr_mmdit_free(part);
    break;
  case OSR_PLAN_ENCODE:
  case OSR_PLAN_DECODE:
    osr_vae_free(part);
    break;
  case OSR_PLAN_N_STAGES:
    break;
  }
}

static void
loader_init(const Dry *dry, OsrPlanStageId stage, OsrLoader *loader)
{
  osr_loader_init(loader, NULL, dry->device, dry->options->dtype, NULL);
  loader->fp8 = dry->options->fp8 && (stage == OSR_PLAN_T5 || stage == OSR_PLAN_DENOISE);
}

static gboolean
count_weights(Dry *dry, OsrPlanStageId stage, GError **error)
{
  OsrLoader loader;
  gpointer part;

  loader_init(dry, stage, &loader);
  loader.sizes = &dry->weights[stage];
  part = load_part(dry->dir, stage, &loader, error);
  if (!part)
    return FALSE;
  free_part(stage, part);
  return TRUE;
}

/* The part with all of its weights on the device, whichever they are. */
static gpointer
begin(Dry *dry, OsrPlanStageId stage, GError **error)
{
  const guint64 before = allocated(dry, FALSE);
  OsrLoader loader;
  gpointer part;

  loader_init(dry, stage, &loader);
  loader.undefined = TRUE;
  part = load_part(dry->dir, stage, &loader, error);
  if (!part)
    return NULL;
  dry->loaded = allocated(dry, FALSE) - before;
  osr_pool_reset_peak(osr_device_get_pool(dry->device));
  osr_dry_device_get_work(dry->device, dry->before);
  return part;
}

/* What the stage has done since. */
static void
end(const Dry *dry, OsrPlanStage *stage)
{
  const OsrThroughput *speed = dry->options->throughput;
  double work[OSR_N_WORK];

  osr_dry_device_get_work(dry->device, work);
  for (guint i = 0; i < OSR_N_WORK; i++)
    work[i] -= dry->before[i];
  stage->activations = allocated(dry, TRUE) - dry->loaded;
  stage->flops = work[OSR_WORK_PRODUCTS] + work[OSR_WORK_ATTENTION] + work[OSR_WORK_CONVOLUTIONS];
  if (speed && speed->products > 0 && speed->attention > 0 && speed->convolutions > 0 &&
      speed->bytes > 0)
    stage->seconds =
        work[OSR_WORK_PRODUCTS] / speed->products + work[OSR_WORK_ATTENTION] / speed->attention +
        work[OSR_WORK_CONVOLUTIONS] / speed->convolutions + work[OSR_WORK_BYTES] / speed->bytes;
}

static void
drop(Dry *dry, OsrPlanStageId stage, gpointer part)
{
  const guint64 before = allocated(dry, FALSE);

  free_part(stage, part);
  if (part)
    dry->kept[stage] = before - allocated(dry, FALSE) - dry->loaded;
}

/* Stages */

static gboolean
run_t5(Dry *dry, OsrPlanStage *stage, GError **error)
{
  const guint length = dry->dir->t5_max_length;
  g_autofree gint32 *ids = g_new0(gint32, MAX(length, 1));
  OsrT5 *t5 = begin(dry, OSR_PLAN_T5, error);
  gboolean ok = t5 != NULL;

  for (guint i = 0; i < 2 && ok; i++)
    ok = (dry->txt[i] = osr_t5_encode(t5, ids, length, NULL, error)) != NULL;
  if (ok)
    end(dry, stage);
  drop(dry, OSR_PLAN_T5, t5);
  return ok;
}

/* As long as a text may be: the end is the last token. */
static gboolean
run_clip(Dry *dry, OsrPlanStage *stage, GError **error)
{
  const OsrClipConfig *config = &dry->dir->clip;
  const guint length = dry->dir->clip_max_length;
  g_autofree gint32 *ids = g_new0(gint32, MAX(length, 1));
  OsrClip *clip = begin(dry, OSR_PLAN_CLIP, error);
  gboolean ok = clip != NULL;

  if (length > 0)
    ids[length - 1] =
        (gint32) (config->eos_token_id == 2 ? (gint) config->vocab_size - 1 : config->eos_token_id);
  for (guint i = 0; i < 2 && ok; i++)
    ok = (dry->vec[i] = osr_clip_encode(clip, ids, length, NULL, NULL, error)) != NULL;
  if (ok)
    end(dry, stage);
  drop(dry, OSR_PLAN_CLIP, clip);
  return ok;
}

/* Without text encoders, what others would have made of the prompts. */
static gboolean
make_texts(Dry *dry, GError **error)
{
  const OsrMmditConfig *c = &dry->dir->mmdit;
  const gint64 txt[3] = { 1, dry->dir->t5_max_length, c->context_in_dim };
  const gint64 vec[2] = { 1, c->vec_in_dim };

  for (guint i = 0; i < 2; i++)
    if (!(dry->txt[i] = osr_tensor_new(dry->device, dry->options->dtype, 3, txt, error)) ||
        !(dry->vec[i] = osr_tensor_new(dry->device, dry->options->dtype, 2, vec, error)))
      return FALSE;
  return TRUE;
}

/* The references that the condition takes, one after the other. */
static gboolean
run_encode(Dry *dry, OsrPlanStage *stage, GError **error)
{
  const OsrVaeConfig *c = &dry->dir->vae;
  guint frames[2] = { 0, 0 };
  gboolean ok = TRUE;
  OsrVae *vae;

  osr_condition_frames(dry->options->condition, dry->dims[0], &frames[0], &frames[1]);
  if (frames[0] + frames[1] == 0)
    return TRUE;
  vae = begin(dry, OSR_PLAN_ENCODE, error);
  if (!vae)
    return FALSE;
  for (guint i = 0, n = 0; i < 2 && ok; i++) {
    const gint64 dims[4] = { ((gint64) frames[i] - 1) * c->time_compression_ratio + 1,
                             (gint64) dry->dims[1] * c->spatial_compression_ratio,
                             (gint64) dry->dims[2] * c->spatial_compression_ratio, c->in_channels };
    g_autoptr(OsrTensor) video = NULL;

    if (frames[i] == 0)
      continue;
    video = osr_tensor_new(dry->device, dry->options->dtype, 4, dims, error);
    ok = video &&
         (dry->refs[n++] = osr_vae_encode(vae, video, OSR_VAE_TILING_OFF, NULL, NULL, NULL, error));
  }
  if (ok)
    end(dry, stage);
  drop(dry, OSR_PLAN_ENCODE, vae);
  return ok;
}

static void
keep_forwards(const OsrSamplerProgress *progress, gpointer user_data)
{
  *(guint *) user_data = progress->forwards;
}

static gboolean
run_denoise(Dry *dry, guint batch, OsrPlanStage *stage, guint *forwards, GError **error)
{
  OsrSamplingParams params = *dry->options->params;
  const OsrSamplerInput input = {
    .txt = dry->txt[0],
    .vec = dry->vec[0],
    .neg_txt = dry->txt[1],
    .neg_vec = dry->vec[1],
    .condition = dry->options->condition,
    .ref = { dry->refs[0], dry->refs[1] },
  };
  OsrTensor *latent;

  if (!dry->mmdit && !(dry->mmdit = begin(dry, OSR_PLAN_DENOISE, error)))
    return FALSE;
  osr_pool_reset_peak(osr_device_get_pool(dry->device));
  osr_dry_device_get_work(dry->device, dry->before);
  latent = osr_sampler_run_batched(dry->mmdit, &params, &input, dry->dims, NULL, batch, NULL,
                                   keep_forwards, forwards, NULL, error);
  if (!latent)
    return FALSE;
  end(dry, stage);
  osr_tensor_unref(latent);
  return TRUE;
}

static gboolean
run_decode(Dry *dry, OsrVaeTiling tiling, OsrPlanStage *stage, GError **error)
{
  const gint64 dims[4] = { dry->dims[0], dry->dims[1], dry->dims[2], dry->dims[3] };
  g_autoptr(OsrTensor) video = NULL;
  OsrVae *vae;

  drop(dry, OSR_PLAN_DENOISE, g_steal_pointer(&dry->mmdit));
  if (!dry->latent &&
      !(dry->latent = osr_tensor_new(dry->device, dry->options->dtype, 4, dims, error)))
    return FALSE;
  vae = begin(dry, OSR_PLAN_DECODE, error);
  if (!vae)
    return FALSE;
  video = osr_vae_decode(vae, dry->latent, tiling, NULL, NULL, NULL, error);
  if (video)
    end(dry, stage);
  drop(dry, OSR_PLAN_DECODE, vae);
  return video != NULL;
}

/* Choice */

/* Bytes of the device's that a stage's weights take. */
static guint64
weights_of(const Dry *dry, OsrPlanStageId stage, OsrOffload offload)
{
  const OsrLoaderSizes *w = &dry->weights[stage];

  if (offload == OSR_OFFLOAD_LAYER && w->n_blocks > 0)
    return w->bytes + MIN(w->n_blocks, 2) * osr_pool_block_size(w->largest_block);
  return w->bytes + w->block_bytes;
}

static gboolean
is_text(OsrPlanStageId stage)
{
  return stage == OSR_PLAN_T5 || stage == OSR_PLAN_CLIP;
}

/* Whether the weights of @other are there while @stage is at work, of a clip that is not the first:
 * those that work together, and those that are never dropped. */
static gboolean
is_there(OsrPlanStageId stage, OsrPlanStageId other, OsrOffload offload)
{
  const gboolean together = is_text(stage) ? is_text(other)
                            : stage == OSR_PLAN_DENOISE
                                ? other == OSR_PLAN_DENOISE
                                : other == OSR_PLAN_ENCODE || other == OSR_PLAN_DECODE;

  switch (offload) {
  case OSR_OFFLOAD_NONE:
    return TRUE;
  case OSR_OFFLOAD_TEXT:
    return together || !is_text(other);
  case OSR_OFFLOAD_LAYER:
    return together || other == OSR_PLAN_DENOISE;
  default:
    return together;
  }
}

/* Fills what depends on the mode; the stage's activations are known. */
static void
place_weights(const Dry *dry, OsrPlan *plan)
{
  plan->peak = 0;
  for (OsrPlanStageId i = 0; i < OSR_PLAN_N_STAGES; i++) {
    OsrPlanStage *stage = &plan->stages[i];

    if (stage->activations == 0)
      continue;
    stage->weights = weights_of(dry, i, plan->offload);
    stage->others = 0;
    for (OsrPlanStageId j = 0; j < OSR_PLAN_N_STAGES; j++)
      if (j != i && is_there(i, j, plan->offload))
        stage->others += weights_of(dry, j, plan->offload) + dry->kept[j];
    plan->peak = MAX(plan->peak, stage->weights + stage->others + stage->activations);
  }
  plan->fits = dry->options->memory == 0 || plan->peak <= dry->options->memory;
  plan->host_bytes =
      plan->offload == OSR_OFFLOAD_LAYER ? dry->weights[OSR_PLAN_DENOISE].host_bytes : 0;
}

/* The stages that a choice is about, each way. */
typedef struct {
  OsrPlanStage denoise[MAX_BATCH], decode[2]; /* by batch - 1; untiled, in tiles */
} Ways;

static gboolean
stage_fits(const Dry *dry, OsrPlan *plan, OsrPlanStageId id, const OsrPlanStage *way)
{
  OsrPlanStage all[OSR_PLAN_N_STAGES];
  gboolean fits;

  memcpy(all, plan->stages, sizeof all);
  memset(plan->stages, 0, sizeof plan->stages);
  plan->stages[id] = *way;
  place_weights(dry, plan);
  fits = plan->fits;
  memcpy(plan->stages, all, sizeof all);
  return fits;
}

/* For one mode: the largest batch and the largest tiles that fit, else the smallest. */
static void
choose_ways(const Dry *dry, const Ways *ways, OsrPlan *plan)
{
  const OsrPlanOptions *o = dry->options;

  plan->batch = o->batch ? o->batch : o->gpu ? MAX_BATCH : 1;
  while (!o->batch && plan->batch > 1 &&
         !stage_fits(dry, plan, OSR_PLAN_DENOISE, &ways->denoise[plan->batch - 1]))
    plan->batch--;
  plan->stages[OSR_PLAN_DENOISE] = ways->denoise[plan->batch - 1];
  if (o->tiling != OSR_PLAN_TILING_AUTO)
    plan->tiling = (OsrVaeTiling) o->tiling;
  else if (stage_fits(dry, plan, OSR_PLAN_DECODE, &ways->decode[0]))
    plan->tiling = OSR_VAE_TILING_OFF;
  else
    plan->tiling = OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL;
  plan->stages[OSR_PLAN_DECODE] = ways->decode[plan->tiling != OSR_VAE_TILING_OFF];
  place_weights(dry, plan);
}

static void
choose(const Dry *dry, const Ways *ways, OsrPlan *plan)
{
  const OsrPlanOptions *o = dry->options;
  const OsrOffload last = o->gpu ? OSR_OFFLOAD_LAYER : OSR_OFFLOAD_MODEL;

  if (o->offload != OSR_OFFLOAD_AUTO) {
    plan->offload = MIN(o->offload, last);
    choose_ways(dry, ways, plan);
    return;
  }
  for (plan->offload = OSR_OFFLOAD_NONE;; plan->offload++) {
    choose_ways(dry, ways, plan);
    if (plan->fits || plan->offload == last)
      return;
  }
}

/* Blocks arrive while others compute: the slower of the two counts. */
static void
add_up_time(const Dry *dry, OsrPlan *plan)
{
  const OsrThroughput *speed = dry->options->throughput;
  OsrPlanStage *denoise = &plan->stages[OSR_PLAN_DENOISE];

  if (speed && speed->transfer > 0 && denoise->seconds > 0) {
    const guint passes = (plan->forwards + plan->batch - 1) / plan->batch;

    denoise->seconds = MAX(denoise->seconds, (double) plan->host_bytes * passes / speed->transfer);
  }
  for (guint i = 0; i < OSR_PLAN_N_STAGES; i++)
    plan->seconds += plan->stages[i].seconds;
}

static gboolean
run_stages(Dry *dry, Ways *ways, OsrPlan *plan, GError **error)
{
  const OsrPlanOptions *o = dry->options;
  const guint most = o->batch ? o->batch : o->gpu ? MAX_BATCH : 1;
  const OsrVaeTiling tiles = o->tiling == OSR_PLAN_TILING_AUTO || o->tiling == OSR_VAE_TILING_OFF
                                 ? OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL
                                 : (OsrVaeTiling) o->tiling;

  if (osr_model_dir_has_text(dry->dir)) {
    if (!run_t5(dry, &plan->stages[OSR_PLAN_T5], error) ||
        !run_clip(dry, &plan->stages[OSR_PLAN_CLIP], error))
      return FALSE;
  } else if (!make_texts(dry, error)) {
    return FALSE;
  }
  if (!run_encode(dry, &plan->stages[OSR_PLAN_ENCODE], error))
    return FALSE;
  for (guint batch = o->batch ? o->batch : 1; batch <= most; batch++)
    if (!run_denoise(dry, batch, &ways->denoise[batch - 1], &plan->forwards, error))
      return FALSE;
  return run_decode(dry, OSR_VAE_TILING_OFF, &ways->decode[0], error) &&
         run_decode(dry, tiles, &ways->decode[1], error);
}

gboolean
osr_plan_make(const OsrModelDir *dir, const OsrPlanOptions *options, OsrPlan *plan, GError **error)
{
  const OsrSamplingParams *params = options->params;
  const OsrVaeConfig *vae = &dir->vae;
  g_auto(Dry) dry = { .dir = dir, .options = options };
  Ways ways = { 0 };

  g_return_val_if_fail(params != NULL && options->batch <= MAX_BATCH, FALSE);

  *plan = (OsrPlan){ 0 };
  if (!osr_sampling_params_check(params, &dir->mmdit, vae->spatial_compression_ratio,
                                 vae->time_compression_ratio, error))
    return FALSE;
  dry.device = osr_dry_device_new(options->gpu, options->n_threads, error);
  if (!dry.device)
    return FALSE;
  dry.dims[0] = (params->num_frames - 1) / vae->time_compression_ratio + 1;
  dry.dims[1] = params->height / vae->spatial_compression_ratio;
  dry.dims[2] = params->width / vae->spatial_compression_ratio;
  dry.dims[3] = vae->latent_channels;
  for (OsrPlanStageId i = 0; i < OSR_PLAN_N_STAGES; i++) {
    if (is_text(i) && !osr_model_dir_has_text(dir))
      continue;
    if (i == OSR_PLAN_ENCODE && options->condition == OSR_CONDITION_T2V)
      continue;
    if (!count_weights(&dry, i, error))
      return FALSE;
  }
  if (!run_stages(&dry, &ways, plan, error))
    return FALSE;
  choose(&dry, &ways, plan);
  add_up_time(&dry, plan);
  return TRUE;
}
