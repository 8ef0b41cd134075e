/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The plug-in "opensora". Elements are registered unconditionally: whether a device or a
 * model is there is found out, and told, when an element starts.
 */
#include "gstopensora.h"
#include "gstopensoraclipmeta.h"

static gboolean
plugin_init(GstPlugin *plugin)
{
  gboolean ret = FALSE;

  GST_DEBUG_CATEGORY_INIT(gst_opensora_debug, "opensora", 0, "Open-Sora text to video");

  gst_opensora_log_init();
  gst_opensora_clip_meta_register();

  ret |= GST_ELEMENT_REGISTER(opensoratextsrc, plugin);
  ret |= GST_ELEMENT_REGISTER(opensoratextenc, plugin);
  ret |= GST_ELEMENT_REGISTER(opensoradenoise, plugin);
  ret |= GST_ELEMENT_REGISTER(opensoravaedec, plugin);
  ret |= GST_ELEMENT_REGISTER(opensoravaeenc, plugin);
  ret |= GST_ELEMENT_REGISTER(opensorasrc, plugin);
  ret |= GST_ELEMENT_REGISTER(opensoraplayout, plugin);
  return ret;
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, opensora,
                  "Open-Sora text-to-video and image-to-video generation", plugin_init,
                  PACKAGE_VERSION, "LGPL", "gst-opensora", "https://github.com/hpcaitech/Open-Sora")
