/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host-weights.h"

#include <string.h>

#include "device-private.h"
#include "error.h"
#include "tensor-private.h"

/* Of tensors inside of a block: what any op may ask for. */
#define ALIGNMENT 256
#define MAX_PLACES 2

typedef struct {
  OsrTensor **place;
  OsrDType dtype;
  guint n_dims;
  gint64 dims[OSR_TENSOR_MAX_DIMS];
  gsize at, size; /* in the block */
} Weight;

typedef struct {
  GArray *weights; /* Weight */
  char *bytes;     /* the device can read them */
  gsize size;
} Block;

/* Where blocks lie on the device. */
typedef struct {
  OsrTensor *memory;
  guint block; /* that it has, or will have when @fetch is done; n_blocks: none */
  guint64 fetch;
  guint64 used; /* mark: what was enqueued before may still read it */
} Place;

struct _OsrStreamer {
  OsrDevice *device;
  GArray *blocks; /* Block */
  guint n_blocks, n_places;
  gsize largest;
  Place places[MAX_PLACES];
};

gboolean
osr_device_can_fetch(OsrDevice *device)
{
  return osr_device_get_context(device)->backend->fetch != NULL;
}

gsize
osr_host_weights_append(gsize at, gsize size)
{
  return (at + size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

OsrStreamer *
osr_streamer_new(OsrDevice *device, guint n_blocks)
{
  OsrStreamer *streamer;

  g_return_val_if_fail(n_blocks > 0 && osr_device_can_fetch(device), NULL);

  streamer = g_new0(OsrStreamer, 1);
  streamer->device = osr_device_ref(device);
  streamer->blocks = g_array_sized_new(FALSE, TRUE, sizeof(Block), n_blocks);
  streamer->n_blocks = n_blocks;
  streamer->n_places = MIN(n_blocks, MAX_PLACES);
  return streamer;
}

void
osr_streamer_free(OsrStreamer *streamer)
{
  if (!streamer)
    return;
  /* This waits for fetches; then nothing writes to the places any more. */
  for (guint i = 0; i < streamer->blocks->len; i++) {
    Block *block = &g_array_index(streamer->blocks, Block, i);
    OsrOpsContext ctx = osr_context_for_call(osr_device_get_context(streamer->device));

    ctx.backend->host_free(&ctx, block->bytes, block->size);
    g_array_unref(block->weights);
  }
  g_array_unref(streamer->blocks);
  for (guint i = 0; i < streamer->n_places; i++)
    g_clear_pointer(&streamer->places[i].memory, osr_tensor_unref);
  osr_device_unref(streamer->device);
  g_free(streamer);
}

/* Neighbours in one tensor stay neighbours. */
static void
lay_out(Block *block, GPtrArray *places)
{
  const OsrTensor *before = NULL;
  gsize end = 0; /* of @before */

  for (guint i = 0; i < places->len; i++) {
    OsrTensor **place = g_ptr_array_index(places, i);
    const OsrTensor *tensor = *place;
    Weight weight = { .place = place };
    gboolean follows;

    if (!tensor)
      continue;
    follows = before && tensor->parent && tensor->parent == before->parent &&
              (char *) tensor->data == (char *) before->data + before->size;
    weight.dtype = tensor->dtype;
    weight.n_dims = tensor->n_dims;
    memcpy(weight.dims, tensor->dims, sizeof weight.dims);
    weight.at = follows ? end : block->size;
    weight.size = tensor->size;
    end = weight.at + weight.size;
    block->size = osr_host_weights_append(weight.at, weight.size);
    g_array_append_val(block->weights, weight);
    before = tensor;
  }
}

gboolean
osr_streamer_add(OsrStreamer *streamer, GPtrArray *places, GError **error)
{
  OsrOpsContext ctx = osr_context_for_call(osr_device_get_context(streamer->device));
  Block *block;

  g_return_val_if_fail(streamer->blocks->len < streamer->n_blocks, FALSE);

  g_array_set_size(streamer->blocks, streamer->blocks->len + 1);
  block = &g_array_index(streamer->blocks, Block, streamer->blocks->len - 1);
  block->weights = g_array_new(FALSE, FALSE, sizeof(Weight));
  lay_out(block, places);
  block->bytes = ctx.backend->host_alloc(&ctx, block->size);
  if (!block->bytes) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY,
                "%" G_GSIZE_FORMAT " bytes of host memory that %s can read are needed to keep a "
                "block of weights there",
                block->size, osr_device_get_name(streamer->device));
    return FALSE;
  }
  for (guint i = 0; i < block->weights->len; i++) {
    const Weight *weight = &g_array_index(block->weights, Weight, i);

    if (!osr_tensor_download(*weight->place, block->bytes + weight->at, weight->size, error))
      return FALSE;
    g_clear_pointer(weight->place, osr_tensor_unref);
  }
  streamer->largest = MAX(streamer->largest, block->size);
  return TRUE;
}

gboolean
osr_streamer_place(OsrStreamer *streamer, GError **error)
{
  const gint64 size = (gint64) streamer->largest;
  guint64 mark;

  g_return_val_if_fail(streamer->blocks->len == streamer->n_blocks, FALSE);

  for (guint i = 0; i < streamer->n_places; i++) {
    streamer->places[i].memory = osr_tensor_new(streamer->device, OSR_DTYPE_U8, 1, &size, error);
    if (!streamer->places[i].memory)
      return FALSE;
    streamer->places[i].block = streamer->n_blocks;
  }
  /* Who had the memory before may not be done with it. */
  if (!osr_device_mark(streamer->device, &mark, error))
    return FALSE;
  for (guint i = 0; i < streamer->n_places; i++)
    streamer->places[i].used = mark;
  for (guint i = 0; i < streamer->n_blocks; i++) {
    const Block *block = &g_array_index(streamer->blocks, Block, i);

    for (guint j = 0; j < block->weights->len; j++) {
      const Weight *weight = &g_array_index(block->weights, Weight, j);

      *weight->place =
          osr_tensor_view_bytes(streamer->places[i % streamer->n_places].memory, weight->at,
                                weight->dtype, weight->n_dims, weight->dims);
    }
  }
  return TRUE;
}

/* Copies @block into its place, unless it is there or on its way. */
static gboolean
fetch(OsrStreamer *streamer, guint block, GError **error)
{
  OsrOpsContext *ctx = osr_device_get_context(streamer->device);
  Place *place = &streamer->places[block % streamer->n_places];
  const Block *weights = &g_array_index(streamer->blocks, Block, block);
  uint64_t number = 0;

  if (place->block == block)
    return TRUE;
  place->block = streamer->n_blocks;
  if (!osr_device_check(streamer->device,
                        ctx->backend->fetch(ctx, place->memory->data, weights->bytes, weights->size,
                                            place->used, &number),
                        "fetching a block's weights", error))
    return FALSE;
  place->block = block;
  place->fetch = number;
  return TRUE;
}

gboolean
osr_streamer_begin(OsrStreamer *streamer, guint block, GError **error)
{
  OsrOpsContext *ctx = osr_device_get_context(streamer->device);
  const Place *place = &streamer->places[block % streamer->n_places];
  const guint next = (block + 1) % streamer->n_blocks;

  if (!fetch(streamer, block, error))
    return FALSE;
  /* After the last block comes the first, of the next forward. */
  if (next % streamer->n_places != block % streamer->n_places && !fetch(streamer, next, error))
    return FALSE;
  return osr_device_check(streamer->device, ctx->backend->join(ctx, place->fetch),
                          "waiting for a block's weights", error);
}

gboolean
osr_streamer_end(OsrStreamer *streamer, guint block, GError **error)
{
  return osr_device_mark(streamer->device, &streamer->places[block % streamer->n_places].used,
                         error);
}

guint64
osr_streamer_get_host_bytes(OsrStreamer *streamer)
{
  guint64 bytes = 0;

  for (guint i = 0; i < streamer->blocks->len; i++)
    bytes += g_array_index(streamer->blocks, Block, i).size;
  return bytes;
}

guint64
osr_streamer_get_device_bytes(OsrStreamer *streamer)
{
  return (guint64) streamer->n_places * streamer->largest;
}
