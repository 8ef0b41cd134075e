/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A libnvcuvid.so.1 that decodes nothing. GStreamer's nvcodec plug-in has cudaupload and
 * cudadownload only where there is a decoder or an encoder.
 */
#define NOT_SUPPORTED 801
#define UNUSED(name)                                                                               \
  __attribute__((visibility("default"))) int name(void);                                           \
  int name(void)                                                                                   \
  {                                                                                                \
    return NOT_SUPPORTED;                                                                          \
  }

UNUSED(cuvidCtxLockCreate)
UNUSED(cuvidCtxLockDestroy)
UNUSED(cuvidCtxLock)
UNUSED(cuvidCtxUnlock)
UNUSED(cuvidCreateDecoder)
UNUSED(cuvidDestroyDecoder)
UNUSED(cuvidDecodePicture)
UNUSED(cuvidCreateVideoParser)
UNUSED(cuvidParseVideoData)
UNUSED(cuvidDestroyVideoParser)
UNUSED(cuvidMapVideoFrame64)
UNUSED(cuvidUnmapVideoFrame64)
UNUSED(cuvidGetDecoderCaps)
