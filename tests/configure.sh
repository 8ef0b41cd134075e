#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the build's options do. configure.sh MESON SOURCE_ROOT
set -eu

meson=$1
source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C
unset OPENSORA_MODEL GST_PLUGIN_PATH_1_0 GST_REGISTRY_1_0

fail()
{
  echo "FAIL: $*"
  [ ! -e "$work/log" ] || sed 's/^/  /' "$work/log"
  exit 1
}

# What is not there yet does not pass silently.

for option in nccl mpi; do
  ! "$meson" setup "$work/$option" "$source" -D$option=enabled >"$work/log" 2>&1 ||
    fail "-D$option=enabled passes"
  grep -q "ERROR: .*-D$option=enabled: there is no code" "$work/log" || fail "-D$option=enabled fails for another reason"
done

# The development environment does not depend on what else is built.

"$meson" setup "$work/least" "$source" --auto-features=disabled >"$work/log" 2>&1 ||
  fail "a build without any feature"
"$meson" devenv -C "$work/least" env >"$work/log" 2>&1 || fail "meson devenv"
for variable in "GST_PLUGIN_PATH_1_0=$work/least/gst" \
  "GST_REGISTRY_1_0=$work/least/gst-registry.bin" "OPENSORA_MODEL=$source/engine/tiny-model"; do
  grep -qxF "$variable" "$work/log" || fail "no $variable in the environment"
done

echo "ok"
