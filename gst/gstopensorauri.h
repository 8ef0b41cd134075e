/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensorauri.h: opensora://?prompt=...&seed=...: properties of opensorasrc as an address.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

#define GST_OPENSORA_URI_PROTOCOL "opensora"

typedef struct {
  GParamSpec *pspec; /* of the class */
  GValue value;
} GstOpenSoraUriValue;

/* The properties of @klass that @uri names, each once and in the range of its property (elements:
 * GstOpenSoraUriValue). Keys and values are percent-encoded, and a plus sign is a space, as forms
 * and urlencode() write them. Only properties of @klass's own type can be named, and none that say
 * what an application does with the element. NULL with @error in the domain GST_URI_ERROR.
 * (transfer full) */
GArray *gst_opensora_uri_parse(const char *uri, GObjectClass *klass, GError **error);

G_END_DECLS
