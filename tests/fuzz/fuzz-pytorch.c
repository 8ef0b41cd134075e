/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The reader of PyTorch files: zip archive and pickle. See meson.build for libFuzzer. */
#include <stdint.h>
#include <string.h>

#include "checkpoint.h"
#include "error.h"
#include "pickle-private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

/* Reads all that the checkpoint says there is, which no tensor may have more of than the file. */
static void
use(OsrCheckpoint *checkpoint, gsize file_size)
{
  for (guint i = 0; i < osr_checkpoint_n_entries(checkpoint); i++) {
    const OsrCheckpointEntry *entry = osr_checkpoint_nth(checkpoint, i);
    gsize n = entry->size / osr_dtype_size(entry->dtype);
    g_autofree float *values = g_new(float, n + 1);
    g_autofree guint8 *packed = g_malloc(entry->size + 1);
    g_autoptr(GError) error = NULL;

    g_assert_true(osr_checkpoint_lookup(checkpoint, entry->name) == entry);
    g_assert_cmpuint(entry->size, <=, file_size);
    if (!osr_checkpoint_entry_to_f32(entry, values, &error))
      g_assert_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED);
    osr_checkpoint_entry_check_finite(entry, NULL);
    osr_checkpoint_entry_pack(entry, packed);
    for (gsize b = 0; b < entry->size; b++)
      sink = packed[b];
  }
}

static void
check_error(const GError *error)
{
  g_assert_true(error && error->domain == OSR_ERROR);
  g_assert_true(g_utf8_validate(error->message, -1, NULL));
}

/* The whole as a file, and as a pickle: mutations that a zip archive survives are rare. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  g_autoptr(GBytes) bytes = g_bytes_new_static(data, size);
  g_autoptr(GError) error = NULL, pickle_error = NULL;
  g_autoptr(OsrCheckpoint) checkpoint = osr_checkpoint_open_bytes(bytes, "fuzz", &error);
  g_autoptr(OsrPickle) pickle = osr_pickle_read(data, size, "fuzz", &pickle_error);

  if (checkpoint)
    use(checkpoint, size);
  else
    check_error(error);
  if (pickle)
    g_assert_nonnull(osr_pickle_root(pickle));
  else
    check_error(pickle_error);
  return 0;
}
