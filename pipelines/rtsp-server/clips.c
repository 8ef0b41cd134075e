/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "clips.h"

#include "log.h"

struct _Clip {
  Clips *clips;
  char *key;
  guint ref_count; /* under the lock of @clips */
  Channel *channel;
};

struct _Clips {
  const Options *options;
  GMutex lock;
  GHashTable *by_key; /* key of the clip -> Clip, not owned */
  guint n_stopping;   /* not in the table any more, but still there */
  gboolean ended;
};

Clips *
clips_new(const Options *options)
{
  Clips *self = g_new0(Clips, 1);

  self->options = options;
  g_mutex_init(&self->lock);
  self->by_key = g_hash_table_new(g_str_hash, g_str_equal);
  return self;
}

void
clips_free(Clips *self)
{
  g_assert(g_hash_table_size(self->by_key) == 0 && self->n_stopping == 0);
  g_hash_table_unref(self->by_key);
  g_mutex_clear(&self->lock);
  g_free(self);
}

static guint
count(Clips *self)
{
  return g_hash_table_size(self->by_key) + self->n_stopping;
}

gboolean
clips_has_room(Clips *self, const ClipRequest *request)
{
  gboolean room;

  g_mutex_lock(&self->lock);
  room = !self->ended && (g_hash_table_contains(self->by_key, request->key) ||
                          count(self) < self->options->max_clips);
  g_mutex_unlock(&self->lock);
  return room;
}

static Clip *
start(Clips *self, const ClipRequest *request, GError **error)
{
  g_autoptr(Channel) channel = channel_new(self->options, request, error);
  Clip *clip;

  if (!channel || !channel_start(channel, error))
    return NULL;
  GST_INFO("\"%s\", seed %" G_GINT64_FORMAT " starts", request->prompt, request->seed);
  clip = g_new0(Clip, 1);
  clip->clips = self;
  clip->key = g_strdup(request->key);
  clip->ref_count = 1;
  clip->channel = g_steal_pointer(&channel);
  return clip;
}

Clip *
clips_get(Clips *self, const ClipRequest *request, GError **error)
{
  Clip *clip;

  g_mutex_lock(&self->lock);
  clip = g_hash_table_lookup(self->by_key, request->key);
  if (clip) {
    clip->ref_count++;
  } else if (self->ended || count(self) >= self->options->max_clips) {
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_BUSY, "no more clips at once");
  } else {
    clip = start(self, request, error);
    if (clip)
      g_hash_table_insert(self->by_key, clip->key, clip);
  }
  g_mutex_unlock(&self->lock);
  return clip;
}

/* Stopping takes a moment, in which the others go on. */
static void
stop(Clip *clip)
{
  Clips *self = clip->clips;

  GST_INFO("%s stops", clip->key);
  channel_stop(clip->channel);
  channel_unref(clip->channel);
  g_free(clip->key);
  g_free(clip);
  g_mutex_lock(&self->lock);
  self->n_stopping--;
  g_mutex_unlock(&self->lock);
}

void
clip_unref(Clip *clip)
{
  Clips *self = clip->clips;
  gboolean last;

  g_mutex_lock(&self->lock);
  last = --clip->ref_count == 0;
  if (last) {
    g_hash_table_remove(self->by_key, clip->key);
    self->n_stopping++;
  }
  g_mutex_unlock(&self->lock);
  if (last)
    stop(clip);
}

Relay *
clip_get_relay(Clip *clip)
{
  return channel_get_relay(clip->channel);
}

guint
clips_get_n(Clips *self)
{
  guint n;

  g_mutex_lock(&self->lock);
  n = count(self);
  g_mutex_unlock(&self->lock);
  return n;
}

void
clips_end(Clips *self)
{
  GHashTableIter iter;
  gpointer clip;

  g_mutex_lock(&self->lock);
  self->ended = TRUE;
  g_hash_table_iter_init(&iter, self->by_key);
  while (g_hash_table_iter_next(&iter, NULL, &clip))
    relay_end(clip_get_relay(clip));
  g_mutex_unlock(&self->lock);
}
