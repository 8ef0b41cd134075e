/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* A debug line of the domain "opensora". G_MESSAGES_DEBUG=opensora shows it, as in every
 * GLib program; so does a non-empty OPENSORA_LOG, which switches on nobody else's lines.
 * By g_log(), because g_debug() is structured here and passes by handlers, with which the
 * GStreamer plug-in takes the lines into GST_DEBUG. */
#define osr_debug(...)                                                                             \
  G_STMT_START                                                                                     \
  {                                                                                                \
    const char *osr_log_ = g_getenv("OPENSORA_LOG");                                               \
    g_log(G_LOG_DOMAIN, osr_log_ && *osr_log_ ? G_LOG_LEVEL_MESSAGE : G_LOG_LEVEL_DEBUG,            \
          __VA_ARGS__);                                                                            \
  }                                                                                                \
  G_STMT_END

G_END_DECLS
