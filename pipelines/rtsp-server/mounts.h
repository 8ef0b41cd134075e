/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mounts.h: the RTSP server: which URL gives what.
 */
#pragma once

#include <gst/rtsp-server/rtsp-server.h>

#include "clips.h"
#include "codec.h"

G_BEGIN_DECLS

/* A server that is not attached yet. Mounts /live, fed by @live, and, unless none are allowed,
 * /clip for each codec that there is. @options and @clips have to outlive it.
 *
 * All clients of a mount point that see the same share one encoder. What a client does not read is
 * kept for some seconds and then lost to it alone. Where there is TLS, RTP goes over the same
 * connection; UDP would be in the clear. */
GstRTSPServer *mounts_new(const Options *options, const CodecChoice codecs[N_CODECS], Relay *live,
                          Clips *clips);

/* Connections. */
guint mounts_count_clients(GstRTSPServer *server);

/* Roles that may watch; tokens of users have it. */
#define MOUNTS_ROLE "viewer"

G_END_DECLS
