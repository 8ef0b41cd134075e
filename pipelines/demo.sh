#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# From a fresh checkout to a video: installs the Debian packages that are missing, builds,
# generates a clip and a contact sheet of its frames.
set -euo pipefail

usage() {
  cat <<EOF
Usage: pipelines/demo.sh [OPTION]... ["PROMPT"]

Generates a clip and a contact sheet of its frames (the same name, ending in .png).

  -o, --output FILE     video to write (demo.mp4)
      --seed N          seed of the noise (42); -1 draws one
      --steps N         denoising steps (the model's own number)
      --size WxH        width and height of the frames, multiples of 16 (the model's own)
      --model DIR       folder of the model (the tiny model of this repository)
      --build-dir DIR   where to build (build)
      --no-install      install no packages
  -h, --help            show this and do nothing

The prompt is "$default_prompt" if none is given.
EOF
}

die() {
  echo "demo.sh: $*" >&2
  exit 2
}

is_number() {
  [[ $1 =~ ^[0-9]+$ ]]
}

# A value for a pipeline description, which may have quotation marks of its own in it.
quote() {
  local value=${1//\\/\\\\}
  printf '"%s"' "${value//\"/\\\"}"
}

default_prompt="a red circle moving right on a blue background"
prompt=$default_prompt
output=demo.mp4
seed=42
steps=
size=
model=
build=
install=yes
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=pipelines/packages.sh
. "$source_dir/pipelines/packages.sh"

have_prompt=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --no-install) install=; shift; continue ;;
    -o | --output | --seed | --steps | --size | --model | --build-dir)
      [ $# -ge 2 ] || die "$1 needs a value" ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
    -*) die "unknown option $1 (--help lists them)" ;;
    *)
      [ -z "$have_prompt" ] || die "more than one prompt: put quotes around it"
      prompt=$1 have_prompt=yes
      shift
      continue
      ;;
  esac
  case $1 in
    -o | --output) output=$2 ;;
    --seed) seed=$2 ;;
    --steps) steps=$2 ;;
    --size) size=$2 ;;
    --model) model=$2 ;;
    --build-dir) build=$2 ;;
  esac
  shift 2
done

build=${build:-$source_dir/build}
sheet=${output%.*}.png
[ "$seed" = -1 ] || is_number "$seed" || die "--seed $seed is not a number"
[ -z "$steps" ] || is_number "$steps" || die "--steps $steps is not a number"
[ -z "$size" ] || [[ $size =~ ^[0-9]+x[0-9]+$ ]] || die "--size $size is not WIDTHxHEIGHT"
[ -z "$model" ] || [ -d "$model" ] || die "there is no folder $model"
[[ ${output##*/} == ?*.mp4 ]] || die "--output $output does not end in .mp4"
[ -d "$(dirname "$output")" ] || die "there is no folder $(dirname "$output")"

if [ -n "$install" ]; then
  install_packages "${build_packages[@]}" "${run_packages[@]}"
fi

mkdir -p "$build"
build=$(cd "$build" && pwd)
if [ ! -e "$build/build.ninja" ]; then
  echo "Configuring in $build"
  quietly "$build/demo-setup.log" \
    meson setup --buildtype=release -Dexamples=enabled -Dtests=disabled "$build" "$source_dir"
fi
echo "Building"
quietly "$build/demo-build.log" ninja -C "$build"

source_properties=(prompt="$(quote "$prompt")" seed="$seed")
[ -z "$steps" ] || source_properties+=(steps="$steps")
[ -z "$size" ] || source_properties+=(width="${size%x*}" height="${size#*x}")
[ -z "$model" ] || source_properties+=(model-location="$(quote "$model")")

OPENSORA_MODEL=${OPENSORA_MODEL:-$source_dir/engine/tiny-model} \
GST_PLUGIN_PATH_1_0=$build/gst${GST_PLUGIN_PATH_1_0:+:$GST_PLUGIN_PATH_1_0} \
GST_REGISTRY_1_0=$build/gst-registry.bin \
  "$build/pipelines/opensora-launch" --contact-sheet="$sheet" \
  opensorasrc "${source_properties[@]}" ! videoconvert ! x264enc ! mp4mux ! \
  filesink location="$(quote "$output")"

echo "Video:         $output"
echo "Contact sheet: $sheet"
