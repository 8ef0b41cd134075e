/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model-config.h"

#include "clip-private.h"
#include "mmdit-private.h"
#include "model-limits.h"
#include "t5-private.h"
#include "vae-private.h"

#define MEMBER OSR_CONFIG_MEMBER
#define SIZE OSR_CONFIG_UINT, 1, OSR_MAX_CHANNELS
#define COUNT OSR_CONFIG_UINT, 0, OSR_MAX_BLOCKS
#define ANY_UINT OSR_CONFIG_UINT, 0, G_MAXINT32
#define NUMBER OSR_CONFIG_DOUBLE, -G_MAXDOUBLE, G_MAXDOUBLE
#define EPSILON OSR_CONFIG_DOUBLE, 0, 1
#define BOOLEAN OSR_CONFIG_BOOLEAN, 0, 1

static gboolean
read_fields(const OsrConfigSection *section, const OsrConfigField *fields, gsize n,
            const char *const *others, gpointer config, GError **error)
{
  osr_config_log_unknown(section, fields, n, others);
  return osr_config_read_fields(section, fields, n, config, error);
}

/* MMDiT */

gboolean
osr_config_read_mmdit(const OsrConfigSection *section, OsrMmditConfig *config, GError **error)
{
  static const char *const others[] = { "weights", "axes_dim", NULL };
  static const OsrConfigField fields[] = {
    { MEMBER(OsrMmditConfig, in_channels), SIZE, TRUE },
    { MEMBER(OsrMmditConfig, vec_in_dim), SIZE, TRUE },
    { MEMBER(OsrMmditConfig, context_in_dim), SIZE, TRUE },
    { MEMBER(OsrMmditConfig, hidden_size), SIZE, TRUE },
    { MEMBER(OsrMmditConfig, num_heads), SIZE, TRUE },
    { MEMBER(OsrMmditConfig, depth), COUNT, TRUE },
    { MEMBER(OsrMmditConfig, depth_single_blocks), COUNT, TRUE },
    { MEMBER(OsrMmditConfig, mlp_ratio), NUMBER, FALSE },
    { MEMBER(OsrMmditConfig, theta), NUMBER, FALSE },
    { MEMBER(OsrMmditConfig, qkv_bias), BOOLEAN, FALSE },
    { MEMBER(OsrMmditConfig, guidance_embed), BOOLEAN, FALSE },
    { MEMBER(OsrMmditConfig, cond_embed), BOOLEAN, FALSE },
    { MEMBER(OsrMmditConfig, fused_qkv), BOOLEAN, FALSE },
    { MEMBER(OsrMmditConfig, use_liger_rope), BOOLEAN, FALSE },
    { MEMBER(OsrMmditConfig, patch_size), SIZE, FALSE },
  };
  GError *reason = NULL;
  guint n_axes;

  *config = (OsrMmditConfig){
    .mlp_ratio = 4, .theta = 10000, .qkv_bias = TRUE, .fused_qkv = TRUE, .patch_size = 2
  };
  if (!read_fields(section, fields, G_N_ELEMENTS(fields), others, config, error) ||
      !osr_config_read_uints(section, "axes_dim", 3, 3, OSR_MAX_CHANNELS, config->axes_dim, &n_axes,
                             error))
    return FALSE;
  return osr_mmdit_config_check(config, &reason) ||
         osr_config_fail_check(section->file, reason, error);
}

/* VAE */

const OsrVaeConfig osr_config_flux_ae = {
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
};

/* "ch_mult": the channels of each block, in multiples of "ch". */
static gboolean
read_ch_mult(const OsrConfigSection *section, guint ch, OsrVaeConfig *config, GError **error)
{
  guint mult[OSR_VAE_MAX_BLOCKS] = { 1, 2, 4, 4 };

  if (json_object_has_member(section->object, "ch_mult") &&
      !osr_config_read_uints(section, "ch_mult", 1, OSR_VAE_MAX_BLOCKS, 1 << 10, mult,
                             &config->n_blocks, error))
    return FALSE;
  for (guint i = 0; i < config->n_blocks; i++) {
    if (mult[i] < 1 || mult[i] > OSR_MAX_CHANNELS / ch)
      return osr_config_fail(section, "ch_mult", error, "%u times %u channels are not possible",
                             mult[i], ch);
    config->block_out_channels[i] = mult[i] * ch;
  }
  config->spatial_compression_ratio = 1u << (config->n_blocks - 1);
  return TRUE;
}

/* The keys are those of upstream's AutoEncoderConfig. */
gboolean
osr_config_read_ae(const OsrConfigSection *section, OsrVaeConfig *config, GError **error)
{
  static const char *const others[] = { "type", "weights", "ch", "ch_mult", "resolution", NULL };
  static const OsrConfigField fields[] = {
    { MEMBER(OsrVaeConfig, in_channels), SIZE, FALSE },
    { "out_ch", G_STRUCT_OFFSET(OsrVaeConfig, out_channels), SIZE, FALSE },
    { "z_channels", G_STRUCT_OFFSET(OsrVaeConfig, latent_channels), SIZE, FALSE },
    { "num_res_blocks", G_STRUCT_OFFSET(OsrVaeConfig, layers_per_block), SIZE, FALSE },
    { MEMBER(OsrVaeConfig, norm_num_groups), SIZE, FALSE },
    { MEMBER(OsrVaeConfig, scale_factor), NUMBER, FALSE },
    { MEMBER(OsrVaeConfig, shift_factor), NUMBER, FALSE },
    { MEMBER(OsrVaeConfig, sample_size), OSR_CONFIG_UINT, 1, OSR_VAE_MAX_SIZE, FALSE },
    { MEMBER(OsrVaeConfig, tile_overlap_factor), OSR_CONFIG_DOUBLE, 0, 0.99, FALSE },
  };
  static const OsrConfigField ch_field[] = { { "ch", 0, SIZE, FALSE } };
  GError *reason = NULL;
  guint ch = 128;

  *config = osr_config_flux_ae;
  if (!read_fields(section, fields, G_N_ELEMENTS(fields), others, config, error) ||
      !osr_config_read_fields(section, ch_field, 1, &ch, error) ||
      !read_ch_mult(section, ch, config, error))
    return FALSE;
  return osr_vae_config_check(config, &reason) ||
         osr_config_fail_check(section->file, reason, error);
}

const OsrVaeConfig osr_config_hunyuan_vae = {
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
  .shift_factor = 0,
  .sample_size = 256,
  .sample_tsize = 64,
  .tile_overlap_factor = 0.25,
};

gboolean
osr_config_read_vae(const OsrConfigSection *section, OsrVaeConfig *config, GError **error)
{
  static const char *const others[] = { "type", "weights", "block_out_channels", NULL };
  static const OsrConfigField fields[] = {
    { MEMBER(OsrVaeConfig, in_channels), SIZE, FALSE },
    { MEMBER(OsrVaeConfig, out_channels), SIZE, FALSE },
    { MEMBER(OsrVaeConfig, latent_channels), SIZE, FALSE },
    { MEMBER(OsrVaeConfig, layers_per_block), SIZE, FALSE },
    { MEMBER(OsrVaeConfig, norm_num_groups), SIZE, FALSE },
    { MEMBER(OsrVaeConfig, time_compression_ratio), SIZE, FALSE },
    { MEMBER(OsrVaeConfig, spatial_compression_ratio), SIZE, FALSE },
    { MEMBER(OsrVaeConfig, mid_block_add_attention), BOOLEAN, FALSE },
    { MEMBER(OsrVaeConfig, scale_factor), NUMBER, FALSE },
    { MEMBER(OsrVaeConfig, shift_factor), NUMBER, FALSE },
    { MEMBER(OsrVaeConfig, sample_size), OSR_CONFIG_UINT, 1, OSR_VAE_MAX_SIZE, FALSE },
    { MEMBER(OsrVaeConfig, sample_tsize), OSR_CONFIG_UINT, 1, OSR_VAE_MAX_SIZE, FALSE },
    { MEMBER(OsrVaeConfig, tile_overlap_factor), OSR_CONFIG_DOUBLE, 0, 0.99, FALSE },
  };
  GError *reason = NULL;
  const char *type;

  *config = osr_config_hunyuan_vae;
  type = osr_config_read_string(section, "type", "hunyuan_vae", error);
  if (!type)
    return FALSE;
  if (g_str_equal(type, "autoencoder_2d"))
    return osr_config_read_ae(section, config, error);
  if (!g_str_equal(type, "hunyuan_vae"))
    return osr_config_fail(section, "type", error,
                           "\"%s\" is neither \"hunyuan_vae\" nor \"autoencoder_2d\"", type);
  if (!read_fields(section, fields, G_N_ELEMENTS(fields), others, config, error))
    return FALSE;
  if (json_object_has_member(section->object, "block_out_channels") &&
      !osr_config_read_uints(section, "block_out_channels", 1, OSR_VAE_MAX_BLOCKS, OSR_MAX_CHANNELS,
                             config->block_out_channels, &config->n_blocks, error))
    return FALSE;
  return osr_vae_config_check(config, &reason) ||
         osr_config_fail_check(section->file, reason, error);
}

gboolean
osr_config_read_preview(const OsrConfigSection *section, guint channels, OsrPreviewMap *map,
                        GError **error)
{
  static const char *const known[] = { "factors", "bias", NULL };
  const double most = 1000; /* colours are from -1 to 1 */

  if (channels > OSR_PREVIEW_MAX_CHANNELS)
    return osr_config_fail(section, "factors", error, "%u latent channels are more than %u",
                           channels, OSR_PREVIEW_MAX_CHANNELS);
  osr_config_log_unknown(section, NULL, 0, known);
  *map = (OsrPreviewMap){ .channels = channels };
  return osr_config_read_matrix(section, "factors", most, channels, 3, map->factors[0], error) &&
         osr_config_read_numbers(section, "bias", most, 3, map->bias, error);
}

/* T5 */

gboolean
osr_config_read_t5(const OsrConfigSection *section, OsrT5Config *config, GError **error)
{
  static const char *const others[] = { "feed_forward_proj", "model_type", NULL };
  static const OsrConfigField fields[] = {
    { MEMBER(OsrT5Config, vocab_size), SIZE, TRUE },
    { MEMBER(OsrT5Config, d_model), SIZE, TRUE },
    { MEMBER(OsrT5Config, d_kv), SIZE, TRUE },
    { MEMBER(OsrT5Config, d_ff), SIZE, TRUE },
    { MEMBER(OsrT5Config, num_layers), SIZE, TRUE },
    { MEMBER(OsrT5Config, num_heads), SIZE, TRUE },
    { MEMBER(OsrT5Config, relative_attention_num_buckets), ANY_UINT, FALSE },
    { MEMBER(OsrT5Config, relative_attention_max_distance), ANY_UINT, FALSE },
    { MEMBER(OsrT5Config, layer_norm_epsilon), EPSILON, FALSE },
  };
  GError *reason = NULL;
  const char *type, *mlp;

  *config = (OsrT5Config){ .relative_attention_num_buckets = 32,
                           .relative_attention_max_distance = 128,
                           .layer_norm_epsilon = 1e-6 };
  type = osr_config_read_string(section, "model_type", "t5", error);
  mlp = type ? osr_config_read_string(section, "feed_forward_proj", "gated-gelu", error) : NULL;
  if (!mlp)
    return FALSE;
  if (!g_str_equal(type, "t5"))
    return osr_config_fail(section, "model_type", error, "\"%s\" is not \"t5\"", type);
  if (!g_str_equal(mlp, "gated-gelu"))
    return osr_config_fail(section, "feed_forward_proj", error,
                           "\"%s\" is not the \"gated-gelu\" of T5 v1.1", mlp);
  if (!read_fields(section, fields, G_N_ELEMENTS(fields), others, config, error))
    return FALSE;
  return osr_t5_config_check(config, &reason) ||
         osr_config_fail_check(section->file, reason, error);
}

/* CLIP */

static gboolean
read_clip_act(const OsrConfigSection *section, OsrAct *act, GError **error)
{
  const char *name = osr_config_read_string(section, "hidden_act", "quick_gelu", error);

  if (!name)
    return FALSE;
  if (g_str_equal(name, "quick_gelu"))
    *act = OSR_ACT_QUICK_GELU;
  else if (g_str_equal(name, "gelu"))
    *act = OSR_ACT_GELU_ERF;
  else
    return osr_config_fail(section, "hidden_act", error, "\"%s\" is neither quick_gelu nor gelu",
                           name);
  return TRUE;
}

gboolean
osr_config_read_clip(const OsrConfigSection *section, OsrClipConfig *config, GError **error)
{
  static const char *const others[] = { "hidden_act", "model_type", NULL };
  static const OsrConfigField fields[] = {
    { MEMBER(OsrClipConfig, vocab_size), SIZE, FALSE },
    { MEMBER(OsrClipConfig, hidden_size), SIZE, FALSE },
    { MEMBER(OsrClipConfig, intermediate_size), SIZE, FALSE },
    { MEMBER(OsrClipConfig, num_hidden_layers), SIZE, FALSE },
    { MEMBER(OsrClipConfig, num_attention_heads), SIZE, FALSE },
    { MEMBER(OsrClipConfig, max_position_embeddings), SIZE, FALSE },
    { MEMBER(OsrClipConfig, layer_norm_eps), EPSILON, FALSE },
    { MEMBER(OsrClipConfig, eos_token_id), ANY_UINT, FALSE },
  };
  OsrConfigSection inner = *section;
  GError *reason = NULL;

  if (json_object_has_member(section->object, "text_config") &&
      !osr_config_open(section, "text_config", "text_config.", &inner, error))
    return FALSE;
  *config = (OsrClipConfig){ .vocab_size = 49408,
                             .hidden_size = 512,
                             .intermediate_size = 2048,
                             .num_hidden_layers = 12,
                             .num_attention_heads = 8,
                             .max_position_embeddings = 77,
                             .layer_norm_eps = 1e-5,
                             .eos_token_id = 49407 };
  if (!read_fields(&inner, fields, G_N_ELEMENTS(fields), others, config, error) ||
      !read_clip_act(&inner, &config->hidden_act, error))
    return FALSE;
  return osr_clip_config_check(config, &reason) ||
         osr_config_fail_check(section->file, reason, error);
}
