/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "presets.h"

/* T5 v1.1 XXL, CLIP ViT-L/14. */
#define T5_XXL                                                                                     \
  {                                                                                                \
    .vocab_size = 32128, .d_model = 4096, .d_kv = 64, .d_ff = 10240, .num_layers = 24,             \
    .num_heads = 64, .relative_attention_num_buckets = 32, .relative_attention_max_distance = 128, \
    .layer_norm_epsilon = 1e-6,                                                                    \
  }
#define CLIP_L                                                                                     \
  {                                                                                                \
    .vocab_size = 49408, .hidden_size = 768, .intermediate_size = 3072, .num_hidden_layers = 12,   \
    .num_attention_heads = 12, .max_position_embeddings = 77, .layer_norm_eps = 1e-5,              \
    .hidden_act = OSR_ACT_QUICK_GELU, .eos_token_id = 2,                                           \
  }

static const OsrPreset presets[] = {
  {
      /* Open-Sora 2.0 (arXiv:2503.09642), the autoencoder of HunyuanVideo (arXiv:2412.03603),
       * T5 v1.1 XXL and CLIP ViT-L/14. */
      .name = "open-sora-v2",
      .mmdit =
          {
              .in_channels = 64,
              .vec_in_dim = 768,
              .context_in_dim = 4096,
              .hidden_size = 3072,
              .mlp_ratio = 4.0,
              .num_heads = 24,
              .depth = 19,
              .depth_single_blocks = 38,
              .axes_dim = { 16, 56, 56 },
              .theta = 10000.0,
              .qkv_bias = TRUE,
              .guidance_embed = FALSE,
              .cond_embed = TRUE,
              .fused_qkv = FALSE,
              .use_liger_rope = TRUE,
              .patch_size = 2,
          },
      .vae =
          {
              .in_channels = 3,
              .out_channels = 3,
              .latent_channels = 16,
              .n_blocks = 4,
              .block_out_channels = { 128, 256, 512, 512 },
              .layers_per_block = 2,
              .norm_num_groups = 32,
              .time_compression_ratio = 4,
              .spatial_compression_ratio = 8,
              .mid_block_add_attention = TRUE,
              .scale_factor = 0.476986,
              .shift_factor = 0.0,
              .sample_size = 256,
              .sample_tsize = 64,
              .tile_overlap_factor = 0.25,
          },
      .t5 = T5_XXL,
      .clip = CLIP_L,
      .text_length = 512,
  },
  {
      /* FLUX.1-dev with its autoencoder, and the text encoders of the first. */
      .name = "flux1-dev",
      .mmdit =
          {
              .in_channels = 64,
              .vec_in_dim = 768,
              .context_in_dim = 4096,
              .hidden_size = 3072,
              .mlp_ratio = 4.0,
              .num_heads = 24,
              .depth = 19,
              .depth_single_blocks = 38,
              .axes_dim = { 16, 56, 56 },
              .theta = 10000.0,
              .qkv_bias = TRUE,
              .guidance_embed = TRUE,
              .cond_embed = FALSE,
              .fused_qkv = TRUE,
              .use_liger_rope = FALSE,
              .patch_size = 2,
          },
      .vae =
          {
              .type = OSR_VAE_FLUX,
              .in_channels = 3,
              .out_channels = 3,
              .latent_channels = 16,
              .n_blocks = 4,
              .block_out_channels = { 128, 256, 512, 512 },
              .layers_per_block = 2,
              .norm_num_groups = 32,
              .time_compression_ratio = 1,
              .spatial_compression_ratio = 8,
              .mid_block_add_attention = TRUE,
              .scale_factor = 0.3611,
              .shift_factor = 0.1159,
              .sample_size = 256,
              .sample_tsize = 1,
              .tile_overlap_factor = 0.25,
          },
      .t5 = T5_XXL,
      .clip = CLIP_L,
      .text_length = 512,
  },
};

const OsrPreset *
osr_preset_find(const char *name)
{
  for (guint i = 0; i < G_N_ELEMENTS(presets); i++) {
    if (g_str_equal(presets[i].name, name))
      return &presets[i];
  }
  return NULL;
}
