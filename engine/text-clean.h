/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* @text, @length bytes of UTF-8 without a NUL, in the way of ftfy, in NFC. (transfer full) */
char *osr_text_clean(const char *text, gsize length);

G_END_DECLS
