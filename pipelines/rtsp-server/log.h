/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * log.h: the debug category of the server's files, GST_DEBUG=opensorartsp:5.
 */
#pragma once

#include <gst/gst.h>

GST_DEBUG_CATEGORY_EXTERN(rtsp_server_debug);
#define GST_CAT_DEFAULT rtsp_server_debug
