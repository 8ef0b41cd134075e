/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "tensor.h"

G_BEGIN_DECLS

/* A LoRA adapter: its folder, and how much of it is taken (1: as trained, 0: nothing). */
typedef struct {
  const char *path;
  double weight;
} OsrLoraSpec;

/**
 * OsrLoras:
 *
 * Adapters in the folders that PEFT writes: adapter_config.json beside adapter_model.safetensors
 * or adapter_model.bin. They are merged into a model's linear layers while these are loaded:
 *
 *   W += weight * alpha / r * B A      (E. J. Hu et al., arXiv:2106.09685)
 *
 * with alpha / sqrt(r) for rank-stabilised ones ("use_rslora", D. Kalajdzievski,
 * arXiv:2312.03732) and with rank_pattern and alpha_pattern. Module names are those of the
 * model's authors. An adapter of "qkv" or "linear1" fits weights that are stored as separate
 * projections, and the other way round.
 *
 * "fan_in_fan_out" says how layers of another kind are stored; as in PEFT it does not matter
 * for linear ones. DoRA, biases and modules that were trained as a whole are refused by name.
 */
typedef struct _OsrLoras OsrLoras;

/* Reads what is there, no weights. */
OSR_API OsrLoras *osr_loras_open(const OsrLoraSpec *specs, guint n_specs, GError **error);
OSR_API void osr_loras_free(OsrLoras *loras);

/* Whether any adapter changes the weights of that name ("txt_in.weight"). */
OSR_API gboolean osr_loras_target(OsrLoras *loras, const char *name);
/* Adds the changes of @name to @weight, f32 [rows, columns] on any device. With @weight NULL
 * only looks whether they fit @rows and @columns. OSR_ERROR_SHAPE names both. */
OSR_API gboolean osr_loras_apply(OsrLoras *loras, const char *name, gint64 rows, gint64 columns,
                                 OsrTensor *weight, gboolean check_weights, GError **error);
/* Once a model has been loaded: OSR_ERROR_INVALID_ARGUMENT names a tensor of an adapter that has
 * fit nothing. */
OSR_API gboolean osr_loras_check_used(OsrLoras *loras, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrLoras, osr_loras_free)

G_END_DECLS
