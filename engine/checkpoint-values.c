/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* checkpoint-values.c: the elements of a checkpoint's tensors. */
#include <math.h>
#include <string.h>

#include "checkpoint-private.h"
#include "error.h"

/* One element */

static inline float
bits_to_float(guint32 bits)
{
  float value;

  memcpy(&value, &bits, sizeof value);
  return value;
}

static float
half_to_float(guint16 half)
{
  guint32 sign = (guint32) (half & 0x8000) << 16, exponent = half >> 10 & 31,
          mantissa = half & 1023;

  if (exponent == 31)
    return bits_to_float(sign | 0x7F800000 | mantissa << 13);
  if (exponent > 0)
    return bits_to_float(sign | (exponent + 112) << 23 | mantissa << 13);
  return (sign ? -1.0f : 1.0f) * (float) mantissa * 0x1p-24f;
}

/* The "FN" variant: bias 7, no infinities, all ones is NaN. P. Micikevicius et al., "FP8
 * formats for deep learning", arXiv:2209.05433. */
static float
e4m3_to_float(guint8 byte)
{
  int exponent = byte >> 3 & 15, mantissa = byte & 7;
  float value =
      exponent ? ldexpf((float) (8 + mantissa), exponent - 10) : ldexpf((float) mantissa, -9);

  if ((byte & 0x7F) == 0x7F)
    value = NAN;
  return byte & 0x80 ? -value : value;
}

/* Runs of elements */

typedef void (*Visit)(const OsrCheckpointEntry *entry, const guint8 *run, gsize step, gsize n,
                      gsize first, gpointer data);

/* Calls @visit for runs of @n elements that are @step bytes apart; @first counts the elements
 * before the run. One run where the elements follow each other, else one a row. */
static void
visit_runs(const OsrCheckpointEntry *entry, Visit visit, gpointer data)
{
  const gsize item = osr_dtype_size(entry->dtype), total = entry->size / item;
  const guint last = entry->n_dims - 1;
  gint64 at[OSR_TENSOR_MAX_DIMS] = { 0 };

  if (total == 0)
    return;
  if (!entry->strided) {
    visit(entry, entry->data, item, total, 0, data);
    return;
  }
  for (gsize first = 0; first < total; first += (gsize) entry->dims[last]) {
    gint64 offset = 0;

    for (guint d = 0; d < last; d++)
      offset += at[d] * entry->strides[d];
    visit(entry, (const guint8 *) entry->data + (gsize) offset * item,
          (gsize) entry->strides[last] * item, (gsize) entry->dims[last], first, data);
    for (guint d = last; d-- > 0;) {
      if (++at[d] < entry->dims[d])
        break;
      at[d] = 0;
    }
  }
}

static void
pack_run(const OsrCheckpointEntry *entry, const guint8 *run, gsize step, gsize n, gsize first,
         gpointer data)
{
  const gsize item = osr_dtype_size(entry->dtype);
  guint8 *dst = (guint8 *) data + first * item;

  if (step == item) {
    memcpy(dst, run, n * item);
    return;
  }
  switch (item) { /* constant sizes are copied by one instruction */
  case 2:
    for (gsize i = 0; i < n; i++)
      memcpy(dst + 2 * i, run + i * step, 2);
    break;
  case 4:
    for (gsize i = 0; i < n; i++)
      memcpy(dst + 4 * i, run + i * step, 4);
    break;
  default:
    for (gsize i = 0; i < n; i++)
      memcpy(dst + i * item, run + i * step, item);
    break;
  }
}

void
osr_checkpoint_entry_pack(const OsrCheckpointEntry *entry, gpointer dst)
{
  visit_runs(entry, pack_run, dst);
}

static void
f32_run(const OsrCheckpointEntry *entry, const guint8 *run, gsize step, gsize n, gsize first,
        gpointer data)
{
  float *dst = (float *) data + first;
  float table[256];
  guint16 half;
  double wide;

  switch (entry->dtype) {
  case OSR_DTYPE_F32:
    pack_run(entry, run, step, n, first, data);
    break;
  case OSR_DTYPE_BF16:
    for (gsize i = 0; i < n; i++) {
      memcpy(&half, run + i * step, sizeof half);
      dst[i] = bits_to_float((guint32) half << 16);
    }
    break;
  case OSR_DTYPE_F16:
    for (gsize i = 0; i < n; i++) {
      memcpy(&half, run + i * step, sizeof half);
      dst[i] = half_to_float(half);
    }
    break;
  case OSR_DTYPE_F64:
    for (gsize i = 0; i < n; i++) {
      memcpy(&wide, run + i * step, sizeof wide);
      dst[i] = (float) wide;
    }
    break;
  default: /* F8_E4M3 */
    for (guint i = 0; i < G_N_ELEMENTS(table); i++)
      table[i] = e4m3_to_float((guint8) i);
    for (gsize i = 0; i < n; i++)
      dst[i] = table[run[i * step]];
    break;
  }
}

static gboolean
is_float(OsrDType dtype)
{
  return dtype == OSR_DTYPE_F32 || dtype == OSR_DTYPE_BF16 || dtype == OSR_DTYPE_F16 ||
         dtype == OSR_DTYPE_F64 || dtype == OSR_DTYPE_F8_E4M3;
}

/* Times the scale: one number, or one a row. */
static gboolean
apply_scale(const OsrCheckpointEntry *entry, float *values, GError **error)
{
  const OsrCheckpointEntry *scale = entry->scale;
  const gsize n = entry->size / osr_dtype_size(entry->dtype);
  const gsize n_factors = scale->size / osr_dtype_size(scale->dtype);
  const gboolean rows = entry->n_dims > 0 && entry->dims[0] > 0 && scale->n_dims > 0 &&
                        n_factors == (gsize) entry->dims[0] && scale->dims[0] == entry->dims[0];
  g_autofree float *factors = NULL;

  if (!is_float(scale->dtype) || scale->scale || !(n_factors == 1 || rows) ||
      g_str_has_suffix(scale->name, "_inv")) {
    g_autofree char *shown = osr_printable(scale->name);
    g_autofree char *dims = osr_dims_to_string(scale->n_dims, scale->dims);

    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "tensor '%s': its scale '%s' is %s of %s; one for all or one a row can be",
                entry->name, shown, dims, osr_dtype_name(scale->dtype));
    return FALSE;
  }
  factors = g_new(float, n_factors);
  visit_runs(scale, f32_run, factors);
  for (gsize i = 0; i < n; i++)
    values[i] *= factors[rows ? i / (n / n_factors) : 0];
  return TRUE;
}

gboolean
osr_checkpoint_entry_to_f32(const OsrCheckpointEntry *entry, float *dst, GError **error)
{
  if (!is_float(entry->dtype)) {
    g_autofree char *shown = osr_printable(entry->name);

    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "tensor '%s' is of %s and cannot be taken as floats", shown,
                osr_dtype_name(entry->dtype));
    return FALSE;
  }
  visit_runs(entry, f32_run, dst);
  return !entry->scale || apply_scale(entry, dst, error);
}

/* Numbers that are none */

/* Whether all bits of the exponent are set. */
static gboolean
is_finite(OsrDType dtype, const guint8 *element)
{
  guint16 half;
  guint32 single;
  guint64 wide;

  switch (dtype) {
  case OSR_DTYPE_F32:
    memcpy(&single, element, sizeof single);
    return (single & 0x7f800000) != 0x7f800000;
  case OSR_DTYPE_BF16:
    memcpy(&half, element, sizeof half);
    return (half & 0x7f80) != 0x7f80;
  case OSR_DTYPE_F16:
    memcpy(&half, element, sizeof half);
    return (half & 0x7c00) != 0x7c00;
  case OSR_DTYPE_F64:
    memcpy(&wide, element, sizeof wide);
    return (wide & G_GUINT64_CONSTANT(0x7ff0000000000000)) !=
           G_GUINT64_CONSTANT(0x7ff0000000000000);
  case OSR_DTYPE_F8_E4M3:
    return (*element & 0x7f) != 0x7f;
  default:
    return TRUE;
  }
}

typedef struct {
  gsize n, first; /* elements that are not finite; where the first is */
  float value;
} Bad;

static void
finite_run(const OsrCheckpointEntry *entry, const guint8 *run, gsize step, gsize n, gsize first,
           gpointer data)
{
  Bad *bad = data;

  for (gsize i = 0; i < n; i++) {
    if (is_finite(entry->dtype, run + i * step))
      continue;
    if (bad->n++ == 0) {
      bad->first = first + i;
      f32_run(entry, run + i * step, step, 1, 0, &bad->value);
    }
  }
}

gboolean
osr_checkpoint_entry_check_finite(const OsrCheckpointEntry *entry, GError **error)
{
  g_autofree char *shown = NULL;
  Bad bad = { 0 };

  visit_runs(entry, finite_run, &bad);
  if (bad.n == 0)
    return !entry->scale || osr_checkpoint_entry_check_finite(entry->scale, error);
  shown = osr_printable(entry->name);
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
              "%s: tensor '%s': %" G_GSIZE_FORMAT " of its %" G_GSIZE_FORMAT
              " elements are not finite, the first, %s, is element %" G_GSIZE_FORMAT,
              entry->path, shown, bad.n, entry->size / osr_dtype_size(entry->dtype),
              isnan(bad.value)   ? "NaN"
              : bad.value > 0.0f ? "infinity"
                                 : "minus infinity",
              bad.first);
  return FALSE;
}
