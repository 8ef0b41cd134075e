#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds the CUDA module and the checker with nvcc and a C compiler alone, checks every op on
# the GPU and times it. For hosts that have a GPU and CUDA but no GLib.
#
#   kernels.sh [--op NAME] [--cases N] [--seed S] [--sanitize] [--no-bench] [--build-only]
#
# --sanitize    compute-sanitizer's memcheck and racecheck too, on a few small cases an op
# --build-only  compile and link, which needs no GPU (for all architectures then)
#
# Everything goes to $OUT (default ./out): objects, one log an op, bench.log. A short table
# is printed last. Exit status 0: all that was run passed.
set -eu

top=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
out=${OUT:-./out}
cases=100 seed= ops= sanitize=false bench=true build_only=false
while [ $# -gt 0 ]; do
  case $1 in
  --op) ops="$ops ${2:?--op NAME}"; shift ;;
  --cases) cases=${2:?--cases N}; shift ;;
  --seed) seed=${2:?--seed S}; shift ;;
  --sanitize) sanitize=true ;;
  --no-bench) bench=false ;;
  --build-only) build_only=true bench=false ;;
  *) sed -n '3,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift
done
mkdir -p "$out"
out=$(CDPATH= cd -- "$out" && pwd)
jobs=$(nproc)

# --- the tools ---

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || { echo "kernels.sh: no nvcc" >&2; exit 1; }
cuda=$(CDPATH= cd -- "$(dirname -- "$(readlink -f "$nvcc")")/.." && pwd)

# cuBLASLt comes with the toolkit or as a Python package; the development link may be missing.
find_file() { # NAME-PATTERN
  for dir in "$cuda" /usr/local /opt /usr/lib /usr/include; do
    find "$dir" -name "$1" -not -path '*/stubs/*' 2>/dev/null
  done | head -n 1
}
header=$(find_file cublasLt.h)
library=$(find_file 'libcublasLt.so*')
[ -n "$header" ] && [ -n "$library" ] || { echo "kernels.sh: no cuBLASLt" >&2; exit 1; }

if $build_only; then
  arch="-gencode arch=compute_80,code=sm_80 -gencode arch=compute_89,code=sm_89
    -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_90,code=compute_90"
else
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')
  case $capability in
  90) capability=90a ;;
  '') echo "kernels.sh: nvidia-smi shows no GPU" >&2; exit 1 ;;
  esac
  arch="-gencode arch=compute_$capability,code=sm_$capability"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
fi
"$nvcc" --version | sed -n '/release/p'

# --- the build: a process a source, those that take longest first ---

flags="-O3 -lineinfo -Xcompiler -fPIC,-O2,-g,-fvisibility=hidden -I$top/kernels
  -I$(dirname -- "$header") $arch"
compile() { # one line a job, for sh -c
  for source in "$top"/kernels/cuda/attention*.cu "$top"/kernels/cuda/conv*.cu \
    "$top"/kernels/cuda/[!ac]*.cu "$top"/kernels/cuda/*.c; do
    [ -e "$source" ] && echo "$source"
  done
}
start=$(date +%s)
rm -f "$out"/*.o "$out"/*.build "$out"/*.log "$out"/libopensora-cuda.so
compile | FLAGS=$flags NVCC=$nvcc DEST=$out xargs -P "$jobs" -I '{}' sh -c '
  name=$(basename "{}")
  "$NVCC" $FLAGS -Xptxas -v -c "{}" -o "$DEST/$name.o" >"$DEST/$name.build" 2>&1 ||
    { cat "$DEST/$name.build"; exit 255; }' &
build=$!
${CC:-gcc} -std=c17 -D_GNU_SOURCE -O2 -ffp-contract=off -I"$top/kernels" \
  "$top"/tests/kernels/*.c "$top"/kernels/ref/*.c -o "$out/checkops" -lm -ldl
wait $build
"$nvcc" -shared -cudart static "$out"/*.o -Xlinker "$library" \
  -Xlinker "-rpath,$(dirname -- "$library")" -Xlinker -z,now -o "$out/libopensora-cuda.so"
echo "built in $(($(date +%s) - start)) s; kernels with spills:" \
  "$(cat "$out"/*.build | grep -c ' [1-9][0-9]* bytes spill' || true)"
$build_only && exit 0

# --- the checks: a process an op, a log each ---

backend=$out/libopensora-cuda.so
[ -n "$ops" ] || ops=$("$out/checkops" --list)
failed=0
for op in $ops; do echo "$op"; done |
  xargs -P 8 -I '{}' sh -c '"$0" --backend "$1" --op {} --cases "$2" ${3:+--seed "$3"} \
    >"$4/check-{}.log" 2>&1 || echo "exit status $?" >>"$4/check-{}.log"' \
    "$out/checkops" "$backend" "$cases" "$seed" "$out"

sanitizer=$(command -v compute-sanitizer || echo "$cuda/bin/compute-sanitizer")
# Fewer processes: the tools take memory and slow everything down.
if $sanitize; then
  for tool in memcheck racecheck; do
    for op in $ops; do echo "$op"; done |
      xargs -P 4 -I '{}' sh -c '"$5" --tool "$0" --error-exitcode 9 --print-limit 20 \
        "$1" --backend "$2" --op {} --cases 6 --seed "${3:-1}" \
        >"$4/$0-{}.log" 2>&1 || echo "exit status $?" >>"$4/$0-{}.log"' \
        "$tool" "$out/checkops" "$backend" "$seed" "$out" "$sanitizer"
  done
fi

if $bench; then
  "$out/checkops" --backend "$backend" --bench --large >"$out/bench.log" 2>&1 || failed=1
fi

# --- the table ---

verdict() { # LOG
  if [ ! -e "$1" ]; then
    echo -
  elif ! grep -q '^exit status' "$1" && grep -q ', 0 failed' "$1"; then
    echo ok
  else
    echo FAILED
  fi
}
if $bench; then
  grep -E '^ceiling|^(linear|attention|conv3d|group_norm|layer_norm|qk_norm).* bf16|bf16.*%$' \
    "$out/bench.log" || tail -n 5 "$out/bench.log"
fi
for log in "$out"/check-*.log; do
  grep -A 2 -m 3 '^FAIL' "$log" || true
done
printf '%-18s %-8s %-9s %-9s %s\n' op checks memcheck racecheck result
for op in $ops; do
  log=$out/check-$op.log
  row="$(verdict "$log") $(verdict "$out/memcheck-$op.log") $(verdict "$out/racecheck-$op.log")"
  case $row in *FAILED*) failed=1 ;; esac
  # shellcheck disable=SC2086
  printf '%-18s %-8s %-9s %-9s %s\n' "$op" $row "$(grep -h ' passed, ' "$log" || tail -n 1 "$log")"
done
exit $failed
