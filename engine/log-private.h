/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* A debug line of the domain "opensora". G_MESSAGES_DEBUG=opensora shows it, as in every
 * GLib program; so does a non-empty OPENSORA_LOG, which switches on nobody else's lines. */
#define osr_debug(...)                                                                             \
  G_STMT_START                                                                                     \
  {                                                                                                \
    const char *osr_log_ = g_getenv("OPENSORA_LOG");                                               \
    if (osr_log_ && *osr_log_)                                                                     \
      g_message(__VA_ARGS__);                                                                      \
    else                                                                                           \
      g_debug(__VA_ARGS__);                                                                        \
  }                                                                                                \
  G_STMT_END

G_END_DECLS
