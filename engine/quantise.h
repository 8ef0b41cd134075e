/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * quantise.h: weights in 8 bits. Private.
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* The largest number of F8 e4m3 (OCP 8-bit floating point, 1.0, table 2): it has no infinity. */
#define OSR_F8_MAX 448.0f

/* The F8 e4m3 nearest to @value, ties to even; what is larger than OSR_F8_MAX becomes that, and
 * infinity NaN. */
guint8 osr_f8_from_f32(float value);

/* @values [rows, columns] as @bytes, F8 e4m3 of the same shape, and @scale [rows]: row i is about
 * scale[i] * bytes[i], the largest value of a row being OSR_F8_MAX. A row of zeros, or with an
 * infinity, has the factor 1. */
void osr_quantise_rows(const float *values, gint64 rows, gint64 columns, guint8 *bytes,
                       float *scale);

G_END_DECLS
