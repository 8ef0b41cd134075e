/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>

#include "philox.h"
#include "sampler-run.h"

static void
test_golden(gconstpointer data)
{
  const Case *c = data;
  g_auto(Run) run = run_open(c->golden, c->device);
  const gint64 *d = golden_entry(run.golden, "out.final")->dims;
  g_autofree float *all = golden_floats(run.golden, "out.final", NULL);
  g_autofree float *want = golden_channels_last(all, d);
  g_autofree float *times = osr_schedule_new(
      &run.params, run.dims[1] / run.config.patch_size * (run.dims[2] / run.config.patch_size),
      run.dims[0]);
  gsize n_times;
  g_autofree float *want_times = golden_floats(run.golden, "out.timesteps", &n_times);

  g_assert_cmpuint(n_times, ==, run.params.num_steps + 1);
  g_assert_cmpfloat(golden_error(times, want_times, n_times), <=, 1e-6);

  /* Upstream gives the negative prompt to both unconditional forwards. */
  if (run.input.neg_txt) {
    for (guint i = 0; i < run.batch; i++) {
      g_autoptr(OsrTensor) second = golden_row(run.golden, "in.txt", run.device, run.batch + i);
      g_autoptr(OsrTensor) third = golden_row(run.golden, "in.txt", run.device, 2 * run.batch + i);

      g_assert_cmpfloat(case_difference(second, third), ==, 0);
    }
  }

  for (guint i = 0; i < run.batch; i++) {
    g_autoptr(OsrTensor) latent = NULL;
    double error;

    run_set_item(&run, i);
    latent = run_latent(&run, 0, NULL);
    error = case_item_error(latent, want, i);
    g_test_message("item %u: relative error %.2g", i, error);
    g_assert_cmpfloat(error, <=, TOLERANCE);
  }
}

static void
test_schedules(void)
{
  g_autoptr(JsonNode) root = golden_json("sampler-schedules");
  JsonArray *rows = json_node_get_array(root);

  g_assert_cmpuint(json_array_get_length(rows), >, 0);
  for (guint i = 0; i < json_array_get_length(rows); i++) {
    JsonObject *row = json_array_get_object_element(rows, i);
    JsonArray *want = json_object_get_array_member(row, "timesteps");
    OsrSamplingParams params = {
      .num_steps = config_uint(row, "num_steps"),
      .shift = config_bool(row, "shift"),
      .flow_shift = json_object_get_null_member(row, "flow_shift")
                        ? 0.0
                        : json_object_get_double_member(row, "flow_shift"),
    };
    g_autofree float *times =
        osr_schedule_new(&params, config_uint(row, "tokens"), config_uint(row, "frames"));

    g_assert_cmpuint(json_array_get_length(want), ==, params.num_steps + 1);
    g_assert_cmpfloat(times[params.num_steps], ==, 0);
    for (guint j = 0; j <= params.num_steps; j++)
      g_assert_cmpfloat_with_epsilon(times[j], json_array_get_double_element(want, j), 2.5e-7);
  }
}

static void
test_guidance(void)
{
  g_autoptr(JsonNode) root = golden_json("sampler-guidance");
  JsonArray *rows = json_node_get_array(root);

  g_assert_cmpuint(json_array_get_length(rows), >, 0);
  for (guint i = 0; i < json_array_get_length(rows); i++) {
    JsonObject *row = json_array_get_object_element(rows, i);
    JsonArray *steps = json_object_get_array_member(row, "steps");
    guint frames = config_uint(row, "frames");
    OsrSamplingParams params = {
      .num_steps = config_uint(row, "num_steps"),
      .guidance = config_double(row, "guidance"),
      .guidance_img = config_double(row, "guidance_img"),
      .text_osci = TRUE,
      .image_osci = TRUE,
    };
    g_autofree float *w = g_new(float, 3 * frames);
    gboolean needed[3];

    for (guint step = 0; step < params.num_steps; step++) {
      JsonObject *want = json_array_get_object_element(steps, step);
      JsonArray *per_frame = json_object_get_array_member(want, "image_per_frame");
      double text = json_object_get_double_member(want, "text");
      double image = json_object_get_double_member(want, "image");

      params.scale_temporal_osci = TRUE;
      osr_guidance_weights(&params, OSR_CONDITION_I2V_HEAD, step, frames, w, needed);
      for (guint f = 0; f < frames; f++) {
        double frame_image = json_array_get_double_element(per_frame, f);

        g_assert_cmpfloat_with_epsilon(w[f], text, 1e-6);
        g_assert_cmpfloat_with_epsilon(w[frames + f], frame_image - text, 1e-6);
        g_assert_cmpfloat_with_epsilon(w[2 * frames + f], 1 - frame_image, 1e-6);
      }
      /* Not scaled: because it is off, and because v2v never is. */
      for (guint way = 0; way < 2; way++) {
        params.scale_temporal_osci = way == 1;
        osr_guidance_weights(&params, way ? OSR_CONDITION_V2V_TAIL : OSR_CONDITION_I2V_LOOP, step,
                             frames, w, needed);
        for (guint f = 0; f < frames; f++) {
          g_assert_cmpfloat_with_epsilon(w[frames + f], image - text, 1e-6);
          g_assert_cmpfloat_with_epsilon(w[2 * frames + f], 1 - image, 1e-6);
        }
      }
    }
  }
}

static void
test_needed(void)
{
  OsrSamplingParams params = OSR_SAMPLING_PARAMS_INIT;
  float w[3 * 9];
  gboolean needed[3];

  g_assert_cmpuint(osr_guidance_weights(&params, OSR_CONDITION_I2V_HEAD, 11, 9, w, needed), ==, 1);
  g_assert_true(needed[0] && !needed[1] && !needed[2]);
  g_assert_cmpuint(osr_guidance_weights(&params, OSR_CONDITION_I2V_HEAD, 12, 9, w, needed), ==, 3);
  g_assert_true(needed[0] && needed[1] && needed[2]);
  g_assert_cmpuint(osr_guidance_weights(&params, OSR_CONDITION_T2V, 12, 9, w, needed), ==, 2);
  g_assert_true(needed[0] && needed[1] && !needed[2]);
  params.scale_temporal_osci = FALSE;
  params.guidance = params.guidance_img;
  g_assert_cmpuint(osr_guidance_weights(&params, OSR_CONDITION_I2V_HEAD, 12, 9, w, needed), ==, 2);
  g_assert_true(needed[0] && !needed[1] && needed[2]);
}

static void
test_conditions(void)
{
  g_autoptr(JsonNode) root = golden_json("sampler-conditions");
  JsonArray *rows = json_node_get_array(root);
  guint n = 0;

  for (guint i = 0; i < json_array_get_length(rows); i++) {
    JsonObject *row = json_array_get_object_element(rows, i);
    const char *name = json_object_get_string_member(row, "condition");
    JsonArray *mask = json_object_get_array_member(row, "mask");
    guint frames = config_uint(row, "frames"), head, tail;
    OsrCondition condition;

    /* Open-Sora 2.0's autoencoder is causal. */
    if (!config_bool(row, "causal"))
      continue;
    n++;
    g_assert_true(osr_condition_from_name(name, &condition));
    g_assert_cmpstr(osr_condition_name(condition), ==, name);
    osr_condition_frames(condition, frames, &head, &tail);
    for (guint f = 0; f < frames; f++)
      g_assert_cmpint(f < head || f + tail >= frames, ==, json_array_get_int_element(mask, f));
  }
  g_assert_cmpuint(n, >=, 8);
  g_assert_false(osr_condition_from_name("i2v", &(OsrCondition){ 0 }));
  g_assert_false(osr_condition_from_name(NULL, &(OsrCondition){ 0 }));
}

/* However the forwards of a step are put together, the clip is the same. */
static void
test_batched(gconstpointer data)
{
  const Case *c = data;
  g_auto(Run) run = run_open(c->golden, c->device);

  for (guint way = 0; way < 3; way++) {
    g_autoptr(OsrTensor) single = NULL;
    guint forwards, same;

    /* As in the file; forwards 0 and 2 alone; 1 and 2 alone. */
    if (way > 0)
      run.params.scale_temporal_osci = run.params.text_osci = run.params.image_osci = FALSE;
    if (way == 1)
      run.params.guidance = run.params.guidance_img;
    if (way == 2)
      run.params.guidance = 0;
    single = run_latent(&run, 1, &forwards);
    for (guint max_batch = 2; max_batch <= 3; max_batch++) {
      g_autoptr(OsrTensor) batched = run_latent(&run, max_batch, &same);

      g_assert_cmpuint(same, ==, forwards);
      g_assert_cmpfloat(case_difference(batched, single), <=, 1e-5);
    }
  }
}

/* x [frames * tokens, n] += dt * (p2 + gi (p1 - p2) + gt (p0 - p1)), upstream's formula. */
static void
plain_update(float *x, const float *const p[3], gsize size, guint frames, double text,
             const float *image, double dt)
{
  for (gsize i = 0; i < size; i++) {
    double gi = image[i / (size / frames)];
    double v = p[2][i] + gi * ((double) p[1][i] - p[2][i]) + text * ((double) p[0][i] - p[1][i]);

    x[i] = (float) (x[i] + dt * v);
  }
}

/* The loop as upstream writes it, three forwards a step: what skipping must not change. The
 * order of pixels in a token does not matter here, so patches are made by the op. */
static float *
plain_loop(Run *run, const float *times)
{
  const OsrMmditConfig *c = &run->config;
  OsrOpsContext *ctx = osr_device_get_context(run->device);
  const OsrOps *ops = osr_device_get_ops(run->device);
  gint64 per_frame = run->dims[1] / c->patch_size * (run->dims[2] / c->patch_size);
  gint64 tokens = per_frame * run->dims[0], pixels = (gint64) c->patch_size * c->patch_size;
  gint64 x_dims[3] = { 1, tokens, c->in_channels };
  gint64 cond_dims[3] = { 1, tokens, c->in_channels + pixels };
  gsize size = (gsize) (tokens * c->in_channels), cond_size = size + (gsize) (tokens * pixels);
  g_autofree float *x = g_new(float, size), *cond = g_new0(float, cond_size);
  g_autofree float *zeros = g_new0(float, cond_size), *image = g_new(float, run->dims[0]);
  gboolean i2v = run->input.condition == OSR_CONDITION_I2V_HEAD;
  float *latent = g_new(float, size);
  OsrPatchify patches = {
    .batch = 1,
    .t = (int) run->dims[0],
    .h = (int) run->dims[1],
    .w = (int) run->dims[2],
    .c = (int) run->dims[3],
    .patch = (int) c->patch_size,
    .x = run->noise->data,
    .y = x,
    .ld = c->in_channels,
  };

  g_assert_cmpint(ops->patchify(ctx, &patches), ==, OSR_OK);
  if (i2v) {
    for (gint64 i = 0; i < per_frame; i++)
      for (gint64 j = 0; j < pixels; j++)
        cond[i * cond_dims[2] + j] = 1;
    patches.t = 1;
    patches.x = run->input.ref[0]->data;
    patches.y = cond;
    patches.ld = cond_dims[2];
    patches.column = (int) pixels;
    g_assert_cmpint(ops->patchify(ctx, &patches), ==, OSR_OK);
  }

  for (guint step = 0; step < run->params.num_steps; step++) {
    gboolean off = step >= 10 && step % 2 == 1;
    double text = run->params.text_osci && off ? 1 : run->params.guidance;
    double guide = run->params.image_osci && off ? 1 : run->params.guidance_img;
    double top = guide + (1 - guide) * step / run->params.num_steps;
    float *pred[3];

    for (guint i = 0; i < 3; i++) {
      g_autoptr(GError) error = NULL;
      g_autoptr(OsrTensor) img = NULL, cond_tensor = NULL, out = NULL;

      img = osr_tensor_new_from_host(run->device, OSR_DTYPE_F32, 3, x_dims, x, &error);
      g_assert_no_error(error);
      cond_tensor = osr_tensor_new_from_host(run->device, OSR_DTYPE_F32, 3, cond_dims,
                                             i == 2 ? zeros : cond, &error);
      g_assert_no_error(error);
      out = osr_mmdit_forward(run->mmdit,
                              &(OsrMmditInput){
                                  .img = img,
                                  .cond = cond_tensor,
                                  .txt = i == 0 ? run->input.txt : run->input.neg_txt,
                                  .vec = i == 0 ? run->input.vec : run->input.neg_vec,
                                  .frames = run->dims[0],
                                  .height = run->dims[1] / c->patch_size,
                                  .width = run->dims[2] / c->patch_size,
                                  .timestep = times[step],
                                  .guidance = (float) run->params.guidance,
                              },
                              NULL, &error);
      g_assert_no_error(error);
      pred[i] = golden_download(out);
    }
    for (guint f = 0; f < run->dims[0]; f++)
      image[f] = i2v && run->params.scale_temporal_osci && guide > 1
                     ? (float) (1 + (top - 1) * f / (run->dims[0] - 1))
                     : (float) guide;
    plain_update(x, (const float *const *) pred, size, run->dims[0], text, image,
                 (double) times[step + 1] - times[step]);
    for (guint i = 0; i < 3; i++)
      g_free(pred[i]);
  }

  patches.t = (int) run->dims[0];
  patches.x = x;
  patches.y = latent;
  patches.ld = c->in_channels;
  patches.column = 0;
  g_assert_cmpint(ops->unpatchify(ctx, &patches), ==, OSR_OK);
  if (i2v)
    memcpy(latent, run->input.ref[0]->data, run->input.ref[0]->size);
  return latent;
}

/* Steps that need fewer forwards give what three would, and there are as many as that. */
static void
test_skipping(gconstpointer data)
{
  const Case *c = data;
  g_auto(Run) run = run_open("sampler-i2v-head", "cpu");
  g_autofree float *times = NULL, *plain = NULL;
  g_autoptr(OsrTensor) latent = NULL;
  guint forwards, want_forwards;

  g_assert_true(osr_condition_from_name(c->golden, &run.input.condition));
  want_forwards = run.input.condition == OSR_CONDITION_T2V ? 80 : 110;
  run.params.num_steps = 50;
  run.params.text_osci = run.params.image_osci = run.params.scale_temporal_osci = TRUE;
  times = osr_schedule_new(
      &run.params, run.dims[1] / run.config.patch_size * (run.dims[2] / run.config.patch_size),
      run.dims[0]);
  plain = plain_loop(&run, times);

  spy_start(run.device);
  latent = run_latent(&run, 0, &forwards);
  spy_stop();
  g_assert_cmpuint(forwards, ==, want_forwards);
  g_assert_cmpuint(spy.n_timestep, ==, want_forwards);
  g_test_message("relative difference %.2g", case_item_error(latent, plain, 0));
  g_assert_cmpfloat(case_item_error(latent, plain, 0), <=, TOLERANCE);
}

/* Upstream's first and last frames are the pictures themselves. */
static void
test_references(void)
{
  static const char *const names[] = { "sampler-i2v-head", "sampler-i2v-tail", "sampler-i2v-loop" };

  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    g_auto(Run) run = run_open(names[i], "cpu");
    g_autoptr(OsrTensor) latent = run_latent(&run, 0, NULL);
    gsize frame = run.input.ref[0]->size;
    const char *last = (const char *) latent->data + latent->size - frame;
    gboolean head = run.input.condition != OSR_CONDITION_I2V_TAIL;
    gboolean tail = run.input.condition != OSR_CONDITION_I2V_HEAD;
    OsrTensor *end = run.input.ref[run.input.condition == OSR_CONDITION_I2V_LOOP];

    g_assert_cmpint(memcmp(latent->data, run.input.ref[0]->data, frame) == 0, ==, head);
    g_assert_cmpint(tail && memcmp(last, end->data, frame) == 0, ==, tail);
  }
}

/* Of a reference that is longer than the condition asks for, the frames at that end count. */
static void
test_long_reference(void)
{
  static const char *const names[] = { "sampler-v2v-head", "sampler-v2v-tail" };

  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    g_auto(Run) run = run_open(names[i], "cpu");
    OsrTensor *ref = run.input.ref[0];
    gsize extra = ref->size / ref->dims[0] * 2;
    gint64 dims[4] = { ref->dims[0] + 2, ref->dims[1], ref->dims[2], ref->dims[3] };
    g_autofree char *longer = g_malloc0(ref->size + extra);
    g_autoptr(OsrTensor) want = run_latent(&run, 0, NULL), got = NULL;
    g_autoptr(GError) error = NULL;

    osr_tensor_download(ref, longer + (i == 0 ? 0 : extra), ref->size, &error);
    g_assert_no_error(error);
    osr_tensor_unref(run.input.ref[0]);
    run.input.ref[0] = osr_tensor_new_from_host(run.device, OSR_DTYPE_F32, 4, dims, longer, &error);
    g_assert_no_error(error);
    got = run_latent(&run, 0, NULL);
    g_assert_cmpfloat(case_difference(got, want), <=, 1e-6);
  }
}

/* A still picture has nothing to be conditioned on, and becomes the reference. */
static void
test_one_frame(void)
{
  g_auto(Run) run = run_open("sampler-i2v-head", "cpu");
  gint64 dims[4] = { 1, run.dims[1], run.dims[2], run.dims[3] };
  g_autoptr(OsrTensor) noise = osr_tensor_view(run.noise, 0, 4, dims), latent = NULL;
  OsrTensor *all = run.noise;
  guint forwards;

  run.noise = noise;
  run.dims[0] = 1;
  latent = run_latent(&run, 0, &forwards);
  run.noise = all;
  g_assert_cmpmem(latent->data, latent->size, run.input.ref[0]->data, run.input.ref[0]->size);
  /* Ten steps with two forwards, 14 - 10 taking turns. */
  g_assert_cmpuint(forwards, ==, 2 * 10 + 2 * 2 + 2);
}

static void
cancel_at_3(const OsrSamplerProgress *progress, gpointer user_data)
{
  if (progress->step == 3)
    g_cancellable_cancel(user_data);
}

static void
test_cancel(void)
{
  g_auto(Run) run = run_open("sampler-i2v-head", "cpu");
  guint blocks = run.config.depth + run.config.depth_single_blocks;
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(GError) error = NULL;
  OsrTensor *latent;

  /* Between two steps. */
  spy_start(run.device);
  latent = osr_sampler_run(run.mmdit, &run.params, &run.input, run.dims, run.noise, cancel_at_3,
                           cancellable, cancellable, &error);
  spy_stop();
  g_assert_null(latent);
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_cmpuint(spy.n_timestep, ==, 9);
  g_clear_error(&error);

  /* In the middle of a step: the block that runs is the last. */
  g_cancellable_reset(cancellable);
  spy_start(run.device);
  spy.cancellable = cancellable;
  spy.cancel_at = 4 * blocks;
  latent = osr_sampler_run(run.mmdit, &run.params, &run.input, run.dims, run.noise, NULL, NULL,
                           cancellable, &error);
  spy_stop();
  g_assert_null(latent);
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_cmpuint(spy.n_attention, ==, spy.cancel_at);
}

static guint64
text_number(JsonObject *object, const char *name)
{
  return g_ascii_strtoull(json_object_get_string_member(object, name), NULL, 10);
}

/* Our own stream, bit by bit. */
static void
test_noise_streams(void)
{
  g_autoptr(Golden) golden = golden_open("tables-philox");
  JsonArray *streams = json_object_get_array_member(golden->config, "streams");

  g_assert_cmpuint(json_array_get_length(streams), >, 0);
  for (guint s = 0; s < json_array_get_length(streams); s++) {
    JsonObject *stream = json_array_get_object_element(streams, s);
    g_autofree char *name = g_strdup_printf("out.stream.%u", s);
    gsize n;
    g_autofree float *want = golden_floats(golden, name, &n);

    g_assert_cmpuint(n, ==, (gsize) json_object_get_int_member(stream, "count"));
    for (gsize i = 0; i < n; i++)
      g_assert_cmpfloat(osr_philox_randn(text_number(stream, "seed"),
                                         (guint32) json_object_get_int_member(stream, "sequence"),
                                         text_number(stream, "first") + i),
                        ==, want[i]);
  }
}

/* Elements of torch.randn(), of the first call and later ones, in one pass of the threads or in
 * several. */
static void
test_noise_torch(void)
{
  g_autoptr(Golden) golden = golden_open("tables-philox");
  JsonObject *torch = json_object_get_object_member(golden->config, "torch");
  JsonArray *index = json_object_get_array_member(torch, "index");
  JsonArray *runs = json_object_get_array_member(torch, "runs");
  g_autoptr(OsrDevice) device = case_device("cpu");
  const gint64 dims[] = { json_object_get_int_member(torch, "frames"),
                          json_object_get_int_member(torch, "height"),
                          json_object_get_int_member(torch, "width"),
                          json_object_get_int_member(torch, "channels") };
  const gint64 positions = dims[0] * dims[1] * dims[2];
  g_autoptr(OsrTensor) noise = osr_tensor_new(device, OSR_DTYPE_F32, 4, dims, NULL);

  g_assert_cmpuint(json_array_get_length(runs), >, 0);
  for (guint r = 0; r < json_array_get_length(runs); r++) {
    JsonObject *run = json_array_get_object_element(runs, r);
    const gint64 blocks = json_object_get_int_member(run, "blocks");
    const gint64 call = json_object_get_int_member(run, "call");
    g_autofree char *name =
        g_strdup_printf("out.torch.%" G_GINT64_FORMAT ".%" G_GINT64_FORMAT, blocks, call);
    g_autofree float *got = NULL;
    gsize n;
    g_autofree float *want = golden_floats(golden, name, &n);

    g_assert_cmpuint(n, ==, json_array_get_length(index));
    osr_device_lock(device);
    g_assert_cmpint(osr_device_get_ops(device)->randn(osr_device_get_context(device),
                                                      &(OsrRandn){
                                                          .dtype = OSR_DTYPE_F32,
                                                          .seed = text_number(torch, "seed"),
                                                          .sequence = (guint32) call,
                                                          .torch_blocks = (int) blocks,
                                                          .t = (int) dims[0],
                                                          .h = (int) dims[1],
                                                          .w = (int) dims[2],
                                                          .c = (int) dims[3],
                                                          .y = noise->data,
                                                      }),
                    ==, OSR_OK);
    osr_device_unlock(device);
    got = golden_download(noise);
    for (gsize i = 0; i < n; i++) {
      const gint64 draw = json_array_get_int_element(index, (guint) i);

      g_assert_cmpfloat_with_epsilon(got[draw % positions * dims[3] + draw / positions], want[i],
                                     1e-5);
    }
  }
}

/* Without noise, it is drawn from the seed: the same for any number of threads. */
static void
test_noise(void)
{
  g_auto(Run) run = run_open("sampler-t2v", "cpu");
  g_autofree float *noise = g_new(float, osr_tensor_n_elements(run.noise));
  g_autoptr(OsrTensor) given = NULL, other = NULL, torch = NULL;
  g_autoptr(GError) error = NULL;
  guint t = run.dims[0], h = run.dims[1], w = run.dims[2], c = run.dims[3];
  float *at = noise;

  run.params.seed = G_GUINT64_CONSTANT(0x123456789abcdef0);
  run.params.sequence = 7;
  for (guint64 i = 0; i < (guint64) t * h * w * c; i++)
    *at++ = osr_philox_randn(run.params.seed, run.params.sequence, i % c * t * h * w + i / c);
  g_clear_pointer(&run.noise, osr_tensor_unref);
  run.noise = osr_tensor_new_from_host(run.device, OSR_DTYPE_F32, 4, (gint64[]){ t, h, w, c },
                                       noise, &error);
  g_assert_no_error(error);
  given = run_latent(&run, 0, NULL);
  g_clear_pointer(&run.noise, osr_tensor_unref);

  for (guint threads = 1; threads <= 2; threads++) {
    g_autoptr(OsrTensor) drawn = NULL;

    g_assert_true(osr_device_set_threads(run.device, (int) threads, NULL));
    drawn = run_latent(&run, 0, NULL);
    g_assert_cmpfloat(case_difference(drawn, given), <=, 1e-6);
  }
  g_assert_true(osr_device_set_threads(run.device, 0, NULL));
  run.params.sequence++;
  other = run_latent(&run, 0, NULL);
  g_assert_cmpfloat(case_difference(other, given), >, 0.1);
  run.params.sequence--;
  run.params.rng = OSR_RNG_TORCH_CUDA;
  torch = run_latent(&run, 0, NULL);
  g_assert_cmpfloat(case_difference(torch, given), >, 0.1);
}

static void
expect_failure(const Run *run, int code, const char *word)
{
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_sampler_run(run->mmdit, &run->params, &run->input, run->dims, run->noise, NULL,
                                NULL, NULL, &error));
  g_assert_error(error, OSR_ERROR, code);
  if (!strstr(error->message, word))
    g_error("'%s' does not say '%s'", error->message, word);
}

static void
test_bad_input(void)
{
  g_auto(Run) run = run_open("sampler-i2v-head", "cpu");
  g_auto(Run) distilled = run_open("sampler-distilled", "cpu");
  g_autoptr(OsrTensor) flat = osr_tensor_view(run.input.ref[0], 0, 3, run.input.ref[0]->dims + 1);
  g_autoptr(OsrTensor) short_txt = NULL;
  Run bad;

  bad = run, bad.params.num_steps = 0;
  expect_failure(&bad, OSR_ERROR_INVALID_ARGUMENT, "0 steps");
  bad = run, bad.dims[2]++;
  expect_failure(&bad, OSR_ERROR_SHAPE, "4 channels in patches of 2 x 2");
  bad = run, bad.dims[3]++;
  expect_failure(&bad, OSR_ERROR_SHAPE, "channels");
  bad = run, bad.dims[0] = 0;
  expect_failure(&bad, OSR_ERROR_SHAPE, "not possible");
  bad = run, bad.dims[0] = bad.dims[1] = bad.dims[2] = 1 << 20;
  expect_failure(&bad, OSR_ERROR_SHAPE, "tokens");
  bad = run, bad.dims[1] += 2;
  expect_failure(&bad, OSR_ERROR_SHAPE, "a reference latent is [1, 4, 6, 4]");
  bad = run, bad.dims[0]++;
  expect_failure(&bad, OSR_ERROR_SHAPE, "the noise is [");

  bad = run, bad.input.ref[0] = NULL;
  expect_failure(&bad, OSR_ERROR_INVALID_ARGUMENT, "i2v_head needs a reference");
  bad = run, bad.input.ref[0] = flat;
  expect_failure(&bad, OSR_ERROR_SHAPE, "reference");
  bad = run, bad.input.condition = OSR_CONDITION_V2V_HEAD;
  expect_failure(&bad, OSR_ERROR_INVALID_ARGUMENT, "9 latent frames, the clip has 5");
  bad = run, bad.input.neg_txt = NULL;
  expect_failure(&bad, OSR_ERROR_INVALID_ARGUMENT, "negative");
  bad = run, bad.input.txt = NULL;
  expect_failure(&bad, OSR_ERROR_INVALID_ARGUMENT, "text embedding of the prompt");
  bad = run, bad.input.vec = run.input.txt;
  expect_failure(&bad, OSR_ERROR_SHAPE, "pooled embedding");
  short_txt = osr_tensor_view(run.input.txt, 0, 3,
                              (gint64[]){ 1, run.input.txt->dims[1] - 1, run.input.txt->dims[2] });
  bad = run, bad.input.neg_txt = short_txt;
  expect_failure(&bad, OSR_ERROR_SHAPE, "negative");

  bad = distilled, bad.input.condition = OSR_CONDITION_I2V_HEAD;
  expect_failure(&bad, OSR_ERROR_UNSUPPORTED, "only t2v");
}

static void
expect_bad_params(const OsrSamplingParams *params, guint patch, const char *word)
{
  OsrMmditConfig config = { .patch_size = patch };
  g_autoptr(GError) error = NULL;

  g_assert_false(osr_sampling_params_check(params, &config, 8, 4, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  if (!strstr(error->message, word))
    g_error("'%s' does not say '%s'", error->message, word);
}

static void
test_params(void)
{
  const OsrSamplingParams good = OSR_SAMPLING_PARAMS_INIT;
  OsrMmditConfig config = { .patch_size = 2 };
  g_autoptr(GError) error = NULL;
  OsrSamplingParams p;

  g_assert_true(osr_sampling_params_check(&good, &config, 8, 4, &error));
  g_assert_no_error(error);
  p = good, p.num_frames = 1;
  g_assert_true(osr_sampling_params_check(&p, &config, 8, 4, &error));
  g_assert_no_error(error);

  p = good, p.width = 250;
  expect_bad_params(&p, 2, "multiples of 16 are, the nearest being 240 and 256");
  p = good, p.height = 8;
  expect_bad_params(&p, 1, "multiples of 16 from 16");
  p = good, p.height = G_MAXUINT32;
  expect_bad_params(&p, 2, "multiples of 16 from 16 to 8192");
  p = good, p.width = 48;
  expect_bad_params(&p, 4, "multiples of 32 are, the nearest being 32 and 64");
  p = good, p.num_frames = 0;
  expect_bad_params(&p, 2, "0 frames");
  p = good, p.num_frames = 32;
  expect_bad_params(&p, 2, "the nearest being 29 and 33");
  p = good, p.width = p.height = 8192, p.num_frames = 4 * 10000 + 1;
  expect_bad_params(&p, 2, "tokens");
  p = good, p.num_steps = 0;
  expect_bad_params(&p, 2, "0 steps");
  p = good, p.guidance = NAN;
  expect_bad_params(&p, 2, "guidance");
  p = good, p.guidance_img = INFINITY;
  expect_bad_params(&p, 2, "guidance");
  p = good, p.flow_shift = -1;
  expect_bad_params(&p, 2, "flow shift");
}

/* 1000 * t of a t in bf16, by PyTorch. */
static void
test_round_time(void)
{
  static const float cases[][2] = {
    { 1.0f, 1000.0f },    { 0.98f, 980.0f },     { 0.9231f, 920.0f },
    { 0.75123f, 752.0f }, { 0.5f, 500.0f },      { 0.333333f, 334.0f },
    { 0.1f, 100.0f },     { 0.0123f, 12.3125f }, { 0.0f, 0.0f },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_assert_cmpfloat_with_epsilon(1000.0f * osr_round_time(cases[i][0], OSR_DTYPE_BF16),
                                   cases[i][1], 1e-4f);
    g_assert_cmpfloat(osr_round_time(cases[i][0], OSR_DTYPE_F32), ==, cases[i][0]);
  }
}

int
main(int argc, char **argv)
{
  static const Case i2v = { (char *) "sampler-i2v-head", "cpu" };
  static const Case t2v = { (char *) "sampler-t2v", "cpu" };
  static const Case i2v_ref = { (char *) "sampler-i2v-head", "ref" };
  static const Case skip_t2v = { (char *) "t2v", NULL };
  static const Case skip_i2v = { (char *) "i2v_head", NULL };

  g_test_init(&argc, &argv, NULL);
  cases_add("sampler", test_golden);
  g_test_add_func("/sampler/schedules", test_schedules);
  g_test_add_func("/sampler/guidance", test_guidance);
  g_test_add_func("/sampler/needed", test_needed);
  g_test_add_func("/sampler/conditions", test_conditions);
  g_test_add_data_func("/sampler/batched/i2v", &i2v, test_batched);
  g_test_add_data_func("/sampler/batched/i2v-ref", &i2v_ref, test_batched);
  g_test_add_data_func("/sampler/batched/t2v", &t2v, test_batched);
  g_test_add_data_func("/sampler/skipping/t2v", &skip_t2v, test_skipping);
  g_test_add_data_func("/sampler/skipping/i2v", &skip_i2v, test_skipping);
  g_test_add_func("/sampler/references", test_references);
  g_test_add_func("/sampler/long-reference", test_long_reference);
  g_test_add_func("/sampler/one-frame", test_one_frame);
  g_test_add_func("/sampler/cancel", test_cancel);
  g_test_add_func("/sampler/noise", test_noise);
  g_test_add_func("/sampler/noise-streams", test_noise_streams);
  g_test_add_func("/sampler/noise-torch", test_noise_torch);
  g_test_add_func("/sampler/round-time", test_round_time);
  g_test_add_func("/sampler/bad-input", test_bad_input);
  g_test_add_func("/sampler/params", test_params);
  return g_test_run();
}
