/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "aspect.h"

#include <math.h>

#include "error.h"

#define ALIGN 16 /* pixels a token covers: 8 in the VAE, 2 in a patch */
#define MAX_RESOLUTION 8192
#define N_ASPECT_RATIOS 15

/* Upstream computes nine sizes and then enters each under the turned name, too, over what is
 * there already. So "16:9" has the size of "9:16" turned, which rounds differently, and "1:1" its
 * own turned. */
static const struct {
  double width, height;
  gboolean turned;
} ratios[N_ASPECT_RATIOS] = {
  { 2.39, 1, FALSE }, { 2, 1, FALSE },   { 9, 16, TRUE }, { 1.85, 1, FALSE }, { 16, 9, TRUE },
  { 5, 8, FALSE },    { 3, 2, FALSE },   { 4, 3, FALSE }, { 1, 1, TRUE },     { 2.39, 1, TRUE },
  { 2, 1, TRUE },     { 1.85, 1, TRUE }, { 5, 8, TRUE },  { 3, 2, TRUE },     { 4, 3, TRUE },
};

static const char *const names[N_ASPECT_RATIOS + 1] = {
  "2.39:1", "2:1",    "16:9", "1.85:1", "9:16", "5:8", "3:2", "4:3",
  "1:1",    "1:2.39", "1:2",  "1:1.85", "8:5",  "2:3", "3:4", NULL,
};

const char *const *
osr_aspect_ratios(void)
{
  return names;
}

/* Pixels of "256px" (a square's side) or "480p" (lines at 16:9), 0 if it is neither. */
static double
count_pixels(const char *resolution)
{
  char *end;
  const guint64 size = g_ascii_strtoull(resolution, &end, 10);

  if (!g_ascii_isdigit(*resolution) || size > MAX_RESOLUTION)
    return 0;
  const double area = (double) (size * size);
  if (g_str_equal(end, "px"))
    return area;
  return g_str_equal(end, "p") ? floor(area / 9 * 16) : 0;
}

static guint
align_down(double pixels)
{
  return (guint) floor(pixels / ALIGN) * ALIGN;
}

/* Moves one side of @w x @h to come nearer to the area; of equal ones the first is taken. */
static void
approach_area(double pixels, guint *w, guint *h)
{
  static const int moves[][2] = { { 0, -ALIGN }, { 0, ALIGN }, { -ALIGN, 0 }, { ALIGN, 0 } };
  const guint start_w = *w, start_h = *h;
  double best = fabs((double) start_w * start_h - pixels);

  for (guint i = 0; i < G_N_ELEMENTS(moves); i++) {
    const guint moved_w = start_w + (guint) moves[i][0], moved_h = start_h + (guint) moves[i][1];
    const double away = fabs((double) moved_w * moved_h - pixels);

    if (away < best && moved_w > 0 && moved_h > 0) {
      best = away;
      *w = moved_w;
      *h = moved_h;
    }
  }
}

static gboolean
find_size(const char *resolution, const char *aspect_ratio, gboolean picture, guint *width,
          guint *height, GError **error)
{
  guint i = 0;

  while (i < N_ASPECT_RATIOS && !g_str_equal(names[i], aspect_ratio))
    i++;
  if (i == N_ASPECT_RATIOS) {
    g_autofree char *known = g_strjoinv(", ", (char **) names);
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "Unknown aspect ratio \"%s\"; known are %s", aspect_ratio, known);
    return FALSE;
  }

  const double pixels = count_pixels(resolution);
  guint w = align_down(sqrt(pixels * (ratios[i].width / ratios[i].height)));
  guint h = w > 0 ? align_down(pixels / w) : 0;
  if (h == 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "Resolution \"%s\" is not possible; known are names like 256px and 768px (the "
                "side of a square of that area) or 480p and 720p (lines at 16:9), up to %d",
                resolution, MAX_RESOLUTION);
    return FALSE;
  }
  if (picture)
    approach_area(pixels, &w, &h);
  *width = ratios[i].turned ? h : w;
  *height = ratios[i].turned ? w : h;
  return TRUE;
}

gboolean
osr_aspect_size(const char *resolution, const char *aspect_ratio, guint *width, guint *height,
                GError **error)
{
  g_return_val_if_fail(resolution != NULL && aspect_ratio != NULL, FALSE);

  return find_size(resolution, aspect_ratio, FALSE, width, height, error);
}

gboolean
osr_aspect_picture_size(const char *resolution, const char *aspect_ratio, guint *width,
                        guint *height, GError **error)
{
  g_return_val_if_fail(resolution != NULL && aspect_ratio != NULL, FALSE);

  return find_size(resolution, aspect_ratio, TRUE, width, height, error);
}

const char *
osr_aspect_nearest(guint width, guint height)
{
  guint best = 0;
  double distance = G_MAXDOUBLE;

  g_return_val_if_fail(width > 0 && height > 0, NULL);

  for (guint i = 0; i < N_ASPECT_RATIOS; i++) {
    const double ratio =
        ratios[i].turned ? ratios[i].height / ratios[i].width : ratios[i].width / ratios[i].height;
    const double away = fabs(log((double) width / height / ratio));

    if (away < distance) {
      distance = away;
      best = i;
    }
  }
  return names[best];
}
