#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What `ninja install` leaves on a machine, without its source and build folders: the library
# with its headers, the plug-in, the programs, the tiny model.
# install.sh MESON BUILD_ROOT SOURCE_ROOT PREFIX LIBDIR DATADIR; CC and CXX: the compilers
set -eu

meson=$1
build=$2
source=$3
prefix=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
lib=$root$prefix/$5
model=$root$prefix/$6/opensora/tiny-model
include=$root$prefix/include/opensora-1.0
export LC_ALL=C
unset OPENSORA_MODEL

fail()
{
  echo "FAIL: $*"
  [ ! -e "$work/log" ] || sed 's/^/  /' "$work/log"
  exit 1
}

# quietly WHAT COMMAND...
quietly()
{
  what=$1
  shift
  "$@" >"$work/log" 2>&1 || fail "$what"
}

quietly "meson install" "$meson" install -C "$build" --no-rebuild --destdir "$root"

# The model: every file that is read, as the tests have it

for file in config.json mmdit.safetensors vae.safetensors \
  t5/config.json t5/model.safetensors t5/spiece.model t5/tokenizer_config.json \
  clip/config.json clip/model.safetensors clip/vocab.json clip/merges.txt; do
  quietly "$file of the model" cmp "$model/$file" "$source/engine/tiny-model/$file"
done

# opensora-tool. The prompt has a token that T5 knows and the tiny model does not.

tool=$root$prefix/bin/opensora-tool
export OPENSORA_MODEL="$model"
quietly "opensora-tool info" "$tool" info
grep -qF "in $model" "$work/log" || fail "info shows another model"
quietly "opensora-tool generate" "$tool" generate --device cpu --prompt "a red circle <extra_id_0>" \
  --output "$work/clip.rgb" --width 64 --height 64 --num-frames 5 --steps 1
[ "$(wc -c <"$work/clip.rgb")" -eq $((5 * 64 * 64 * 3)) ] || fail "size of the clip"
unset OPENSORA_MODEL

# The library

export PKG_CONFIG_PATH="$lib/pkgconfig"
quietly "opensora-1.0.pc" pkg-config --validate opensora-1.0
[ "$(pkg-config --variable=prefix opensora-1.0)" = "$prefix" ] || fail "prefix of the .pc file"
flags=$(pkg-config --cflags --libs opensora-1.0 | sed "s|-I[^ ]*/opensora-1.0|-I$include|")
flags="$flags -L$lib"

[ -e "$include/opensora.h" ] || fail "there is no opensora.h"
for header in "$include"/*.h; do
  echo "#include <${header##*/}>" >"$work/header.c"
  cp "$work/header.c" "$work/header.cc"
  # shellcheck disable=SC2086  # words
  quietly "${header##*/} in C" ${CC:-cc} -std=c17 -Wall -Wextra -Werror -fsyntax-only \
    "$work/header.c" $flags
  # shellcheck disable=SC2086
  quietly "${header##*/} in C++" ${CXX:-c++} -std=c++17 -Wall -Wextra -Werror -fsyntax-only \
    "$work/header.cc" $flags
done

cat >"$work/program.c" <<'END'
#include <opensora.h>
#include <stdio.h>

int
main(void)
{
  g_autofree char *path = osr_model_dir_default_path();

  puts(path);
  return 0;
}
END
# shellcheck disable=SC2086
quietly "a program" ${CC:-cc} "$work/program.c" -o "$work/program" $flags
quietly "the program's run" env LD_LIBRARY_PATH="$lib" "$work/program"
[ "$(cat "$work/log")" = "$prefix/$6/opensora/tiny-model" ] || fail "the model's default folder"
! grep -qaF "$source/engine/tiny-model" "$lib"/libopensora.so.0 ||
  fail "the library knows the source folder"

# The plug-in

plugin=$lib/gstreamer-1.0/libgstopensora.so
[ -e "$plugin" ] || fail "there is no plug-in"
if command -v gst-inspect-1.0 >/dev/null; then
  quietly "gst-inspect-1.0" env LD_LIBRARY_PATH="$lib" GST_REGISTRY_1_0="$work/registry" \
    GST_PLUGIN_PATH_1_0="$lib/gstreamer-1.0" gst-inspect-1.0 opensora
  grep -qF "$plugin" "$work/log" || fail "gst-inspect-1.0 shows another plug-in"
  grep -qw opensorasrc "$work/log" || fail "the plug-in has no opensorasrc"
fi

echo "ok"
