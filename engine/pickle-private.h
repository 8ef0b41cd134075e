/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/*
 * What a pickle describes, read without executing any of it. Containers, numbers and texts are
 * themselves; a call (REDUCE) of a global that is on the list below is kept as what it is, a
 * name and its arguments, for the caller to interpret. Every other global is an error that
 * names it: a pickle of weights has none, and unpickling one would run code.
 */
typedef enum {
  OSR_PICKLE_NONE,
  OSR_PICKLE_BOOL,   /* integer */
  OSR_PICKLE_INT,    /* integer */
  OSR_PICKLE_FLOAT,  /* not kept: no weights file needs it */
  OSR_PICKLE_TEXT,   /* text, length: UTF-8, not terminated */
  OSR_PICKLE_BYTES,  /* text, length */
  OSR_PICKLE_TUPLE,  /* items */
  OSR_PICKLE_LIST,   /* items; sets as well */
  OSR_PICKLE_DICT,   /* items: key, value, key, value, ...; a later key is the one that counts */
  OSR_PICKLE_GLOBAL, /* text, length: "torch._utils._rebuild_tensor_v2" */
  OSR_PICKLE_CALL,   /* items: the global, its tuple of arguments */
  OSR_PICKLE_PERSISTENT, /* items: what stands for an object outside of the pickle */
} OsrPickleType;

typedef struct _OsrPickleValue OsrPickleValue;
struct _OsrPickleValue {
  OsrPickleType type;
  union {
    gint64 integer;
    struct {
      const char *text; /* in the pickle */
      gsize length;
    };
    struct {
      OsrPickleValue **items;
      guint n_items, capacity;
    };
  };
};

typedef struct _OsrPickle OsrPickle;

/* Reads protocols 1 to 5. @data has to stay; @name stands for the pickle in messages. */
G_GNUC_INTERNAL OsrPickle *osr_pickle_read(const guint8 *data, gsize size, const char *name,
                                           GError **error);
G_GNUC_INTERNAL void osr_pickle_free(OsrPickle *pickle);
/* Of what the pickle holds. It may contain itself. */
G_GNUC_INTERNAL const OsrPickleValue *osr_pickle_root(const OsrPickle *pickle);

/* TEXT, BYTES or GLOBAL of exactly that text. */
G_GNUC_INTERNAL gboolean osr_pickle_is(const OsrPickleValue *value, OsrPickleType type,
                                       const char *text);
/* The value of a text key; NULL if there is none or @dict is no dict. */
G_GNUC_INTERNAL const OsrPickleValue *osr_pickle_dict_get(const OsrPickleValue *dict,
                                                          const char *key);
/* "a dict", for messages. */
G_GNUC_INTERNAL const char *osr_pickle_type_name(const OsrPickleValue *value);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrPickle, osr_pickle_free)

G_END_DECLS
