/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sentencepiece.h"

#include <exception>
#include <memory>
#include <string_view>
#include <vector>

#include <sentencepiece_processor.h>

/* clang's check of dynamic types needs a C++ runtime of the sanitizer that C programs, and
 * so our tests, are not linked with. */
#ifdef __clang__
#pragma clang attribute push(__attribute__((no_sanitize("vptr"))), apply_to = function)
#endif

struct _OsrSentencepiece {
  sentencepiece::SentencePieceProcessor processor;
};

static_assert(sizeof(int) == sizeof(gint32), "ids are copied as they are");

/* C callers cannot catch: what the library throws (out of memory) becomes a reason. */
template <typename F>
static bool
guarded(char **reason, F &&call)
{
  try {
    const sentencepiece::util::Status status = call();
    if (status.ok())
      return true;
    *reason = g_strdup(status.ToString().c_str());
  } catch (const std::exception &e) {
    *reason = g_strdup(e.what());
  } catch (...) {
    *reason = g_strdup("unknown exception");
  }
  return false;
}

OsrSentencepiece *
osr_sentencepiece_new(const char *data, gsize length, char **reason)
{
  std::unique_ptr<OsrSentencepiece> sp;

  if (!guarded(reason, [&] {
        sp = std::make_unique<OsrSentencepiece>();
        return sp->processor.LoadFromSerializedProto(std::string_view(data, length));
      }))
    return nullptr;
  return sp.release();
}

void
osr_sentencepiece_free(OsrSentencepiece *sp)
{
  delete sp;
}

gint32
osr_sentencepiece_size(const OsrSentencepiece *sp)
{
  return sp->processor.GetPieceSize();
}

gint32
osr_sentencepiece_pad_id(const OsrSentencepiece *sp)
{
  return sp->processor.pad_id();
}

gint32
osr_sentencepiece_eos_id(const OsrSentencepiece *sp)
{
  return sp->processor.eos_id();
}

gint32
osr_sentencepiece_unk_id(const OsrSentencepiece *sp)
{
  return sp->processor.unk_id();
}

const char *
osr_sentencepiece_piece(const OsrSentencepiece *sp, gint32 id)
{
  return sp->processor.IdToPiece(id).c_str();
}

gboolean
osr_sentencepiece_encode(const OsrSentencepiece *sp, const char *text, gsize length, GArray *ids,
                         char **reason)
{
  std::vector<int> found;

  if (!guarded(reason,
               [&] { return sp->processor.Encode(std::string_view(text, length), &found); }))
    return FALSE;
  g_array_append_vals(ids, found.data(), (guint) found.size());
  return TRUE;
}

#ifdef __clang__
#pragma clang attribute pop
#endif
