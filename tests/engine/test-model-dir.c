/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "model-dir.h"

static const char t5_config[] =
    "{\"model_type\": \"t5\", \"architectures\": [\"T5EncoderModel\"], \"vocab_size\": 1024,"
    " \"d_model\": 64, \"d_kv\": 16, \"d_ff\": 96, \"num_layers\": 2, \"num_heads\": 4,"
    " \"relative_attention_num_buckets\": 32, \"feed_forward_proj\": \"gated-gelu\"}";

static const char clip_config[] =
    "{\"model_type\": \"clip\", \"text_config\": {\"vocab_size\": 2014, \"hidden_size\": 48,"
    " \"intermediate_size\": 96, \"num_hidden_layers\": 2, \"num_attention_heads\": 3,"
    " \"max_position_embeddings\": 32, \"hidden_act\": \"gelu\", \"eos_token_id\": 2}}";

static const char config[] =
    "{\"family\": \"open-sora-v2\", \"name\": \"test\",\n"
    " \"mmdit\": {\"weights\": \"mmdit.safetensors\", \"in_channels\": 64, \"vec_in_dim\": 48,\n"
    "  \"context_in_dim\": 64, \"hidden_size\": 96, \"mlp_ratio\": 2.5, \"num_heads\": 3,\n"
    "  \"depth\": 2, \"depth_single_blocks\": 4, \"axes_dim\": [8, 12, 12], \"theta\": 10000,\n"
    "  \"qkv_bias\": false, \"guidance_embed\": true, \"cond_embed\": true,\n"
    "  \"fused_qkv\": false, \"use_liger_rope\": true, \"patch_size\": 2, \"comment\": 1},\n"
    " \"vae\": {\"type\": \"hunyuan_vae\", \"weights\": \"vae.safetensors\", \"in_channels\": 3,\n"
    "  \"out_channels\": 3, \"block_out_channels\": [16, 32, 64, 64], \"layers_per_block\": 1,\n"
    "  \"norm_num_groups\": 8, \"latent_channels\": 16, \"time_compression_ratio\": 4,\n"
    "  \"spatial_compression_ratio\": 8, \"mid_block_add_attention\": false,\n"
    "  \"scale_factor\": 0.75, \"shift_factor\": -0.5, \"sample_size\": 128,\n"
    "  \"sample_tsize\": 32, \"tile_overlap_factor\": 0.5},\n"
    " \"t5\": {\"path\": \"t5\", \"max_length\": 40},\n"
    " \"clip\": {\"path\": \"clip\", \"max_length\": 24},\n"
    " \"sampling\": {\"width\": 128, \"height\": 96, \"num_frames\": 33, \"num_steps\": 20,\n"
    "  \"guidance\": 4, \"guidance_img\": 1.5, \"text_osci\": false, \"image_osci\": false,\n"
    "  \"scale_temporal_osci\": false, \"shift\": false, \"flow_shift\": 2, \"fps\": 12,\n"
    "  \"motion_score\": 5}}";

typedef struct {
  char *path;
} Fixture;

static void
put(const Fixture *fixture, const char *name, const char *data)
{
  g_autoptr(GError) error = NULL;
  g_autofree char *path = g_build_filename(fixture->path, name, NULL);
  g_autofree char *folder = g_path_get_dirname(path);

  g_mkdir_with_parents(folder, 0700);
  g_file_set_contents(path, data, -1, &error);
  g_assert_no_error(error);
}

static void
remove_tree(const char *path)
{
  g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);

  if (dir != NULL) {
    for (const char *name; (name = g_dir_read_name(dir)) != NULL;) {
      g_autofree char *child = g_build_filename(path, name, NULL);
      remove_tree(child);
    }
  }
  g_remove(path);
}

/* A folder of our own layout. Opening it reads no weights, so these are empty. */
static void
set_up(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  static const char *const empty[] = {
    "mmdit.safetensors",      "vae.safetensors", "t5/spiece.model", "t5/model.safetensors",
    "clip/model.safetensors", "clip/vocab.json", "clip/merges.txt",
  };
  g_autoptr(GError) error = NULL;

  fixture->path = g_dir_make_tmp("opensora-XXXXXX", &error);
  g_assert_no_error(error);
  for (guint i = 0; i < G_N_ELEMENTS(empty); i++)
    put(fixture, empty[i], "");
  put(fixture, "config.json", config);
  put(fixture, "t5/config.json", t5_config);
  put(fixture, "clip/config.json", clip_config);
}

static void
tear_down(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  remove_tree(fixture->path);
  g_free(fixture->path);
}

static OsrModelDir *
open_ok(const Fixture *fixture)
{
  g_autoptr(GError) error = NULL;
  OsrModelDir *dir = osr_model_dir_open(fixture->path, &error);

  g_assert_no_error(error);
  g_assert_nonnull(dir);
  return dir;
}

static void
assert_opens_not(const Fixture *fixture, gint code, const char *message)
{
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_model_dir_open(fixture->path, &error));
  g_assert_error(error, OSR_ERROR, code);
  if (!strstr(error->message, message) || !strstr(error->message, fixture->path))
    g_error("\"%s\" does not say \"%s\" or not where", error->message, message);
}

static void
assert_in(const Fixture *fixture, const char *path, const char *name)
{
  g_autofree char *expected = g_build_filename(fixture->path, name, NULL);

  g_assert_cmpstr(path, ==, expected);
}

static void
test_own(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  g_autoptr(OsrModelDir) dir = open_ok(fixture);

  g_assert_cmpstr(dir->path, ==, fixture->path);
  g_assert_cmpstr(dir->family, ==, "open-sora-v2");
  g_assert_cmpstr(dir->name, ==, "test");
  assert_in(fixture, dir->mmdit_path, "mmdit.safetensors");
  assert_in(fixture, dir->vae_path, "vae.safetensors");
  assert_in(fixture, dir->t5_weights, "t5/model.safetensors");
  assert_in(fixture, dir->t5_vocab, "t5/spiece.model");
  assert_in(fixture, dir->clip_weights, "clip/model.safetensors");
  assert_in(fixture, dir->clip_vocab, "clip/vocab.json");
  assert_in(fixture, dir->clip_merges, "clip/merges.txt");

  const OsrMmditConfig *m = &dir->mmdit;
  g_assert_cmpuint(m->in_channels, ==, 64);
  g_assert_cmpuint(m->vec_in_dim, ==, 48);
  g_assert_cmpuint(m->context_in_dim, ==, 64);
  g_assert_cmpuint(m->hidden_size, ==, 96);
  g_assert_cmpfloat(m->mlp_ratio, ==, 2.5);
  g_assert_cmpuint(m->num_heads, ==, 3);
  g_assert_cmpuint(m->depth, ==, 2);
  g_assert_cmpuint(m->depth_single_blocks, ==, 4);
  g_assert_cmpuint(m->axes_dim[0], ==, 8);
  g_assert_cmpuint(m->axes_dim[1], ==, 12);
  g_assert_cmpuint(m->axes_dim[2], ==, 12);
  g_assert_cmpfloat(m->theta, ==, 10000);
  g_assert_false(m->qkv_bias);
  g_assert_true(m->guidance_embed);
  g_assert_true(m->cond_embed);
  g_assert_false(m->fused_qkv);
  g_assert_true(m->use_liger_rope);
  g_assert_cmpuint(m->patch_size, ==, 2);

  const OsrVaeConfig *v = &dir->vae;
  g_assert_cmpuint(v->in_channels, ==, 3);
  g_assert_cmpuint(v->out_channels, ==, 3);
  g_assert_cmpuint(v->latent_channels, ==, 16);
  g_assert_cmpuint(v->n_blocks, ==, 4);
  g_assert_cmpuint(v->block_out_channels[0], ==, 16);
  g_assert_cmpuint(v->block_out_channels[3], ==, 64);
  g_assert_cmpuint(v->layers_per_block, ==, 1);
  g_assert_cmpuint(v->norm_num_groups, ==, 8);
  g_assert_cmpuint(v->time_compression_ratio, ==, 4);
  g_assert_cmpuint(v->spatial_compression_ratio, ==, 8);
  g_assert_false(v->mid_block_add_attention);
  g_assert_cmpfloat(v->scale_factor, ==, 0.75);
  g_assert_cmpfloat(v->shift_factor, ==, -0.5);
  g_assert_cmpuint(v->sample_size, ==, 128);
  g_assert_cmpuint(v->sample_tsize, ==, 32);
  g_assert_cmpfloat(v->tile_overlap_factor, ==, 0.5);

  g_assert_cmpuint(dir->t5_max_length, ==, 40);
  g_assert_cmpuint(dir->t5.vocab_size, ==, 1024);
  g_assert_cmpuint(dir->t5.d_model, ==, 64);
  g_assert_cmpuint(dir->t5.d_kv, ==, 16);
  g_assert_cmpuint(dir->t5.d_ff, ==, 96);
  g_assert_cmpuint(dir->t5.num_layers, ==, 2);
  g_assert_cmpuint(dir->t5.num_heads, ==, 4);
  g_assert_cmpuint(dir->t5.relative_attention_num_buckets, ==, 32);
  g_assert_cmpuint(dir->t5.relative_attention_max_distance, ==, 128);
  g_assert_cmpfloat(dir->t5.layer_norm_epsilon, ==, 1e-6);

  g_assert_cmpuint(dir->clip_max_length, ==, 24);
  g_assert_cmpuint(dir->clip.vocab_size, ==, 2014);
  g_assert_cmpuint(dir->clip.hidden_size, ==, 48);
  g_assert_cmpuint(dir->clip.intermediate_size, ==, 96);
  g_assert_cmpuint(dir->clip.num_hidden_layers, ==, 2);
  g_assert_cmpuint(dir->clip.num_attention_heads, ==, 3);
  g_assert_cmpuint(dir->clip.max_position_embeddings, ==, 32);
  g_assert_cmpint(dir->clip.hidden_act, ==, OSR_ACT_GELU_ERF);
  g_assert_cmpint(dir->clip.eos_token_id, ==, 2);

  const OsrSamplingParams *s = &dir->sampling;
  g_assert_cmpuint(s->width, ==, 128);
  g_assert_cmpuint(s->height, ==, 96);
  g_assert_cmpuint(s->num_frames, ==, 33);
  g_assert_cmpuint(s->num_steps, ==, 20);
  g_assert_cmpfloat(s->guidance, ==, 4);
  g_assert_cmpfloat(s->guidance_img, ==, 1.5);
  g_assert_false(s->text_osci);
  g_assert_false(s->image_osci);
  g_assert_false(s->scale_temporal_osci);
  g_assert_false(s->shift);
  g_assert_cmpfloat(s->flow_shift, ==, 2);
  g_assert_cmpuint(dir->fps, ==, 12);
  g_assert_cmpuint(dir->motion_score, ==, 5);
}

/* Replaces @find in a file of the folder; @find NULL: all of it. */
static void
edit(const Fixture *fixture, const char *name, const char *find, const char *with)
{
  g_autofree char *path = g_build_filename(fixture->path, name, NULL);
  g_autofree char *data = NULL;

  if (find == NULL) {
    put(fixture, name, with);
    return;
  }
  g_assert_true(g_file_get_contents(path, &data, NULL, NULL));
  g_autoptr(GString) text = g_string_new(data);
  g_assert_cmpuint(g_string_replace(text, find, with, 1), ==, 1);
  put(fixture, name, text->str);
}

static void
test_defaults(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  edit(fixture, "config.json", NULL,
       "{\"family\": \"open-sora-v2\","
       " \"mmdit\": {\"in_channels\": 64, \"vec_in_dim\": 512, \"context_in_dim\": 64,"
       "  \"hidden_size\": 96, \"num_heads\": 3, \"depth\": 2, \"depth_single_blocks\": 4,"
       "  \"axes_dim\": [8, 12, 12]}, \"vae\": {}, \"t5\": {}, \"clip\": {}}");
  edit(fixture, "clip/config.json", NULL, "{}");
  g_autoptr(OsrModelDir) dir = open_ok(fixture);
  g_autofree char *name = g_path_get_basename(fixture->path);

  g_assert_cmpstr(dir->name, ==, name);
  g_assert_cmpfloat(dir->mmdit.mlp_ratio, ==, 4);
  g_assert_true(dir->mmdit.fused_qkv);
  g_assert_false(dir->mmdit.cond_embed);
  g_assert_false(dir->mmdit.use_liger_rope);
  g_assert_cmpuint(dir->vae.block_out_channels[2], ==, 512);
  g_assert_cmpfloat(dir->vae.scale_factor, ==, 0.476986);
  g_assert_cmpuint(dir->clip.vocab_size, ==, 49408);
  g_assert_cmpint(dir->clip.eos_token_id, ==, 49407);
  g_assert_cmpint(dir->clip.hidden_act, ==, OSR_ACT_QUICK_GELU);
  g_assert_cmpuint(dir->t5_max_length, ==, 512);
  g_assert_cmpuint(dir->clip_max_length, ==, 77);
  g_assert_cmpuint(dir->sampling.width, ==, 336);
  g_assert_cmpuint(dir->sampling.num_steps, ==, 50);
  g_assert_cmpuint(dir->fps, ==, 24);
  g_assert_cmpuint(dir->motion_score, ==, 4);
}

#define ROWS(ROW) ROW ", " ROW ", " ROW ", " ROW
#define PREVIEW(ROW, BIAS)                                                                         \
  "\"preview\": {\"factors\": [" ROWS(ROWS(ROW)) "], \"bias\": " BIAS "}, \"sampling\""

static void
test_bad_values(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  static const struct {
    const char *file, *find, *with, *message;
  } cases[] = {
    /* not JSON */
    { "config.json", NULL, "", "offset 0" },
    { "config.json", NULL, "[]", "is not an object" },
    { "config.json", NULL, "{\"family\": \"open-sora-v2\",}", "offset" },
    { "config.json", NULL, "{\"family\": \"\xff\"}", "not UTF-8" },
    { "config.json", "\"name\"", "/* json-glib takes this */ \"name\"", "offset" },
    { "config.json", "}}", "}", "offset" },
    { "t5/config.json", NULL, "nonsense", "t5/config.json" },
    /* types */
    { "config.json", "\"name\": \"test\"", "\"name\": 3", "name: is not a string" },
    { "config.json", "\"family\": \"open-sora-v2\"", "\"family\": 2", "family: is not a string" },
    { "config.json", "\"t5\": {", "\"t5\": 1, \"t\": {", "t5: is not an object" },
    { "config.json", "\"clip\": {", "\"c\": {", "clip: is missing" },
    { "config.json", "\"hidden_size\": 96", "\"hidden_size\": \"96\"",
      "mmdit.hidden_size: is not an integer" },
    { "config.json", "\"hidden_size\": 96", "\"hidden_size\": 96.5",
      "mmdit.hidden_size: is not an integer" },
    { "config.json", "\"hidden_size\": 96", "\"hidden_size\": null",
      "mmdit.hidden_size: is not an integer" },
    { "config.json", "\"hidden_size\": 96", "\"hiden_size\": 96", "mmdit.hidden_size: is missing" },
    { "config.json", "\"mlp_ratio\": 2.5", "\"mlp_ratio\": [2]",
      "mmdit.mlp_ratio: is not a number" },
    { "config.json", "\"qkv_bias\": false", "\"qkv_bias\": 0",
      "mmdit.qkv_bias: is not true or false" },
    { "config.json", "[8, 12, 12]", "32", "mmdit.axes_dim: is not an array" },
    { "config.json", "[8, 12, 12]", "[8, \"12\", 12]", "mmdit.axes_dim: is not an integer" },
    { "config.json", "\"axes_dim\"", "\"axes\"", "mmdit.axes_dim: is missing" },
    /* ranges */
    { "config.json", "\"hidden_size\": 96", "\"hidden_size\": -96",
      "mmdit.hidden_size: -96 is not in 1 to 1048576" },
    { "config.json", "\"hidden_size\": 96", "\"hidden_size\": 99999999999999999999",
      "mmdit.hidden_size: " },
    { "config.json", "\"num_heads\": 3", "\"num_heads\": 0",
      "mmdit.num_heads: 0 is not in 1 to 1048576" },
    { "config.json", "\"mlp_ratio\": 2.5", "\"mlp_ratio\": -1",
      "mmdit: mlp_ratio -1 or theta 10000 is out of range" },
    { "config.json", "\"mlp_ratio\": 2.5", "\"mlp_ratio\": 1e999", "mmdit.mlp_ratio: inf" },
    { "config.json", "\"depth\": 2", "\"depth\": 100000", "mmdit.depth: 100000 is not in" },
    { "config.json", "[8, 12, 12]", "[8, 24]", "mmdit.axes_dim: has 2 elements, not 3 to 3" },
    { "config.json", "[8, 12, 12]", "[8, 0, 24]", "mmdit.axes_dim: 0 is not in 1 to" },
    { "config.json", "[16, 32, 64, 64]", "[]", "vae.block_out_channels: has 0 elements" },
    { "config.json", "[16, 32, 64, 64]", "[8,8,8,8,8,8,8,8,8]",
      "vae.block_out_channels: has 9 elements" },
    { "config.json", "\"max_length\": 40", "\"max_length\": 1", "t5.max_length: 1 is not in" },
    { "config.json", "\"scale_factor\": 0.75", "\"scale_factor\": 0",
      "vae: latents cannot be scaled by 0" },
    { "config.json", "\"sampling\"", "\"preview\": 1, \"sampling\"", "preview: is not an object" },
    { "config.json", "\"sampling\"", "\"preview\": {}, \"sampling\"",
      "preview.factors: is missing" },
    { "config.json", "\"sampling\"", "\"preview\": {\"factors\": 1}, \"sampling\"",
      "preview.factors: is not an array" },
    { "config.json", "\"sampling\"", "\"preview\": {\"factors\": [[1, 2, 3]]}, \"sampling\"",
      "preview.factors: has 1 elements, not 16" },
    { "config.json", "\"sampling\"", PREVIEW("[1, 2]", "[0, 0, 0]"),
      "preview.factors: has 2 elements, not 3" },
    { "config.json", "\"sampling\"", PREVIEW("3", "[0, 0, 0]"),
      "preview.factors: is not an array" },
    { "config.json", "\"sampling\"", PREVIEW("[0, 0, 1e4]", "[0, 0, 0]"),
      "preview.factors: 10000 is not in -1000 to 1000" },
    { "config.json", "\"sampling\"", PREVIEW("[0, 0, 1]", "[0, \"a\", 0]"),
      "preview.bias: is not a number" },
    { "config.json", "\"fps\": 12", "\"fps\": 0", "sampling.fps: 0 is not in" },
    { "t5/config.json", "\"d_kv\": 16", "\"d_kv\": 0", "t5/config.json: d_kv: 0 is not in" },
    { "t5/config.json", "\"d_kv\": 16", "\"d_k\": 16", "t5/config.json: d_kv: is missing" },
    { "clip/config.json", "\"vocab_size\": 2014", "\"vocab_size\": -2",
      "clip/config.json: text_config.vocab_size: -2 is not in" },
    /* what one number says about another */
    { "config.json", "\"num_heads\": 3", "\"num_heads\": 7",
      "mmdit: axes_dim 8, 12, 12 have to be even and add up to hidden_size 96 / num_heads 7" },
    { "config.json", "[8, 12, 12]", "[8, 12, 14]",
      "mmdit: axes_dim 8, 12, 14 have to be even and add up to hidden_size 96 / num_heads 3" },
    { "config.json", "[8, 12, 12]", "[8, 11, 13]", "mmdit: axes_dim 8, 11, 13 have to be even" },
    { "config.json", "\"patch_size\": 2", "\"patch_size\": 1", "mmdit.in_channels: 64 is not 16" },
    { "config.json", "\"vec_in_dim\": 48", "\"vec_in_dim\": 47",
      "mmdit.vec_in_dim: 47 is not CLIP's hidden_size, 48" },
    { "config.json", "\"context_in_dim\": 64", "\"context_in_dim\": 65",
      "mmdit.context_in_dim: 65 is not T5's d_model, 64" },
    { "config.json", "\"norm_num_groups\": 8", "\"norm_num_groups\": 12",
      "vae: 16 channels in block 0 do not divide into 12 groups" },
    { "config.json", "\"spatial_compression_ratio\": 8", "\"spatial_compression_ratio\": 6",
      "vae: compression of 4 in time and 6 in space is not possible" },
    { "config.json", "\"spatial_compression_ratio\": 8", "\"spatial_compression_ratio\": 32",
      "vae: compression of 4 in time and 32 in space is not possible with 4 blocks" },
    { "config.json", "\"time_compression_ratio\": 4", "\"time_compression_ratio\": 2",
      "vae: compression of 2 in time and 8 in space is not possible" },
    { "config.json", "\"max_length\": 24", "\"max_length\": 33",
      "clip.max_length: 33 is more than CLIP's 32 positions" },
    { "config.json", "\"num_frames\": 33", "\"num_frames\": 32", "sampling: 32 frames" },
    { "config.json", "\"width\": 128", "\"width\": 130", "sampling: " },
    { "clip/config.json", "\"num_attention_heads\": 3", "\"num_attention_heads\": 5",
      "clip/config.json: clip: hidden_size 48 is not a multiple of num_attention_heads 5" },
    /* what load() would refuse */
    { "config.json", "\"layers_per_block\": 1", "\"layers_per_block\": 9",
      "vae: 4 blocks of 9 layers; 1 to 8 blocks of 1 to 8 layers are possible" },
    { "config.json", "\"patch_size\": 2", "\"patch_size\": 257",
      "mmdit: in_channels 64 is not a multiple of patch_size 257 squared" },
    { "config.json", "\"mlp_ratio\": 2.5", "\"mlp_ratio\": 1e9", "mmdit: mlp_ratio 1e+09" },
    { "t5/config.json", "\"relative_attention_num_buckets\": 32",
      "\"relative_attention_num_buckets\": 30", "t5: 30 relative_attention_num_buckets" },
    { "config.json", "\"num_frames\": 33", "\"num_frames\": 65537",
      "sampling.num_frames: 65537 is not in 1 to 65533" },
    { "config.json", "\"width\": 128", "\"width\": 8208",
      "sampling.width: 8208 is not in 16 to 8192" },
    /* other models */
    { "config.json", "hunyuan_vae", "dc_ae", "vae.type: \"dc_ae\"" },
    { "t5/config.json", "\"t5\"", "\"bert\"", "model_type: \"bert\"" },
    { "t5/config.json", "gated-gelu", "relu", "feed_forward_proj: \"relu\"" },
    { "clip/config.json", "\"gelu\"", "\"swish\"", "hidden_act: \"swish\"" },
    /* paths */
    { "config.json", "\"vae.safetensors\"", "\"/etc/passwd\"", "vae.weights: \"/etc/passwd\"" },
    { "config.json", "\"vae.safetensors\"", "\"a/../../x\"", "vae.weights: \"a/../../x\"" },
    { "config.json", "\"path\": \"t5\"", "\"path\": \"..\"", "t5.path: \"..\"" },
    { "config.json", "\"path\": \"clip\"", "\"path\": \"\"", "clip.path: \"\"" },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    edit(fixture, cases[i].file, cases[i].find, cases[i].with);
    assert_opens_not(fixture, OSR_ERROR_INVALID_FILE, cases[i].message);
    put(fixture, "config.json", config);
    put(fixture, "t5/config.json", t5_config);
    put(fixture, "clip/config.json", clip_config);
    osr_model_dir_free(open_ok(fixture));
  }

  edit(fixture, "config.json", "open-sora-v2", "open-sora-v9");
  assert_opens_not(fixture, OSR_ERROR_UNSUPPORTED, "family: \"open-sora-v9\" is not known");
}

/* The other way round: what load() takes opens. */
static void
test_large_patch(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  edit(fixture, "config.json", "\"patch_size\": 2", "\"patch_size\": 32");
  edit(fixture, "config.json", "\"in_channels\": 64", "\"in_channels\": 16384");
  edit(fixture, "config.json", "\"width\": 128, \"height\": 96", "\"width\": 512, \"height\": 256");
  g_autoptr(OsrModelDir) dir = open_ok(fixture);

  g_assert_cmpuint(dir->mmdit.patch_size, ==, 32);
}

static void
test_deep_config(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  g_autofree char *brackets = g_strnfill(1000000, '[');
  g_autofree char *text = g_strconcat("{\"family\": ", brackets, NULL);

  put(fixture, "config.json", text);
  assert_opens_not(fixture, OSR_ERROR_INVALID_FILE, "nested");
}

static void
test_missing(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  static const char *const parts[] = {
    "mmdit.safetensors",    "vae.safetensors",        "t5/config.json",
    "t5/model.safetensors", "t5/spiece.model",        "clip/config.json",
    "clip/merges.txt",      "clip/model.safetensors", "clip/vocab.json",
  };

  /* One alone, then more and more: all of them in one message. */
  for (guint i = 0; i < G_N_ELEMENTS(parts); i++) {
    g_autofree char *path = g_build_filename(fixture->path, parts[i], NULL);
    g_autofree char *saved = g_strconcat(path, "~", NULL);
    g_autofree char *alone = g_strdup_printf("missing %s", parts[i]);
    g_assert_cmpint(g_rename(path, saved), ==, 0);
    assert_opens_not(fixture, OSR_ERROR_NOT_FOUND, alone);
    g_assert_cmpint(g_rename(saved, path), ==, 0);
  }
  for (guint i = 0; i < G_N_ELEMENTS(parts); i++) {
    g_autofree char *path = g_build_filename(fixture->path, parts[i], NULL);
    g_remove(path);
    for (guint k = 0; k <= i; k++)
      assert_opens_not(fixture, OSR_ERROR_NOT_FOUND, parts[k]);
  }

  g_autofree char *path = g_build_filename(fixture->path, "config.json", NULL);
  g_remove(path);
  assert_opens_not(fixture, OSR_ERROR_NOT_FOUND, "missing config.json");
  remove_tree(fixture->path);
  assert_opens_not(fixture, OSR_ERROR_NOT_FOUND, "no such folder");
}

static void
test_sharded_t5(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  g_autofree char *single = g_build_filename(fixture->path, "t5", "model.safetensors", NULL);

  g_remove(single);
  put(fixture, "t5/model.safetensors.index.json", "{}");
  g_autoptr(OsrModelDir) dir = open_ok(fixture);
  assert_in(fixture, dir->t5_weights, "t5/model.safetensors.index.json");
}

/* A safetensors file with a header and a hole: "name 3 4 5" lines give names and shapes. */
static void
put_tensors(const Fixture *fixture, const char *name, const char *lines)
{
  g_autoptr(GString) header = g_string_new("{");
  g_auto(GStrv) entries = g_strsplit(lines, "\n", -1);
  guint64 offset = 0;

  for (guint i = 0; entries[i] != NULL && *entries[i] != '\0'; i++) {
    g_auto(GStrv) words = g_strsplit(entries[i], " ", -1);
    g_autofree char *shape = g_strjoinv(", ", words + 1);
    guint64 size = 2;
    for (guint k = 1; words[k] != NULL; k++)
      size *= g_ascii_strtoull(words[k], NULL, 10);
    g_string_append_printf(header,
                           "%s\"%s\": {\"dtype\": \"BF16\", \"shape\": [%s], "
                           "\"data_offsets\": [%" G_GUINT64_FORMAT ", %" G_GUINT64_FORMAT "]}",
                           i > 0 ? ", " : "", words[0], shape, offset, offset + size);
    offset += size;
  }
  g_string_append_c(header, '}');

  g_autofree char *path = g_build_filename(fixture->path, name, NULL);
  const guint64 length = GUINT64_TO_LE(header->len);
  int fd = g_open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
  g_assert_cmpint(fd, >=, 0);
  g_assert_cmpint(write(fd, &length, 8), ==, 8);
  g_assert_cmpint(write(fd, header->str, header->len), ==, header->len);
  g_assert_cmpint(ftruncate(fd, (off_t) (8 + header->len + offset)), ==, 0);
  close(fd);
}

/* The tensors of Open_Sora_v2.safetensors that tell its dimensions, in their sizes. */
static char *
hub_mmdit_tensors(guint depth, guint depth_single)
{
  GString *lines = g_string_new("img_in.weight 3072 64\n"
                                "vector_in.in_layer.weight 3072 768\n"
                                "txt_in.weight 3072 4096\n"
                                "cond_in.weight 3072 68\n"
                                "double_blocks.0.img_attn.q_proj.weight 3072 3072\n"
                                "double_blocks.0.img_attn.q_proj.bias 3072\n"
                                "double_blocks.0.img_attn.norm.query_norm.scale 128\n"
                                "double_blocks.0.img_mlp.0.weight 12288 3072\n");

  for (guint i = 0; i < depth; i++)
    g_string_append_printf(lines, "double_blocks.%u.img_attn.proj.weight 3072 3072\n", i);
  for (guint i = 0; i < depth_single; i++)
    g_string_append_printf(lines, "single_blocks.%u.linear2.weight 3072 15360\n", i);
  return g_string_free(lines, FALSE);
}

static const char hub_vae_tensors[] =
    "encoder.conv_in.conv.weight 128 3 3 3 3\n"
    "encoder.down_blocks.0.resnets.0.conv1.conv.weight 128 128 3 3 3\n"
    "encoder.down_blocks.0.resnets.1.conv1.conv.weight 128 128 3 3 3\n"
    "encoder.down_blocks.1.resnets.0.conv1.conv.weight 256 128 3 3 3\n"
    "encoder.down_blocks.2.resnets.0.conv1.conv.weight 512 256 3 3 3\n"
    "encoder.down_blocks.3.resnets.0.conv1.conv.weight 512 512 3 3 3\n"
    "encoder.mid_block.attentions.0.to_q.weight 512 512\n"
    "decoder.conv_in.conv.weight 512 16 3 3 3\n"
    "decoder.conv_out.conv.weight 3 128 3 3 3\n";

static void
set_up_hub(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  static const char *const empty[] = {
    "google/t5-v1_1-xxl/spiece.model",
    "google/t5-v1_1-xxl/model.safetensors.index.json",
    "openai/clip-vit-large-patch14/model.safetensors",
    "openai/clip-vit-large-patch14/vocab.json",
    "openai/clip-vit-large-patch14/merges.txt",
  };
  g_autoptr(GError) error = NULL;
  g_autofree char *mmdit = hub_mmdit_tensors(19, 38);

  fixture->path = g_dir_make_tmp("opensora-XXXXXX", &error);
  g_assert_no_error(error);
  for (guint i = 0; i < G_N_ELEMENTS(empty); i++)
    put(fixture, empty[i], "");
  put(fixture, "google/t5-v1_1-xxl/config.json",
      "{\"model_type\": \"t5\", \"vocab_size\": 32128, \"d_model\": 4096, \"d_kv\": 64,"
      " \"d_ff\": 10240, \"num_layers\": 24, \"num_heads\": 64, \"dropout_rate\": 0.1,"
      " \"feed_forward_proj\": \"gated-gelu\", \"layer_norm_epsilon\": 1e-06}");
  put(fixture, "openai/clip-vit-large-patch14/config.json",
      "{\"model_type\": \"clip\", \"projection_dim\": 768, \"text_config\": {"
      " \"hidden_size\": 768, \"intermediate_size\": 3072, \"num_attention_heads\": 12,"
      " \"eos_token_id\": 2}, \"vision_config\": {\"hidden_size\": 1024}}");
  put_tensors(fixture, "Open_Sora_v2.safetensors", mmdit);
  put_tensors(fixture, "hunyuan_vae.safetensors", hub_vae_tensors);
}

static void
test_hub(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  /* Somebody else's config.json changes nothing. */
  put(fixture, "config.json", "{\"_class_name\": \"Pipeline\"}");
  g_autoptr(OsrModelDir) dir = open_ok(fixture);

  g_assert_cmpstr(dir->family, ==, "open-sora-v2");
  assert_in(fixture, dir->mmdit_path, "Open_Sora_v2.safetensors");
  assert_in(fixture, dir->vae_path, "hunyuan_vae.safetensors");
  assert_in(fixture, dir->t5_weights, "google/t5-v1_1-xxl/model.safetensors.index.json");
  assert_in(fixture, dir->t5_vocab, "google/t5-v1_1-xxl/spiece.model");
  assert_in(fixture, dir->clip_weights, "openai/clip-vit-large-patch14/model.safetensors");

  const OsrMmditConfig *m = &dir->mmdit;
  g_assert_cmpuint(m->in_channels, ==, 64);
  g_assert_cmpuint(m->vec_in_dim, ==, 768);
  g_assert_cmpuint(m->context_in_dim, ==, 4096);
  g_assert_cmpuint(m->hidden_size, ==, 3072);
  g_assert_cmpfloat(m->mlp_ratio, ==, 4);
  g_assert_cmpuint(m->num_heads, ==, 24);
  g_assert_cmpuint(m->depth, ==, 19);
  g_assert_cmpuint(m->depth_single_blocks, ==, 38);
  g_assert_cmpuint(m->axes_dim[0], ==, 16);
  g_assert_cmpuint(m->axes_dim[2], ==, 56);
  g_assert_true(m->qkv_bias);
  g_assert_false(m->guidance_embed);
  g_assert_true(m->cond_embed);
  g_assert_false(m->fused_qkv);
  g_assert_true(m->use_liger_rope);

  const OsrVaeConfig *v = &dir->vae;
  g_assert_cmpuint(v->in_channels, ==, 3);
  g_assert_cmpuint(v->out_channels, ==, 3);
  g_assert_cmpuint(v->latent_channels, ==, 16);
  g_assert_cmpuint(v->n_blocks, ==, 4);
  g_assert_cmpuint(v->block_out_channels[0], ==, 128);
  g_assert_cmpuint(v->block_out_channels[1], ==, 256);
  g_assert_cmpuint(v->block_out_channels[2], ==, 512);
  g_assert_cmpuint(v->block_out_channels[3], ==, 512);
  g_assert_cmpuint(v->layers_per_block, ==, 2);
  g_assert_true(v->mid_block_add_attention);
  g_assert_cmpfloat(v->scale_factor, ==, 0.476986);

  g_assert_cmpuint(dir->t5.d_model, ==, 4096);
  g_assert_cmpuint(dir->clip.hidden_size, ==, 768);
  g_assert_cmpuint(dir->clip.vocab_size, ==, 49408);
  g_assert_cmpint(dir->clip.eos_token_id, ==, 2);
  g_assert_cmpuint(dir->t5_max_length, ==, 512);
  g_assert_cmpuint(dir->clip_max_length, ==, 77);
  g_assert_cmpuint(dir->sampling.num_frames, ==, 129);
  g_assert_cmpuint(dir->sampling.width, ==, 336);
  g_assert_cmpuint(dir->sampling.height, ==, 192);
  g_assert_cmpuint(dir->fps, ==, 24);
  g_assert_cmpuint(dir->motion_score, ==, 4);
}

static void
test_hub_bad(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  g_autofree char *good = hub_mmdit_tensors(2, 3);
  g_autofree char *t5 = g_build_filename(fixture->path, "google", NULL);
  g_autofree char *vae = g_build_filename(fixture->path, "hunyuan_vae.safetensors", NULL);
  static const struct {
    const char *find, *with, *message;
    gint code;
  } cases[] = {
    { "txt_in.weight", "text_in.weight", "tensor txt_in.weight is missing", OSR_ERROR_NOT_FOUND },
    { "img_in.weight 3072 64", "img_in.weight 3072", "img_in.weight has no usable size 1",
      OSR_ERROR_SHAPE },
    { "query_norm.scale 128", "query_norm.scale 100",
      "Open_Sora_v2.safetensors: mmdit: axes_dim 16, 56, 56", OSR_ERROR_INVALID_FILE },
    { "query_norm.scale 128", "query_norm.scale 64",
      "have to be even and add up to hidden_size 3072 / num_heads 48", OSR_ERROR_INVALID_FILE },
    { "txt_in.weight 3072 4096", "txt_in.weight 3072 2048", "mmdit.context_in_dim: 2048",
      OSR_ERROR_INVALID_FILE },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GString) lines = g_string_new(good);
    g_assert_cmpuint(g_string_replace(lines, cases[i].find, cases[i].with, 1), ==, 1);
    put_tensors(fixture, "Open_Sora_v2.safetensors", lines->str);
    assert_opens_not(fixture, cases[i].code, cases[i].message);
  }
  put_tensors(fixture, "Open_Sora_v2.safetensors", good);
  g_autoptr(OsrModelDir) dir = open_ok(fixture);
  g_assert_cmpuint(dir->mmdit.depth, ==, 2);
  g_assert_cmpuint(dir->mmdit.depth_single_blocks, ==, 3);

  put(fixture, "hunyuan_vae.safetensors", "short");
  assert_opens_not(fixture, OSR_ERROR_INVALID_FILE, "hunyuan_vae.safetensors");
  remove_tree(t5);
  g_remove(vae);
  assert_opens_not(fixture, OSR_ERROR_NOT_FOUND,
                   "missing hunyuan_vae.safetensors, google/t5-v1_1-xxl/config.json, "
                   "google/t5-v1_1-xxl/model.safetensors, google/t5-v1_1-xxl/spiece.model");
}

/* What a download has beside the parts: FLUX.1, taken by name and shape. */
static const char flux_tensors[] = "img_in.weight 3072 64\n"
                                   "vector_in.in_layer.weight 3072 768\n"
                                   "guidance_in.in_layer.weight 3072 256\n"
                                   "txt_in.weight 3072 4096\n"
                                   "double_blocks.0.img_attn.qkv.weight 9216 3072\n"
                                   "double_blocks.0.img_attn.qkv.bias 9216\n"
                                   "double_blocks.0.img_attn.norm.query_norm.scale 128\n"
                                   "double_blocks.0.img_attn.proj.weight 3072 3072\n"
                                   "double_blocks.0.img_mlp.0.weight 12288 3072\n"
                                   "single_blocks.0.linear2.weight 3072 15360\n";

static const char flux_ae_tensors[] = "encoder.conv_in.weight 128 3 3 3\n"
                                      "encoder.down.0.block.0.conv1.weight 128 128 3 3\n"
                                      "encoder.down.0.block.1.conv1.weight 128 128 3 3\n"
                                      "encoder.down.1.block.0.conv1.weight 256 128 3 3\n"
                                      "encoder.down.2.block.0.conv1.weight 512 256 3 3\n"
                                      "encoder.down.3.block.0.conv1.weight 512 512 3 3\n"
                                      "encoder.mid.attn_1.q.weight 512 512 1 1\n"
                                      "decoder.mid.block_1.conv1.weight 512 512 3 3\n"
                                      "decoder.conv_in.weight 512 16 3 3\n"
                                      "decoder.conv_out.weight 3 128 3 3\n";

static void
test_flux(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  put_tensors(fixture, "flux1-dev.safetensors", flux_tensors);
  put_tensors(fixture, "flux1-dev-ae.safetensors", flux_ae_tensors);
  {
    g_autoptr(OsrModelDir) dir = open_ok(fixture);

    assert_in(fixture, dir->flux_path, "flux1-dev.safetensors");
    assert_in(fixture, dir->flux_ae_path, "flux1-dev-ae.safetensors");
    g_assert_null(dir->flux_problem);
    g_assert_true(dir->flux.guidance_embed);
    g_assert_true(dir->flux.fused_qkv);
    g_assert_false(dir->flux.cond_embed);
    g_assert_false(dir->flux.use_liger_rope);
    g_assert_cmpuint(dir->flux_ae.latent_channels, ==, 16);
    g_assert_cmpuint(dir->flux_ae.layers_per_block, ==, 2);
    g_assert_cmpuint(dir->flux_ae.spatial_compression_ratio, ==, 8);
    g_assert_cmpuint(dir->flux_ae.block_out_channels[3], ==, 512);
  }
  /* One that is something else is left out, and says why. */
  put_tensors(fixture, "flux1-dev.safetensors", hub_vae_tensors);
  g_autoptr(OsrModelDir) dir = open_ok(fixture);
  g_assert_null(dir->flux_path);
  g_assert_nonnull(dir->flux_ae_path);
  g_assert_nonnull(strstr(dir->flux_problem, "not a denoiser of FLUX.1, but the autoencoder"));
}

static void
move(const Fixture *fixture, const char *from, const char *to)
{
  g_autofree char *old = g_build_filename(fixture->path, from, NULL);
  g_autofree char *new = g_build_filename(fixture->path, to, NULL);
  g_autofree char *folder = g_path_get_dirname(new);

  g_mkdir_with_parents(folder, 0700);
  g_assert_cmpint(g_rename(old, new), ==, 0);
}

/* Other names and formats of the same. The weights of the text models are not read. */
static void
test_hub_formats(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  move(fixture, "hunyuan_vae.safetensors", "hunyuan_vae.pth");
  move(fixture, "openai/clip-vit-large-patch14/model.safetensors",
       "openai/clip-vit-large-patch14/pytorch_model.bin");
  move(fixture, "google/t5-v1_1-xxl/model.safetensors.index.json",
       "google/t5-v1_1-xxl/pytorch_model.bin.index.json");
  g_autoptr(OsrModelDir) dir = open_ok(fixture);
  assert_in(fixture, dir->vae_path, "hunyuan_vae.pth");
  assert_in(fixture, dir->clip_weights, "openai/clip-vit-large-patch14/pytorch_model.bin");
  assert_in(fixture, dir->t5_weights, "google/t5-v1_1-xxl/pytorch_model.bin.index.json");
}

/* Every part from somewhere else, then all of them and no folder. */
static void
test_parts(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  static const char *const moves[][2] = {
    { "Open_Sora_v2.safetensors", "elsewhere/tuned/step-100.safetensors" },
    { "hunyuan_vae.safetensors", "elsewhere/vae.safetensors" },
    { "google", "elsewhere/google" },
    { "openai", "elsewhere/openai" },
  };
  g_autofree char *mmdit = g_build_filename(fixture->path, "elsewhere", "tuned", NULL);
  g_autofree char *vae = g_build_filename(fixture->path, moves[1][1], NULL);
  g_autofree char *t5 = g_build_filename(fixture->path, moves[2][1], "t5-v1_1-xxl", NULL);
  g_autofree char *clip =
      g_build_filename(fixture->path, moves[3][1], "clip-vit-large-patch14", NULL);
  const char *const places[] = { mmdit, vae, t5, clip };
  const char *given[4] = { NULL };

  for (guint i = 0; i < G_N_ELEMENTS(moves); i++) {
    g_autoptr(GError) error = NULL;

    move(fixture, moves[i][0], moves[i][1]);
    /* The last one leaves nothing in the folder that it could be known by. */
    assert_opens_not(fixture, OSR_ERROR_NOT_FOUND, "missing");
    given[i] = places[i];
    g_autoptr(OsrModelDir) dir =
        osr_model_dir_open_with(i < 3 ? fixture->path : NULL,
                                &(OsrModelParts){ given[0], given[1], given[2], given[3] }, &error);
    g_assert_no_error(error);
    assert_in(fixture, dir->mmdit_path, moves[0][1]);
    g_assert_cmpuint(dir->mmdit.depth, ==, 19);
    g_assert_cmpuint(dir->t5.d_model, ==, 4096);
    g_assert_cmpuint(dir->clip.hidden_size, ==, 768);
    if (i >= 2)
      assert_in(fixture, dir->t5_vocab, "elsewhere/google/t5-v1_1-xxl/spiece.model");
  }
}

/* What a file does not say is taken from the folder's own config. */
static void
test_parts_of_own(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  g_autofree char *mmdit = g_build_filename(fixture->path, "tuned.safetensors", NULL);
  g_autoptr(GError) error = NULL;

  put_tensors(fixture, "tuned.safetensors",
              "img_in.weight 96 64\nvector_in.in_layer.weight 96 48\ntxt_in.weight 96 64\n"
              "cond_in.weight 96 68\ndouble_blocks.0.img_attn.q_proj.weight 96 96\n"
              "double_blocks.0.img_attn.norm.query_norm.scale 32\n"
              "double_blocks.0.img_mlp.0.weight 240 96\n"
              "double_blocks.0.img_attn.proj.weight 96 96\n"
              "single_blocks.0.linear2.weight 96 336\n");
  g_autoptr(OsrModelDir) dir =
      osr_model_dir_open_with(fixture->path, &(OsrModelParts){ .mmdit = mmdit }, &error);
  g_assert_no_error(error);
  assert_in(fixture, dir->mmdit_path, "tuned.safetensors");
  g_assert_cmpuint(dir->mmdit.axes_dim[0], ==, 8);
  g_assert_cmpuint(dir->mmdit.axes_dim[1], ==, 12);
  g_assert_cmpuint(dir->mmdit.depth, ==, 1);
  g_assert_cmpfloat(dir->mmdit.mlp_ratio, ==, 2.5);
  g_assert_false(dir->mmdit.qkv_bias);
  g_assert_cmpuint(dir->t5_max_length, ==, 40);
}

static void
assert_part_not(const Fixture *fixture, const OsrModelParts *parts, gint code, const char *message)
{
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_model_dir_open_with(fixture->path, parts, &error));
  g_assert_error(error, OSR_ERROR, code);
  if (!strstr(error->message, message))
    g_error("\"%s\" does not say \"%s\"", error->message, message);
}

static void
test_parts_bad(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  g_autofree char *folder = g_build_filename(fixture->path, "two", NULL);
  g_autofree char *vae = g_build_filename(fixture->path, "hunyuan_vae.safetensors", NULL);

  put(fixture, "two/a.safetensors", "");
  put(fixture, "two/b.pt", "");
  assert_part_not(fixture, &(OsrModelParts){ .mmdit = "/nowhere/x.safetensors" },
                  OSR_ERROR_NOT_FOUND, "mmdit: /nowhere/x.safetensors: there is no such file");
  assert_part_not(fixture, &(OsrModelParts){ .vae = folder }, OSR_ERROR_NOT_FOUND,
                  "nor a single file of weights; the folder has a.safetensors, b.pt");
  assert_part_not(fixture, &(OsrModelParts){ .mmdit = vae }, OSR_ERROR_INVALID_FILE,
                  "not a denoiser of Open-Sora 2.0, but the autoencoder of Open-Sora 2.0");
}

/* Folders that people take for a model's. */
static void
test_wrong_folder(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  g_autofree char *t5 = g_build_filename(fixture->path, "t5", NULL);
  g_autofree char *file = g_build_filename(fixture->path, "config.json", NULL);
  Fixture folder = { t5 };

  assert_opens_not(&folder, OSR_ERROR_NOT_FOUND,
                   "missing config.json with a \"family\" (or, for a download of Open-Sora 2.0, "
                   "Open_Sora_v2.safetensors); this is one model of type 't5', and the folder has "
                   "config.json, model.safetensors, spiece.model");
  put(fixture, "t5/model_index.json", "{}");
  assert_opens_not(&folder, OSR_ERROR_NOT_FOUND, "this is a pipeline of diffusers");
  folder.path = file;
  assert_opens_not(&folder, OSR_ERROR_NOT_FOUND, "a file; the folder of a whole model is needed");
  g_unlink(file);
  assert_opens_not(fixture, OSR_ERROR_NOT_FOUND, "the folder has clip/, mmdit.safetensors, t5/");
}

/* The shapes of a few tensors are right, the rest is not there. */
static void
test_inspect(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  g_autofree char *more = g_strconcat(hub_vae_tensors, "encoder.strange.weight 3\n", NULL);
  g_autoptr(OsrPartInfo) info = NULL;
  g_autoptr(GError) error = NULL;

  put_tensors(fixture, "hunyuan_vae.safetensors", more);
  g_autoptr(OsrModelDir) dir = open_ok(fixture);
  info = osr_model_dir_inspect(dir, OSR_PART_VAE, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpstr(info->format, ==, "safetensors");
  g_assert_cmpuint(info->n_tensors, ==, 10);
  g_assert_cmpuint(info->by_dtype[OSR_DTYPE_BF16], ==, info->n_parameters);
  g_assert_cmpuint(info->n_bytes, ==, 2 * info->n_parameters);
  g_assert_cmpuint(info->files->len, ==, 1);
  g_assert_cmpuint(info->missing->len, >, 100);
  g_assert_cmpuint(info->misfits->len, ==, 0);
  g_assert_cmpuint(info->unused->len, ==, 1);
  g_assert_cmpstr(g_ptr_array_index(info->unused, 0), ==, "encoder.strange.weight");
  g_assert_false(osr_part_info_check(info, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND);
  g_assert_nonnull(strstr(error->message, "hunyuan_vae.safetensors: missing tensors: "));
  g_assert_null(osr_model_dir_inspect(dir, OSR_PART_FLUX, NULL, NULL));
}

static void
test_default_path(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  g_autofree char *before = g_strdup(g_getenv("OPENSORA_MODEL"));

  g_setenv("OPENSORA_MODEL", fixture->path, TRUE);
  g_autofree char *path = osr_model_dir_default_path();
  g_assert_cmpstr(path, ==, fixture->path);
  g_autoptr(OsrModelDir) dir = osr_model_dir_open(NULL, NULL);
  g_assert_nonnull(dir);
  g_assert_cmpstr(dir->path, ==, fixture->path);

  /* The place of the installed one, whether there is any or not. */
  g_unsetenv("OPENSORA_MODEL");
  g_autofree char *tiny = osr_model_dir_default_path();
  g_assert_true(g_path_is_absolute(tiny));
  g_assert_true(g_str_has_suffix(tiny, "/opensora/tiny-model"));
  if (before != NULL)
    g_setenv("OPENSORA_MODEL", before, TRUE);
}

static void
add(const char *name, void (*start)(Fixture *, gconstpointer),
    void (*test)(Fixture *, gconstpointer))
{
  g_test_add(name, Fixture, NULL, start, test, tear_down);
}

/* Models of pictures */

static OsrModelDir *
open_image(const Fixture *fixture)
{
  g_autofree char *path = g_strconcat(OSR_MODEL_DIR_IMAGE, fixture->path, NULL);
  g_autoptr(GError) error = NULL;
  OsrModelDir *dir = osr_model_dir_open(path, &error);

  g_assert_no_error(error);
  g_assert_nonnull(dir);
  return dir;
}

static void
assert_no_image(const Fixture *fixture, gint code, const char *message)
{
  g_autofree char *path = g_strconcat(OSR_MODEL_DIR_IMAGE, fixture->path, NULL);
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_model_dir_open(path, &error));
  g_assert_error(error, OSR_ERROR, code);
  if (!strstr(error->message, message) || !strstr(error->message, fixture->path))
    g_error("\"%s\" does not say \"%s\" or not where", error->message, message);
}

#define IMAGE_MMDIT                                                                                \
  "\"mmdit\": {\"weights\": \"picture.safetensors\", \"in_channels\": 64, \"vec_in_dim\": 48,"     \
  " \"context_in_dim\": 64, \"hidden_size\": 32, \"num_heads\": 2, \"depth\": 1,"                  \
  " \"depth_single_blocks\": 2, \"axes_dim\": [4, 6, 6], \"guidance_embed\": true}"
#define IMAGE_VAE                                                                                  \
  "\"vae\": {\"type\": \"autoencoder_2d\", \"weights\": \"ae.safetensors\", \"ch\": 32,"           \
  " \"ch_mult\": [1, 2, 2, 4]}"

/* Beside a model of video, with its text encoders. */
static void
test_image_section(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  assert_no_image(fixture, OSR_ERROR_NOT_FOUND, "config.json has no section \"image\"");
  put(fixture, "picture.safetensors", "");
  put(fixture, "ae.safetensors", "");
  edit(fixture, "config.json", "\"family\"",
       "\"image\": {" IMAGE_MMDIT ", " IMAGE_VAE ", \"sampling\": {\"width\": 64}}, \"family\"");
  g_autoptr(OsrModelDir) video = open_ok(fixture);
  g_autoptr(OsrModelDir) dir = open_image(fixture);

  g_assert_cmpstr(video->family, ==, "open-sora-v2");
  g_assert_cmpuint(video->mmdit.hidden_size, ==, 96);
  g_assert_cmpstr(dir->path, ==, fixture->path);
  g_assert_cmpstr(dir->family, ==, "flux");
  g_assert_cmpstr(dir->name, ==, "test");
  assert_in(fixture, dir->mmdit_path, "picture.safetensors");
  assert_in(fixture, dir->vae_path, "ae.safetensors");
  assert_in(fixture, dir->t5_weights, "t5/model.safetensors");
  g_assert_true(osr_model_dir_has_text(dir));
  g_assert_cmpuint(dir->mmdit.hidden_size, ==, 32);
  g_assert_cmpint(dir->vae.type, ==, OSR_VAE_FLUX);
  g_assert_cmpuint(dir->vae.block_out_channels[3], ==, 128);
  g_assert_cmpuint(dir->t5.d_model, ==, 64);
  g_assert_cmpuint(dir->sampling.width, ==, 64);
  g_assert_cmpuint(dir->sampling.height, ==, 576);
  g_assert_cmpuint(dir->sampling.num_frames, ==, 1);
  g_assert_cmpfloat(dir->sampling.guidance, ==, 4);
  g_assert_false(dir->sampling.text_osci);
}

static void
test_image_bad(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  static const char good[] =
      "{\"family\": \"flux\", " IMAGE_MMDIT ", " IMAGE_VAE ", \"clip\": {\"max_length\": 24},"
      " \"sampling\": {\"num_steps\": 4}}";
  static const struct {
    const char *find, *with, *message;
    gint code;
  } cases[] = {
    { "true", "false", "one like FLUX.1-dev", OSR_ERROR_UNSUPPORTED },
    { "\"guidance_embed\"", "\"cond_embed\": true, \"guidance_embed\"", "one like FLUX.1-dev",
      OSR_ERROR_UNSUPPORTED },
    { "autoencoder_2d", "autoencoder_2e", "vae.type: \"autoencoder_2e\" is neither",
      OSR_ERROR_INVALID_FILE },
    { "\"in_channels\": 64", "\"in_channels\": 128", "mmdit.in_channels: 128 is not 64",
      OSR_ERROR_INVALID_FILE },
    { "\"context_in_dim\": 64", "\"context_in_dim\": 65", "65 is not T5's d_model, 64",
      OSR_ERROR_INVALID_FILE },
    { "\"num_steps\": 4", "\"num_frames\": 5", "sampling: 5 frames are not possible",
      OSR_ERROR_INVALID_FILE },
  };

  put(fixture, "picture.safetensors", "");
  put(fixture, "ae.safetensors", "");
  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    put(fixture, "config.json", good);
    edit(fixture, "config.json", cases[i].find, cases[i].with);
    assert_no_image(fixture, cases[i].code, cases[i].message);
    assert_opens_not(fixture, cases[i].code, cases[i].message);
  }

  /* Without text encoders the folder is still one; with half of them it is not. */
  put(fixture, "config.json", good);
  edit(fixture, "config.json", "\"family\"", "\"t5\": {\"path\": \"no\"}, \"family\"");
  assert_opens_not(fixture, OSR_ERROR_NOT_FOUND, "no/config.json");
  edit(fixture, "config.json", "\"clip\": {", "\"clip\": {\"path\": \"no\", ");
  g_autoptr(OsrModelDir) dir = open_ok(fixture);
  g_assert_false(osr_model_dir_has_text(dir));
  edit(fixture, "config.json", "ae.safetensors", "other.safetensors");
  assert_opens_not(fixture, OSR_ERROR_NOT_FOUND, "missing other.safetensors");
}

/* The tensors of flux1-dev.safetensors and flux1-dev-ae.safetensors that tell their dimensions. */
static const char hub_flux_tensors[] = "img_in.weight 3072 64\n"
                                       "vector_in.in_layer.weight 3072 768\n"
                                       "txt_in.weight 3072 4096\n"
                                       "guidance_in.in_layer.weight 3072 256\n"
                                       "double_blocks.0.img_attn.qkv.weight 9216 3072\n"
                                       "double_blocks.0.img_attn.qkv.bias 9216\n"
                                       "double_blocks.0.img_attn.proj.weight 3072 3072\n"
                                       "double_blocks.0.img_attn.norm.query_norm.scale 128\n"
                                       "double_blocks.0.img_mlp.0.weight 12288 3072\n"
                                       "single_blocks.0.linear2.weight 3072 15360\n"
                                       "single_blocks.1.linear2.weight 3072 15360\n";

static const char hub_ae_tensors[] = "encoder.conv_in.weight 128 3 3 3\n"
                                     "encoder.down.0.block.0.conv1.weight 128 128 3 3\n"
                                     "encoder.down.0.block.1.conv1.weight 128 128 3 3\n"
                                     "encoder.down.1.block.0.conv1.weight 256 128 3 3\n"
                                     "encoder.down.2.block.0.conv1.weight 512 256 3 3\n"
                                     "encoder.down.3.block.0.conv1.weight 512 512 3 3\n"
                                     "decoder.conv_in.weight 512 16 3 3\n"
                                     "decoder.conv_out.weight 3 128 3 3\n";

static void
test_hub_image(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  assert_no_image(fixture, OSR_ERROR_NOT_FOUND,
                  "no model of pictures in it: missing flux1-dev.safetensors");
  put_tensors(fixture, "flux1-dev.safetensors", hub_flux_tensors);
  assert_no_image(fixture, OSR_ERROR_NOT_FOUND, "missing flux1-dev-ae.safetensors");
  put_tensors(fixture, "flux1-dev-ae.safetensors", hub_ae_tensors);
  g_autoptr(OsrModelDir) video = open_ok(fixture);
  g_autoptr(OsrModelDir) dir = open_image(fixture);

  g_assert_cmpstr(video->family, ==, "open-sora-v2");
  g_assert_true(video->mmdit.use_liger_rope);
  g_assert_cmpstr(dir->family, ==, "flux");
  assert_in(fixture, dir->mmdit_path, "flux1-dev.safetensors");
  assert_in(fixture, dir->vae_path, "flux1-dev-ae.safetensors");
  assert_in(fixture, dir->t5_vocab, "google/t5-v1_1-xxl/spiece.model");
  g_assert_cmpuint(dir->mmdit.depth, ==, 1);
  g_assert_cmpuint(dir->mmdit.depth_single_blocks, ==, 2);
  g_assert_cmpuint(dir->mmdit.num_heads, ==, 24);
  g_assert_cmpuint(dir->mmdit.axes_dim[2], ==, 56);
  g_assert_true(dir->mmdit.guidance_embed);
  g_assert_true(dir->mmdit.fused_qkv);
  g_assert_true(dir->mmdit.qkv_bias);
  g_assert_false(dir->mmdit.use_liger_rope);
  g_assert_cmpuint(dir->vae.n_blocks, ==, 4);
  g_assert_cmpuint(dir->vae.layers_per_block, ==, 2);
  g_assert_cmpuint(dir->vae.block_out_channels[1], ==, 256);
  g_assert_cmpuint(dir->vae.spatial_compression_ratio, ==, 8);
  g_assert_cmpfloat(dir->vae.scale_factor, ==, 0.3611);
  g_assert_cmpuint(dir->sampling.width, ==, 1024);
}

/* Alone in a folder, by the names of its authors. */
static void
test_flux_alone(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
  g_autoptr(OsrModelDir) dir = NULL;
  g_autofree char *config_path = g_build_filename(fixture->path, "config.json", NULL);

  g_remove(config_path);
  put_tensors(fixture, "flux1-dev.safetensors", hub_flux_tensors);
  put_tensors(fixture, "ae.safetensors", hub_ae_tensors);
  dir = open_ok(fixture);
  g_assert_cmpstr(dir->family, ==, "flux");
  assert_in(fixture, dir->vae_path, "ae.safetensors");
  g_assert_false(osr_model_dir_has_text(dir));
  g_assert_cmpuint(dir->t5.d_model, ==, 4096);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  add("/model-dir/own", set_up, test_own);
  add("/model-dir/defaults", set_up, test_defaults);
  add("/model-dir/bad-values", set_up, test_bad_values);
  add("/model-dir/large-patch", set_up, test_large_patch);
  add("/model-dir/deep-config", set_up, test_deep_config);
  add("/model-dir/missing", set_up, test_missing);
  add("/model-dir/sharded-t5", set_up, test_sharded_t5);
  add("/model-dir/default-path", set_up, test_default_path);
  add("/model-dir/hub", set_up_hub, test_hub);
  add("/model-dir/hub-bad", set_up_hub, test_hub_bad);
  add("/model-dir/image", set_up, test_image_section);
  add("/model-dir/image-bad", set_up, test_image_bad);
  add("/model-dir/hub-image", set_up_hub, test_hub_image);
  add("/model-dir/flux-alone", set_up, test_flux_alone);
  add("/model-dir/hub-formats", set_up_hub, test_hub_formats);
  add("/model-dir/flux", set_up_hub, test_flux);
  add("/model-dir/parts", set_up_hub, test_parts);
  add("/model-dir/parts-of-own", set_up, test_parts_of_own);
  add("/model-dir/parts-bad", set_up_hub, test_parts_bad);
  add("/model-dir/wrong-folder", set_up, test_wrong_folder);
  add("/model-dir/inspect", set_up_hub, test_inspect);
  return g_test_run();
}
