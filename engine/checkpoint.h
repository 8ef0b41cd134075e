/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "lora.h"
#include "tensor.h"

G_BEGIN_DECLS

/**
 * OsrCheckpoint:
 *
 * The tensors of a weights file by name, memory mapped and read-only: safetensors, or what
 * torch.save() writes of a state dict (.bin, .pt, .pth), whichever the first bytes say.
 * Everything in the header is validated when it is opened (lengths, JSON or pickle, dtypes,
 * shapes against byte ranges, overlaps, truncation), so later reads cannot leave the mapping.
 * Opening reads no tensor data, and executes nothing of a pickle.
 *
 * A state dict may lie inside of another dict, as training programs save it, under a usual key
 * ("state_dict", "model", ...) or as the only one there.
 */
typedef struct _OsrCheckpoint OsrCheckpoint;
typedef struct _OsrCheckpointEntry OsrCheckpointEntry;

/* Of F8 weights that are divided by a factor: @scale is the tensor of factors, one for all or
 * one a row, named as published files do ("X.scale_weight" or "X.weight_scale" for "X.weight");
 * NULL for 1. Elements with @strided FALSE follow each other as in an OsrTensor; otherwise
 * element (i, j, ...) is i * strides[0] + j * strides[1] + ... elements from @data. */
struct _OsrCheckpointEntry {
  const char *name; /* owned by the checkpoint */
  const char *path; /* of the file that it is in, owned likewise */
  OsrDType dtype;
  guint n_dims;
  gint64 dims[OSR_TENSOR_MAX_DIMS];
  gint64 strides[OSR_TENSOR_MAX_DIMS];
  gboolean strided;
  gconstpointer data; /* in the mapping, unaligned */
  gsize size;         /* bytes of all elements */
  const OsrCheckpointEntry *scale;
};

/* @path: a weights file, or an index "*.index.json" of several beside it. */
OSR_API OsrCheckpoint *osr_checkpoint_open(const char *path, GError **error);
/* The same on bytes in memory; @name stands for the file in messages. */
OSR_API OsrCheckpoint *osr_checkpoint_open_bytes(GBytes *bytes, const char *name, GError **error);
OSR_API OsrCheckpoint *osr_checkpoint_ref(OsrCheckpoint *checkpoint);
OSR_API void osr_checkpoint_unref(OsrCheckpoint *checkpoint);

OSR_API const char *osr_checkpoint_get_path(OsrCheckpoint *checkpoint);
OSR_API guint osr_checkpoint_n_entries(OsrCheckpoint *checkpoint);
OSR_API const OsrCheckpointEntry *osr_checkpoint_nth(OsrCheckpoint *checkpoint, guint i);
/* NULL if there is none of that name. */
OSR_API const OsrCheckpointEntry *osr_checkpoint_lookup(OsrCheckpoint *checkpoint,
                                                        const char *name);
/* A string of "__metadata__", NULL if absent. */
OSR_API const char *osr_checkpoint_get_metadata(OsrCheckpoint *checkpoint, const char *key);

/* "safetensors" or "PyTorch": of a single file or of the first of several. */
OSR_API const char *osr_checkpoint_get_format(OsrCheckpoint *checkpoint);

/* Converts an entry's elements to f32 in host memory of n_elements floats, one after the other
 * and times their scale. OSR_ERROR_UNSUPPORTED for integer types and other scales. */
OSR_API gboolean osr_checkpoint_entry_to_f32(const OsrCheckpointEntry *entry, float *dst,
                                             GError **error);
/* Copies an entry's elements as they are, entry->size bytes, one after the other. */
OSR_API void osr_checkpoint_entry_pack(const OsrCheckpointEntry *entry, gpointer dst);
/* OSR_ERROR_INVALID_FILE names file, tensor and place of the first element that is NaN or
 * infinite. Integers never are. */
OSR_API gboolean osr_checkpoint_entry_check_finite(const OsrCheckpointEntry *entry, GError **error);

/* Writes tensors as a safetensors file, for tools and tests. @names and @tensors have @n
 * entries; @metadata: string -> string or NULL. */
OSR_API gboolean osr_checkpoint_write(const char *path, guint n, const char *const *names,
                                      OsrTensor *const *tensors, GHashTable *metadata,
                                      GError **error);

/**
 * OsrLoaderCheck:
 * @used: names that were asked for and are there
 * @missing: names that are not
 * @misfits: "tensor 'X' is [2], the model needs [3]"
 *
 * What a model's load() would meet, found out without reading weights: with one of these a
 * loader compares names and shapes, notes every failure and goes on. It returns NULL for every
 * tensor, and what load() returns can be freed and nothing else.
 */
typedef struct {
  GHashTable *used;
  GPtrArray *missing, *misfits;
} OsrLoaderCheck;

OSR_API OsrLoaderCheck *osr_loader_check_new(void);
OSR_API void osr_loader_check_free(OsrLoaderCheck *check);

/**
 * OsrLoaderSizes:
 * @bytes: of the device's memory for all weights outside of blocks, as its pool counts
 * @block_bytes: likewise, for the weights of all blocks
 * @n_blocks: blocks
 * @host_bytes: what the blocks take in the host's memory when they are kept there
 * @largest_block: bytes of the largest of them
 *
 * What loading a model would take, found out from its config: with one of these and no
 * checkpoint a loader counts, and returns NULL for every tensor, as with an OsrLoaderCheck.
 */
typedef struct {
  guint64 bytes, block_bytes;
  guint n_blocks;
  guint64 host_bytes, largest_block;
  /*< private >*/
  gboolean in_block;
  guint64 block;
} OsrLoaderSizes;

/**
 * OsrLoader:
 *
 * What a model's load() reads its weights through. The first failure sticks: later calls
 * return NULL at once, so that loading code is straight-line and asks for the error once,
 * at the end. Missing tensors are named, a wrong shape shows both shapes and the file.
 */
typedef struct {
  OsrCheckpoint *checkpoint; /* NULL: random weights */
  OsrDevice *device;
  OsrDType dtype;   /* of what is returned */
  gboolean tf32;    /* f32: the model's products may be rounded to that */
  guint64 seed;     /* of random weights */
  guint32 sequence; /* tensors drawn so far */
  GCancellable *cancellable;
  GError *error; /* the first failure, owned */
  guint64 n_parameters, n_bytes;

  /* What may be set between init and the first call. */
  OsrLoras *loras;        /* merged into the weights; borrowed, NULL: none */
  gboolean check_weights; /* a weight that is NaN or infinite is an error that names it */
  OsrLoaderCheck *check;  /* nothing is read; borrowed, NULL: everything is */
  OsrLoaderSizes *sizes;  /* likewise */
  gboolean fp8;           /* matrices of layers become F8 (e4m3) with a factor a row */
  gboolean undefined;     /* without a checkpoint: memory for weights alone, for dry runs */
  gboolean stream;        /* blocks stay in the host's memory, where the device can fetch them */
} OsrLoader;

OSR_API void osr_loader_init(OsrLoader *loader, OsrCheckpoint *checkpoint, OsrDevice *device,
                             OsrDType dtype, GCancellable *cancellable);
/* Weights that no file has, drawn on the device: for benchmarks and plans of models whose
 * weights are not at hand. Every tensor that is asked for exists. Matrices and convolutions are
 * normal with deviation 1 / sqrt(inputs), so that activations keep their size; biases are 0 and
 * other vectors (norms) 1. The same seed and order of calls give the same weights. */
OSR_API void osr_loader_init_random(OsrLoader *loader, OsrDevice *device, OsrDType dtype,
                                    guint64 seed, GCancellable *cancellable);
/* FALSE and the error moved to @error if any load failed, or an adapter fits nothing. */
OSR_API gboolean osr_loader_finish(OsrLoader *loader, GError **error);
OSR_API gboolean osr_loader_has(OsrLoader *loader, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The tensor of that name, shaped @dims; in the file it may have more or fewer dimensions of one.
 * Ends in G_IO_ERROR_CANCELLED too. */
OSR_API OsrTensor *osr_loader_get(OsrLoader *loader, guint n_dims, const gint64 *dims,
                                  const char *format, ...) G_GNUC_PRINTF(4, 5);
/* Vectors and matrices, the usual case. */
OSR_API OsrTensor *osr_loader_vector(OsrLoader *loader, gint64 n, const char *format, ...)
    G_GNUC_PRINTF(3, 4);
OSR_API OsrTensor *osr_loader_matrix(OsrLoader *loader, gint64 rows, gint64 columns,
                                     const char *format, ...) G_GNUC_PRINTF(4, 5);
/* Several tensors stacked along dim 0 into one [sum of rows, columns] (columns 0: vectors):
 * unfused projections become one. @names: NULL-terminated, @rows: rows of each. */
OSR_API OsrTensor *osr_loader_stack(OsrLoader *loader, const char *const *names, const gint64 *rows,
                                    gint64 columns);
/* osr_loader_stack() of a linear layer's weights, which are F8 with @fp8: then *scale is an f32
 * [sum of rows], what each row has to be multiplied by; else NULL. */
OSR_API OsrTensor *osr_loader_weights(OsrLoader *loader, const char *const *names,
                                      const gint64 *rows, gint64 columns, OsrTensor **scale);
/* PyTorch's Conv3d.weight [c_out, c_in, k_t, k_h, k_w] as [c_out, k_t, k_h, k_w, c_in]. */
OSR_API OsrTensor *osr_loader_conv3d(OsrLoader *loader, gint64 c_out, gint64 c_in, gint64 k_t,
                                     gint64 k_h, gint64 k_w, const char *format, ...)
    G_GNUC_PRINTF(7, 8);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrCheckpoint, osr_checkpoint_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrLoaderCheck, osr_loader_check_free)

G_END_DECLS
