/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "part.h"

#include <string.h>

#include "checkpoint-private.h"
#include "error.h"

#define MAX_MARKS 4

/* How the tensors of a part are known. */
typedef struct {
  const char *name, *what;
  /* Any of them is in every file of the part, as the end of a name. */
  const char *marks[MAX_MARKS];
  /* Prefix of our names that some files leave out, NULL if there is none; then the marks come
   * without it. Names of @kept have none in either case. */
  const char *dropped, *kept;
  /* Prefixes after the file's own: all that belongs to the part, NULL for everything. */
  const char *members[3];
} Kind;

static const Kind kinds[OSR_N_PARTS] = {
  [OSR_PART_MMDIT] = { "mmdit",
                       "a denoiser of Open-Sora 2.0",
                       { "double_blocks.0.img_attn.qkv.weight",
                         "double_blocks.0.img_attn.q_proj.weight", "single_blocks.0.linear2.weight",
                         "final_layer.linear.weight" } },
  [OSR_PART_VAE] = { "vae",
                     "an autoencoder of Open-Sora 2.0",
                     { "decoder.conv_in.conv.weight", "encoder.conv_in.conv.weight" } },
  [OSR_PART_T5] = { "t5",
                    "a T5 encoder",
                    { "block.0.layer.0.SelfAttention.q.weight" },
                    "encoder.",
                    "shared.",
                    { "encoder.", "shared." } },
  [OSR_PART_CLIP] = { "clip",
                      "a CLIP text encoder",
                      { "embeddings.token_embedding.weight" },
                      "text_model.",
                      NULL,
                      { "text_model." } },
  [OSR_PART_FLUX] = { "flux", "a denoiser of FLUX.1", { "double_blocks.0.img_attn.qkv.weight" } },
  [OSR_PART_FLUX_AE] = { "flux-ae",
                         "the autoencoder of FLUX.1",
                         { "encoder.down.0.block.0.conv1.weight",
                           "decoder.mid.block_1.conv1.weight" } },
};

/* Tensors that tell what a file is, the most telling first. */
static const struct {
  const char *piece, *what;
} telltales[] = {
  { ".lora_A.", "a LoRA adapter" },
  { "lora_down.", "a LoRA adapter (not of PEFT)" },
  { "single_transformer_blocks.", "a denoiser with the names of diffusers, not of its authors" },
  { "transformer_blocks.", "a denoiser with the names of diffusers, not of its authors" },
  { "img_attn_qkv.", "the denoiser of HunyuanVideo" },
  { "double_blocks.", "a denoiser of the FLUX family" },
  { "spatial_blocks.", "a denoiser of Open-Sora 1" },
  { "cross_attn.norm_k.", "the denoiser of Wan" },
  { "input_blocks.", "a Stable Diffusion model" },
  { ".SelfAttention.q.weight", "a T5 model" },
  { "embeddings.token_embedding.", "a CLIP model" },
  { "resblocks.0.attn.in_proj_weight", "a CLIP model with the names of OpenAI" },
  { "decoder.mid.block_1.", "a 2D autoencoder (FLUX.1, Stable Diffusion)" },
  { "decoder.conv_in.conv.", "the autoencoder of Open-Sora 2.0" },
  { "decoder.mid_block.", "an autoencoder with the names of diffusers" },
};

const char *
osr_part_name(OsrPart part)
{
  g_return_val_if_fail((guint) part < OSR_N_PARTS, NULL);
  return kinds[part].name;
}

static const char *
identify(OsrCheckpoint *checkpoint)
{
  for (guint i = 0; i < G_N_ELEMENTS(telltales); i++)
    for (guint j = 0; j < checkpoint->entries->len; j++)
      if (strstr(osr_checkpoint_nth(checkpoint, j)->name, telltales[i].piece))
        return telltales[i].what;
  return NULL;
}

static gboolean
fail_kind(const Kind *kind, OsrCheckpoint *checkpoint, GError **error)
{
  const char *is = identify(checkpoint);
  g_autofree char *first =
      checkpoint->entries->len > 0 ? osr_printable(osr_checkpoint_nth(checkpoint, 0)->name) : NULL;

  if (is)
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: not %s, but %s by its tensors",
                checkpoint->path, kind->what, is);
  else
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
                "%s: not %s: there is no tensor '%s', but %u others%s%s%s", checkpoint->path,
                kind->what, kind->marks[0], checkpoint->entries->len, first ? ", '" : "",
                first ? first : "", first ? "' for one" : "");
  return FALSE;
}

/* What a tensor's name has before one of the marks; NULL if it does not end in any. */
static char *
prefix_of(const Kind *kind, const char *name)
{
  for (guint i = 0; i < MAX_MARKS && kind->marks[i]; i++) {
    gsize length = strlen(name), mark = strlen(kind->marks[i]);

    if (length >= mark && g_str_equal(name + length - mark, kind->marks[i]) &&
        (length == mark || name[length - mark - 1] == '.'))
      return g_strndup(name, length - mark);
  }
  return NULL;
}

/* Of T5, both halves have the marks. */
static gboolean
is_other_half(const Kind *kind, const char *prefix)
{
  return kind->kept && (g_str_equal(prefix, "decoder.") || g_str_has_suffix(prefix, ".decoder."));
}

/* What the names of the part begin with in the file, *dropped if without our own prefix. Of
 * several copies the one without any prefix counts. */
static char *
find_prefix(const Kind *kind, OsrCheckpoint *checkpoint, gboolean *dropped, GError **error)
{
  g_autofree char *found = NULL;

  for (guint i = 0; i < checkpoint->entries->len; i++) {
    g_autofree char *prefix = prefix_of(kind, osr_checkpoint_nth(checkpoint, i)->name);

    if (!prefix || is_other_half(kind, prefix) || g_strcmp0(found, prefix) == 0)
      continue;
    if (found && *found != '\0' && *prefix != '\0') {
      g_autofree char *one = osr_printable(found), *two = osr_printable(prefix);

      g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
                  "%s: it has %s several times, in '%s' and in '%s'", checkpoint->path, kind->what,
                  one, two);
      return NULL;
    }
    if (!found || *prefix == '\0') {
      g_free(found);
      found = g_steal_pointer(&prefix);
    }
  }
  if (!found) {
    fail_kind(kind, checkpoint, error);
    return NULL;
  }
  *dropped = kind->dropped && !g_str_has_suffix(found, kind->dropped);
  if (kind->dropped && !*dropped)
    found[strlen(found) - strlen(kind->dropped)] = '\0';
  return g_steal_pointer(&found);
}

/* Our name of a tensor, NULL if it is not of the part. */
static char *
our_name(const Kind *kind, const char *prefix, gboolean dropped, const char *name)
{
  g_autofree char *ours = NULL;

  if (!g_str_has_prefix(name, prefix))
    return NULL;
  name += strlen(prefix);
  if (dropped && !(kind->kept && g_str_has_prefix(name, kind->kept)))
    ours = g_strconcat(kind->dropped, name, NULL);
  else
    ours = g_strdup(name);
  if (!kind->members[0])
    return g_steal_pointer(&ours);
  for (guint i = 0; i < G_N_ELEMENTS(kind->members) && kind->members[i]; i++)
    if (g_str_has_prefix(ours, kind->members[i]))
      return g_steal_pointer(&ours);
  return NULL;
}

static void
entry_free(gpointer data)
{
  OsrCheckpointEntry *entry = data;

  g_free((char *) entry->name);
  g_free(entry);
}

OsrCheckpoint *
osr_part_select(OsrPart part, OsrCheckpoint *checkpoint, GError **error)
{
  const Kind *kind = &kinds[part];
  g_autofree char *prefix = NULL;
  g_autoptr(OsrCheckpoint) view = NULL;
  gboolean dropped = FALSE;

  g_return_val_if_fail((guint) part < OSR_N_PARTS && checkpoint != NULL, NULL);

  prefix = find_prefix(kind, checkpoint, &dropped, error);
  if (!prefix)
    return NULL;
  view = osr_checkpoint_new(checkpoint->path, NULL);
  view->shards = g_ptr_array_new_with_free_func((GDestroyNotify) osr_checkpoint_unref);
  g_ptr_array_add(view->shards, osr_checkpoint_ref(checkpoint));
  g_hash_table_unref(view->metadata);
  view->metadata = g_hash_table_ref(checkpoint->metadata);
  g_ptr_array_set_free_func(view->entries, entry_free);
  for (guint i = 0; i < checkpoint->entries->len; i++) {
    const OsrCheckpointEntry *entry = osr_checkpoint_nth(checkpoint, i);
    g_autofree char *name = our_name(kind, prefix, dropped, entry->name);
    OsrCheckpointEntry *ours;

    if (!name)
      continue;
    ours = g_memdup2(entry, sizeof *entry);
    ours->name = g_steal_pointer(&name);
    g_ptr_array_add(view->entries, ours);
    g_hash_table_insert(view->by_name, (char *) ours->name, ours);
  }
  return g_steal_pointer(&view);
}

OsrCheckpoint *
osr_part_open(OsrPart part, const char *path, GError **error)
{
  g_autoptr(OsrCheckpoint) checkpoint = osr_checkpoint_open(path, error);

  return checkpoint ? osr_part_select(part, checkpoint, error) : NULL;
}
