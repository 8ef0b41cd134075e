/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The reader of safetensors files. See meson.build for how to run it under libFuzzer. */
#include <stdint.h>
#include <string.h>

#include "checkpoint.h"
#include "error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

/* Reads all that the checkpoint says there is. */
static void
use(OsrCheckpoint *checkpoint, gsize file_size)
{
  gsize total = 0;

  for (guint i = 0; i < osr_checkpoint_n_entries(checkpoint); i++) {
    const OsrCheckpointEntry *entry = osr_checkpoint_nth(checkpoint, i);
    gsize n = entry->size / osr_dtype_size(entry->dtype);
    g_autofree float *values = g_new(float, n + 1);
    g_autoptr(GError) error = NULL;

    g_assert_true(osr_checkpoint_lookup(checkpoint, entry->name) == entry);
    g_assert_cmpuint(entry->n_dims, <=, OSR_TENSOR_MAX_DIMS);
    for (guint d = 0; d < entry->n_dims; d++)
      g_assert_cmpint(entry->dims[d], >=, 0);
    if (!osr_checkpoint_entry_to_f32(entry, values, &error))
      g_assert_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED);
    for (gsize b = 0; b < entry->size; b++)
      sink = ((const uint8_t *) entry->data)[b];
    total += entry->size;
  }
  g_assert_cmpuint(total, <=, file_size);
  osr_checkpoint_get_metadata(checkpoint, "format");
}

static void
try(const uint8_t *data, size_t size)
{
  g_autoptr(GBytes) bytes = g_bytes_new_static(data, size);
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrCheckpoint) checkpoint = osr_checkpoint_open_bytes(bytes, "fuzz", &error);

  if (checkpoint) {
    g_assert_no_error(error);
    use(checkpoint, size);
  } else {
    g_assert_true(error && error->domain == OSR_ERROR);
    g_assert_true(g_utf8_validate(error->message, -1, NULL));
  }
}

/* Nearly all mutations break the header's length first, so the input is also tried with a
 * length that goes to the last '}'. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  const uint8_t *end = size > 8 ? memrchr(data + 8, '}', size - 8) : NULL;
  g_autofree uint8_t *fixed = NULL;
  guint64 length;

  try(data, size);
  if (end) {
    fixed = g_memdup2(data, size);
    length = GUINT64_TO_LE((guint64) (end - data) - 7);
    memcpy(fixed, &length, sizeof length);
    try(fixed, size);
  }
  return 0;
}
