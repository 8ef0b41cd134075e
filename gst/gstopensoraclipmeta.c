/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoraclipmeta.h"

#include <string.h>

static gboolean
copy_field(GQuark name, const GValue *value, gpointer to)
{
  gst_structure_id_set_value(to, name, value);
  return TRUE;
}

/* Our own, because GStreamer 1.22's ties the copy to the refcount of the original buffer. */
static gboolean
transform(GstBuffer *to, GstCustomMeta *meta, GstBuffer *from, GQuark type, gpointer data,
          gpointer user_data)
{
  if (!GST_META_TRANSFORM_IS_COPY(type))
    return FALSE;
  gst_opensora_clip_meta_add(to, gst_custom_meta_get_structure(meta));
  return TRUE;
}

void
gst_opensora_clip_meta_register(void)
{
  static const gchar *tags[] = { NULL };

  gst_meta_register_custom(GST_OPENSORA_CLIP_META, tags, transform, NULL, NULL);
}

GstStructure *
gst_opensora_clip_meta_add(GstBuffer *buffer, const GstStructure *fields)
{
  GstCustomMeta *meta = gst_buffer_add_custom_meta(buffer, GST_OPENSORA_CLIP_META);
  GstStructure *clip = gst_custom_meta_get_structure(meta);

  if (fields)
    gst_structure_foreach(fields, copy_field, clip);
  return clip;
}

const GstStructure *
gst_opensora_clip_meta_get(GstBuffer *buffer)
{
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, GST_OPENSORA_CLIP_META);

  return meta ? gst_custom_meta_get_structure(meta) : NULL;
}

#define TICKET "ticket"

void
gst_opensora_clip_meta_set_ticket(GstStructure *clip, GstOpenSoraTicket *ticket)
{
  gst_structure_set(clip, TICKET, GST_TYPE_OPENSORA_TICKET, ticket, NULL);
}

GstOpenSoraTicket *
gst_opensora_clip_meta_get_ticket(const GstStructure *clip)
{
  const GValue *value = clip ? gst_structure_get_value(clip, TICKET) : NULL;

  return value && G_VALUE_HOLDS(value, GST_TYPE_OPENSORA_TICKET) ? g_value_get_object(value) : NULL;
}

void
gst_opensora_clip_meta_forget_ticket(GstStructure *clip)
{
  gst_structure_remove_field(clip, TICKET);
}

void
gst_opensora_clip_meta_remove_ticket(GstBuffer *buffer)
{
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, GST_OPENSORA_CLIP_META);

  if (meta)
    gst_opensora_clip_meta_forget_ticket(gst_custom_meta_get_structure(meta));
}

#define PICTURE "picture"

GstBuffer *
gst_opensora_clip_meta_for_picture(GstBuffer *buffer)
{
  GstCustomMeta *meta;

  buffer = gst_buffer_make_writable(buffer);
  meta = gst_buffer_get_custom_meta(buffer, GST_OPENSORA_CLIP_META);
  if (meta) {
    GstStructure *clip = gst_custom_meta_get_structure(meta);

    gst_structure_remove_fields(clip, "steps", "frames", "width", "height", "guidance",
                                "guidance-image", NULL);
    gst_structure_set(clip, PICTURE, G_TYPE_BOOLEAN, TRUE, NULL);
  }
  return buffer;
}

gboolean
gst_opensora_clip_meta_is_picture(const GstStructure *clip)
{
  return clip && gst_structure_has_field(clip, PICTURE);
}

/* The tag "comment" */

/* Quoted where gst_parse_launch() and shells would take it for several words. */
static void
append_string(GString *comment, const char *name, const GstStructure *clip, const char *field)
{
  const char *value = gst_structure_get_string(clip, field);

  if (!value || !*value)
    return;
  if (strspn(value, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "_-./:") == strlen(value)) {
    g_string_append_printf(comment, " %s=%s", name, value);
    return;
  }
  g_string_append_printf(comment, " %s=\"", name);
  for (const char *p = value; *p; p++) {
    if (strchr("\\\"$`", *p))
      g_string_append_c(comment, '\\');
    g_string_append_c(comment, *p);
  }
  g_string_append_c(comment, '"');
}

/* With as few digits as give the same number back. */
static void
append_double(GString *comment, const char *name, const GstStructure *clip)
{
  char text[G_ASCII_DTOSTR_BUF_SIZE], format[8];
  double value;

  if (!gst_structure_get_double(clip, name, &value))
    return;
  for (int digits = 6; digits <= 17; digits++) {
    g_snprintf(format, sizeof format, "%%.%dg", digits);
    g_ascii_formatd(text, sizeof text, format, value);
    if (g_ascii_strtod(text, NULL) == value)
      break;
  }
  g_string_append_printf(comment, " %s=%s", name, text);
}

static void
append_uint(GString *comment, const char *name, const GstStructure *clip)
{
  guint value;

  if (gst_structure_get_uint(clip, name, &value))
    g_string_append_printf(comment, " %s=%u", name, value);
}

static void
append_int(GString *comment, const char *name, const GstStructure *clip)
{
  gint value;

  if (gst_structure_get_int(clip, name, &value))
    g_string_append_printf(comment, " %s=%d", name, value);
}

static void
append_switch(GString *comment, const char *name, const GstStructure *clip)
{
  gboolean value;

  if (gst_structure_get_boolean(clip, name, &value))
    g_string_append_printf(comment, " %s=%s", name, value ? "on" : "off");
}

static char *
make_comment(const GstStructure *clip)
{
  const char *condition = gst_structure_get_string(clip, "condition");
  GString *comment = g_string_new(NULL);
  gboolean flag;
  guint64 seed;

  if (gst_structure_get_uint64(clip, "seed", &seed))
    g_string_append_printf(comment, "seed=%" G_GUINT64_FORMAT, seed);
  append_string(comment, "model", clip, "model");
  append_uint(comment, "steps", clip);
  append_double(comment, "guidance", clip);
  append_switch(comment, "text-oscillation", clip);
  append_switch(comment, "shift", clip);
  if (gst_structure_get_boolean(clip, "shift", &flag) && flag)
    append_double(comment, "flow-shift", clip);
  if (gst_structure_get_boolean(clip, "decorate", &flag) && !flag)
    g_string_append(comment, " decorate=false");
  else
    append_uint(comment, "motion-score", clip);
  if (condition && !g_str_equal(condition, "t2v")) {
    append_string(comment, "condition", clip, "condition");
    append_double(comment, "guidance-image", clip);
    append_switch(comment, "image-oscillation", clip);
    append_switch(comment, "temporal-scaling", clip);
    append_string(comment, "image", clip, "reference");
  }
  append_int(comment, "extend", clip);
  append_string(comment, "compat", clip, "compat");
  append_string(comment, "rng", clip, "rng");
  append_string(comment, "negative-prompt", clip, "negative-prompt");
  return g_string_free(comment, FALSE);
}

GstTagList *
gst_opensora_clip_meta_to_tags(const GstStructure *clip)
{
  const char *prompt = gst_structure_get_string(clip, "prompt");
  g_autofree char *comment = make_comment(clip);
  GstTagList *tags = gst_tag_list_new_empty();

  gst_tag_list_set_scope(tags, GST_TAG_SCOPE_STREAM);
  if (prompt && *prompt)
    gst_tag_list_add(tags, GST_TAG_MERGE_REPLACE, GST_TAG_TITLE, prompt, GST_TAG_DESCRIPTION,
                     prompt, NULL);
  gst_tag_list_add(tags, GST_TAG_MERGE_REPLACE, GST_TAG_COMMENT, comment, GST_TAG_APPLICATION_NAME,
                   "gst-opensora " PACKAGE_VERSION, NULL);
  return tags;
}
