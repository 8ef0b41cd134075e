/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model-infer.h"

#include "clip-private.h"
#include "error.h"
#include "mmdit-private.h"
#include "model-config.h"
#include "model-limits.h"
#include "presets.h"
#include "t5-private.h"
#include "vae-private.h"

#define CLIP_HEAD_DIM 64

/* Dimensions of tensors. The first failure sticks, and later ones read as 1. */
typedef struct {
  OsrCheckpoint *checkpoint;
  GError *error;
} Shapes;

static guint
shape_dim(Shapes *shapes, guint axis, const char *name)
{
  const OsrCheckpointEntry *entry = osr_checkpoint_lookup(shapes->checkpoint, name);
  const char *path = osr_checkpoint_get_path(shapes->checkpoint);

  if (shapes->error)
    return 1;
  if (entry == NULL)
    g_set_error(&shapes->error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "%s: tensor %s is missing", path,
                name);
  else if (axis >= entry->n_dims || entry->dims[axis] < 1 || entry->dims[axis] > OSR_MAX_CHANNELS)
    g_set_error(&shapes->error, OSR_ERROR, OSR_ERROR_SHAPE, "%s: tensor %s has no usable size %u",
                path, name, axis);
  else
    return (guint) entry->dims[axis];
  return 1;
}

static gboolean
has_tensor(const Shapes *shapes, const char *name)
{
  return osr_checkpoint_lookup(shapes->checkpoint, name) != NULL;
}

/* How many tensors there are named @prefix, a number from 0 on, @suffix. */
static guint
count_tensors(const Shapes *shapes, const char *prefix, const char *suffix)
{
  for (guint n = 0;; n++) {
    g_autofree char *name = g_strdup_printf("%s%u%s", prefix, n, suffix);

    if (!has_tensor(shapes, name))
      return n;
  }
}

/* The sizes of tensors @prefix, a number, @suffix. */
static void
read_channels(Shapes *shapes, const char *prefix, const char *suffix, OsrVaeConfig *c)
{
  c->n_blocks = MIN(count_tensors(shapes, prefix, suffix), OSR_VAE_MAX_BLOCKS);
  for (guint i = 0; i < c->n_blocks; i++) {
    g_autofree char *name = g_strdup_printf("%s%u%s", prefix, i, suffix);

    c->block_out_channels[i] = shape_dim(shapes, 0, name);
  }
}

/* @ok: what the model says of the config; it has set *reason if not. */
static gboolean
finish(Shapes *shapes, gboolean ok, GError **reason, GError **error)
{
  if (shapes->error) {
    g_clear_error(reason);
    g_propagate_error(error, shapes->error);
    return FALSE;
  }
  return ok || osr_config_fail_check(osr_checkpoint_get_path(shapes->checkpoint), *reason, error);
}

static const OsrPreset *
published(void)
{
  return osr_preset_find("open-sora-v2");
}

gboolean
osr_infer_mmdit(OsrCheckpoint *checkpoint, const OsrMmditConfig *base, OsrMmditConfig *c,
                GError **error)
{
  const OsrMmditConfig *rest = &published()->mmdit;
  Shapes s = { checkpoint, NULL };
  GError *reason = NULL;
  const guint head_dim = shape_dim(&s, 0, "double_blocks.0.img_attn.norm.query_norm.scale");
  const guint mlp = shape_dim(&s, 0, "double_blocks.0.img_mlp.0.weight");

  if (base && base->hidden_size / base->num_heads == head_dim)
    rest = base;
  *c = *rest;
  c->in_channels = shape_dim(&s, 1, "img_in.weight");
  c->vec_in_dim = shape_dim(&s, 1, "vector_in.in_layer.weight");
  c->context_in_dim = shape_dim(&s, 1, "txt_in.weight");
  c->hidden_size = shape_dim(&s, 0, "img_in.weight");
  c->num_heads = MAX(c->hidden_size / head_dim, 1);
  c->mlp_ratio = (double) mlp / c->hidden_size;
  c->depth = count_tensors(&s, "double_blocks.", ".img_attn.proj.weight");
  c->depth_single_blocks = count_tensors(&s, "single_blocks.", ".linear2.weight");
  c->qkv_bias = has_tensor(&s, "double_blocks.0.img_attn.qkv.bias") ||
                has_tensor(&s, "double_blocks.0.img_attn.q_proj.bias");
  c->guidance_embed = has_tensor(&s, "guidance_in.in_layer.weight");
  c->cond_embed = has_tensor(&s, "cond_in.weight");
  c->fused_qkv = has_tensor(&s, "double_blocks.0.img_attn.qkv.weight");
  /* FLUX.1 itself turns neighbours. */
  if (rest != base)
    c->use_liger_rope = c->cond_embed || !c->fused_qkv;
  return finish(&s, osr_mmdit_config_check(c, &reason), &reason, error);
}

gboolean
osr_infer_vae(OsrCheckpoint *checkpoint, const OsrVaeConfig *base, OsrVaeConfig *c, GError **error)
{
  Shapes s = { checkpoint, NULL };
  GError *reason = NULL;

  *c = base && base->type == OSR_VAE_HUNYUAN ? *base : osr_config_hunyuan_vae;
  c->in_channels = shape_dim(&s, 1, "encoder.conv_in.conv.weight");
  c->out_channels = shape_dim(&s, 0, "decoder.conv_out.conv.weight");
  c->latent_channels = shape_dim(&s, 1, "decoder.conv_in.conv.weight");
  c->layers_per_block = count_tensors(&s, "encoder.down_blocks.0.resnets.", ".conv1.conv.weight");
  c->mid_block_add_attention = has_tensor(&s, "encoder.mid_block.attentions.0.to_q.weight");
  read_channels(&s, "encoder.down_blocks.", ".resnets.0.conv1.conv.weight", c);
  return finish(&s, osr_vae_config_check(c, &reason), &reason, error);
}

gboolean
osr_infer_flux_ae(OsrCheckpoint *checkpoint, OsrVaeConfig *c, GError **error)
{
  Shapes s = { checkpoint, NULL };
  GError *reason = NULL;

  *c = osr_config_flux_ae;
  c->in_channels = shape_dim(&s, 1, "encoder.conv_in.weight");
  c->out_channels = shape_dim(&s, 0, "decoder.conv_out.weight");
  c->latent_channels = shape_dim(&s, 1, "decoder.conv_in.weight");
  c->layers_per_block = count_tensors(&s, "encoder.down.0.block.", ".conv1.weight");
  c->mid_block_add_attention = has_tensor(&s, "encoder.mid.attn_1.q.weight");
  read_channels(&s, "encoder.down.", ".block.0.conv1.weight", c);
  c->spatial_compression_ratio = 1u << (MAX(c->n_blocks, 1) - 1);
  return finish(&s, osr_vae_config_check(c, &reason), &reason, error);
}

#define T5_BLOCK "encoder.block.0.layer."
#define T5_BIAS ".layer.0.SelfAttention.relative_attention_bias.weight"

gboolean
osr_infer_t5(OsrCheckpoint *checkpoint, const OsrT5Config *base, OsrT5Config *c, GError **error)
{
  Shapes s = { checkpoint, NULL };
  GError *reason = NULL;
  const char *table =
      has_tensor(&s, "shared.weight") ? "shared.weight" : "encoder.embed_tokens.weight";
  const char *other = has_tensor(&s, T5_BLOCK "1.DenseReluDense.wi.weight")
                          ? "of version 1.0: T5 of version 1.1 is needed"
                      : has_tensor(&s, "encoder.block.1" T5_BIAS) ? "UMT5: T5 v1.1 is needed"
                                                                  : NULL;

  if (other) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED, "%s: this T5 is %s",
                osr_checkpoint_get_path(checkpoint), other);
    return FALSE;
  }
  *c = base ? *base : published()->t5;
  c->vocab_size = shape_dim(&s, 0, table);
  c->d_model = shape_dim(&s, 1, table);
  c->d_ff = shape_dim(&s, 0, T5_BLOCK "1.DenseReluDense.wi_0.weight");
  c->num_heads = shape_dim(&s, 1, "encoder.block.0" T5_BIAS);
  c->relative_attention_num_buckets = shape_dim(&s, 0, "encoder.block.0" T5_BIAS);
  c->d_kv = MAX(shape_dim(&s, 0, T5_BLOCK "0.SelfAttention.q.weight") / c->num_heads, 1);
  c->num_layers = count_tensors(&s, "encoder.block.", ".layer.0.SelfAttention.q.weight");
  return finish(&s, osr_t5_config_check(c, &reason), &reason, error);
}

gboolean
osr_infer_clip(OsrCheckpoint *checkpoint, const OsrClipConfig *base, OsrClipConfig *c,
               GError **error)
{
  Shapes s = { checkpoint, NULL };
  GError *reason = NULL;
  const guint width = shape_dim(&s, 1, "text_model.embeddings.token_embedding.weight");
  const gboolean same = base && base->hidden_size == width;

  *c = same ? *base : published()->clip;
  c->hidden_size = width;
  if (!same)
    c->num_attention_heads = MAX(width / CLIP_HEAD_DIM, 1);
  c->vocab_size = shape_dim(&s, 0, "text_model.embeddings.token_embedding.weight");
  c->max_position_embeddings = shape_dim(&s, 0, "text_model.embeddings.position_embedding.weight");
  c->intermediate_size = shape_dim(&s, 0, "text_model.encoder.layers.0.mlp.fc1.weight");
  c->num_hidden_layers =
      count_tensors(&s, "text_model.encoder.layers.", ".self_attn.q_proj.weight");
  return finish(&s, osr_clip_config_check(c, &reason), &reason, error);
}
