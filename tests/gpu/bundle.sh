#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Packs a build with all it needs to run on a host that has a GPU, CUDA and glibc >= 2.36, but no
# GStreamer and no GLib: the plug-in, the tool, the test programs, GStreamer's launcher and the
# plug-ins that the GPU tests use, and the libraries that all of these load.
#
#   bundle.sh BUILD_DIR DEST.tar.xz
#
# On the host: mkdir B && tar -C B -xf DEST.tar.xz && . B/env.sh
# glibc, libstdc++ and CUDA's libraries are left to the host.
set -eu

[ $# = 2 ] || { sed -n '3,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
build=$(CDPATH= cd -- "$1" && pwd) tar=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin" "$work/lib" "$work/plugins" "$work/tests"

plugins=$(pkg-config --variable=pluginsdir gstreamer-1.0)
for name in coreelements coretracers app avi playback typefindfunctions videotestsrc \
  videoconvertscale videorate rawparse nvcodec x264 isomp4 videoparsersbad png matroska vpx; do
  cp -L "$plugins/libgst$name.so" "$work/plugins/" || echo "bundle.sh: no plug-in $name" >&2
done
cp "$build"/gst/*.so "$work/plugins/"
for program in gst-launch-1.0 gst-inspect-1.0; do
  cp -L "$(command -v $program)" "$work/bin/"
done
cp -L "$(find /usr/lib /usr/libexec -name gst-plugin-scanner 2>/dev/null | head -n 1)" "$work/bin/"
cp "$build/engine/tools/opensora-tool" "$work/bin/"
cp "$build/tests/kernels/checkops" "$work/tests/"
for test in "$build"/tests/gst-cuda/test-gpu "$build"/tests/gst/test-* "$build"/tests/engine/test-*; do
  if [ -f "$test" ] && [ -x "$test" ]; then cp "$test" "$work/tests/"; fi
done
for library in "$build"/engine/libopensora.so.0 "$build"/kernels/cuda/libopensora-cuda.so \
  "$build"/gst/cuda/libgstopensoracuda.so; do
  if [ -e "$library" ]; then cp -L "$library" "$work/lib/"; fi
done

find "$work" -type f -exec ldd {} + 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
  sort -u |
  grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|libstdc\+\+|libgcc_s|libcuda|libcudart|libcublas|libcublasLt|libcudnn[a-z_]*|libnccl|libnvrtc|libnvidia[a-z-]*|libopensora[a-z-]*)\.so' |
  while read -r library; do cp -L "$library" "$work/lib/"; done
find "$work" -type f -exec strip --strip-unneeded {} + 2>/dev/null || true

cat >"$work/env.sh" <<'ENV'
# To be sourced, by bash: BUNDLE is the folder of this file.
BUNDLE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export BUNDLE PATH="$BUNDLE/bin:$PATH"
export LD_LIBRARY_PATH="$BUNDLE/lib:/usr/local/cuda/lib64:${LD_LIBRARY_PATH:-}"
export OPENSORA_MODULE_PATH="$BUNDLE/lib"
export GST_PLUGIN_SYSTEM_PATH_1_0="$BUNDLE/plugins" GST_PLUGIN_PATH_1_0=
export GST_PLUGIN_SCANNER_1_0="$BUNDLE/bin/gst-plugin-scanner"
export GST_REGISTRY_1_0="${TMPDIR:-/tmp}/opensora-registry.bin"
ENV
tar -C "$work" -cJf "$tar" .
echo "bundle.sh: $(du -h "$tar" | cut -f1), unpacked $(du -sh "$work" | cut -f1)"
