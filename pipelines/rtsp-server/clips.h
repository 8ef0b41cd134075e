/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * clips.h: the channels of /clip: one for each clip that somebody watches.
 */
#pragma once

#include "channel.h"

G_BEGIN_DECLS

typedef struct _Clips Clips;

/* One of them. */
typedef struct _Clip Clip;

/* @options has to outlive it. */
Clips *clips_new(const Options *options);
/* When no clip is left. */
void clips_free(Clips *self);

/* All of the following from any thread. */

/* Whether clips_get() would find @request or a place for it. */
gboolean clips_has_room(Clips *self, const ClipRequest *request);
/* The clip, under way or started now. NULL with @error: G_IO_ERROR_BUSY if there are as many as may
 * be, else it does not start. (transfer full) */
Clip *clips_get(Clips *self, const ClipRequest *request, GError **error);
/* The last one stops it. */
void clip_unref(Clip *clip);
/* (transfer none) */
Relay *clip_get_relay(Clip *clip);

guint clips_get_n(Clips *self);
/* Ends all of them, and they all have ended then for those that come. */
void clips_end(Clips *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Clips, clips_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Clip, clip_unref)

G_END_DECLS
