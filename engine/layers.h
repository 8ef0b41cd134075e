/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * layers.h: what the transformers here have in common. Private.
 */
#pragma once

#include "checkpoint.h"
#include "error.h"
#include "host-weights.h"

G_BEGIN_DECLS

/* g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(device, cancellable, error); holds
 * the lock until the end of the block. NULL with G_IO_ERROR_CANCELLED if that is cancelled. */
typedef OsrDevice OsrDeviceLocker;

static inline OsrDeviceLocker *
osr_device_locker_new(OsrDevice *device, GCancellable *cancellable, GError **error)
{
  return osr_device_lock_cancellable(device, cancellable, error) ? device : NULL;
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrDeviceLocker, osr_device_unlock)

/*
 * A sequence of op calls on one device. The first failure sticks and what follows is
 * skipped, so that a model reads as a straight line and asks osr_run_check() once a block,
 * before it gives the lock back.
 */
typedef struct {
  OsrDevice *device; /* borrowed */
  OsrOpsContext *ctx;
  const OsrOps *ops;
  OsrDType dtype; /* of activations */
  gboolean tf32;  /* f32: products may be rounded to that */
  OsrResult result;
} OsrRun;

static inline OsrRun
osr_run_start(OsrDevice *device, OsrDType dtype)
{
  return (OsrRun){
    .device = device,
    .ctx = osr_device_get_context(device),
    .ops = osr_device_get_ops(device),
    .dtype = dtype,
    .result = OSR_OK,
  };
}

/* osr_run(run, attention, &(OsrAttention) { ... }) */
#define osr_run(run, op, ...)                                                                      \
  G_STMT_START                                                                                     \
  {                                                                                                \
    if ((run)->result == OSR_OK)                                                                   \
      (run)->result = (run)->ops->op((run)->ctx, __VA_ARGS__);                                     \
  }                                                                                                \
  G_STMT_END

static inline gboolean G_GNUC_PRINTF(3, 4)
    osr_run_check(OsrRun *run, GError **error, const char *format, ...)
{
  g_autofree char *what = NULL;
  va_list args;

  if (run->result == OSR_OK)
    return TRUE;
  va_start(args, format);
  what = g_strdup_vprintf(format, args);
  va_end(args);
  return osr_device_check(run->device, run->result, what, error);
}

/*
 * Keeps the host from running ahead of the device: a block is enqueued when the one
 * OSR_PACE_AHEAD blocks before it is done. So the device never lacks work, and yet a cancelled
 * job ends within about a block, progress is real, and a failure is found in its block.
 */
#define OSR_PACE_AHEAD 2

typedef struct {
  OsrDevice *device; /* borrowed; NULL: nothing is waited for */
  guint64 n;         /* blocks so far */
  struct {
    guint64 mark; /* at its end */
    char name[64];
  } blocks[OSR_PACE_AHEAD];
} OsrPace;

static inline OsrPace
osr_pace_start(OsrDevice *device)
{
  return (OsrPace){ .device = device };
}

/* Before a block. FALSE with G_IO_ERROR_CANCELLED without waiting if the job is cancelled, or
 * if a block before has failed. */
static inline gboolean
osr_pace_begin(OsrPace *pace, GCancellable *cancellable, GError **error)
{
  guint i = pace->n % OSR_PACE_AHEAD;

  if (g_cancellable_set_error_if_cancelled(cancellable, error))
    return FALSE;
  if (!pace->device || pace->n < OSR_PACE_AHEAD)
    return TRUE;
  return osr_device_wait(pace->device, pace->blocks[i].mark, pace->blocks[i].name, error) &&
         !g_cancellable_set_error_if_cancelled(cancellable, error);
}

/* Before a block, the lock for it as well: others have their turns between two blocks. */
static inline OsrDeviceLocker *
osr_pace_lock(OsrPace *pace, OsrDevice *device, GCancellable *cancellable, GError **error)
{
  if (!osr_pace_begin(pace, cancellable, error))
    return NULL;
  return osr_device_locker_new(device, cancellable, error);
}

/* After a block, with its lock. Its name is for the message of its failure. */
static inline gboolean G_GNUC_PRINTF(3, 4)
    osr_pace_end(OsrPace *pace, GError **error, const char *format, ...)
{
  guint i = pace->n++ % OSR_PACE_AHEAD;
  va_list args;

  if (!pace->device)
    return TRUE;
  va_start(args, format);
  g_vsnprintf(pace->blocks[i].name, sizeof pace->blocks[i].name, format, args);
  va_end(args);
  return osr_device_mark(pace->device, &pace->blocks[i].mark, error);
}

/* Waits for the blocks that are left. */
static inline gboolean
osr_pace_finish(OsrPace *pace, GError **error)
{
  guint i = (pace->n + OSR_PACE_AHEAD - 1) % OSR_PACE_AHEAD;

  return !pace->device || pace->n == 0 ||
         osr_device_wait(pace->device, pace->blocks[i].mark, pace->blocks[i].name, error);
}

/* Rows inside a buffer: row i of item b starts b * batch + i * ld elements after data. */
typedef struct {
  gpointer data;
  gint64 ld, batch;
} OsrRows;

/* The rows of a [B, L, N] tensor from @row on, each from @column on. [B, N] is B items of
 * one row. */
static inline OsrRows
osr_rows(const OsrTensor *tensor, gint64 row, gint64 column)
{
  gint64 ld = tensor->dims[tensor->n_dims - 1];

  return (OsrRows){
    .data = (char *) tensor->data + (row * ld + column) * osr_dtype_size(tensor->dtype),
    .ld = ld,
    .batch = tensor->n_dims == 3 ? tensor->dims[1] * ld : ld,
  };
}

static inline OsrTensor *
osr_tensor_new_3d(OsrRun *run, gint64 a, gint64 b, gint64 c, GError **error)
{
  return osr_tensor_new(run->device, run->dtype, 3, (gint64[]){ a, b, c }, error);
}

/* A linear layer: weight [n, k], bias [n] or NULL; scale f32 [n], a factor a row of an F8 weight,
 * or NULL. */
typedef struct {
  OsrTensor *weight, *scale, *bias;
} OsrDense;

/* @format: the layer's name, to which ".weight" and ".bias" are added. */
static inline OsrDense G_GNUC_PRINTF(5, 6)
    osr_dense_load(OsrLoader *loader, gint64 n, gint64 k, gboolean bias, const char *format, ...)
{
  g_autofree char *name = NULL, *weight = NULL;
  OsrDense dense = { 0 };
  va_list args;

  va_start(args, format);
  name = g_strdup_vprintf(format, args);
  va_end(args);
  weight = g_strconcat(name, ".weight", NULL);
  dense.weight = osr_loader_weights(loader, (const char *[]){ weight, NULL }, &n, k, &dense.scale);
  if (bias)
    dense.bias = osr_loader_vector(loader, n, "%s.bias", name);
  return dense;
}

#define OSR_DENSE_MAX_STACK 3

/* Layers @names, each a prefix and a part's name, with @rows outputs each, as one layer. */
static inline OsrDense
osr_dense_stack(OsrLoader *loader, const char *prefix, const char *const *names, const gint64 *rows,
                gint64 k, gboolean bias)
{
  char *weights[OSR_DENSE_MAX_STACK + 1] = { NULL }, *biases[OSR_DENSE_MAX_STACK + 1] = { NULL };
  OsrDense dense = { 0 };

  for (guint i = 0; names[i] && i < OSR_DENSE_MAX_STACK; i++) {
    weights[i] = g_strdup_printf("%s%s.weight", prefix, names[i]);
    biases[i] = g_strdup_printf("%s%s.bias", prefix, names[i]);
  }
  dense.weight = osr_loader_weights(loader, (const char *const *) weights, rows, k, &dense.scale);
  if (bias)
    dense.bias = osr_loader_stack(loader, (const char *const *) biases, rows, 0);
  for (guint i = 0; i < OSR_DENSE_MAX_STACK; i++) {
    g_free(weights[i]);
    g_free(biases[i]);
  }
  return dense;
}

/* Outputs @first .. @first + @n of a layer as one of their own, sharing its memory. */
static inline OsrDense
osr_dense_view(const OsrDense *dense, gint64 first, gint64 n)
{
  OsrDense view = { 0 };

  if (dense->weight) {
    gint64 k = dense->weight->dims[1];

    view.weight = osr_tensor_view(dense->weight, first * k, 2, (gint64[]){ n, k });
  }
  if (dense->scale)
    view.scale = osr_tensor_view(dense->scale, first, 1, &n);
  if (dense->bias)
    view.bias = osr_tensor_view(dense->bias, first, 1, &n);
  return view;
}

static inline void
osr_dense_visit(OsrDense *dense, OsrVisit visit, gpointer user_data)
{
  visit(&dense->weight, user_data);
  visit(&dense->scale, user_data);
  visit(&dense->bias, user_data);
}

/* An OsrVisit that empties the places. */
static inline void
osr_visit_clear(OsrTensor **place, gpointer user_data)
{
  (void) user_data;
  g_clear_pointer(place, osr_tensor_unref);
}

static inline void
osr_dense_clear(OsrDense *dense)
{
  osr_dense_visit(dense, osr_visit_clear, NULL);
}

static inline gconstpointer
osr_tensor_data(const OsrTensor *tensor)
{
  return tensor ? tensor->data : NULL;
}

/* y = act(x W^T + b) */
static inline void
osr_run_linear(OsrRun *run, const OsrDense *dense, OsrAct act, gint64 batch, gint64 m, OsrRows x,
               OsrRows y)
{
  osr_run(run, linear,
          &(OsrLinear){
              .dtype = run->dtype,
              .w_dtype = dense->weight->dtype,
              .tf32 = run->tf32,
              .batch = batch,
              .m = m,
              .n = (int) dense->weight->dims[0],
              .k = (int) dense->weight->dims[1],
              .x = x.data,
              .x_ld = x.ld,
              .x_batch = x.batch,
              .w = dense->weight->data,
              .w_scale = osr_tensor_data(dense->scale),
              .bias = osr_tensor_data(dense->bias),
              .act = act,
              .y = y.data,
              .y_ld = y.ld,
              .y_batch = y.batch,
          });
}

/* y += gate * (x W^T + b); @gate: one row an item, data NULL for 1. */
static inline void
osr_run_linear_add(OsrRun *run, const OsrDense *dense, gint64 batch, gint64 m, OsrRows x,
                   OsrRows gate, OsrRows y)
{
  osr_run(run, linear,
          &(OsrLinear){
              .dtype = run->dtype,
              .w_dtype = dense->weight->dtype,
              .tf32 = run->tf32,
              .batch = batch,
              .m = m,
              .n = (int) dense->weight->dims[0],
              .k = (int) dense->weight->dims[1],
              .x = x.data,
              .x_ld = x.ld,
              .x_batch = x.batch,
              .w = dense->weight->data,
              .w_scale = osr_tensor_data(dense->scale),
              .bias = osr_tensor_data(dense->bias),
              .gate = gate.data,
              .gate_batch = gate.batch,
              .residual = y.data,
              .residual_ld = y.ld,
              .residual_batch = y.batch,
              .y = y.data,
              .y_ld = y.ld,
              .y_batch = y.batch,
          });
}

/* TRUE if every one of the @n values is in [1, 2^20]: what keeps the products of two sizes
 * of a config far from overflow. @names and @values go together. */
static inline gboolean
osr_config_check_sizes(const char *model, guint n, const char *const *names, const guint *values,
                       GError **error)
{
  for (guint i = 0; i < n; i++) {
    if (values[i] < 1 || values[i] > 1 << 20) {
      g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                  "%s: %s is %u in the config, outside of 1 to %u", model, names[i], values[i],
                  1u << 20);
      return FALSE;
    }
  }
  return TRUE;
}

G_END_DECLS
