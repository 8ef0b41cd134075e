/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "clip-request.h"

#include <string.h>

#define CONTROL "/stream="

static gboolean
refuse(GError **error, const char *text)
{
  g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, text);
  return FALSE;
}

gboolean
prompt_check(const char *text, guint max, GError **error)
{
  gboolean visible = FALSE;

  if (strlen(text) > max) {
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "the prompt is above %u bytes",
                max);
    return FALSE;
  }
  if (!g_utf8_validate(text, -1, NULL))
    return refuse(error, "the prompt is not UTF-8");
  for (const char *p = text; *p; p = g_utf8_next_char(p)) {
    const gunichar c = g_utf8_get_char(p);

    if (g_unichar_iscntrl(c) && c != '\t' && c != '\n' && c != '\r')
      return refuse(error, "the prompt has control characters in it");
    visible |= g_unichar_isgraph(c);
  }
  return visible || refuse(error, "the prompt is empty");
}

const char *
clip_request_get_control(const char *query)
{
  const char *slash = strrchr(query, '/');

  return slash && g_str_has_prefix(slash, CONTROL) ? slash : query + strlen(query);
}

static gboolean
parse_seed(const char *text, gint64 *seed, GError **error)
{
  return g_ascii_string_to_signed(text, 10, 0, G_MAXINT64, seed, NULL) ||
         refuse(error, "the seed is no number from 0 to 9223372036854775807");
}

/* @text is taken. */
static gboolean
take_text(char **field, char *text, guint max, GError **error)
{
  *field = g_strstrip(text);
  return prompt_check(text, max, error);
}

static gboolean
parse_parameter(ClipRequest *self, const char *name, const char *value, guint max_prompt,
                GError **error)
{
  if (g_str_equal(name, "prompt") && !self->prompt)
    return take_text(&self->prompt, g_strdup(value), max_prompt, error);
  if (g_str_equal(name, "negative-prompt") && !self->negative_prompt)
    return take_text(&self->negative_prompt, g_strdup(value), max_prompt, error);
  if (g_str_equal(name, "seed") && self->seed < 0)
    return parse_seed(value, &self->seed, error);
  return refuse(error, "only prompt, negative-prompt and seed can be asked for, each once");
}

/* Unambiguous: prompts have no NUL in them, and the lengths tell where each ends. */
static char *
make_key(const ClipRequest *self)
{
  const char *negative = self->negative_prompt ? self->negative_prompt : "";

  return g_strdup_printf("%" G_GINT64_FORMAT ":%" G_GSIZE_FORMAT ":%s:%s", self->seed,
                         strlen(self->prompt), self->prompt, negative);
}

ClipRequest *
clip_request_parse(const char *query, gint64 default_seed, guint max_prompt, GError **error)
{
  g_autoptr(ClipRequest) self = g_new0(ClipRequest, 1);
  const char *control = query ? clip_request_get_control(query) : NULL;
  g_autofree char *name = NULL, *value = NULL;
  GUriParamsIter iter;
  GError *local = NULL;

  self->seed = -1;
  g_uri_params_iter_init(&iter, query ? query : "", query ? control - query : 0, "&",
                         G_URI_PARAMS_WWW_FORM);
  while (g_uri_params_iter_next(&iter, &name, &value, &local)) {
    if (!parse_parameter(self, name, value, max_prompt, error))
      return NULL;
    g_clear_pointer(&name, g_free);
    g_clear_pointer(&value, g_free);
  }
  if (local) {
    g_propagate_error(error, local);
    return NULL;
  }
  if (!self->prompt) {
    refuse(error, "there is no prompt in the URL: /clip?prompt=TEXT");
    return NULL;
  }
  if (self->seed < 0)
    self->seed = default_seed;
  self->key = make_key(self);
  return g_steal_pointer(&self);
}

void
clip_request_free(ClipRequest *self)
{
  g_free(self->prompt);
  g_free(self->negative_prompt);
  g_free(self->key);
  g_free(self);
}
