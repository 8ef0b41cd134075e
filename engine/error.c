/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "error.h"

/* clang-format off: it takes the dashes for minus signs. */
G_DEFINE_QUARK(osr-error-quark, osr_error)
/* clang-format on */
