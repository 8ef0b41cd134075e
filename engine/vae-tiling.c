/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vae-tiling.c: large videos in overlapping tiles that are cross-faded, first in time, then
 * each of those in space, with the sizes and the order of upstream's tiled VAE.
 */
#include "vae-private.h"

/* Along one axis: a tile of @size starts every @step; of its result @keep positions are
 * used, and the first @extent fade over from the tile before. */
typedef struct {
  int size, step, extent, keep;
} Tiles;

typedef struct {
  const OsrVaeConfig *config;
  const OsrVaeNet *net;
  gboolean decode;
  OsrVaeTiling tiling;
  Tiles time, space;
} Pass;

/* The tiles of an axis of @pixels long tiles with compression @ratio. Steps in and results
 * out have to fit together, or tiles would leave gaps. */
static gboolean
tiles_init(Tiles *tiles, const Pass *pass, const char *axis, guint pixels, guint ratio,
           GError **error)
{
  const double overlap = pass->config->tile_overlap_factor;
  const int latents = (int) (pixels / ratio);
  const int in = pass->decode ? latents : (int) pixels, out = pass->decode ? (int) pixels : latents;
  gboolean fits = pixels >= 1 && pixels <= OSR_VAE_MAX_SIZE && overlap >= 0.0 && overlap < 1.0;

  if (fits) {
    *tiles = (Tiles){
      .size = in,
      .step = (int) (in * (1 - overlap)),
      .extent = (int) (out * overlap),
    };
    tiles->keep = out - tiles->extent;
    fits = tiles->step >= 1 && (gint64) tiles->step * (pass->decode ? ratio : 1) ==
                                   (gint64) tiles->keep * (pass->decode ? 1 : ratio);
  }
  if (!fits)
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "vae: tiles of %u in %s that overlap by %g do not fit a compression of %u", pixels,
                axis, overlap, ratio);
  return fits;
}

static gboolean
in_time(const Pass *pass, const OsrVaeMap *x)
{
  return (pass->tiling & OSR_VAE_TILING_TEMPORAL) && x->t > pass->time.size;
}

static gboolean
in_space(const Pass *pass, const OsrVaeMap *x)
{
  return (pass->tiling & OSR_VAE_TILING_SPATIAL) &&
         (x->h > pass->space.size || x->w > pass->space.size);
}

/* A map as large as the result for @x. */
static OsrVaeMap
result_new(OsrVaeRun *run, const Pass *pass, const OsrVaeMap *x)
{
  const int time = (int) pass->config->time_compression_ratio;
  const int space = (int) pass->config->spatial_compression_ratio;
  OsrVaeMap result;

  osr_vae_run_begin(run, "the whole of all tiles");
  if (pass->decode)
    result = osr_vae_map_new(run, 1 + (x->t - 1) * time, x->h * space, x->w * space,
                             (int) pass->config->out_channels);
  else
    result = osr_vae_map_new(run, (x->t - 1) / time + 1, x->h / space, x->w / space,
                             2 * (int) pass->config->latent_channels);
  osr_vae_run_end(run);
  return result;
}

/* Copies t x h x w positions. */
static void
copy_box(OsrVaeRun *run, const OsrVaeMap *src, const int from[3], const OsrVaeMap *dst,
         const int to[3], int t, int h, int w)
{
  if (!osr_vae_run_active(run))
    return;
  for (int i = 0; i < t; i++)
    osr_run(&run->ops, copy2d,
            &(OsrCopy2d){
                .x_dtype = run->ops.dtype,
                .y_dtype = run->ops.dtype,
                .m = h,
                .n = (gint64) w * src->c,
                .x = osr_vae_map_at(src, from[0] + i, from[1], from[2]),
                .x_ld = (gint64) src->w * src->c,
                .y = osr_vae_map_at(dst, to[0] + i, to[1], to[2]),
                .y_ld = (gint64) dst->w * dst->c,
            });
}

/* Fades from the end of @a into the start of @b, which are a_len and b_len long. */
static void
blend(OsrVaeRun *run, gconstpointer a, gpointer b, gint64 outer, gint64 a_len, gint64 b_len,
      gint64 inner, int extent)
{
  osr_run(&run->ops, blend,
          &(OsrBlend){
              .dtype = run->ops.dtype,
              .outer = outer,
              .a_len = a_len,
              .b_len = b_len,
              .inner = inner,
              .extent = extent,
              .a = a,
              .b = b,
          });
}

static OsrVaeMap
run_tile(OsrVaeRun *run, const Pass *pass, const OsrVaeMap *x)
{
  return pass->decode ? osr_vae_decoder_forward(run, pass->net, x)
                      : osr_vae_encoder_forward(run, pass->net, x);
}

static OsrVaeMap
run_tile_at(OsrVaeRun *run, const Pass *pass, const OsrVaeMap *x, int top, int left)
{
  const int h = MIN(pass->space.size, x->h - top), w = MIN(pass->space.size, x->w - left);
  OsrVaeMap part, tile;

  osr_vae_run_begin(run, "a tile");
  part = osr_vae_map_new(run, x->t, h, w, x->c);
  copy_box(run, x, (int[]){ 0, top, left }, &part, (int[]){ 0, 0, 0 }, x->t, h, w);
  osr_vae_run_end(run);
  tile = run_tile(run, pass, &part);
  osr_vae_map_free(run, &part);
  return tile;
}

/* A tile fades in from the finished one above, then from the finished one on its left. */
static OsrVaeMap
run_in_space(OsrVaeRun *run, const Pass *pass, const OsrVaeMap *x)
{
  const Tiles *tiles = &pass->space;
  /* The last tile of every column; those left of the current one are of its row. */
  g_autofree OsrVaeMap *done = NULL;
  OsrVaeMap result;
  int columns, rows;

  if (!in_space(pass, x))
    return run_tile(run, pass, x);
  columns = (x->w + tiles->step - 1) / tiles->step;
  rows = (x->h + tiles->step - 1) / tiles->step;
  done = g_new0(OsrVaeMap, (gsize) columns);
  result = result_new(run, pass, x);
  for (int i = 0; i < rows && !run->error; i++) {
    for (int j = 0; j < columns && !run->error; j++) {
      OsrVaeMap tile = run_tile_at(run, pass, x, i * tiles->step, j * tiles->step);
      const int top = i * tiles->keep, left = j * tiles->keep;

      osr_vae_run_begin(run, "joining tiles");
      if (i > 0 && osr_vae_run_active(run))
        blend(run, done[j].tensor->data, tile.tensor->data, tile.t, done[j].h, tile.h,
              (gint64) tile.w * tile.c, tiles->extent);
      if (j > 0 && osr_vae_run_active(run))
        blend(run, done[j - 1].tensor->data, tile.tensor->data, (gint64) tile.t * tile.h,
              done[j - 1].w, tile.w, tile.c, tiles->extent);
      copy_box(run, &tile, (int[]){ 0, 0, 0 }, &result, (int[]){ 0, top, left }, tile.t,
               MIN(tiles->keep, tile.h), MIN(tiles->keep, tile.w));
      osr_vae_run_end(run);
      osr_vae_map_free(run, &done[j]);
      done[j] = tile;
    }
  }
  for (int j = 0; j < columns; j++)
    osr_vae_map_free(run, &done[j]);
  return result;
}

/* @n frames of @x from frame @t on, sharing its memory. */
static OsrVaeMap
frames_of(OsrVaeRun *run, const OsrVaeMap *x, int t, int n)
{
  OsrVaeMap part = *x;
  gint64 frame = (gint64) x->h * x->w * x->c;

  part.t = n;
  if (osr_vae_run_active(run))
    part.tensor = osr_tensor_view(x->tensor, t * frame, 4, (gint64[]){ n, x->h, x->w, x->c });
  else
    part.tensor = NULL;
  return part;
}

/* Tiles have one frame more than their size. The network takes the first for the start of
 * the video, so all but the first tile drop it. */
static OsrVaeMap
run_in_time(OsrVaeRun *run, const Pass *pass, const OsrVaeMap *x)
{
  const Tiles *tiles = &pass->time;
  OsrVaeMap result, before = { 0 };
  int before_skip = 0, at = 0;

  if (!in_time(pass, x))
    return run_in_space(run, pass, x);
  result = result_new(run, pass, x);
  for (int t = 0; t < x->t && !run->error; t += tiles->step) {
    const int frames = MIN(tiles->size + 1, x->t - t), skip = t > 0;
    OsrVaeMap part, tile;
    int n;

    if (frames == skip)
      break; /* nothing beyond the frame that is dropped */
    part = frames_of(run, x, t, frames);
    tile = run_in_space(run, pass, &part);
    g_clear_pointer(&part.tensor, osr_tensor_unref);

    osr_vae_run_begin(run, "joining tiles");
    if (t > 0 && osr_vae_run_active(run))
      blend(run, osr_vae_map_at(&before, before_skip, 0, 0), osr_vae_map_at(&tile, skip, 0, 0), 1,
            before.t - before_skip, tile.t - skip, (gint64) tile.h * tile.w * tile.c,
            tiles->extent);
    n = MIN(tiles->keep + (t == 0), tile.t - skip);
    copy_box(run, &tile, (int[]){ skip, 0, 0 }, &result, (int[]){ at, 0, 0 }, n, tile.h, tile.w);
    osr_vae_run_end(run);
    osr_vae_map_free(run, &before);
    before = tile;
    before_skip = skip;
    at += n;
  }
  osr_vae_map_free(run, &before);
  return result;
}

OsrVaeMap
osr_vae_run_tiled(OsrVaeRun *run, const OsrVaeConfig *config, const OsrVaeNet *net, gboolean decode,
                  OsrVaeTiling tiling, const OsrVaeMap *x)
{
  Pass pass = { .config = config, .net = net, .decode = decode, .tiling = tiling };
  OsrVaeMap result;

  run->by_frame = config->type == OSR_VAE_FLUX;
  if (run->by_frame) /* a frame needs no other: there is nothing to fade */
    pass.tiling &= ~(guint) OSR_VAE_TILING_TEMPORAL;
  if (((pass.tiling & OSR_VAE_TILING_TEMPORAL) &&
       !tiles_init(&pass.time, &pass, "time", config->sample_tsize, config->time_compression_ratio,
                   &run->error)) ||
      ((pass.tiling & OSR_VAE_TILING_SPATIAL) &&
       !tiles_init(&pass.space, &pass, "space", config->sample_size,
                   config->spatial_compression_ratio, &run->error)))
    return (OsrVaeMap){ 0 };

  result = run_in_time(run, &pass, x);
  if (run->error)
    g_clear_pointer(&result.tensor, osr_tensor_unref);
  return result;
}
