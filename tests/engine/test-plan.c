/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Plans against what the pool of a device measures of the same clips. */
#include "cases.h"
#include "fake-control.h"
#include "model.h"
#include "plan.h"
#include "presets.h"
#include "sampler-private.h"

/* What a plan may be above what is measured: the CPU's tiles are of the processor's sizes. */
#define SLACK 1.02

/* The fake GPU's ops ask for less than those of the CUDA backend, which is what plans are for. */
#define FAKE_SLACK 1.15

/* Memory of ops differs between processors, by tiles' sizes and threads, by no more than this. */
#define SCRATCH_SLACK (G_GUINT64_CONSTANT(256) << 10)

typedef struct {
  guint64 base; /* before the model */
  guint64 peaks[OSR_PLAN_N_STAGES];
} Measured;

static OsrSamplingParams
small_clip(OsrModel *model)
{
  OsrSamplingParams params = osr_model_get_dir(model)->sampling;

  params.width = 96;
  params.height = 64;
  params.num_frames = 17;
  params.num_steps = 3;
  params.use_graphs = FALSE;
  return params;
}

static void
start_stage(OsrDevice *device)
{
  must_synchronize(device);
  osr_pool_reset_peak(osr_device_get_pool(device));
}

static void
end_stage(OsrDevice *device, Measured *m, OsrPlanStageId stage)
{
  must_synchronize(device);
  m->peaks[stage] = pool_stats(device).peak_allocated - m->base;
}

/* The clip, as an application makes it: all parts stay loaded. */
static Measured
make_clip(OsrModel *model, const OsrSamplingParams *params, guint batch, OsrVaeTiling tiling)
{
  OsrDevice *device = osr_model_get_device(model);
  g_autoptr(OsrTensor) txt = NULL, vec = NULL, neg_txt = NULL, neg_vec = NULL, latent = NULL;
  g_autoptr(OsrTensor) video = NULL;
  g_autoptr(GError) error = NULL;
  Measured m = { .base = pool_stats(device).allocated };
  OsrSamplerInput input = { .condition = OSR_CONDITION_T2V };
  OsrMmdit *mmdit;
  OsrVae *vae;
  guint dims[4];

  mmdit = osr_model_get_mmdit(model, NULL, &error);
  g_assert_no_error(error);
  vae = osr_model_get_vae_decoder(model, NULL, &error);
  g_assert_no_error(error);
  start_stage(device);
  osr_model_encode_text(model, "a red cube", &txt, &vec, NULL, NULL, &error);
  g_assert_no_error(error);
  osr_model_encode_text(model, "", &neg_txt, &neg_vec, NULL, NULL, &error);
  g_assert_no_error(error);
  end_stage(device, &m, OSR_PLAN_T5);

  input.txt = txt, input.vec = vec, input.neg_txt = neg_txt, input.neg_vec = neg_vec;
  osr_model_latent_dims(model, params->num_frames, params->width, params->height, dims);
  start_stage(device);
  latent = osr_sampler_run_batched(mmdit, params, &input, dims, NULL, batch, NULL, NULL, NULL, NULL,
                                   &error);
  g_assert_no_error(error);
  end_stage(device, &m, OSR_PLAN_DENOISE);
  start_stage(device);
  video = osr_vae_decode(vae, latent, tiling, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  end_stage(device, &m, OSR_PLAN_DECODE);
  return m;
}

static guint64
planned(const OsrPlan *plan, OsrPlanStageId stage)
{
  const OsrPlanStage *s = &plan->stages[stage];

  return s->weights + s->others + s->activations;
}

static void
assert_planned(const OsrPlan *plan, const Measured *m, OsrPlanStageId stage, double slack)
{
  const guint64 want = m->peaks[stage], got = planned(plan, stage);

  g_test_message("%s: %" G_GUINT64_FORMAT " planned, %" G_GUINT64_FORMAT " measured",
                 osr_plan_stage_name(stage), got, want);
  g_assert_cmpuint(got, >=, want);
  g_assert_cmpfloat((double) got, <=, (double) want * slack + SCRATCH_SLACK);
}

static void
test_measured(gconstpointer data)
{
  const OsrVaeTiling both = OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL;
  g_autoptr(OsrDevice) device = case_device(data);

  for (guint way = 0; way < 4; way++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(OsrModel) model = osr_model_get_as(NULL, device, OSR_DTYPE_F32, &error);
    OsrPlanOptions options = OSR_PLAN_OPTIONS_INIT;
    OsrSamplingParams params;
    OsrPlan plan;
    Measured m;

    g_assert_no_error(error);
    params = small_clip(model);
    options.params = &params;
    options.gpu = !osr_device_is_host(device);
    options.n_threads = g_get_num_processors();
    options.offload = OSR_OFFLOAD_NONE;
    options.batch = 1 + way % 3;
    options.tiling = way == 3 ? both : OSR_VAE_TILING_OFF;
    osr_plan_make(osr_model_get_dir(model), &options, &plan, &error);
    g_assert_no_error(error);
    g_assert_true(plan.fits);
    m = make_clip(model, &params, options.batch, (OsrVaeTiling) options.tiling);
    assert_planned(&plan, &m, OSR_PLAN_DENOISE, options.gpu ? FAKE_SLACK : SLACK);
    assert_planned(&plan, &m, OSR_PLAN_DECODE, options.gpu ? FAKE_SLACK : SLACK);
    g_assert_cmpuint(MAX(planned(&plan, OSR_PLAN_T5), planned(&plan, OSR_PLAN_CLIP)), >=,
                     m.peaks[OSR_PLAN_T5]);
  }
}

/* The published model, as a folder would say it. */
static OsrModelDir
preset_dir(void)
{
  const OsrPreset *preset = osr_preset_find("open-sora-v2");

  return (OsrModelDir){
    .mmdit = preset->mmdit,
    .vae = preset->vae,
    .t5 = preset->t5,
    .t5_max_length = preset->text_length,
    .clip = preset->clip,
    .clip_max_length = preset->clip.max_position_embeddings,
    .t5_weights = (char *) "t5",
    .clip_weights = (char *) "clip",
  };
}

static OsrPlan
plan_preset(guint64 memory, OsrOffload offload, gboolean fp8)
{
  const OsrModelDir dir = preset_dir();
  OsrSamplingParams params = OSR_SAMPLING_PARAMS_INIT;
  OsrPlanOptions options = OSR_PLAN_OPTIONS_INIT;
  g_autoptr(GError) error = NULL;
  OsrPlan plan;

  params.num_steps = 1;
  options.params = &params;
  options.dtype = OSR_DTYPE_BF16;
  options.gpu = TRUE;
  options.memory = memory;
  options.offload = offload;
  options.fp8 = fp8;
  osr_plan_make(&dir, &options, &plan, &error);
  g_assert_no_error(error);
  return plan;
}

/* With less memory the choices go from none to layer, each within what there is. */
static void
test_choices(void)
{
  const guint64 gib = G_GUINT64_CONSTANT(1) << 30;
  const OsrPlan large = plan_preset(0, OSR_OFFLOAD_AUTO, FALSE);
  OsrOffload before = OSR_OFFLOAD_NONE;

  g_assert_cmpint(large.offload, ==, OSR_OFFLOAD_NONE);
  g_assert_cmpint(large.tiling, ==, OSR_VAE_TILING_OFF);
  g_assert_cmpuint(large.batch, ==, 3);
  for (guint64 memory = large.peak; memory >= 12 * gib; memory -= 2 * gib) {
    const OsrPlan plan = plan_preset(memory, OSR_OFFLOAD_AUTO, FALSE);

    g_test_message("%.1f GiB: %s, tiling %d, batch %u, peak %.1f GiB", (double) memory / gib,
                   osr_offload_name(plan.offload), plan.tiling, plan.batch,
                   (double) plan.peak / gib);
    g_assert_cmpint(plan.fits, ==, plan.peak <= memory);
    g_assert_cmpint(plan.offload, >=, before);
    g_assert_true(plan.fits || plan.offload == OSR_OFFLOAD_LAYER);
    before = plan.offload;
  }
  g_assert_cmpint(before, ==, OSR_OFFLOAD_LAYER);
}

/* The weights of the published model: 11.9 B parameters in bf16 or, nearly all of them, in F8. */
static void
test_full_size(void)
{
  const OsrPlan none = plan_preset(0, OSR_OFFLOAD_NONE, FALSE);
  const OsrPlan layer = plan_preset(0, OSR_OFFLOAD_LAYER, FALSE);
  const OsrPlan fp8 = plan_preset(0, OSR_OFFLOAD_NONE, TRUE);
  const guint64 bf16 = none.stages[OSR_PLAN_DENOISE].weights;

  g_assert_cmpfloat((double) bf16, >, 23.6e9);
  g_assert_cmpfloat((double) bf16, <, 24.4e9);
  g_assert_cmpuint(fp8.stages[OSR_PLAN_DENOISE].weights, <, bf16 * 51 / 100);
  g_assert_cmpuint(layer.stages[OSR_PLAN_DENOISE].weights, <, bf16 / 10);
  g_assert_cmpuint(layer.host_bytes, >, bf16 * 98 / 100);
  g_assert_cmpuint(layer.peak, <, G_GUINT64_CONSTANT(22) << 30);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_data_func("/plan/measured/cpu", "cpu", test_measured);
  g_test_add_data_func("/plan/measured/cuda", "cuda:0", test_measured);
  g_test_add_func("/plan/choices", test_choices);
  g_test_add_func("/plan/full-size", test_full_size);
  return g_test_run();
}
