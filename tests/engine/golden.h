/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * golden.h: reads the files of tests/data/golden, which tests/reference/make_golden.py
 * writes. Everything here ends the test with a message when a file is not what the test
 * expects: a missing golden is a failure, not a skip.
 *
 * Layouts in the files are PyTorch's: video is [N, C, T, H, W] there, [N, T, H, W, C] in the
 * engine; token tensors are the same in both.
 */
#pragma once

#include <json-glib/json-glib.h>

#include "checkpoint.h"

G_BEGIN_DECLS

typedef struct {
  OsrCheckpoint *file;    /* all tensors: "in.*", "out.*", "w.*" */
  OsrCheckpoint *weights; /* the "w.*" alone, named without the prefix: for an OsrLoader */
  JsonObject *config;     /* what the reference model was made with */
} Golden;

/* The devices to test on: those that GOLDEN_DEVICES names ("cuda:0"), else "ref" and "cpu". */
const char *const *golden_devices(void);

/* A file of the data folder: golden_path("golden", "t5-len1.safetensors", NULL) is
 * tests/data/golden/t5-len1.safetensors. (transfer full) */
char *golden_path(const char *first, ...) G_GNUC_NULL_TERMINATED;

/* @name without folder and ending: "mmdit-split". */
Golden *golden_open(const char *name);
void golden_free(Golden *golden);
/* tests/data/golden/@name.json. (transfer full) */
JsonNode *golden_json(const char *name);

gboolean golden_has(Golden *golden, const char *name);
const OsrCheckpointEntry *golden_entry(Golden *golden, const char *name);
/* Copies of the elements, g_free() them; @n may be NULL. Ints take I32 and I64. */
float *golden_floats(Golden *golden, const char *name, gsize *n);
gint32 *golden_ints(Golden *golden, const char *name, gsize *n);

/* On @device, dims as in the file; floats in the device's default type, ints as they are. */
OsrTensor *golden_tensor(Golden *golden, const char *name, OsrDevice *device);
/* [N, C, T, H, W] of the file as [N, T, H, W, C]. */
OsrTensor *golden_video(Golden *golden, const char *name, OsrDevice *device);

/* The elements of a float tensor in host memory as f32, g_free() them. */
float *golden_download(OsrTensor *tensor);

/* dims are those of @src: [N, C, T, H, W] -> [N, T, H, W, C], and [N, T, H, W, C] back. */
float *golden_channels_last(const float *src, const gint64 dims[5]);
float *golden_channels_first(const float *src, const gint64 dims[5]);

/* ||got - want|| / ||want||, or ||got|| if want is all zeros. NaN if either has one. */
double golden_error(const float *got, const float *want, gsize n);
/* The same against a tensor of the file with as many elements; dims of 1 do not matter.
 * golden_video_error(): the file's is [N, C, T, H, W], @got channels-last. */
double golden_tensor_error(Golden *golden, const char *name, OsrTensor *got);
double golden_video_error(Golden *golden, const char *name, OsrTensor *got);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Golden, golden_free)

G_END_DECLS
