/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fake-driver.h: what the fake libcuda.so.1 tells tests, as its symbols.
 */
#pragma once

#include <stdbool.h>

typedef struct FakeDriver {
  int contexts;        /* made with cuCtxCreate() and not destroyed */
  int primary_refs[2]; /* of each device's primary context */
  int device_blocks, host_blocks;
  int peer_copies;    /* since the start */
  int fail_peer_copy; /* the next one fails */
  int fail_alloc;     /* the next allocation fails */
} FakeDriver;

/* "fake_driver" */
