/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * model-files.h: weights in folders.
 */
#pragma once

#include <json-glib/json-glib.h>

G_BEGIN_DECLS

/* The first of @names (NULL-terminated, without suffix) that @folder has as a safetensors or
 * PyTorch file or as an index of several. The place of the first one if there is none. */
char *osr_find_weights(const char *folder, const char *const *names);
/* The weights at @place: that file, or the file of a folder that is one of @names or the only one
 * there. @what is the part in messages. */
char *osr_find_part(const char *what, const char *place, const char *const *names, GError **error);

/* Whether a config.json is one of Hugging Face's. */
gboolean osr_config_is_foreign(JsonObject *config);
/* What a folder has, for messages: "the folder has a, b/, c and 3 more"; of folders that people
 * mistake for a model's, what they are. */
char *osr_describe_folder(const char *path);

G_END_DECLS
