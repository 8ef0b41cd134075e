/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sampler-run.h: a golden clip of the sampler on a device.
 */
#pragma once

#include "cases.h"
#include "sampler-private.h"

G_BEGIN_DECLS

static inline OsrSamplingParams
sampling_params(JsonObject *o)
{
  OsrSamplingParams p = {
    .num_steps = config_uint(o, "num_steps"),
    .guidance = config_double(o, "guidance"),
    .guidance_img = json_object_get_double_member_with_default(o, "guidance_img", 1.0),
    .text_osci = json_object_get_boolean_member_with_default(o, "text_osci", FALSE),
    .image_osci = json_object_get_boolean_member_with_default(o, "image_osci", FALSE),
    .scale_temporal_osci =
        json_object_get_boolean_member_with_default(o, "scale_temporal_osci", FALSE),
    .shift = config_bool(o, "shift"),
  };

  if (!json_object_get_null_member(o, "flow_shift"))
    p.flow_shift = json_object_get_double_member(o, "flow_shift");
  return p;
}

/* [C, T, H, W] of the file as [T, H, W, C]. */
static inline OsrTensor *
reference(Golden *golden, const char *name, OsrDevice *device)
{
  const OsrCheckpointEntry *entry = golden_entry(golden, name);
  const gint64 *d = entry->dims;
  g_autofree float *values = golden_floats(golden, name, NULL), *video = NULL;
  g_autoptr(GError) error = NULL;
  OsrTensor *tensor;

  g_assert_cmpuint(entry->n_dims, ==, 4);
  video = golden_channels_last(values, (gint64[]){ 1, d[0], d[1], d[2], d[3] });
  tensor = osr_tensor_new_from_host(device, OSR_DTYPE_F32, 4, (gint64[]){ d[1], d[2], d[3], d[0] },
                                    video, &error);
  g_assert_no_error(error);
  return tensor;
}

/* A golden run of the sampler on a device. */
typedef struct {
  Golden *golden;
  OsrDevice *device;
  OsrMmditConfig config;
  OsrMmdit *mmdit;
  OsrSamplingParams params;
  OsrSamplerInput input; /* of item 0 */
  OsrTensor *noise;      /* [T, h, w, C] of item 0 */
  guint dims[4], batch;
} Run;

/* Row @i of [n, ...] as [1, ...]. */
static inline OsrTensor *
golden_row(Golden *golden, const char *name, OsrDevice *device, guint i)
{
  g_autoptr(OsrTensor) all = golden_tensor(golden, name, device);

  return case_item(all, i);
}

static inline void
run_set_item(Run *run, guint i)
{
  g_autoptr(OsrTensor) all = golden_video(run->golden, "in.noise", run->device);
  gint64 dims[4] = { all->dims[1], all->dims[2], all->dims[3], all->dims[4] };

  g_clear_pointer(&run->noise, osr_tensor_unref);
  g_clear_pointer(&run->input.txt, osr_tensor_unref);
  g_clear_pointer(&run->input.vec, osr_tensor_unref);
  g_clear_pointer(&run->input.neg_txt, osr_tensor_unref);
  g_clear_pointer(&run->input.neg_vec, osr_tensor_unref);
  run->noise = osr_tensor_view(all, i * (osr_tensor_n_elements(all) / all->dims[0]), 4, dims);
  run->input.txt = golden_row(run->golden, "in.txt", run->device, i);
  run->input.vec = golden_row(run->golden, "in.y_vec", run->device, i);
  if (golden_entry(run->golden, "in.txt")->dims[0] == 3 * run->batch) {
    run->input.neg_txt = golden_row(run->golden, "in.txt", run->device, run->batch + i);
    run->input.neg_vec = golden_row(run->golden, "in.y_vec", run->device, run->batch + i);
  }
  /* Only the first item of a batch has a reference. */
  if (i > 0)
    run->input.condition = OSR_CONDITION_T2V;
}

static inline Run
run_open(const char *name, const char *device)
{
  Run run = { .golden = golden_open(name), .device = case_device(device) };
  JsonObject *sampling = json_object_get_object_member(run.golden->config, "sampling");
  const gint64 *noise = golden_entry(run.golden, "in.noise")->dims;

  run.config = case_mmdit_config(json_object_get_object_member(run.golden->config, "model"));
  run.mmdit = case_mmdit(run.golden, &run.config, run.device);
  run.params = sampling_params(sampling);
  g_assert_true(osr_condition_from_name(json_object_get_string_member(sampling, "condition"),
                                        &run.input.condition));
  if (golden_has(run.golden, "in.ref"))
    run.input.ref[0] = reference(run.golden, "in.ref", run.device);
  if (golden_has(run.golden, "in.ref_tail"))
    run.input.ref[1] = reference(run.golden, "in.ref_tail", run.device);
  run.batch = (guint) noise[0];
  run.dims[0] = (guint) noise[2];
  run.dims[1] = (guint) noise[3];
  run.dims[2] = (guint) noise[4];
  run.dims[3] = (guint) noise[1];
  run_set_item(&run, 0);
  return run;
}

static inline void
run_clear(Run *run)
{
  osr_tensor_unref(run->input.txt);
  osr_tensor_unref(run->input.vec);
  g_clear_pointer(&run->noise, osr_tensor_unref);
  g_clear_pointer(&run->input.neg_txt, osr_tensor_unref);
  g_clear_pointer(&run->input.neg_vec, osr_tensor_unref);
  g_clear_pointer(&run->input.ref[0], osr_tensor_unref);
  g_clear_pointer(&run->input.ref[1], osr_tensor_unref);
  osr_mmdit_free(run->mmdit);
  osr_device_unref(run->device);
  golden_free(run->golden);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Run, run_clear)

static inline void
keep_progress(const OsrSamplerProgress *progress, gpointer user_data)
{
  OsrSamplerProgress *last = user_data;

  g_assert_cmpuint(progress->step, ==, last->step + 1);
  g_assert_cmpuint(progress->forwards, >=, last->forwards);
  g_assert_cmpfloat(progress->elapsed, >=, last->elapsed);
  g_assert_cmpfloat(progress->remaining, >=, 0);
  *last = *progress;
}

static inline OsrTensor *
run_latent(Run *run, guint max_batch, guint *forwards)
{
  g_autoptr(GError) error = NULL;
  OsrSamplerProgress last = { 0 };
  OsrTensor *latent =
      max_batch > 0
          ? osr_sampler_run_batched(run->mmdit, &run->params, &run->input, run->dims, run->noise,
                                    max_batch, NULL, keep_progress, &last, NULL, &error)
          : osr_sampler_run(run->mmdit, &run->params, &run->input, run->dims, run->noise,
                            keep_progress, &last, NULL, &error);

  g_assert_no_error(error);
  g_assert_cmpuint(latent->n_dims, ==, 4);
  for (guint i = 0; i < 4; i++)
    g_assert_cmpint(latent->dims[i], ==, run->dims[i]);
  g_assert_cmpuint(last.step, ==, run->params.num_steps);
  g_assert_cmpuint(last.steps, ==, run->params.num_steps);
  g_assert_cmpfloat(last.remaining, ==, 0);
  if (forwards)
    *forwards = last.forwards;
  return latent;
}

G_END_DECLS
