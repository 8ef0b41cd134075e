/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* layer_norm, rms_norm, qk_norm_rope, group_norm */
#include "cpu.h"

/* What the tasks below get: an op's parameters and the loops. */
typedef struct Job {
  const void *p;
  const OsrLoops *loops;
} Job;

static void
layer_norm_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Job *job = data;
  const OsrLayerNorm *p = job->p;

  (void) thread;
  for (int64_t row = begin; row < end; row++) {
    const int64_t b = row / p->m, i = row % p->m;

    job->loops->layer_norm((const float *) p->x + b * p->x_batch + i * p->x_ld, p->n, p->eps,
                           p->weight, p->bias,
                           p->scale ? (const float *) p->scale + b * p->mod_batch : NULL,
                           p->shift ? (const float *) p->shift + b * p->mod_batch : NULL,
                           (float *) p->y + b * p->y_batch + i * p->y_ld);
  }
}

OsrResult
osr_cpu_layer_norm(OsrOpsContext *ctx, const OsrLayerNorm *p)
{
  const Job job = { p, osr_cpu_loops(ctx) };

  OSR_TRY(osr_check_layer_norm(ctx, p, OSR_CPU_DTYPES));
  if (p->n > 0)
    osr_cpu_run_rows(ctx, 8.0 * p->n, p->batch * p->m, layer_norm_task, &job);
  return OSR_OK;
}

static void
rms_norm_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Job *job = data;
  const OsrRmsNorm *p = job->p;

  (void) thread;
  for (int64_t i = begin; i < end; i++)
    job->loops->rms_norm((const float *) p->x + i * p->x_ld, p->n, p->eps, p->weight,
                         (float *) p->y + i * p->y_ld);
}

OsrResult
osr_cpu_rms_norm(OsrOpsContext *ctx, const OsrRmsNorm *p)
{
  const Job job = { p, osr_cpu_loops(ctx) };

  OSR_TRY(osr_check_rms_norm(ctx, p, OSR_CPU_DTYPES));
  if (p->n > 0)
    osr_cpu_run_rows(ctx, 6.0 * p->n, p->m, rms_norm_task, &job);
  return OSR_OK;
}

/* All heads of one row of q and k. */
static void
qk_row(const OsrQkNormRope *p, const OsrLoops *loops, int64_t b, int64_t i)
{
  const int64_t half = p->head_dim / 2;
  const float *cos = p->rope ? p->cos + i * half : NULL;
  const float *sin = p->rope ? p->sin + i * half : NULL;
  float *q = (float *) p->q + b * p->batch_stride + i * p->ld;
  float *k = (float *) p->k + b * p->batch_stride + i * p->ld;

  for (int head = 0; head < p->heads; head++, q += p->head_dim, k += p->head_dim) {
    loops->norm_rope(q, p->head_dim, p->q_scale, p->eps, p->rope, cos, sin);
    loops->norm_rope(k, p->head_dim, p->k_scale, p->eps, p->rope, cos, sin);
  }
}

static void
qk_norm_rope_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Job *job = data;
  const OsrQkNormRope *p = job->p;

  (void) thread;
  for (int64_t row = begin; row < end; row++)
    qk_row(p, job->loops, row / p->m, row % p->m);
}

OsrResult
osr_cpu_qk_norm_rope(OsrOpsContext *ctx, const OsrQkNormRope *p)
{
  const Job job = { p, osr_cpu_loops(ctx) };

  OSR_TRY(osr_check_qk_norm_rope(ctx, p, OSR_CPU_DTYPES));
  if (p->heads > 0)
    osr_cpu_run_rows(ctx, 16.0 * p->heads * p->head_dim, p->batch * p->m, qk_norm_rope_task, &job);
  return OSR_OK;
}

/* Positions of which statistics are made at a time: they stay in the cache between the mean
 * and the squares about it. Fixed, so that the result does not depend on the threads. */
#define CHUNK_POSITIONS 256

typedef struct Stats {
  double count, mean, squares; /* sum of (x - mean)^2 */
} Stats;

/* Adds b to a: T. F. Chan, G. H. Golub, R. J. LeVeque, The American Statistician 37 (1983). */
static void
stats_merge(Stats *a, const Stats *b)
{
  const double count = a->count + b->count, delta = b->mean - a->mean;

  a->squares += b->squares + delta * delta * a->count * b->count / count;
  a->mean += delta * b->count / count;
  a->count = count;
}

/* One batch item. */
typedef struct GroupNorm {
  const OsrGroupNorm *p;
  const OsrLoops *loops;
  const float *x;
  float *y;
  Stats *stats;         /* [chunks][groups] */
  float *mean, *factor; /* [channels] */
  float *work;          /* [threads][2 channels] */
} GroupNorm;

/* Statistics of every group of chunk i; `work` has room for two floats a channel. */
static void
chunk_stats(const GroupNorm *gn, int64_t i, float *work)
{
  const OsrGroupNorm *p = gn->p;
  const int width = p->channels / p->groups;
  const int64_t positions = osr_min64(CHUNK_POSITIONS, p->positions - i * CHUNK_POSITIONS);
  const float *x = gn->x + i * CHUNK_POSITIONS * p->channels;
  Stats *stats = gn->stats + i * p->groups;
  float *sums = work, *means = work + p->channels;

  gn->loops->channel_sums(x, positions, p->channels, sums);
  for (int g = 0; g < p->groups; g++) {
    double sum = 0.0;

    for (int c = g * width; c < (g + 1) * width; c++)
      sum += sums[c];
    stats[g].count = (double) positions * width;
    stats[g].mean = (float) (sum / stats[g].count);
    for (int c = g * width; c < (g + 1) * width; c++)
      means[c] = (float) stats[g].mean;
  }
  gn->loops->channel_squares(x, positions, p->channels, means, sums);
  for (int g = 0; g < p->groups; g++) {
    stats[g].squares = 0.0;
    for (int c = g * width; c < (g + 1) * width; c++)
      stats[g].squares += sums[c];
  }
}

static void
stats_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const GroupNorm *gn = data;

  for (int64_t i = begin; i < end; i++)
    chunk_stats(gn, i, gn->work + (ptrdiff_t) thread * 2 * gn->p->channels);
}

/* Mean of every channel's group, and the factor of what is left without it. */
static void
group_factors(const GroupNorm *gn)
{
  const OsrGroupNorm *p = gn->p;
  const int width = p->channels / p->groups;

  for (int c = 0; c < p->channels; c++) {
    const Stats *s = &gn->stats[c / width];
    const double weight = ((const float *) p->weight)[c];

    gn->mean[c] = (float) s->mean;
    gn->factor[c] = (float) (weight / sqrt(s->squares / s->count + p->eps));
  }
}

static void
normalise_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const GroupNorm *gn = data;
  const OsrGroupNorm *p = gn->p;
  const int64_t at = begin * CHUNK_POSITIONS;

  (void) thread;
  gn->loops->channel_norm(p->act, gn->x + at * p->channels,
                          osr_min64(end * CHUNK_POSITIONS, p->positions) - at, p->channels,
                          gn->mean, gn->factor, p->bias, gn->y + at * p->channels);
}

static void
group_norm_item(OsrOpsContext *ctx, const GroupNorm *gn)
{
  const OsrGroupNorm *p = gn->p;
  const int64_t chunks = osr_ceil_div(p->positions, CHUNK_POSITIONS);
  const double work = 8.0 * CHUNK_POSITIONS * p->channels;

  osr_cpu_run_rows(ctx, work, chunks, stats_task, gn);
  for (int64_t i = 1; i < chunks; i++)
    for (int g = 0; g < p->groups; g++)
      stats_merge(&gn->stats[g], &gn->stats[i * p->groups + g]);
  group_factors(gn);
  osr_cpu_run_rows(ctx, work, chunks, normalise_task, gn);
}

OsrResult
osr_cpu_group_norm(OsrOpsContext *ctx, const OsrGroupNorm *p)
{
  GroupNorm gn = { .p = p, .loops = osr_cpu_loops(ctx) };
  int64_t stats_floats, total;
  float *scratch;

  OSR_TRY(osr_check_group_norm(ctx, p, OSR_CPU_DTYPES));
  if (p->batch == 0 || p->positions == 0 || p->channels == 0)
    return OSR_OK;
  stats_floats = osr_ceil_div(p->positions, CHUNK_POSITIONS) * p->groups *
                 (int64_t) (sizeof(Stats) / sizeof(float));
  total = stats_floats + 2 * (int64_t) p->channels * (1 + ((OsrCpu *) ctx->impl)->n_threads);
  scratch = osr_cpu_scratch(ctx, "group_norm", total);
  if (!scratch)
    return OSR_ERR_MEMORY;
  gn.stats = (Stats *) (void *) scratch;
  gn.mean = scratch + stats_floats;
  gn.factor = gn.mean + p->channels;
  gn.work = gn.factor + p->channels;
  for (int64_t b = 0; b < p->batch; b++) {
    gn.x = (const float *) p->x + b * p->positions * p->channels;
    gn.y = (float *) p->y + b * p->positions * p->channels;
    group_norm_item(ctx, &gn);
  }
  osr_cpu_scratch_free(ctx, scratch, total);
  return OSR_OK;
}
