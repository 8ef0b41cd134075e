/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* model-inspect.c: what the parts of a model are made of. */
#include "error.h"
#include "model-dir.h"

#define MAX_NAMED 3

const char *
osr_model_dir_get_weights(const OsrModelDir *dir, OsrPart part)
{
  switch (part) {
  case OSR_PART_MMDIT:
    return dir->mmdit_path;
  case OSR_PART_VAE:
    return dir->vae_path;
  case OSR_PART_T5:
    return osr_model_dir_has_text(dir) ? dir->t5_weights : NULL;
  case OSR_PART_CLIP:
    return osr_model_dir_has_text(dir) ? dir->clip_weights : NULL;
  case OSR_PART_FLUX:
    return dir->flux_path;
  case OSR_PART_FLUX_AE:
    return dir->flux_ae_path;
  case OSR_N_PARTS:
    break;
  }
  g_return_val_if_reached(NULL);
}

OsrCheckpoint *
osr_model_dir_open_part(const OsrModelDir *dir, OsrPart part, GError **error)
{
  const char *path = osr_model_dir_get_weights(dir, part);

  if (!path) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "Model folder %s: there is no %s", dir->path,
                osr_part_name(part));
    return NULL;
  }
  if (part == OSR_PART_VAE && dir->vae.type == OSR_VAE_FLUX)
    part = OSR_PART_FLUX_AE;
  return osr_part_open(part, path, error);
}

/* The part's own load() with a loader that only looks. */
static gboolean
try_load(const OsrModelDir *dir, OsrPart part, OsrLoader *loader, GError **error)
{
  switch (part) {
  case OSR_PART_MMDIT:
  case OSR_PART_FLUX: {
    g_autoptr(OsrMmdit) mmdit =
        osr_mmdit_load(part == OSR_PART_FLUX ? &dir->flux : &dir->mmdit, loader, error);
    return mmdit != NULL;
  }
  case OSR_PART_VAE:
  case OSR_PART_FLUX_AE: {
    g_autoptr(OsrVae) vae = osr_vae_load(part == OSR_PART_FLUX_AE ? &dir->flux_ae : &dir->vae, TRUE,
                                         TRUE, loader, error);
    return vae != NULL;
  }
  case OSR_PART_T5: {
    g_autoptr(OsrT5) t5 = osr_t5_load(&dir->t5, loader, error);
    return t5 != NULL;
  }
  case OSR_PART_CLIP: {
    g_autoptr(OsrClip) clip = osr_clip_load(&dir->clip, loader, error);
    return clip != NULL;
  }
  case OSR_N_PARTS:
    break;
  }
  g_return_val_if_reached(FALSE);
}

static void
add_once(GPtrArray *strings, const char *string)
{
  if (!g_ptr_array_find_with_equal_func(strings, string, g_str_equal, NULL))
    g_ptr_array_add(strings, g_strdup(string));
}

/* Factors of FP8 weights are read with these. */
static gboolean
is_scale(OsrCheckpoint *checkpoint, const OsrCheckpointEntry *entry)
{
  for (guint i = 0; i < osr_checkpoint_n_entries(checkpoint); i++) {
    const OsrCheckpointEntry *scale = osr_checkpoint_nth(checkpoint, i)->scale;

    if (scale && scale->data == entry->data)
      return TRUE;
  }
  return FALSE;
}

static void
add_up(OsrPartInfo *info, OsrCheckpoint *checkpoint, const OsrLoaderCheck *check)
{
  info->n_tensors = osr_checkpoint_n_entries(checkpoint);
  for (guint i = 0; i < info->n_tensors; i++) {
    const OsrCheckpointEntry *entry = osr_checkpoint_nth(checkpoint, i);
    guint64 n = entry->size / osr_dtype_size(entry->dtype);

    info->n_parameters += n;
    info->n_bytes += entry->size;
    info->by_dtype[entry->dtype] += n;
    add_once(info->files, entry->path);
    if (!g_hash_table_contains(check->used, entry->name) && !is_scale(checkpoint, entry))
      g_ptr_array_add(info->unused, g_strdup(entry->name));
  }
}

OsrPartInfo *
osr_model_dir_inspect(const OsrModelDir *dir, OsrPart part, OsrLoras *loras, GError **error)
{
  g_autoptr(OsrPartInfo) info = NULL;
  g_autoptr(OsrCheckpoint) checkpoint = osr_model_dir_open_part(dir, part, error);
  g_autoptr(OsrDevice) device = NULL;
  g_autoptr(OsrLoaderCheck) check = NULL;
  g_autoptr(GError) problem = NULL;
  OsrLoader loader;

  /* Models hold a device, though nothing is put on it. */
  device = checkpoint ? osr_device_get("ref", error) : NULL;
  if (!device)
    return NULL;
  check = osr_loader_check_new();
  osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
  loader.check = check;
  loader.loras = loras;
  if (!try_load(dir, part, &loader, &problem))
    g_ptr_array_add(check->misfits, g_strdup(problem->message));

  info = g_new0(OsrPartInfo, 1);
  info->part = part;
  info->path = g_strdup(osr_model_dir_get_weights(dir, part));
  info->format = osr_checkpoint_get_format(checkpoint);
  info->files = g_ptr_array_new_with_free_func(g_free);
  info->unused = g_ptr_array_new_with_free_func(g_free);
  info->missing = g_ptr_array_ref(check->missing);
  info->misfits = g_ptr_array_ref(check->misfits);
  add_up(info, checkpoint, check);
  return g_steal_pointer(&info);
}

static void
append_list(GString *text, const char *title, const GPtrArray *strings)
{
  if (strings->len == 0)
    return;
  g_string_append_printf(text, "%s%s", text->len > 0 ? "; " : "", title);
  for (guint i = 0; i < MIN(strings->len, MAX_NAMED); i++)
    g_string_append_printf(text, "%s%s", i > 0 ? ", " : "",
                           (const char *) g_ptr_array_index(strings, i));
  if (strings->len > MAX_NAMED)
    g_string_append_printf(text, " and %u more", strings->len - MAX_NAMED);
}

gboolean
osr_part_info_check(const OsrPartInfo *info, GError **error)
{
  g_autoptr(GString) text = g_string_new(NULL);

  append_list(text, "missing tensors: ", info->missing);
  append_list(text, "", info->misfits);
  if (text->len == 0)
    return TRUE;
  g_set_error(error, OSR_ERROR, info->missing->len > 0 ? OSR_ERROR_NOT_FOUND : OSR_ERROR_SHAPE,
              "%s: %s", info->path, text->str);
  return FALSE;
}

void
osr_part_info_free(OsrPartInfo *info)
{
  if (!info)
    return;
  g_free(info->path);
  g_ptr_array_unref(info->files);
  g_ptr_array_unref(info->unused);
  g_ptr_array_unref(info->missing);
  g_ptr_array_unref(info->misfits);
  g_free(info);
}
