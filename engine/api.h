/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Marks what libopensora exports; everything else is hidden. */
#define OSR_API __attribute__((visibility("default")))
