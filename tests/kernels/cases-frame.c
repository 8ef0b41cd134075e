/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random calls of tensor_to_frame and frame_to_tensor. */
#include "check.h"
#include "checkops.h"

static void
draw_frame(Case *c, OsrFrame *p, Role planes, Role tensor)
{
  static const char *const names[] = { "plane 0", "plane 1", "plane 2" };
  Rng *rng = &c->rng;

  p->width = (int) rng_size(rng, 70);
  p->height = (int) rng_size(rng, 40);
  p->format = (OsrPixelFormat) rng_range(rng, OSR_PIXEL_RGB, OSR_PIXEL_NV12);
  p->matrix = (OsrMatrix) rng_range(rng, OSR_MATRIX_BT601, OSR_MATRIX_BT709);
  case_dtype(c, &p->dtype, c->dtype);
  for (int i = 0; i < osr_frame_planes(p->format); i++) {
    int64_t row = osr_frame_row_bytes(p->format, i, p->width);
    int64_t rows = p->width > 0 ? osr_frame_rows(i, p->height) : 0;
    int64_t stride = case_ld(c, row);
    Arg *plane = case_matrix(c, &p->planes[i], names[i], planes, OSR_DTYPE_U8, 1, 0, rows, stride,
                             row, 0, 0);

    p->strides[i] = (int) stride;
    if (planes == ROLE_IN)
      for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < row; x++)
          arg_set(plane, y * stride + x, (double) rng_range(rng, 0, 255));
  }
  /* A third of a normal distribution this wide is outside of [-1, 1]. */
  case_array(c, &p->tensor, "tensor", tensor, c->dtype, (int64_t) p->height * p->width * 3, 0, 1);
  case_describe(c, "%d x %d, format %d, matrix %d, strides %d %d %d", p->width, p->height,
                (int) p->format, (int) p->matrix, p->strides[0], p->strides[1], p->strides[2]);
}

void
build_tensor_to_frame(Case *c)
{
  OsrFrame p = { 0 };

  draw_frame(c, &p, ROLE_OUT, ROLE_IN);
  case_run(c, &p);
}

void
build_frame_to_tensor(Case *c)
{
  OsrFrame p = { 0 };

  draw_frame(c, &p, ROLE_IN, ROLE_OUT);
  case_run(c, &p);
}
