/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "quantise.h"

#include <math.h>
#include <string.h>

guint8
osr_f8_from_f32(float value)
{
  guint32 bits, magnitude, sign;
  float rounded;

  memcpy(&bits, &value, sizeof bits);
  magnitude = bits & 0x7fffffff;
  sign = bits >> 24 & 0x80;
  if (magnitude >= 0x7f800000)
    return (guint8) (sign | 0x7f);
  if (magnitude >= 0x43e00000) /* OSR_F8_MAX */
    return (guint8) (sign | 0x7e);
  if (magnitude < 0x3c800000) { /* 2^-6: a multiple of 2^-9, as the sum with 2^14 rounds to */
    memcpy(&rounded, &magnitude, sizeof rounded);
    rounded += 0x1p14f;
    memcpy(&bits, &rounded, sizeof bits);
    return (guint8) (sign | (bits & 0xff));
  }
  /* Ties to even; a carry goes into the exponent. */
  return (guint8) (sign | (magnitude - 0x3c000000 + 0x7ffff + (magnitude >> 20 & 1)) >> 20);
}

static float
largest(const float *row, gint64 n)
{
  float most = 0.0f;

  for (gint64 i = 0; i < n; i++)
    if (fabsf(row[i]) > most) /* a NaN is not */
      most = fabsf(row[i]);
  return most;
}

void
osr_quantise_rows(const float *values, gint64 rows, gint64 columns, guint8 *bytes, float *scale)
{
  for (gint64 i = 0; i < rows; i++) {
    const float *row = values + i * columns;
    const float most = largest(row, columns);

    scale[i] = most >= 0x1p-100f && most <= G_MAXFLOAT ? most / OSR_F8_MAX : 1.0f;
    for (gint64 j = 0; j < columns; j++)
      bytes[i * columns + j] = osr_f8_from_f32(row[j] / scale[i]);
  }
}
