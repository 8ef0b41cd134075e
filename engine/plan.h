/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "model-dir.h"

G_BEGIN_DECLS

/* Where weights are while nobody needs them. */
typedef enum {
  OSR_OFFLOAD_AUTO = -1, /* the first of the others with which a clip fits */
  OSR_OFFLOAD_NONE = 0,  /* on the device, once they have been needed */
  OSR_OFFLOAD_TEXT,      /* text encoders are dropped when the denoiser begins, and read again */
  OSR_OFFLOAD_MODEL,     /* every part is, when another begins */
  OSR_OFFLOAD_LAYER,     /* likewise, and the denoiser's blocks are streamed from host memory */
} OsrOffload;

/* "auto", "none", "text", "model", "layer" */
OSR_API const char *osr_offload_name(OsrOffload offload);
OSR_API gboolean osr_offload_from_name(const char *name, OsrOffload *offload);

#define OSR_PLAN_TILING_AUTO -1

/**
 * OsrThroughput:
 * @products, @attention, @convolutions: FLOPs a second
 * @bytes: of the device's memory, a second
 * @transfer: bytes a second from the host to the device
 *
 * What a device does; 0: not known.
 */
typedef struct {
  double products, attention, convolutions, bytes, transfer;
} OsrThroughput;

/* What @device does in @dtype, measured in about a second. */
OSR_API gboolean osr_throughput_measure(OsrDevice *device, OsrDType dtype,
                                        OsrThroughput *throughput, GError **error);

/**
 * OsrPlanOptions:
 * @params: the clip
 * @condition: how references condition it
 * @dtype: what is computed in
 * @fp8: the weights of the denoiser's blocks and of T5 are F8
 * @gpu: a GPU, which streams blocks and likes batches; else a CPU
 * @n_threads: of a CPU
 * @memory: bytes of the device that there are, 0: enough
 * @offload: OSR_OFFLOAD_AUTO: chosen
 * @tiling: of the decoder, an OsrVaeTiling; OSR_PLAN_TILING_AUTO: chosen
 * @batch: forwards of a step at once, 1 to 3; 0: chosen
 * @throughput: NULL: times are not estimated
 */
typedef struct {
  const OsrSamplingParams *params;
  OsrCondition condition;
  OsrDType dtype;
  gboolean fp8, gpu;
  guint n_threads;
  guint64 memory;
  OsrOffload offload;
  gint tiling;
  guint batch;
  const OsrThroughput *throughput;
} OsrPlanOptions;

#define OSR_PLAN_OPTIONS_INIT                                                                      \
  {                                                                                                \
    .dtype = OSR_DTYPE_F32, .n_threads = 1, .offload = OSR_OFFLOAD_AUTO,                           \
    .tiling = OSR_PLAN_TILING_AUTO                                                                 \
  }

typedef enum {
  OSR_PLAN_T5,
  OSR_PLAN_CLIP,
  OSR_PLAN_ENCODE, /* references */
  OSR_PLAN_DENOISE,
  OSR_PLAN_DECODE,
  OSR_PLAN_N_STAGES
} OsrPlanStageId;

/* "t5", "clip", "encode", "denoise", "decode" */
OSR_API const char *osr_plan_stage_name(OsrPlanStageId stage);

/**
 * OsrPlanStage:
 * @weights: of its own part, on the device
 * @others: of parts that are there meanwhile and not needed
 * @activations: all else at its peak: what it works in, and what earlier stages have handed on
 * @flops: of matrix products, attention and convolutions, all together
 * @seconds: 0: not estimated
 *
 * Bytes as the device's pool counts them. A stage that a clip does not have is all zeros.
 */
typedef struct {
  guint64 weights, others, activations;
  double flops, seconds;
} OsrPlanStage;

/**
 * OsrPlan:
 * @offload, @tiling, @batch: as asked for, or chosen
 * @fits: the peak is no more than there is
 * @peak: the largest sum of a stage
 * @host_bytes: of host memory that the device reads blocks from
 * @forwards: of the denoiser in all
 */
typedef struct {
  OsrOffload offload;
  OsrVaeTiling tiling;
  guint batch;
  gboolean fits;
  guint64 peak, host_bytes;
  guint forwards;
  double seconds;
  OsrPlanStage stages[OSR_PLAN_N_STAGES];
} OsrPlan;

/**
 * osr_plan_make:
 *
 * What making a clip will take, found out before: memory is that of a run of the very same code on
 * a device that computes nothing. It reads no weights; dimensions are those of @dir.
 *
 * Every part stays within its stage's bytes, as OsrPoolStats.peak_allocated counts; memory that
 * the pool keeps for reuse is given back where a limit wants it. Scratch memory of ops is exact
 * for CPUs up to the size of their tiles, and for GPUs what the CUDA backend asks for at most.
 */
OSR_API gboolean osr_plan_make(const OsrModelDir *dir, const OsrPlanOptions *options, OsrPlan *plan,
                               GError **error);

G_END_DECLS
