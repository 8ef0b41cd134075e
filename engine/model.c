/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "log-private.h"

/* Embeddings kept; those of Open-Sora 2.0 take 4 MiB each in bf16. */
#define MAX_TEXTS 8
/* How often a thread that waits for another's load looks at its cancellable. */
#define WAIT_US (20 * G_TIME_SPAN_MILLISECOND)

typedef enum {
  PART_MMDIT,
  PART_VAE_ENCODER,
  PART_VAE_DECODER,
  PART_T5,
  PART_T5_TOKENIZER,
  PART_CLIP,
  PART_CLIP_TOKENIZER,
  N_PARTS
} PartId;

typedef struct {
  gpointer object;  /* NULL: not loaded */
  gboolean loading; /* by some thread */
} Part;

typedef struct {
  char *text;
  OsrTensor *txt, *vec;
  guint truncated;
} Text;

struct _OsrModel {
  gint ref_count;
  char *key;
  OsrModelDir *dir;
  OsrLoras *loras; /* NULL: none */
  gboolean check_weights;
  OsrDevice *device;
  OsrDType dtype;
  gboolean tf32, fp8;
  OsrOffload offload;
  GMutex lock;
  GCond loaded; /* a part has been, or failed */
  Part parts[N_PARTS];
  GQueue texts; /* Text, last used first */
};

G_DEFINE_BOXED_TYPE(OsrModel, osr_model, osr_model_ref, osr_model_unref)

static GMutex models_lock;
static GHashTable *models; /* key -> OsrModel, without references */

/* Loading */

typedef gpointer (*LoadWeights)(OsrModel *model, OsrLoader *loader, GError **error);

static gpointer
load_weights(OsrModel *model, OsrPart id, LoadWeights load, GCancellable *cancellable,
             GError **error)
{
  const char *path = osr_model_dir_get_weights(model->dir, id);
  g_autoptr(OsrCheckpoint) checkpoint = osr_model_dir_open_part(model->dir, id, error);
  gint64 start = g_get_monotonic_time();
  OsrLoader loader;
  gpointer part;

  if (!checkpoint)
    return NULL;
  osr_loader_init(&loader, checkpoint, model->device, model->dtype, cancellable);
  loader.tf32 = model->tf32;
  loader.loras = id == OSR_PART_MMDIT ? model->loras : NULL;
  loader.check_weights = model->check_weights;
  loader.fp8 = model->fp8 && (id == OSR_PART_MMDIT || id == OSR_PART_T5);
  loader.stream = model->offload == OSR_OFFLOAD_LAYER;
  part = load(model, &loader, error);
  if (part)
    osr_debug("%s: %" G_GUINT64_FORMAT " parameters, %" G_GUINT64_FORMAT " bytes in %.2f s", path,
              loader.n_parameters, loader.n_bytes, (g_get_monotonic_time() - start) * 1e-6);
  return part;
}

static gpointer
mmdit_weights(OsrModel *model, OsrLoader *loader, GError **error)
{
  return osr_mmdit_load(&model->dir->mmdit, loader, error);
}

static gpointer
vae_encoder_weights(OsrModel *model, OsrLoader *loader, GError **error)
{
  return osr_vae_load(&model->dir->vae, TRUE, FALSE, loader, error);
}

static gpointer
vae_decoder_weights(OsrModel *model, OsrLoader *loader, GError **error)
{
  return osr_vae_load(&model->dir->vae, FALSE, TRUE, loader, error);
}

static gpointer
t5_weights(OsrModel *model, OsrLoader *loader, GError **error)
{
  return osr_t5_load(&model->dir->t5, loader, error);
}

static gpointer
clip_weights(OsrModel *model, OsrLoader *loader, GError **error)
{
  return osr_clip_load(&model->dir->clip, loader, error);
}

/* The ids of a tokenizer index the rows of an embedding. Takes @tokenizer. */
static OsrTokenizer *
check_vocab(OsrTokenizer *tokenizer, const char *path, guint n_rows, const char *model,
            GError **error)
{
  guint n_tokens;

  if (!tokenizer)
    return NULL;
  n_tokens = osr_tokenizer_vocab_size(tokenizer);
  if (n_tokens <= n_rows)
    return tokenizer;
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
              "%s: the tokenizer has %u tokens, %s's config.json a vocab_size of %u", path,
              n_tokens, model, n_rows);
  osr_tokenizer_free(tokenizer);
  return NULL;
}

static gpointer
load_part(OsrModel *model, PartId id, GCancellable *cancellable, GError **error)
{
  const OsrModelDir *dir = model->dir;

  switch (id) {
  case PART_MMDIT:
    return load_weights(model, OSR_PART_MMDIT, mmdit_weights, cancellable, error);
  case PART_VAE_ENCODER:
    return load_weights(model, OSR_PART_VAE, vae_encoder_weights, cancellable, error);
  case PART_VAE_DECODER:
    return load_weights(model, OSR_PART_VAE, vae_decoder_weights, cancellable, error);
  case PART_T5:
    return load_weights(model, OSR_PART_T5, t5_weights, cancellable, error);
  case PART_T5_TOKENIZER:
    return check_vocab(osr_tokenizer_new_t5(dir->t5_vocab, error), dir->t5_vocab,
                       dir->t5.vocab_size, "T5", error);
  case PART_CLIP:
    return load_weights(model, OSR_PART_CLIP, clip_weights, cancellable, error);
  case PART_CLIP_TOKENIZER:
    return check_vocab(osr_tokenizer_new_clip(dir->clip_vocab, dir->clip_merges, error),
                       dir->clip_vocab, dir->clip.vocab_size, "CLIP", error);
  case N_PARTS:
    break;
  }
  g_return_val_if_reached(NULL);
}

static void
free_part(PartId id, gpointer object)
{
  switch (id) {
  case PART_MMDIT:
    osr_mmdit_free(object);
    break;
  case PART_VAE_ENCODER:
  case PART_VAE_DECODER:
    osr_vae_free(object);
    break;
  case PART_T5:
    osr_t5_free(object);
    break;
  case PART_CLIP:
    osr_clip_free(object);
    break;
  case PART_T5_TOKENIZER:
  case PART_CLIP_TOKENIZER:
    osr_tokenizer_free(object);
    break;
  case N_PARTS:
    break;
  }
}

static void
free_parts(OsrModel *model)
{
  for (PartId id = 0; id < N_PARTS; id++)
    free_part(id, model->parts[id].object);
}

/* One thread loads a part, without the lock, and others wait. When it fails or is cancelled,
 * the next in line tries for itself: its file may be there by now, and the cancellation was
 * not its own. */
static gpointer
get_part(OsrModel *model, PartId id, GCancellable *cancellable, GError **error)
{
  Part *part = &model->parts[id];
  gpointer object;

  if (g_cancellable_set_error_if_cancelled(cancellable, error))
    return NULL;
  g_mutex_lock(&model->lock);
  while (!part->object && part->loading) {
    g_cond_wait_until(&model->loaded, &model->lock, g_get_monotonic_time() + WAIT_US);
    if (g_cancellable_set_error_if_cancelled(cancellable, error)) {
      g_mutex_unlock(&model->lock);
      return NULL;
    }
  }
  if (part->object) {
    object = part->object;
    g_mutex_unlock(&model->lock);
    return object;
  }
  part->loading = TRUE;
  g_mutex_unlock(&model->lock);

  object = load_part(model, id, cancellable, error);

  g_mutex_lock(&model->lock);
  part->object = object;
  part->loading = FALSE;
  g_cond_broadcast(&model->loaded);
  g_mutex_unlock(&model->lock);
  return object;
}

OsrMmdit *
osr_model_get_mmdit(OsrModel *model, GCancellable *cancellable, GError **error)
{
  return get_part(model, PART_MMDIT, cancellable, error);
}

OsrVae *
osr_model_get_vae_encoder(OsrModel *model, GCancellable *cancellable, GError **error)
{
  return get_part(model, PART_VAE_ENCODER, cancellable, error);
}

OsrVae *
osr_model_get_vae_decoder(OsrModel *model, GCancellable *cancellable, GError **error)
{
  return get_part(model, PART_VAE_DECODER, cancellable, error);
}

/* Uses */

struct _OsrModelUse {
  OsrModel *model;
  OsrModelUseKind kind;
};

/* Those who hold a use, and behind them those who wait for one, of all devices: there are few. */
static GMutex uses_lock;
static GCond uses_changed;
static GQueue uses = G_QUEUE_INIT;

/* -1: of tokenizers, which take none of the device's memory. */
static gint
kind_of(PartId id)
{
  switch (id) {
  case PART_T5:
  case PART_CLIP:
    return OSR_MODEL_USE_TEXT;
  case PART_MMDIT:
    return OSR_MODEL_USE_DENOISER;
  case PART_VAE_ENCODER:
  case PART_VAE_DECODER:
    return OSR_MODEL_USE_VAE;
  default:
    return -1;
  }
}

/* Whether the weights of @id go when @kind of @user begins. */
static gboolean
is_in_the_way(const OsrModel *model, PartId id, const OsrModel *user, OsrModelUseKind kind)
{
  const gint of = kind_of(id);

  if (of < 0 || (model == user && of == (gint) kind))
    return FALSE;
  switch (model->offload) {
  case OSR_OFFLOAD_TEXT:
    return of == OSR_MODEL_USE_TEXT;
  case OSR_OFFLOAD_MODEL:
    return TRUE;
  case OSR_OFFLOAD_LAYER: /* of the denoiser there is little on the device */
    return of != OSR_MODEL_USE_DENOISER;
  default:
    return FALSE;
  }
}

/* Nobody uses these parts now, and nobody can come to until this use ends. */
static void
make_room(OsrModel *user, OsrModelUseKind kind)
{
  g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func((GDestroyNotify) osr_model_unref);
  GHashTableIter iter;
  gpointer value;

  g_mutex_lock(&models_lock);
  g_hash_table_iter_init(&iter, models);
  while (g_hash_table_iter_next(&iter, NULL, &value))
    if (((OsrModel *) value)->device == user->device)
      g_ptr_array_add(all, osr_model_ref(value));
  g_mutex_unlock(&models_lock);

  for (guint i = 0; i < all->len; i++) {
    OsrModel *model = g_ptr_array_index(all, i);

    for (PartId id = 0; id < N_PARTS; id++) {
      gpointer object;

      if (!is_in_the_way(model, id, user, kind))
        continue;
      g_mutex_lock(&model->lock);
      object = g_steal_pointer(&model->parts[id].object);
      g_mutex_unlock(&model->lock);
      if (object)
        osr_debug("%s: dropping part %u", model->dir->name, id);
      free_part(id, object);
    }
  }
}

static gboolean
go_together(const OsrModelUse *a, const OsrModelUse *b)
{
  return a->model->device != b->model->device || (a->model == b->model && a->kind == b->kind);
}

/* Whether @use may begin: those before it, who hold one or wait, all go with it. */
static gboolean
is_its_turn(const OsrModelUse *use)
{
  for (GList *l = uses.head; l && l->data != use; l = l->next)
    if (!go_together(l->data, use))
      return FALSE;
  return TRUE;
}

OsrModelUse *
osr_model_use(OsrModel *model, OsrModelUseKind kind, GCancellable *cancellable, GError **error)
{
  gboolean cancelled = FALSE;
  OsrModelUse *use;

  g_return_val_if_fail(model != NULL, NULL);

  if (g_cancellable_set_error_if_cancelled(cancellable, error))
    return NULL;
  use = g_new0(OsrModelUse, 1);
  use->model = osr_model_ref(model);
  use->kind = kind;
  if (model->offload == OSR_OFFLOAD_NONE)
    return use;

  g_mutex_lock(&uses_lock);
  g_queue_push_tail(&uses, use);
  while (!is_its_turn(use) && !cancelled) {
    g_cond_wait_until(&uses_changed, &uses_lock, g_get_monotonic_time() + WAIT_US);
    cancelled = g_cancellable_is_cancelled(cancellable);
  }
  g_mutex_unlock(&uses_lock);
  if (cancelled) {
    osr_model_use_end(use);
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "Operation was cancelled");
    return NULL;
  }
  make_room(model, kind);
  return use;
}

void
osr_model_use_end(OsrModelUse *use)
{
  if (!use)
    return;
  g_mutex_lock(&uses_lock);
  g_queue_remove(&uses, use);
  g_cond_broadcast(&uses_changed);
  g_mutex_unlock(&uses_lock);
  osr_model_unref(use->model);
  g_free(use);
}

/* Text */

static void
text_free(Text *text)
{
  g_free(text->text);
  g_clear_pointer(&text->txt, osr_tensor_unref);
  g_clear_pointer(&text->vec, osr_tensor_unref);
  g_free(text);
}

static GList *
find_text(OsrModel *model, const char *key)
{
  GList *l = model->texts.head;

  while (l && !g_str_equal(((const Text *) l->data)->text, key))
    l = l->next;
  return l;
}

/* What is kept for @key, now the last used; NULL if nothing is. Call with the lock. */
static const Text *
recall_text(OsrModel *model, const char *key)
{
  GList *l = find_text(model, key);

  if (!l)
    return NULL;
  g_queue_unlink(&model->texts, l);
  g_queue_push_head_link(&model->texts, l);
  return l->data;
}

/* Call with the lock. Another thread may have kept the same text meanwhile. */
static void
keep_text(OsrModel *model, Text *text)
{
  GList *l = find_text(model, text->text);

  if (!l && model->texts.length == MAX_TEXTS)
    l = model->texts.tail;
  if (l) {
    text_free(l->data);
    g_queue_delete_link(&model->texts, l);
  }
  g_queue_push_head(&model->texts, text);
}

static gboolean
encode_t5(OsrModel *model, Text *text, GCancellable *cancellable, GError **error)
{
  const guint length = model->dir->t5_max_length;
  OsrTokenizer *tokenizer = get_part(model, PART_T5_TOKENIZER, cancellable, error);
  g_autofree gint32 *ids = NULL;
  guint n_tokens;
  OsrT5 *t5;

  if (!tokenizer)
    return FALSE;
  ids = osr_tokenizer_encode(tokenizer, text->text, length, &n_tokens, error);
  if (!ids)
    return FALSE;
  text->truncated = n_tokens > length ? n_tokens - length : 0;
  t5 = get_part(model, PART_T5, cancellable, error);
  if (!t5)
    return FALSE;
  text->txt = osr_t5_encode(t5, ids, length, cancellable, error);
  return text->txt != NULL;
}

static gboolean
encode_clip(OsrModel *model, Text *text, GCancellable *cancellable, GError **error)
{
  const guint length = model->dir->clip_max_length;
  OsrTokenizer *tokenizer = get_part(model, PART_CLIP_TOKENIZER, cancellable, error);
  g_autofree gint32 *ids = NULL;
  OsrClip *clip;

  if (!tokenizer)
    return FALSE;
  ids = osr_tokenizer_encode(tokenizer, text->text, length, NULL, error);
  if (!ids)
    return FALSE;
  clip = get_part(model, PART_CLIP, cancellable, error);
  if (!clip)
    return FALSE;
  text->vec = osr_clip_encode(clip, ids, length, NULL, cancellable, error);
  return text->vec != NULL;
}

static Text *
encode_text(OsrModel *model, const char *text, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrModelUse) use = osr_model_use(model, OSR_MODEL_USE_TEXT, cancellable, error);
  Text *entry;

  if (!use)
    return NULL;
  entry = g_new0(Text, 1);
  entry->text = g_strdup(text);
  if (encode_t5(model, entry, cancellable, error) && encode_clip(model, entry, cancellable, error))
    return entry;
  text_free(entry);
  return NULL;
}

gboolean
osr_model_encode_text(OsrModel *model, const char *text, OsrTensor **txt, OsrTensor **vec,
                      guint *truncated, GCancellable *cancellable, GError **error)
{
  const Text *kept;

  g_return_val_if_fail(text != NULL && txt != NULL && vec != NULL, FALSE);

  g_mutex_lock(&model->lock);
  kept = recall_text(model, text);
  if (!kept) {
    Text *entry;

    g_mutex_unlock(&model->lock);
    entry = encode_text(model, text, cancellable, error);
    if (!entry)
      return FALSE;
    g_mutex_lock(&model->lock);
    keep_text(model, entry);
    kept = entry;
  }
  *txt = osr_tensor_ref(kept->txt);
  *vec = osr_tensor_ref(kept->vec);
  if (truncated)
    *truncated = kept->truncated;
  g_mutex_unlock(&model->lock);
  return TRUE;
}

/* Models */

static void
model_free(OsrModel *model)
{
  g_queue_clear_full(&model->texts, (GDestroyNotify) text_free);
  free_parts(model);
  osr_model_dir_free(model->dir);
  osr_loras_free(model->loras);
  osr_device_unref(model->device);
  g_mutex_clear(&model->lock);
  g_cond_clear(&model->loaded);
  g_free(model->key);
  g_free(model);
}

/* Bytes of @device that could be had: what it has free, what its pool keeps, and no more than its
 * limit leaves. 0: not known. */
static guint64
available_memory(OsrDevice *device)
{
  OsrPoolStats stats;
  guint64 bytes;

  if (!osr_device_get_memory(device, &bytes, NULL, NULL))
    return 0;
  osr_pool_get_stats(osr_device_get_pool(device), &stats);
  bytes += stats.reserved - stats.allocated;
  if (stats.limit)
    bytes = MIN(bytes, stats.limit - MIN(stats.limit, stats.allocated));
  return MAX(bytes, 1);
}

/* For a clip of the model's own size. One step needs the memory of all. */
static OsrOffload
choose_offload(const OsrModel *model)
{
  OsrPlanOptions options = OSR_PLAN_OPTIONS_INIT;
  OsrSamplingParams params = model->dir->sampling;
  g_autoptr(GError) error = NULL;
  OsrPlan plan;

  params.num_steps = 1;
  options.params = &params;
  options.dtype = model->dtype;
  options.fp8 = model->fp8;
  options.gpu = !osr_device_is_host(model->device);
  options.n_threads = g_get_num_processors();
  options.memory = available_memory(model->device);
  if (!osr_plan_make(model->dir, &options, &plan, &error)) {
    osr_debug("%s: no plan: %s", model->dir->name, error->message);
    return OSR_OFFLOAD_NONE;
  }
  osr_debug("%s: offload %s, %" G_GUINT64_FORMAT " bytes at most of %" G_GUINT64_FORMAT "%s",
            model->dir->name, osr_offload_name(plan.offload), plan.peak, options.memory,
            plan.fits ? "" : ": not enough");
  return plan.offload;
}

static OsrModel *
model_new(const OsrModelOptions *options, const char *path, const char *key, OsrDevice *device,
          OsrDType dtype, GError **error)
{
  g_autoptr(OsrModelDir) dir = osr_model_dir_open_with(path, &options->parts, error);
  g_autoptr(OsrLoras) loras = NULL;
  OsrModel *model;

  if (!dir)
    return NULL;
  if (options->n_loras > 0 && !(loras = osr_loras_open(options->loras, options->n_loras, error)))
    return NULL;
  model = g_new0(OsrModel, 1);
  model->ref_count = 1;
  model->key = g_strdup(key);
  model->dir = g_steal_pointer(&dir);
  model->loras = g_steal_pointer(&loras);
  model->check_weights = options->check_weights;
  model->device = osr_device_ref(device);
  model->dtype = dtype;
  model->tf32 = options->tf32;
  model->fp8 = options->fp8;
  model->offload = options->offload;
  if (model->offload == OSR_OFFLOAD_AUTO)
    model->offload = choose_offload(model);
  g_mutex_init(&model->lock);
  g_cond_init(&model->loaded);
  g_queue_init(&model->texts);
  return model;
}

/* The same for every name of a file or folder. */
static void
append_place(GString *key, const char *path)
{
  const gboolean image = path && g_str_has_prefix(path, OSR_MODEL_DIR_IMAGE);
  const char *place = image ? path + strlen(OSR_MODEL_DIR_IMAGE) : path ? path : "";
  char *real = realpath(place, NULL);

  g_string_append_printf(key, "\n%s%s", image ? OSR_MODEL_DIR_IMAGE : "", real ? real : place);
  free(real);
}

static char *
cache_key(const OsrModelOptions *options, const char *path, OsrDevice *device, OsrDType dtype)
{
  GString *key = g_string_new(osr_device_get_name(device));

  g_string_append_printf(key, "\n%s\n%d %d %d", options->tf32 ? "TF32" : osr_dtype_name(dtype),
                         options->check_weights, options->fp8, options->offload);
  append_place(key, path);
  append_place(key, options->parts.mmdit);
  append_place(key, options->parts.vae);
  append_place(key, options->parts.t5);
  append_place(key, options->parts.clip);
  for (guint i = 0; i < options->n_loras; i++) {
    append_place(key, options->loras[i].path);
    g_string_append_printf(key, "\n%.17g", options->loras[i].weight);
  }
  return g_string_free(key, FALSE);
}

OsrModel *
osr_model_get(const char *path, OsrDevice *device, GError **error)
{
  OsrModelOptions options = OSR_MODEL_OPTIONS_INIT;

  options.path = path;
  return osr_model_get_with(&options, device, error);
}

OsrModel *
osr_model_get_as(const char *path, OsrDevice *device, OsrDType dtype, GError **error)
{
  OsrModelOptions options = OSR_MODEL_OPTIONS_INIT;

  options.path = path;
  options.dtype = (gint) dtype;
  return osr_model_get_with(&options, device, error);
}

OsrModel *
osr_model_get_tf32(const char *path, OsrDevice *device, GError **error)
{
  OsrModelOptions options = OSR_MODEL_OPTIONS_INIT;

  options.path = path;
  options.dtype = OSR_DTYPE_F32;
  options.tf32 = TRUE;
  return osr_model_get_with(&options, device, error);
}

/* The folder, by name: NULL where the parts make up a model of their own. */
static char *
choose_path(const OsrModelOptions *options)
{
  const OsrModelParts *parts = &options->parts;

  if (options->path)
    return g_strdup(options->path);
  if (parts->mmdit && parts->vae && parts->t5 && parts->clip)
    return NULL;
  return osr_model_dir_default_path();
}

OsrModel *
osr_model_get_with(const OsrModelOptions *options, OsrDevice *device, GError **error)
{
  g_autofree char *chosen = NULL, *key = NULL;
  OsrModel *model;
  OsrDType dtype;

  g_return_val_if_fail(options != NULL && device != NULL, NULL);

  dtype = options->dtype == OSR_MODEL_DTYPE_AUTO ? osr_device_get_dtype(device)
                                                 : (OsrDType) options->dtype;
  if (!osr_device_supports_dtype(device, dtype)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED, "%s does not compute in %s",
                osr_device_get_name(device), osr_dtype_name(dtype));
    return NULL;
  }
  chosen = choose_path(options);
  key = cache_key(options, chosen, device, dtype);
  g_mutex_lock(&models_lock);
  if (!models)
    models = g_hash_table_new(g_str_hash, g_str_equal);
  model = g_hash_table_lookup(models, key);
  if (model) {
    osr_model_ref(model);
  } else {
    model = model_new(options, chosen, key, device, dtype, error);
    if (model)
      g_hash_table_insert(models, model->key, model);
  }
  g_mutex_unlock(&models_lock);
  return model;
}

gboolean
osr_model_check(OsrModel *model, GError **error)
{
  static const OsrPart parts[] = { OSR_PART_MMDIT, OSR_PART_VAE, OSR_PART_T5, OSR_PART_CLIP };
  g_autoptr(GError) problems = NULL;

  for (guint i = 0; i < G_N_ELEMENTS(parts); i++) {
    g_autoptr(GError) problem = NULL;
    g_autoptr(OsrPartInfo) info = osr_model_dir_inspect(
        model->dir, parts[i], parts[i] == OSR_PART_MMDIT ? model->loras : NULL, &problem);

    if (info)
      osr_part_info_check(info, &problem);
    if (problem && problems)
      g_prefix_error(&problem, "%s\n", problems->message);
    if (problem) {
      g_clear_error(&problems);
      problems = g_steal_pointer(&problem);
    }
  }
  if (!problems)
    return TRUE;
  g_propagate_error(error, g_steal_pointer(&problems));
  return FALSE;
}

OsrModel *
osr_model_ref(OsrModel *model)
{
  g_return_val_if_fail(model != NULL, NULL);
  g_atomic_int_inc(&model->ref_count);
  return model;
}

void
osr_model_unref(OsrModel *model)
{
  gboolean last;

  if (!model)
    return;
  /* Under the lock, so that osr_model_get() never revives a model that is going away. */
  g_mutex_lock(&models_lock);
  last = g_atomic_int_dec_and_test(&model->ref_count);
  if (last)
    g_hash_table_remove(models, model->key);
  g_mutex_unlock(&models_lock);
  if (last)
    model_free(model);
}

const OsrModelDir *
osr_model_get_dir(OsrModel *model)
{
  return model->dir;
}

OsrDevice *
osr_model_get_device(OsrModel *model)
{
  return model->device;
}

OsrOffload
osr_model_get_offload(OsrModel *model)
{
  return model->offload;
}

OsrDType
osr_model_get_dtype(OsrModel *model)
{
  return model->dtype;
}

void
osr_model_latent_dims(OsrModel *model, guint num_frames, guint width, guint height, guint dims[4])
{
  const OsrVaeConfig *vae = &model->dir->vae;

  dims[0] = (MAX(num_frames, 1) - 1) / vae->time_compression_ratio + 1;
  dims[1] = height / vae->spatial_compression_ratio;
  dims[2] = width / vae->spatial_compression_ratio;
  dims[3] = vae->latent_channels;
}
