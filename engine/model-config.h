/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * model-config.h: the configs of the models in JSON: sections of our config.json, Hugging
 * Face's files of T5 and CLIP. What they leave out has the default of docs/models.md. A config
 * that has been read is one that the model's load() takes.
 */
#pragma once

#include "clip.h"
#include "config-section.h"
#include "mmdit.h"
#include "preview.h"
#include "t5.h"
#include "vae.h"

G_BEGIN_DECLS

gboolean osr_config_read_mmdit(const OsrConfigSection *section, OsrMmditConfig *config,
                               GError **error);
/* Of either autoencoder, by "type": "hunyuan_vae" or "autoencoder_2d"; of the second alone. */
gboolean osr_config_read_vae(const OsrConfigSection *section, OsrVaeConfig *config, GError **error);
gboolean osr_config_read_ae(const OsrConfigSection *section, OsrVaeConfig *config, GError **error);
gboolean osr_config_read_t5(const OsrConfigSection *section, OsrT5Config *config, GError **error);
/* The config is "text_config" in @section if there is one, else @section itself. */
gboolean osr_config_read_clip(const OsrConfigSection *section, OsrClipConfig *config,
                              GError **error);

/* The map of an autoencoder with @channels in its latents: "factors", a row of 3 for each, and
 * "bias". */
gboolean osr_config_read_preview(const OsrConfigSection *section, guint channels,
                                 OsrPreviewMap *map, GError **error);

/* What the defaults of osr_config_read_vae() are. */
extern const OsrVaeConfig osr_config_hunyuan_vae;
extern const OsrVaeConfig osr_config_flux_ae;

G_END_DECLS
