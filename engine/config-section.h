/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * config-section.h: the objects of a JSON text, read into structs by tables of their keys.
 * Every error is an OSR_ERROR_INVALID_FILE that names the file and the key.
 */
#pragma once

#include <json-glib/json-glib.h>

G_BEGIN_DECLS

typedef struct {
  const char *file;   /* in messages */
  const char *prefix; /* "mmdit." in messages, "" at the top */
  JsonObject *object;
} OsrConfigSection;

typedef enum {
  OSR_CONFIG_UINT,
  OSR_CONFIG_DOUBLE,
  OSR_CONFIG_BOOLEAN,
} OsrConfigType;

typedef struct {
  const char *key;
  gsize offset;
  OsrConfigType type;
  double min, max;
  gboolean required; /* otherwise the struct's value stays if the key is absent */
} OsrConfigField;

/* The key and the offset of a struct's member. */
#define OSR_CONFIG_MEMBER(type, member) #member, G_STRUCT_OFFSET(type, member)

/* The root object of a file or of a text that @name stands for in messages; strict JSON
 * (RFC 8259), at most 32 deep. (transfer full) */
JsonObject *osr_config_read_file(const char *path, GError **error);
JsonObject *osr_config_read_text(const char *text, gsize length, const char *name, GError **error);

/* An object inside an object, which owns it. @prefix is its name and a full stop. */
gboolean osr_config_open(const OsrConfigSection *parent, const char *key, const char *prefix,
                         OsrConfigSection *section, GError **error);

gboolean osr_config_read_fields(const OsrConfigSection *section, const OsrConfigField *fields,
                                gsize n, gpointer config, GError **error);
/* An array of @min to @max integers, each from 1 to @most. */
gboolean osr_config_read_uints(const OsrConfigSection *section, const char *key, guint min,
                               guint max, guint most, guint *values, guint *n, GError **error);
/* An array of @n numbers; and one of @rows arrays of @n numbers each. None is beyond @most. */
gboolean osr_config_read_numbers(const OsrConfigSection *section, const char *key, double most,
                                 guint n, float *values, GError **error);
gboolean osr_config_read_matrix(const OsrConfigSection *section, const char *key, double most,
                                guint rows, guint n, float *values, GError **error);
/* A string, valid as long as the section; @fallback NULL: it must be there. */
const char *osr_config_read_string(const OsrConfigSection *section, const char *key,
                                   const char *fallback, GError **error);

/* Sets @error to "FILE: KEY: MESSAGE". Always FALSE. */
gboolean osr_config_fail(const OsrConfigSection *section, const char *key, GError **error,
                         const char *format, ...) G_GNUC_PRINTF(4, 5);

/* Sets @error to "FILE: REASON", what a model says of the config as a whole. Frees @reason.
 * Always FALSE. */
gboolean osr_config_fail_check(const char *file, GError *reason, GError **error);

/* A debug line for every key that is neither in @fields nor in @others: a misspelt one would
 * pass unseen. */
void osr_config_log_unknown(const OsrConfigSection *section, const OsrConfigField *fields, gsize n,
                            const char *const *others);

G_END_DECLS
