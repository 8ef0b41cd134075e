/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Host memory: how much there is to be had, and blocks of it. */
#include "host.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

#define ALIGNMENT ((size_t) 64)
/* From here on a block is worth huge pages: fewer page faults when it is first written, and
 * convolutions walk through many rows at once. */
#define HUGE_PAGE ((size_t) 2 << 20)
#define HUGE_FROM ((size_t) 8 << 20)
/* From here on a block is worth asking whether there is memory for it. */
#define ASK_FROM ((size_t) 32 << 20)

/* The number after `key` at the start of a line of a small file; the file's first number if
 * key is "". False where the file, the line or the number is missing. */
static bool
read_number(const char *path, const char *key, unsigned long long *number)
{
  FILE *f = fopen(path, "re");
  bool found = false;
  char line[256];

  if (!f)
    return false;
  while (!found && fgets(line, sizeof line, f))
    found = strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), "%llu", number) == 1;
  fclose(f);
  return found;
}

/* What the control group of this process (version 2, as containers and services have) leaves;
 * SIZE_MAX where it sets no bound. Its count includes the page cache, which can be had too. */
static size_t
group_leaves(void)
{
  unsigned long long bound, used, cache = 0;
  char line[512], path[600];
  FILE *f = fopen("/proc/self/cgroup", "re");
  const char *group = NULL;

  if (!f)
    return SIZE_MAX;
  while (!group && fgets(line, sizeof line, f))
    if (strncmp(line, "0::", 3) == 0)
      group = line + 3;
  fclose(f);
  if (!group)
    return SIZE_MAX;
  line[strcspn(line, "\n")] = '\0';

  snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
  if (!read_number(path, "", &bound)) /* "max": no bound */
    return SIZE_MAX;
  snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.current", group);
  if (!read_number(path, "", &used))
    return SIZE_MAX;
  snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.stat", group);
  read_number(path, "file ", &cache);
  used -= cache < used ? cache : used;
  return used < bound ? (size_t) (bound - used) : 0;
}

OsrResult
osr_host_mem_info(OsrOpsContext *ctx, size_t *free, size_t *total)
{
  const long page = sysconf(_SC_PAGESIZE), pages = sysconf(_SC_PHYS_PAGES);
  const long idle = sysconf(_SC_AVPHYS_PAGES);
  unsigned long long available;
  size_t leaves;

  if (page <= 0 || pages <= 0 || idle < 0)
    return osr_fail(ctx, OSR_ERR_DEVICE, "%s: the system does not tell its memory size",
                    ctx->backend->name);
  *total = (size_t) pages * (size_t) page;
  *free = (size_t) idle * (size_t) page;

  /* Where there is /proc/meminfo it knows better: the page cache can be had too. */
  if (read_number("/proc/meminfo", "MemAvailable:", &available))
    *free = (size_t) available * 1024;
  leaves = group_leaves();
  if (leaves < *free)
    *free = leaves;
  return OSR_OK;
}

/* Linux promises more memory than it has and kills the process that takes it at its word, so
 * large blocks are refused here, where the caller can still say why. */
static bool
there_is(OsrOpsContext *ctx, size_t size)
{
  size_t free, total;

  return size < ASK_FROM || osr_host_mem_info(ctx, &free, &total) != OSR_OK || size <= free;
}

void *
osr_host_mem_alloc(OsrOpsContext *ctx, size_t size)
{
  const size_t alignment = size >= HUGE_FROM ? HUGE_PAGE : ALIGNMENT;
  size_t rounded;
  void *ptr;

  if (size > SIZE_MAX - alignment || !there_is(ctx, size))
    return NULL;
  /* An empty block gets an address of its own too. */
  rounded = (size + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
  if (posix_memalign(&ptr, alignment, rounded) != 0)
    return NULL;
#ifdef MADV_HUGEPAGE
  if (size >= HUGE_FROM)
    madvise(ptr, rounded / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
  return ptr;
}

void
osr_host_mem_free(OsrOpsContext *ctx, void *ptr, size_t size)
{
  (void) ctx;
  (void) size;
  free(ptr);
}

OsrResult
osr_host_mem_set(OsrOpsContext *ctx, void *ptr, int byte, size_t size)
{
  (void) ctx;
  if (size > 0)
    memset(ptr, byte, size);
  return OSR_OK;
}

OsrResult
osr_host_copy(OsrOpsContext *ctx, OsrCopy kind, void *dst, const void *src, size_t size)
{
  if (size == 0)
    return OSR_OK;
  memmove(dst, src, size);
  osr_count_copy(ctx, kind, size);
  return OSR_OK;
}
