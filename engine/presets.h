/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

#include "api.h"
#include "clip.h"
#include "mmdit.h"
#include "t5.h"
#include "vae.h"

G_BEGIN_DECLS

/**
 * OsrPreset:
 *
 * The dimensions of a published model, for work that needs no weights: plans, and benchmarks
 * on random ones (osr_loader_init_random()).
 */
typedef struct {
  const char *name;
  OsrMmditConfig mmdit;
  OsrVaeConfig vae;
  OsrT5Config t5;
  OsrClipConfig clip;
  guint text_length; /* T5 tokens of a prompt, padding included */
} OsrPreset;

/* "open-sora-v2", "flux1-dev"; NULL for other names. */
OSR_API const OsrPreset *osr_preset_find(const char *name);

G_END_DECLS
