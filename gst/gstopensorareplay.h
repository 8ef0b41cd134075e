/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensorareplay.h: what makes a stream that cannot be seeked in seekable: it keeps all frames,
 * and plays them from wherever it is asked to. For use inside opensorasrc; not registered.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/*
 * Seeks in time, forwards at any rate. What has not come yet when it is sought is waited for;
 * seeks never disturb what comes. Frames are held until the element goes to READY.
 */
#define GST_TYPE_OPENSORA_REPLAY (gst_opensora_replay_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraReplay, gst_opensora_replay, GST, OPENSORA_REPLAY, GstElement)

/* @stream_id: of the stream, NULL: as it comes, which is another one every time. (transfer
 * floating) */
GstElement *gst_opensora_replay_new(const char *name, const char *stream_id);

G_END_DECLS
