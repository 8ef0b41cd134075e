/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * channel.h: a pipeline that generates clips and plays them without a break.
 */
#pragma once

#include "clip-request.h"
#include "options.h"
#include "relay.h"

G_BEGIN_DECLS

/**
 * Channel:
 *
 * opensorasrc and opensoraplayout, whose frames are at the relay from the moment the channel
 * starts, a slate at first. It runs on the system clock. A channel of one clip ends its relay after
 * an error.
 */
typedef struct _Channel Channel;

/* Called in the main context for every message of the pipeline's bus. */
typedef void (*ChannelMessageFunc)(GstMessage *message, gpointer user_data);

/* @request NULL: the source waits for prompts, and plays its clips as --repeat says; else the
 * source makes that clip alone. NULL with @error where an element is missing or refuses an
 * option. */
Channel *channel_new(const Options *options, const ClipRequest *request, GError **error);
/* From any thread but those of the pipeline. */
void channel_stop(Channel *self);
/* Of a channel that was stopped, or never started. */
void channel_unref(Channel *self);
/* Before channel_start(). */
void channel_set_message_func(Channel *self, ChannelMessageFunc func, gpointer user_data);

/* FALSE with @error if it refuses; errors that come later are messages. */
gboolean channel_start(Channel *self, GError **error);

/* (transfer none) */
GstElement *channel_get_source(Channel *self);
Relay *channel_get_relay(Channel *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Channel, channel_unref)

G_END_DECLS
