/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * model-infer.h: the dimensions of models, read off the shapes of their tensors. @checkpoint is
 * what osr_part_select() made. What shapes do not tell is taken from @base, NULL: from the
 * published model. A config that has been inferred is one that the model's load() takes.
 */
#pragma once

#include "clip.h"
#include "mmdit.h"
#include "t5.h"
#include "vae.h"

G_BEGIN_DECLS

/* Not in shapes: how the rotary dimensions are split, their base and the order of the pairs. Of
 * a model with other heads than @base has, the published ones. */
gboolean osr_infer_mmdit(OsrCheckpoint *checkpoint, const OsrMmditConfig *base,
                         OsrMmditConfig *config, GError **error);
/* Not in shapes: groups of the norms, compression ratios, scale and shift, tiles. */
gboolean osr_infer_vae(OsrCheckpoint *checkpoint, const OsrVaeConfig *base, OsrVaeConfig *config,
                       GError **error);
/* FLUX.1's. */
gboolean osr_infer_flux_ae(OsrCheckpoint *checkpoint, OsrVaeConfig *config, GError **error);
/* Not in shapes: the distance of the last bucket, epsilon. */
gboolean osr_infer_t5(OsrCheckpoint *checkpoint, const OsrT5Config *base, OsrT5Config *config,
                      GError **error);
/* Not in shapes: heads (64 channels each, as in all published models), activation, epsilon, end
 * token. Of a model of another width than @base has, the published ones. */
gboolean osr_infer_clip(OsrCheckpoint *checkpoint, const OsrClipConfig *base, OsrClipConfig *config,
                        GError **error);

G_END_DECLS
