/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#define OSR_MAX_PIXELS 8192
#define OSR_MAX_FRAMES 65533
#define OSR_MAX_STEPS 10000

#define OSR_MAX_CHANNELS (1 << 20)
#define OSR_MAX_MLP_CHANNELS (1 << 24)
#define OSR_MAX_BLOCKS 1024
#define OSR_MAX_PATCH_SIZE 256
#define OSR_MAX_TOKENS 65536
#define OSR_VAE_MAX_LAYERS 8
