#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Every test of the project on a Debian or Ubuntu machine: installs the packages that are
# missing, builds, tests, and ends with one line that says how it went.
set -euo pipefail

usage() {
  cat <<EOF
Usage: tests/run.sh [OPTION]...

Builds with gcc and clang, warnings being errors, and runs the tests: kernels, engine, elements,
whole pipelines, one pipeline under valgrind; again with address and undefined behaviour
sanitizers; then the fuzz targets.

      --quick           the tests of one build, none of the slow ones
      --all             the fuzz targets for longer, more prompts in the accuracy test, more RTSP
                        clients
  -j, --jobs N          programs at a time (as many as there are cores)
      --build-dir DIR   where to build (build-tests)
      --no-install      install no packages
  -h, --help            show this and do nothing
EOF
}

die() {
  echo "run.sh: $*" >&2
  exit 2
}

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=pipelines/packages.sh
. "$source_dir/pipelines/packages.sh"

test_packages=(
  clang libclang-rt-dev ffmpeg openssl python3 python3-numpy valgrind
)
mode=default
jobs=$(nproc)
base=$source_dir/build-tests
install=yes
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --quick | --all) mode=${1#--} ;;
    --no-install) install= ;;
    -j | --jobs | --build-dir)
      [ $# -ge 2 ] || die "$1 needs a value"
      case $1 in
        --build-dir) base=$2 ;;
        *) jobs=$2 ;;
      esac
      shift
      ;;
    *) die "unknown option $1 (--help lists them)" ;;
  esac
  shift
done
[[ $jobs =~ ^[1-9][0-9]*$ ]] || die "--jobs $jobs is not a number"

passed=0 failed=0 skipped=0
add() {
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

say() {
  printf '\n== %s (%d min %d s)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60))
}

# build NAME [VARIABLE=VALUE]... -- [MESON OPTION]...: $targets (all if there are none) into
# $base/NAME; counts as a test.
targets=()
build() {
  local dir=$base/$1 environment=()
  shift
  while [ "$1" != -- ]; do
    environment+=("$1")
    shift
  done
  shift
  mkdir -p "$dir"
  if { [ -e "$dir/build.ninja" ] ||
    quietly "$dir/setup.log" env "${environment[@]}" meson setup "$@" "$dir" "$source_dir"; } &&
    quietly "$dir/build.log" ninja -C "$dir" -j "$jobs" "${targets[@]}"; then
    add 1 0 0
  else
    add 0 1 0
    return 1
  fi
}

# run_tests NAME [MESON TEST OPTION]...: of the build $base/NAME.
run_tests() {
  local dir=$base/$1 counts
  shift
  rm -f "$dir"/meson-logs/testlog.*
  meson test -C "$dir" --no-rebuild --print-errorlogs --num-processes "$jobs" "$@" || true
  if counts=$(python3 "$source_dir/tests/summary.py" "$dir") && [ "$counts" != "0 0 0" ]; then
    # shellcheck disable=SC2086  # three numbers
    add $counts
  else
    echo "Failed: $dir ran no test" >&2
    add 0 1 0
  fi
}

# fuzz NAME SECONDS: a target with libFuzzer, from its corpus on.
fuzz() {
  local name=$1 seconds=$2 dir=$base/fuzz/targets libraries=() flags=()
  mkdir -p "$dir/found-$name"
  libraries=("$base"/fuzz/engine/libopensora-engine.a "$base"/fuzz/kernels/libosr-kernels.a)
  read -ra flags <<<"$(pkg-config --cflags --libs gio-2.0 gmodule-2.0 json-glib-1.0 sentencepiece)"
  if quietly "$dir/$name.log" clang -g -O1 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined \
    -fno-sanitize-recover=undefined "$source_dir/tests/fuzz/fuzz-$name.c" \
    -I"$source_dir/engine" -I"$source_dir/kernels" "${libraries[@]}" "${flags[@]}" \
    -lstdc++ -lpthread -lm -o "$dir/fuzz-$name" &&
    (cd "$dir" && quietly "$name.log" "./fuzz-$name" -max_total_time="$seconds" -max_len=65536 \
      -rss_limit_mb=4096 "found-$name" "$source_dir/tests/fuzz/corpus-$name"); then
    echo "fuzz-$name: $(grep -o 'Done [0-9]* runs in [0-9]* second' "$dir/$name.log")s"
    add 1 0 0
  else
    add 0 1 0
  fi
}

if [ -n "$install" ]; then
  install_packages "${build_packages[@]}" "${run_packages[@]}" "${test_packages[@]}"
fi
mkdir -p "$base"
base=$(cd "$base" && pwd)

say "gcc"
if build gcc CC=gcc CXX=g++ -- -Dwerror=true -Dtests=enabled -Dexamples=enabled; then
  [ "$mode" != all ] || export OPENSORA_TEST_PROMPTS=100 OPENSORA_TEST_CYCLES=500
  if [ "$mode" = quick ]; then
    run_tests gcc --no-suite slow
  else
    run_tests gcc
  fi
fi

if [ "$mode" != quick ]; then
  say "clang"
  build clang CC=clang CXX=clang++ -- -Dcuda=disabled -Dwerror=true -Dtests=enabled \
    -Dexamples=enabled || true

  say "address and undefined behaviour sanitizers"
  export ASAN_OPTIONS=detect_stack_use_after_return=1
  export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
  if build sanitize CC=gcc CXX=g++ -- \
    -Dcuda=disabled -Db_sanitize=address,undefined -Db_lundef=false -Dtests=enabled; then
    run_tests sanitize --suite kernels --suite engine --suite fuzz --timeout-multiplier 5
  fi

  say "fuzz targets"
  seconds=20
  [ "$mode" != all ] || seconds=600
  coverage=-fsanitize=fuzzer-no-link
  targets=(engine/libopensora-engine.a kernels/libosr-kernels.a)
  if build fuzz CC=clang CXX=clang++ -- -Dcuda=disabled -Db_sanitize=address,undefined \
    -Db_lundef=false -Dc_args=$coverage -Dcpp_args=$coverage -Dtests=disabled \
    -Dexamples=disabled; then
    for corpus in "$source_dir"/tests/fuzz/corpus-*; do
      fuzz "${corpus##*/corpus-}" "$seconds"
    done
  fi
fi

say "all"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
