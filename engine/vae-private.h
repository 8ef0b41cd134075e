/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vae-private.h: the pieces that the encoder, the decoder and the tiling share.
 *
 * A pass through the network is written once and runs in two ways: on a device, or "dry",
 * without device and weights, where maps have sizes only. The dry run gives the memory and
 * the FLOPs of a pass from the very allocations and operations that the real one makes.
 */
#pragma once

#include "layers.h"
#include "model-limits.h"
#include "vae.h"

G_BEGIN_DECLS

#define OSR_VAE_NORM_EPS 1e-6f
/* Frames, rows and columns of the largest video: keeps sizes far from overflow. */
#define OSR_VAE_MAX_SIZE (1 << 16)

/* An activation [t, h, w, c]. tensor is NULL in a dry run and after a failure. */
typedef struct {
  int t, h, w, c;
  OsrTensor *tensor;
} OsrVaeMap;

/* The state of a pass. The first failure sticks: what follows only releases memory. */
typedef struct {
  OsrRun ops;        /* device NULL: dry */
  gboolean by_frame; /* frames know nothing of each other */
  GError *error;
  const char *block; /* being run, for messages */
  gboolean locked;   /* the device, for the time of a block */
  OsrPace pace;
  OsrProgress progress;
  gpointer user_data;
  GCancellable *cancellable;
  double total_flops;              /* of the whole pass; 0: unknown, no progress is reported */
  double flops;                    /* so far */
  double flops_at[OSR_PACE_AHEAD]; /* after the last blocks, by their number */
  /* Of the maps alive, in doubles, which cannot overflow and are exact to 2^53. */
  double bytes, peak_bytes;
} OsrVaeRun;

/* A convolution, kernel k_t x k x k: causal with k_t = k and edges replicated, or of every frame
 * for itself with k_t = 1 and edges of zeros. With k = 1 it is a linear layer. */
typedef struct {
  int c_in, c_out, k, k_t;
  int stride_t, stride_hw;
  int up_t, up_hw;
  OsrTensor *weight, *bias; /* [c_out, k_t, k, k, c_in], [c_out] */
} OsrVaeConv;

typedef struct {
  int channels, groups;
  OsrTensor *weight, *bias;
} OsrVaeNorm;

typedef struct {
  char name[48]; /* "decoder.up_blocks.0.resnets.1" */
  OsrVaeNorm norm1, norm2;
  OsrVaeConv conv1, conv2;
  OsrVaeConv shortcut; /* c_in 0: the input itself */
} OsrVaeResnet;

typedef struct {
  char name[48];
  OsrVaeNorm norm;
  OsrDense qkv, out;
} OsrVaeAttention;

typedef struct {
  char name[48];
  guint n_resnets;
  OsrVaeResnet resnets[OSR_VAE_MAX_LAYERS + 1];
  OsrVaeConv resize; /* at the stage's end; c_in 0: none */
} OsrVaeStage;

/* The encoder or the decoder: both have these parts, in another order. */
typedef struct {
  const char *name; /* "encoder", "decoder" */
  OsrVaeConv quant; /* quant_conv, post_quant_conv; c_in 0: none */
  OsrVaeConv conv_in, conv_out;
  OsrVaeResnet mid[2];
  OsrVaeAttention attention; /* norm.channels 0: none */
  guint n_stages;
  OsrVaeStage stages[OSR_VAE_MAX_BLOCKS];
  OsrVaeNorm norm_out;
  float scale, shift; /* decoder: z = scale * latent + shift */
} OsrVaeNet;

struct _OsrVae {
  OsrVaeConfig config;
  OsrDevice *device;
  OsrDType dtype;
  OsrVaeNet *encoder, *decoder; /* NULL: not loaded */
};

/* What a network calls its parts. */
typedef struct {
  const char *conv_in, *conv_out, *norm_out;
  const char *mid, *mid_resnets[2], *attention;
  const char *attention_norm, *attention_qkv[4], *attention_out;
  const char *resnets, *conv1, *conv2, *shortcut;
  const char *down, *up, *downsample, *upsample;
} OsrVaeNames;

const OsrVaeNames *osr_vae_names(const OsrVaeConfig *config);

/* vae.c: layers. A @loader of NULL leaves the weights out, for dry runs. */
gboolean osr_vae_config_check(const OsrVaeConfig *config, GError **error);
/* What stage @i of either half does to time and space: 1 or 2. */
int osr_vae_time_factor(const OsrVaeConfig *config, guint i);
int osr_vae_space_factor(const OsrVaeConfig *config, guint i);

void osr_vae_conv_init(OsrVaeConv *conv, const OsrVaeConfig *config, int c_in, int c_out, int k,
                       OsrLoader *loader, const char *format, ...) G_GNUC_PRINTF(7, 8);
void osr_vae_norm_init(OsrVaeNorm *norm, int channels, guint groups, OsrLoader *loader,
                       const char *format, ...) G_GNUC_PRINTF(5, 6);
void osr_vae_stage_init(OsrVaeStage *stage, const OsrVaeConfig *config, const char *name, int c_in,
                        int c_out, guint n_resnets, OsrLoader *loader);
void osr_vae_mid_init(OsrVaeNet *net, const OsrVaeConfig *config, int channels, OsrLoader *loader);
void osr_vae_net_free(OsrVaeNet *net);

OsrVaeRun osr_vae_run_real(OsrVae *vae, GCancellable *cancellable);
OsrVaeRun osr_vae_run_dry(OsrDType dtype);
/* Before a block: waits until the device is not too far behind, reports progress, looks for
 * cancellation, locks the device. */
void osr_vae_run_begin(OsrVaeRun *run, const char *block);
/* After it: unlocks, and turns a failed operation into an error that names the block. */
void osr_vae_run_end(OsrVaeRun *run);
/* After the last block, for who wants to know that all is done. */
void osr_vae_run_finish(OsrVaeRun *run);
/* Whether operations are to be carried out. */
gboolean osr_vae_run_active(const OsrVaeRun *run);

OsrVaeMap osr_vae_map_new(OsrVaeRun *run, int t, int h, int w, int c);
void osr_vae_map_free(OsrVaeRun *run, OsrVaeMap *map);
/* Elements from frame @t, row @y, column @x on. */
gpointer osr_vae_map_at(const OsrVaeMap *map, int t, int y, int x);

/* Layers that return a map leave their input alone, blocks take it over. */
OsrVaeMap osr_vae_conv(OsrVaeRun *run, const OsrVaeConv *conv, const OsrVaeMap *x);
void osr_vae_norm(OsrVaeRun *run, const OsrVaeNorm *norm, OsrAct act, const OsrVaeMap *x,
                  const OsrVaeMap *y);
OsrVaeMap osr_vae_mid(OsrVaeRun *run, const OsrVaeNet *net, OsrVaeMap x);
OsrVaeMap osr_vae_stage(OsrVaeRun *run, const OsrVaeStage *stage, OsrVaeMap x);
/* norm_out, SiLU, conv_out */
OsrVaeMap osr_vae_head(OsrVaeRun *run, const OsrVaeNet *net, OsrVaeMap x);

/* vae-encoder.c, vae-decoder.c */
OsrVaeNet *osr_vae_encoder_new(const OsrVaeConfig *config, OsrLoader *loader);
OsrVaeNet *osr_vae_decoder_new(const OsrVaeConfig *config, OsrLoader *loader);
/* One tile, or everything: video -> moments, latent -> video. */
OsrVaeMap osr_vae_encoder_forward(OsrVaeRun *run, const OsrVaeNet *net, const OsrVaeMap *video);
OsrVaeMap osr_vae_decoder_forward(OsrVaeRun *run, const OsrVaeNet *net, const OsrVaeMap *latent);
/* The scaled latent of @moments [t, h, w, 2 C]; @noise [t, h, w, C] or NULL: the mode. */
OsrTensor *osr_vae_posterior(OsrVae *vae, OsrTensor *moments, OsrTensor *noise, GError **error);

/* vae-tiling.c: @x through @net in the tiles that @tiling asks for. The input is left alone. */
OsrVaeMap osr_vae_run_tiled(OsrVaeRun *run, const OsrVaeConfig *config, const OsrVaeNet *net,
                            gboolean decode, OsrVaeTiling tiling, const OsrVaeMap *x);

/* What an encode of a video or a decode of a latent of t x h x w takes. */
typedef struct {
  double flops;
  guint64 peak_bytes; /* result included, input not; G_MAXUINT64 if it does not fit */
} OsrVaeCost;

gboolean osr_vae_cost(const OsrVaeConfig *config, gboolean decode, OsrVaeTiling tiling,
                      OsrDType dtype, guint t, guint h, guint w, OsrVaeCost *cost, GError **error);

G_END_DECLS
