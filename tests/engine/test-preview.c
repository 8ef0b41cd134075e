/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Previews: what the sampler gives, on a host and on the fake asynchronous GPU, and its colours. */
#include <math.h>

#include "fake-control.h"
#include "model-dir.h"
#include "preview.h"
#include "sampler-run.h"

#define STEPS 7

/* A run and the previews of its steps, copied. */
typedef struct {
  Run *run;
  float *clip;
  float *previews[STEPS + 1]; /* after so many steps; NULL: none */
  OsrPoolStats first, last;   /* at the first preview and the last */
} Film;

static void
film_clear(Film *film)
{
  g_free(film->clip);
  for (guint i = 0; i <= STEPS; i++)
    g_free(film->previews[i]);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Film, film_clear)

static gsize
latent_size(const Run *run)
{
  return (gsize) run->dims[0] * run->dims[1] * run->dims[2] * run->dims[3] * sizeof(float);
}

static void
on_step(const OsrSamplerProgress *progress, gpointer user_data)
{
  Film *film = user_data;
  g_autoptr(GError) error = NULL;

  if (!progress->preview)
    return;
  g_assert_cmpuint(progress->preview->n_dims, ==, 4);
  for (guint i = 0; i < 4; i++)
    g_assert_cmpint(progress->preview->dims[i], ==, film->run->dims[i]);
  g_assert_null(film->previews[progress->step]);
  film->previews[progress->step] = osr_preview_copy(progress->preview, &error);
  g_assert_no_error(error);
  film->last = pool_stats(film->run->device);
  if (progress->step == film->run->params.preview_every)
    film->first = film->last;
}

static void
shoot(Film *film, Run *run, guint steps, guint every)
{
  g_autoptr(OsrTensor) latent = NULL;
  g_autoptr(GError) error = NULL;

  film->run = run;
  run->params.num_steps = steps;
  run->params.preview_every = every;
  latent = osr_sampler_run(run->mmdit, &run->params, &run->input, run->dims, run->noise, on_step,
                           film, NULL, &error);
  g_assert_no_error(error);
  film->clip = golden_download(latent);
}

static const char *const clips[] = { "sampler-t2v", "sampler-i2v-head", "sampler-i2v-loop",
                                     "sampler-v2v-tail", "sampler-distilled" };

/* A clip is the same with previews and without. There is one after every so many steps and the
 * last, which is the clip itself. The first is what a clip of one step would be: both believe the
 * prediction for the noise to the end. */
static void
test_steps(gconstpointer device)
{
  for (guint i = 0; i < G_N_ELEMENTS(clips); i++) {
    g_auto(Run) run = run_open(clips[i], device);
    g_auto(Film) plain = { 0 };
    g_auto(Film) one = { 0 };
    g_auto(Film) all = { 0 };
    const gsize size = latent_size(&run);

    run.params.use_graphs = TRUE;
    shoot(&one, &run, 1, 0);
    shoot(&plain, &run, STEPS, 0);
    shoot(&all, &run, STEPS, 1);
    for (guint step = 0; step <= STEPS; step++)
      g_assert_null(plain.previews[step]);
    g_assert_cmpmem(all.clip, size, plain.clip, size);
    g_assert_cmpmem(all.previews[1], size, one.clip, size);
    g_assert_cmpuint(all.last.n_backend_allocs, ==, all.first.n_backend_allocs);

    for (guint every = 2; every <= STEPS + 1; every++) {
      g_auto(Film) some = { 0 };

      shoot(&some, &run, STEPS, every);
      g_assert_cmpmem(some.clip, size, plain.clip, size);
      for (guint step = 1; step <= STEPS; step++) {
        if (step % every == 0 || step == STEPS)
          g_assert_cmpmem(some.previews[step], size, all.previews[step], size);
        else
          g_assert_null(some.previews[step]);
      }
      g_assert_cmpmem(some.previews[STEPS], size, plain.clip, size);
    }
  }
}

/* The step that is under way on the device leaves the preview alone that is being looked at. */
static void
test_one_ahead(void)
{
  for (guint i = 0; i < G_N_ELEMENTS(clips); i++) {
    g_auto(Run) sure = run_open(clips[i], "ref");
    g_auto(Run) ahead = run_open(clips[i], "cuda:0");
    g_auto(Film) want = { 0 };
    g_auto(Film) got = { 0 };
    const gsize n = latent_size(&sure) / sizeof(float);

    ahead.params.use_graphs = TRUE;
    shoot(&want, &sure, STEPS, 1);
    shoot(&got, &ahead, STEPS, 1);
    for (guint step = 1; step <= STEPS; step++)
      g_assert_cmpfloat(golden_error(got.previews[step], want.previews[step], n), <=, 1e-5);
  }
}

/* Cancelled in a preview's callback, as a user does who has seen enough. */
static void
cancel_at_second(const OsrSamplerProgress *progress, gpointer cancellable)
{
  g_assert_cmpuint(progress->step, <=, 3);
  if (progress->preview)
    g_cancellable_cancel(cancellable);
}

static void
test_cancel(void)
{
  g_auto(Run) run = run_open("sampler-t2v", "cpu");
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(GError) error = NULL;
  const guint64 before = pool_stats(run.device).allocated;
  OsrTensor *latent;

  run.params.num_steps = STEPS;
  run.params.preview_every = 2;
  latent = osr_sampler_run(run.mmdit, &run.params, &run.input, run.dims, run.noise,
                           cancel_at_second, cancellable, cancellable, &error);
  g_assert_null(latent);
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  /* The model keeps its rotary tables. */
  g_assert_cmpuint(pool_stats(run.device).allocated, <=, before + 4096);
}

/* Colours */

static const OsrPreviewMap map = {
  .channels = 2,
  .factors = { { 1.0f, 0.0f, -1.0f }, { 0.0f, 0.5f, 0.0f } },
  .bias = { 0.0f, -1.0f, 0.5f },
};
/* Two rows of three; what is NaN becomes black. */
static const float frame[2 * 3 * 2] = { 0, 0, 1, 0, -1, 4, 0, 2, 9, -9, NAN, 1 };
static const guint8 colours[2 * 3][3] = { { 128, 0, 191 },   { 255, 0, 64 }, { 0, 255, 255 },
                                          { 128, 128, 191 }, { 255, 0, 0 },  { 0, 0, 0 } };

static void
test_colours(void)
{
  for (guint size = 1; size <= 3; size++) {
    const guint width = 3 * size, height = 2 * size, stride = width * 3 + 5;
    g_autofree guint8 *pixels = g_malloc(height * stride);
    const OsrPicture picture = { .format = OSR_PIXEL_RGB,
                                 .width = width,
                                 .height = height,
                                 .planes = { pixels },
                                 .strides = { (gint) stride } };
    g_autoptr(GError) error = NULL;

    memset(pixels, 7, height * stride);
    g_assert_true(osr_preview_get_picture(&map, frame, 2, 3, &picture, &error));
    g_assert_no_error(error);
    for (guint y = 0; y < height; y++) {
      for (guint x = 0; x < width; x++)
        g_assert_cmpmem(pixels + y * stride + x * 3, 3, colours[y / size * 3 + x / size], 3);
      for (guint i = width * 3; i < stride; i++)
        g_assert_cmpuint(pixels[y * stride + i], ==, 7);
    }
  }
}

static void
test_bad_sizes(void)
{
  static const guint sizes[][2] = { { 3, 4 }, { 4, 2 }, { 2, 2 }, { 3, 1 }, { 6, 2 }, { 7, 4 } };
  guint8 pixels[7 * 4 * 3];

  for (guint i = 0; i < G_N_ELEMENTS(sizes); i++) {
    const OsrPicture picture = { .format = OSR_PIXEL_RGB,
                                 .width = sizes[i][0],
                                 .height = sizes[i][1],
                                 .planes = { pixels },
                                 .strides = { 7 * 3 } };
    g_autoptr(GError) error = NULL;

    g_assert_false(osr_preview_get_picture(&map, frame, 2, 3, &picture, &error));
    assert_error_says(error, OSR_ERROR_SHAPE, "3 x 2");
  }
}

/* Published autoencoders have their maps; others have what their config.json says. */
static void
test_maps(void)
{
  OsrVaeConfig config = { .type = OSR_VAE_HUNYUAN,
                          .latent_channels = 16,
                          .scale_factor = 0.476986 };
  const OsrPreviewMap *hunyuan = osr_preview_map_find(&config), *flux;
  g_autoptr(OsrModelDir) tiny = NULL;
  g_autoptr(GError) error = NULL;

  g_assert_nonnull(hunyuan);
  config.scale_factor = 1;
  g_assert_null(osr_preview_map_find(&config));
  config = (OsrVaeConfig){
    .type = OSR_VAE_FLUX, .latent_channels = 16, .scale_factor = 0.3611, .shift_factor = 0.1159
  };
  flux = osr_preview_map_find(&config);
  g_assert_nonnull(flux);
  g_assert_true(flux != hunyuan);
  config.latent_channels = 8;
  g_assert_null(osr_preview_map_find(&config));

  tiny = osr_model_dir_open(NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(tiny->preview.channels, ==, tiny->vae.latent_channels);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_data_func("/preview/steps/cpu", "cpu", test_steps);
  g_test_add_data_func("/preview/steps/cuda", "cuda:0", test_steps);
  g_test_add_func("/preview/one-ahead", test_one_ahead);
  g_test_add_func("/preview/cancel", test_cancel);
  g_test_add_func("/preview/colours", test_colours);
  g_test_add_func("/preview/bad-sizes", test_bad_sizes);
  g_test_add_func("/preview/maps", test_maps);
  return g_test_run();
}
