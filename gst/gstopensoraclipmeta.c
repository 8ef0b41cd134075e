/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoraclipmeta.h"

static gboolean
gst_opensora_clip_meta_init(GstMeta *meta, gpointer params, GstBuffer *buffer)
{
  memset((guint8 *) meta + sizeof(GstMeta), 0, sizeof(GstOpenSoraClipMeta) - sizeof(GstMeta));
  ((GstOpenSoraClipMeta *) meta)->fps_d = 1;
  return TRUE;
}

static void
gst_opensora_clip_meta_free(GstMeta *meta, GstBuffer *buffer)
{
  GstOpenSoraClipMeta *self = (GstOpenSoraClipMeta *) meta;

  g_free(self->prompt);
  g_free(self->negative_prompt);
  g_free(self->model);
  g_free(self->reference);
}

static gboolean
gst_opensora_clip_meta_transform(GstBuffer *transbuf, GstMeta *meta, GstBuffer *buffer, GQuark type,
                                 gpointer data)
{
  if (!GST_META_TRANSFORM_IS_COPY(type))
    return FALSE;
  gst_opensora_clip_meta_copy((GstOpenSoraClipMeta *) meta, transbuf);
  return TRUE;
}

GType
gst_opensora_clip_meta_api_get_type(void)
{
  static GType type;
  static const gchar *tags[] = { NULL };

  if (g_once_init_enter(&type)) {
    GType made = gst_meta_api_type_register("GstOpenSoraClipMetaAPI", tags);

    g_once_init_leave(&type, made);
  }
  return type;
}

const GstMetaInfo *
gst_opensora_clip_meta_get_info(void)
{
  static const GstMetaInfo *info;

  if (g_once_init_enter(&info)) {
    const GstMetaInfo *made = gst_meta_register(
        GST_OPENSORA_CLIP_META_API_TYPE, "GstOpenSoraClipMeta", sizeof(GstOpenSoraClipMeta),
        gst_opensora_clip_meta_init, gst_opensora_clip_meta_free, gst_opensora_clip_meta_transform);

    g_once_init_leave(&info, made);
  }
  return info;
}

GstOpenSoraClipMeta *
gst_buffer_add_opensora_clip_meta(GstBuffer *buffer)
{
  g_return_val_if_fail(gst_buffer_is_writable(buffer), NULL);
  return (GstOpenSoraClipMeta *) gst_buffer_add_meta(buffer, GST_OPENSORA_CLIP_META_INFO, NULL);
}

GstOpenSoraClipMeta *
gst_buffer_get_opensora_clip_meta(GstBuffer *buffer)
{
  return (GstOpenSoraClipMeta *) gst_buffer_get_meta(buffer, GST_OPENSORA_CLIP_META_API_TYPE);
}

GstOpenSoraClipMeta *
gst_opensora_clip_meta_copy(const GstOpenSoraClipMeta *meta, GstBuffer *buffer)
{
  GstOpenSoraClipMeta *copy = gst_buffer_add_opensora_clip_meta(buffer);
  GstMeta header = copy->meta;

  *copy = *meta;
  copy->meta = header;
  copy->prompt = g_strdup(meta->prompt);
  copy->negative_prompt = g_strdup(meta->negative_prompt);
  copy->model = g_strdup(meta->model);
  copy->reference = g_strdup(meta->reference);
  return copy;
}

GstTagList *
gst_opensora_clip_meta_to_tags(const GstOpenSoraClipMeta *meta)
{
  GString *comment = g_string_new(NULL);
  GstTagList *tags = gst_tag_list_new_empty();
  char number[G_ASCII_DTOSTR_BUF_SIZE];

  gst_tag_list_set_scope(tags, GST_TAG_SCOPE_STREAM);
  if (meta->prompt && *meta->prompt) {
    gst_tag_list_add(tags, GST_TAG_MERGE_REPLACE, GST_TAG_TITLE, meta->prompt, GST_TAG_DESCRIPTION,
                     meta->prompt, NULL);
  }
  g_string_append_printf(comment, "seed=%" G_GUINT64_FORMAT, meta->seed);
  if (meta->sequence)
    g_string_append_printf(comment, " sample=%u", meta->sequence);
  if (meta->model)
    g_string_append_printf(comment, " model=%s", meta->model);
  if (meta->steps) {
    g_string_append_printf(comment, " steps=%u", meta->steps);
    g_string_append_printf(comment, " guidance=%s",
                           g_ascii_formatd(number, sizeof number, "%g", meta->guidance));
    if (meta->condition != OSR_CONDITION_T2V)
      g_string_append_printf(comment, " guidance-image=%s condition=%s",
                             g_ascii_formatd(number, sizeof number, "%g", meta->guidance_img),
                             osr_condition_name(meta->condition));
  }
  if (meta->negative_prompt && *meta->negative_prompt)
    g_string_append_printf(comment, " negative-prompt=%s", meta->negative_prompt);
  gst_tag_list_add(tags, GST_TAG_MERGE_REPLACE, GST_TAG_COMMENT, comment->str,
                   GST_TAG_APPLICATION_NAME, "gst-opensora " PACKAGE_VERSION, NULL);
  g_string_free(comment, TRUE);
  return tags;
}
