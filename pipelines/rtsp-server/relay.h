/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * relay.h: the frames of one pipeline for any number of others.
 */
#pragma once

#include <gst/app/gstappsink.h>

G_BEGIN_DECLS

/**
 * Relay:
 *
 * Hands what arrives at an appsink on to appsrc elements of other pipelines. Those come and go at
 * any time, from any thread, and are not kept alive. Nobody is waited for: a pipeline that does
 * not take its frames loses the oldest of them, and nobody else notices. All pipelines have to use
 * the same clock; a frame keeps its time on that clock.
 */
typedef struct _Relay Relay;

/* Feeds on @sink, for as long as that lives. Returns a reference. */
Relay *relay_new(GstAppSink *sink);
Relay *relay_ref(Relay *self);
void relay_unref(Relay *self);

/* From the next frame on @src, an appsrc that drops buffers, gets what there is. */
void relay_add(Relay *self, GstElement *src);
/* EOS for all that are there and all that come. */
void relay_end(Relay *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Relay, relay_unref)

G_END_DECLS
