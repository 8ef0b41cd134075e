/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fake-cuda.h: what tests tell the fake CUDA module, and what it tells them. A test that has
 * opened a device finds the module's FakeCuda as its symbol "fake_cuda".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef struct FakeCuda {
  /* To do, on device 0. */
  uint64_t fail_at;           /* when n_run gets here, that call fails the device; 0: never */
  unsigned attention_ms;      /* that an attention takes */
  bool fail_begin, fail_end;  /* graph_begin(), graph_end() */
  bool fail_launch;           /* graph_launch(), without a failure of the device */
  uint64_t recording_scratch; /* bytes more that ops ask for while they are recorded */

  bool late_fetches;          /* fetches run when they are joined, not as soon as they may */

  /* Done, on all devices, since the test set them to zero. */
  uint64_t n_enqueued, n_run;      /* calls; those of a graph count each time */
  uint64_t n_recorded, n_launched; /* graphs */
  uint64_t n_waited;               /* waits that had something to wait for */
  uint64_t n_joins, n_joins_ahead; /* with a fetch after the one that they wait for */
  uint64_t n_tf32;                 /* linears that may be rounded */
  /* Attentions that are enqueued and have not run: now and at most. */
  uint64_t attentions_behind, max_attentions_behind;
  uint64_t calls_behind, max_calls_behind; /* likewise, all calls */
} FakeCuda;
