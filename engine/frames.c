/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "frames.h"

#include "error.h"

/* Rows and bytes a row of each plane; the number of planes is returned. */
static guint
plane_sizes(const OsrPicture *picture, guint rows[3], gsize bytes[3])
{
  const guint half_w = (picture->width + 1) / 2, half_h = (picture->height + 1) / 2;

  rows[0] = picture->height;
  switch (picture->format) {
  case OSR_PIXEL_RGB:
    bytes[0] = (gsize) picture->width * 3;
    return 1;
  case OSR_PIXEL_RGBX:
    bytes[0] = (gsize) picture->width * 4;
    return 1;
  case OSR_PIXEL_NV12:
    bytes[0] = picture->width;
    bytes[1] = (gsize) half_w * 2;
    rows[1] = half_h;
    return 2;
  case OSR_PIXEL_I420:
    bytes[0] = picture->width;
    bytes[1] = bytes[2] = half_w;
    rows[1] = rows[2] = half_h;
    return 3;
  }
  return 0;
}

typedef OsrResult (*FrameOp)(OsrOpsContext *ctx, const OsrFrame *p);

/* Frame @i of @video beside @picture, whose planes are still to be set. */
static gboolean
frame_init(OsrFrame *frame, OsrTensor *video, guint i, const OsrPicture *picture, GError **error)
{
  if (video->n_dims != 4 || video->dims[3] != 3 || video->dims[1] != picture->height ||
      video->dims[2] != picture->width || i >= video->dims[0]) {
    g_autofree char *dims = osr_dims_to_string(video->n_dims, video->dims);

    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
                "a video of shape %s has no frame %u of %u x %u pixels", dims, i, picture->width,
                picture->height);
    return FALSE;
  }
  *frame = (OsrFrame){
    .dtype = video->dtype,
    .width = (int) picture->width,
    .height = (int) picture->height,
    .format = picture->format,
    .matrix = picture->matrix,
    .tensor = (guint8 *) video->data +
              (gsize) i * video->dims[1] * video->dims[2] * 3 * osr_dtype_size(video->dtype),
  };
  return TRUE;
}

static gboolean
convert(OsrDevice *device, FrameOp op, const OsrFrame *frame, GError **error)
{
  gboolean ok;

  osr_device_lock(device);
  ok = osr_device_check(device, op(osr_device_get_context(device), frame), "frame conversion",
                        error);
  osr_device_unlock(device);
  return ok;
}

/* Runs @op on planes that the device reaches. */
static gboolean
run_in_place(OsrDevice *device, FrameOp op, OsrFrame *frame, const OsrPicture *picture,
             GError **error)
{
  guint rows[3] = { 0 };
  gsize bytes[3] = { 0 };
  const guint n_planes = plane_sizes(picture, rows, bytes);

  for (guint p = 0; p < n_planes; p++) {
    frame->planes[p] = picture->planes[p];
    frame->strides[p] = picture->strides[p];
  }
  return convert(device, op, frame, error);
}

/* Runs @op on planes in host memory: there on a host device, else on a staged copy with the
 * planes packed one after the other. */
static gboolean
run(OsrTensor *video, guint i, const OsrPicture *picture, gboolean to_picture, GError **error)
{
  const OsrOps *ops = osr_device_get_ops(video->device);
  const FrameOp op = to_picture ? ops->tensor_to_frame : ops->frame_to_tensor;
  g_autoptr(OsrTensor) staging = NULL;
  guint rows[3] = { 0 };
  gsize bytes[3] = { 0 }, total = 0;
  guint n_planes = plane_sizes(picture, rows, bytes);
  gboolean ok = FALSE;
  OsrFrame frame;

  if (!frame_init(&frame, video, i, picture, error))
    return FALSE;
  if (osr_device_is_host(video->device))
    return run_in_place(video->device, op, &frame, picture, error);

  for (guint p = 0; p < n_planes; p++)
    total += rows[p] * bytes[p];
  staging = osr_tensor_new(video->device, OSR_DTYPE_U8, 1, (gint64[]){ (gint64) total }, error);
  if (!staging)
    return FALSE;

  g_autofree guint8 *host = g_malloc(total);
  gsize offset = 0;

  for (guint p = 0; p < n_planes; p++) {
    frame.planes[p] = (guint8 *) staging->data + offset;
    frame.strides[p] = (int) bytes[p];
    for (guint y = 0; y < rows[p] && !to_picture; y++)
      memcpy(host + offset + y * bytes[p], picture->planes[p] + (gsize) y * picture->strides[p],
             bytes[p]);
    offset += rows[p] * bytes[p];
  }
  ok = (to_picture || osr_device_upload(video->device, staging->data, host, total, error)) &&
       convert(video->device, op, &frame, error) &&
       (!to_picture || osr_device_download(video->device, host, staging->data, total, error));

  offset = 0;
  for (guint p = 0; p < n_planes && ok && to_picture; p++) {
    for (guint y = 0; y < rows[p]; y++)
      memcpy(picture->planes[p] + (gsize) y * picture->strides[p], host + offset + y * bytes[p],
             bytes[p]);
    offset += rows[p] * bytes[p];
  }
  return ok;
}

gboolean
osr_video_get_picture(OsrTensor *video, guint i, const OsrPicture *picture, GError **error)
{
  return run(video, i, picture, TRUE, error);
}

gboolean
osr_video_get_device_picture(OsrTensor *video, guint i, const OsrPicture *picture, GError **error)
{
  OsrFrame frame;

  return frame_init(&frame, video, i, picture, error) &&
         run_in_place(video->device, osr_device_get_ops(video->device)->tensor_to_frame, &frame,
                      picture, error);
}

gboolean
osr_video_set_picture(OsrTensor *video, guint i, const OsrPicture *picture, GError **error)
{
  return run(video, i, picture, FALSE, error);
}
