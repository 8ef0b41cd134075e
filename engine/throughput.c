/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throughput.c: how fast a device is, on calls like those of the models.
 */
#include "layers.h"
#include "plan.h"

/* What one measurement takes at least, in microseconds. */
#define LONG_ENOUGH (G_USEC_PER_SEC / 8)
#define HEAD_DIM 128
#define CHANNELS 128

typedef struct {
  OsrRun run;
  OsrTensor *a, *b, *c;
  gint64 n;
} Bench;

typedef double (*Call)(Bench *bench);

/* [n, n] times [n, n] */
static double
call_product(Bench *bench)
{
  const OsrDense dense = { .weight = bench->b };

  osr_run_linear(&bench->run, &dense, OSR_ACT_NONE, 1, bench->n, osr_rows(bench->a, 0, 0),
                 osr_rows(bench->c, 0, 0));
  return 2.0 * (double) bench->n * (double) bench->n * (double) bench->n;
}

/* n tokens, n / HEAD_DIM heads */
static double
call_attention(Bench *bench)
{
  const gint64 n = bench->n;

  osr_run(&bench->run, attention,
          &(OsrAttention){
              .dtype = bench->run.dtype,
              .batch = 1,
              .lq = n,
              .lk = n,
              .heads = (int) (n / HEAD_DIM),
              .head_dim = HEAD_DIM,
              .scale = 0.1f,
              .q = bench->a->data,
              .k = bench->b->data,
              .v = bench->b->data,
              .q_ld = n,
              .k_ld = n,
              .v_ld = n,
              .o = bench->c->data,
              .o_ld = n,
          });
  return 4.0 * (double) n * (double) n * (double) n;
}

/* 3 x 3 x 3 on CHANNELS channels of as many voxels as there is memory for. */
static double
call_convolution(Bench *bench)
{
  const int side = (int) (bench->n / CHANNELS) * 4, t = (int) (bench->n / 16 / side);

  osr_run(&bench->run, conv3d,
          &(OsrConv3d){
              .dtype = bench->run.dtype,
              .w_dtype = bench->run.dtype,
              .batch = 1,
              .t = t,
              .h = side,
              .w_in = side,
              .c_in = CHANNELS,
              .c_out = CHANNELS,
              .k_t = 3,
              .k_h = 3,
              .k_w = 3,
              .stride_t = 1,
              .stride_h = 1,
              .stride_w = 1,
              .pad_t = { 2, 0 },
              .pad_h = { 1, 1 },
              .pad_w = { 1, 1 },
              .pad = OSR_PAD_REPLICATE,
              .up_t = 1,
              .up_hw = 1,
              .x = bench->a->data,
              .w = bench->b->data,
              .bias = bench->b->data,
              .y = bench->c->data,
          });
  return 2.0 * 27 * CHANNELS * CHANNELS * (double) t * side * side;
}

static double
call_copy(Bench *bench)
{
  const gint64 n = bench->n * bench->n;

  osr_run(&bench->run, affine,
          &(OsrAffine){
              .dtype = bench->run.dtype,
              .n = n,
              .a = 1.0f,
              .x = bench->a->data,
              .y = bench->c->data,
          });
  return 2.0 * (double) n * (double) osr_dtype_size(bench->run.dtype);
}

/* Work a second: once to warm up, then twice as many calls each time until it takes long enough. */
static gboolean
measure(Bench *bench, Call call, double *speed, GError **error)
{
  OsrDevice *device = bench->run.device;
  gint64 took = 0;

  for (guint calls = 1; took < LONG_ENOUGH && calls <= 1 << 16; calls *= 2) {
    gint64 start;
    double work = 0;
    gboolean ok;

    if (!osr_device_synchronize(device, error))
      return FALSE;
    start = g_get_monotonic_time();
    osr_device_lock(device);
    for (guint i = 0; i < calls; i++)
      work += call(bench);
    ok = osr_run_check(&bench->run, error, "measuring the device");
    osr_device_unlock(device);
    if (!ok || !osr_device_synchronize(device, error))
      return FALSE;
    took = MAX(g_get_monotonic_time() - start, 1);
    *speed = work * G_USEC_PER_SEC / (double) took;
  }
  return TRUE;
}

/* From memory that the device reads on its own, where it can. */
static gboolean
measure_transfer(Bench *bench, double *speed, GError **error)
{
  OsrDevice *device = bench->run.device;
  OsrOpsContext *ctx = osr_device_get_context(device);
  const gsize size = bench->a->size;
  gboolean ok = TRUE;
  gpointer memory;
  gint64 start;

  *speed = 0;
  if (!osr_device_can_fetch(device) || !(memory = ctx->backend->host_alloc(ctx, size)))
    return TRUE;
  memset(memory, 0, size);
  osr_device_lock(device);
  start = g_get_monotonic_time();
  for (guint i = 0; i < 4 && ok; i++) {
    uint64_t fetch = 0;

    ok = osr_device_check(device, ctx->backend->fetch(ctx, bench->a->data, memory, size, 0, &fetch),
                          "measuring copies", error) &&
         osr_device_check(device, ctx->backend->join(ctx, fetch), "measuring copies", error);
  }
  osr_device_unlock(device);
  ok = ok && osr_device_synchronize(device, error);
  *speed = 4.0 * (double) size * G_USEC_PER_SEC / (double) MAX(g_get_monotonic_time() - start, 1);
  ctx->backend->host_free(ctx, memory, size);
  return ok;
}

gboolean
osr_throughput_measure(OsrDevice *device, OsrDType dtype, OsrThroughput *throughput, GError **error)
{
  Bench bench = { .run = osr_run_start(device, dtype),
                  .n = osr_device_is_host(device) ? 1024 : 4096 };
  const gint64 dims[2] = { bench.n, bench.n };
  g_autoptr(OsrTensor) a = osr_tensor_new(device, dtype, 2, dims, error);
  g_autoptr(OsrTensor) b = a ? osr_tensor_new(device, dtype, 2, dims, error) : NULL;
  g_autoptr(OsrTensor) c = b ? osr_tensor_new(device, dtype, 2, dims, error) : NULL;

  if (!c || !osr_tensor_zero(a, error) || !osr_tensor_zero(b, error))
    return FALSE;
  bench.a = a, bench.b = b, bench.c = c;
  return measure(&bench, call_product, &throughput->products, error) &&
         measure(&bench, call_attention, &throughput->attention, error) &&
         measure(&bench, call_convolution, &throughput->convolutions, error) &&
         measure(&bench, call_copy, &throughput->bytes, error) &&
         measure_transfer(&bench, &throughput->transfer, error);
}
