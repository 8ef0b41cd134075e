/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "model-dir.h"
#include "plan.h"
#include "tokenizer.h"

G_BEGIN_DECLS

/**
 * OsrModel:
 *
 * A model folder on a device, shared by everybody in the process who names the same
 * folder, device and type. Its parts are loaded when first asked for, by one thread while
 * others wait, and freed with the last reference to the model. Thread safe.
 */
typedef struct _OsrModel OsrModel;

#define OSR_TYPE_MODEL (osr_model_get_type())
OSR_API GType osr_model_get_type(void);

/**
 * OsrModelOptions:
 * @path: the model's folder, NULL: the tiny model, or none if all parts are given
 * @parts: parts from somewhere else
 * @loras: adapters to merge into the denoiser, in this order
 * @check_weights: weights that are NaN or infinite are errors that name them; reads more slowly
 * @dtype: an OsrDType to compute in, OSR_MODEL_DTYPE_AUTO: the device's own
 * @tf32: with f32, the products of the text encoders may be rounded to TF32
 * @fp8: the weights of the denoiser's blocks and of T5 are made F8 (e4m3, a factor a row) as they
 *   are loaded
 * @offload: where weights are while they are not needed; OSR_OFFLOAD_AUTO: what the plan of a clip
 *   of the model's own size says, with the memory that there is when the model is first asked for
 *
 * What a model is made from. Models are shared by those who ask for all the same.
 */
typedef struct {
  const char *path;
  OsrModelParts parts;
  const OsrLoraSpec *loras;
  guint n_loras;
  gboolean check_weights;
  gint dtype;
  gboolean tf32, fp8;
  OsrOffload offload;
} OsrModelOptions;

#define OSR_MODEL_DTYPE_AUTO -1
#define OSR_MODEL_OPTIONS_INIT                                                                     \
  {                                                                                                \
    .dtype = OSR_MODEL_DTYPE_AUTO                                                                  \
  }

/* Reads configs only. What @options points to is copied. OSR_ERROR_UNSUPPORTED for a type that
 * the device does not compute in. (transfer full) */
OSR_API OsrModel *osr_model_get_with(const OsrModelOptions *options, OsrDevice *device,
                                     GError **error);
/* @path NULL: the tiny model. Reads configs only. The model computes in the device's type.
 * (transfer full) */
OSR_API OsrModel *osr_model_get(const char *path, OsrDevice *device, GError **error);
/* The same in another type: its weights are shared with those who name that type too.
 * OSR_ERROR_UNSUPPORTED for a type that the device does not compute in. */
OSR_API OsrModel *osr_model_get_as(const char *path, OsrDevice *device, OsrDType dtype,
                                   GError **error);
/* In f32 with the products of the text encoders rounded to TF32 (10 bits of mantissa), where the
 * device does that; else it is the same as f32. */
OSR_API OsrModel *osr_model_get_tf32(const char *path, OsrDevice *device, GError **error);
OSR_API OsrModel *osr_model_ref(OsrModel *model);
OSR_API void osr_model_unref(OsrModel *model);

OSR_API const OsrModelDir *osr_model_get_dir(OsrModel *model);
/* Compares names and shapes of all tensors that the four parts need with those in their files,
 * and the adapters with both, without reading weights: what would fail minutes later fails now.
 * All parts' problems are in one message. */
OSR_API gboolean osr_model_check(OsrModel *model, GError **error);
OSR_API OsrDevice *osr_model_get_device(OsrModel *model);
OSR_API OsrDType osr_model_get_dtype(OsrModel *model);

/* Never OSR_OFFLOAD_AUTO. */
OSR_API OsrOffload osr_model_get_offload(OsrModel *model);

/* What parts are needed for together. */
typedef enum {
  OSR_MODEL_USE_TEXT,
  OSR_MODEL_USE_DENOISER,
  OSR_MODEL_USE_VAE, /* encoder and decoder */
} OsrModelUseKind;

/**
 * OsrModelUse:
 *
 * While one is held, the parts of its kind may be asked for and stay. With OSR_OFFLOAD_NONE that is
 * so anyway, and a use costs nothing. Otherwise those who share a device take turns, in the order
 * of their coming: uses of one kind of one model go on together, one of another kind waits until
 * they have ended, and drops the weights that the mode says. So a thread holds one at a time, for
 * no longer than it works with the part, and never while it waits for others.
 */
typedef struct _OsrModelUse OsrModelUse;

/* NULL with G_IO_ERROR_CANCELLED. (transfer full) */
OSR_API OsrModelUse *osr_model_use(OsrModel *model, OsrModelUseKind kind, GCancellable *cancellable,
                                   GError **error);
OSR_API void osr_model_use_end(OsrModelUse *use);

/* Each loads its part on first use; see OsrModelUse. (transfer none) */
OSR_API OsrMmdit *osr_model_get_mmdit(OsrModel *model, GCancellable *cancellable, GError **error);
OSR_API OsrVae *osr_model_get_vae_encoder(OsrModel *model, GCancellable *cancellable,
                                          GError **error);
OSR_API OsrVae *osr_model_get_vae_decoder(OsrModel *model, GCancellable *cancellable,
                                          GError **error);

/* Encodes a prompt, within a use of its own, as it is (decorate it first): *txt [1, L,
 * context_in_dim] and *vec [1, vec_in_dim]. The embeddings of the last few prompts are kept.
 * @truncated, if not NULL, gets the number of tokens of the T5 prompt that did not fit. (transfer
 * full) */
OSR_API gboolean osr_model_encode_text(OsrModel *model, const char *text, OsrTensor **txt,
                                       OsrTensor **vec, guint *truncated, GCancellable *cancellable,
                                       GError **error);

/* Latent size of a clip: T, h, w, C. */
OSR_API void osr_model_latent_dims(OsrModel *model, guint num_frames, guint width, guint height,
                                   guint dims[4]);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrModel, osr_model_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrModelUse, osr_model_use_end)

G_END_DECLS
