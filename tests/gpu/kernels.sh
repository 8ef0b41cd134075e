#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds the CUDA module and the checker with nvcc and a C compiler alone, checks every op on
# the GPU and times it. For hosts that have a GPU and CUDA but no GLib.
#
#   kernels.sh [--op NAME]... [--cases N] [--seed S] MODE...
#
#   build     only compile and link, which needs no GPU (for all architectures then)
#   module    only compile and link, for this GPU
#   check     every op on random calls and at the models' sizes, on every path that the GPU has
#   bench     times at the models' sizes, beside a large copy and a large matrix product
#   sanitize  compute-sanitizer's memcheck and racecheck on a few small calls of every op
#   tune      attention and conv3d with each of their kernels, the ones not chosen too
#
# Everything goes to $OUT (default ./out): objects, one log a run. Tables and what failed come
# last in the output. A run that hangs is ended. Exit status 0: all passed.
set -eu

top=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
out=${OUT:-./out}
cases=300 seed=$(date +%s) ops='' modes=''
while [ $# -gt 0 ]; do
  case $1 in
  --op) ops="$ops ${2:?--op NAME}"; shift ;;
  --cases) cases=${2:?--cases N}; shift ;;
  --seed) seed=${2:?--seed S}; shift ;;
  build | module | check | bench | sanitize | tune) modes="$modes $1" ;;
  *) sed -n '3,18s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift
done
modes=${modes:- check bench}
mkdir -p "$out"
out=$(CDPATH= cd -- "$out" && pwd)
processors=$(nproc)

has_mode() {
  case "$modes " in *" $1 "*) true ;; *) false ;; esac
}
seconds() {
  date +%s
}

# --- the tools ---

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || { echo "kernels.sh: no nvcc" >&2; exit 1; }
cuda=$(CDPATH= cd -- "$(dirname -- "$(readlink -f "$nvcc")")/.." && pwd)

# cuBLASLt comes with the toolkit or as a Python package; the development link may be missing.
find_file() { # NAME-PATTERN
  for dir in "$cuda" /usr/local /opt /usr/lib /usr/include; do
    [ -d "$dir" ] || continue
    found=$(find "$dir" -name "$1" -not -path '*/stubs/*' 2>/dev/null | head -n 1)
    [ -z "$found" ] || { echo "$found"; return; }
  done
}
header=$(find_file cublasLt.h)
library=$(find_file 'libcublasLt.so*')
[ -n "$header" ] && [ -n "$library" ] || { echo "kernels.sh: no cuBLASLt" >&2; exit 1; }

if has_mode build; then
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
start=$(seconds)
rm -f "$out"/*.o "$out"/*.build "$out"/*.log "$out"/*.so
printf '%s\n' "$top"/kernels/cuda/attention-mma.cu "$top"/kernels/cuda/[lne]*.cu \
  "$top"/kernels/cuda/conv*.cu "$top"/kernels/cuda/attention.cu \
  "$top"/kernels/cuda/attention-w*.cu "$top"/kernels/cuda/[fgrs]*.cu "$top"/kernels/cuda/*.c |
  FLAGS=$flags NVCC=$nvcc DEST=$out xargs -P "$processors" -I '{}' sh -c '
    name=$(basename "{}")
    "$NVCC" $FLAGS -Xptxas -v -c "{}" -o "$DEST/$name.o" >"$DEST/$name.build" 2>&1 ||
      { cat "$DEST/$name.build"; exit 255; }' &
build=$!
if has_mode tune; then
  # shellcheck disable=SC2086
  for op in attention conv; do
    "$nvcc" $flags -DOSR_ATTENTION_VARIANTS "$top/tests/gpu/$op-bench.cu" \
      "$top"/kernels/cuda/$op*.cu -o "$out/$op-bench" >"$out/$op-bench.build" 2>&1 &
  done
fi
${CC:-gcc} -std=c17 -D_GNU_SOURCE -O2 -ffp-contract=off -I"$top/kernels" \
  "$top"/tests/kernels/*.c "$top"/kernels/host.c "$top"/kernels/ref/*.c -o "$out/checkops" -lm -ldl
wait $build
wait
module=$out/libopensora-cuda.so
"$nvcc" -shared -cudart static "$out"/*.o -Xlinker "$library" \
  -Xlinker "-rpath,$(dirname -- "$library")" -Xlinker -z,relro,-z,now -o "$module"
echo "built in $(($(seconds) - start)) s, kernels that spill registers:" \
  "$(cat "$out"/*.build | grep -c ' [1-9][0-9]* bytes spill' || true)"
[ "$modes" != " build" ] || exit 0

# --- runs ---

# Each line of a list of runs: seconds, log, the environment, the command's arguments.
run_list() { # FILE PROCESSES
  MODULE=$module CHECKOPS=$out/checkops DEST=$out xargs -P "$2" -d '\n' -n 1 sh -c '
    IFS="|" read -r limit log environment arguments <<END
$1
END
    status=0
    # shellcheck disable=SC2086
    env $environment timeout -k 5 "$limit" $TOOL "$CHECKOPS" --backend cuda --module "$MODULE" \
      $arguments >"$DEST/$log.log" 2>&1 || status=$?
    [ $status -ne 124 ] && [ $status -ne 137 ] ||
      echo "FAIL ended after $limit s" >>"$DEST/$log.log"
    echo "exit status $status" >>"$DEST/$log.log"' sh <"$1"
}

[ -n "$ops" ] || ops=$("$out/checkops" --list)
wanted() { # OP
  case " $(echo $ops) " in *" $1 "*) true ;; *) false ;; esac
}

# The algorithms that the first run finds and writes down, the second reads.
list_tuned() { # NAME
  echo "60|linear-tuned-$1|OSR_CUDA_AUTOTUNE=$out/tuned|--op linear --cases 30 --seed 1"
}

# The large ones first, since they take longest. What a newer card does on a path of its own is
# run on the older cards' path as well.
list_checks() {
  for op in attention conv3d linear; do
    wanted $op || continue
    echo "70|large-$op-bf16||--large --op $op --dtype bf16"
    echo "70|large-$op-f32||--large --op $op --dtype f32"
    [ $op = linear ] ||
      echo "70|large-$op-bf16-sm80|OSR_CUDA_CAPABILITY=80|--large --op $op --dtype bf16"
  done
  for op in layer_norm group_norm qk_norm_rope affine; do
    wanted $op || continue
    echo "70|large-$op||--large --op $op"
  done
  for op in $ops; do
    case $op in
    attention | conv3d)
      echo "60|$op-bf16||--op $op --dtype bf16 --cases $((2 * cases)) --seed $seed"
      echo "60|$op-f32||--op $op --dtype f32 --cases $cases --seed $seed"
      echo "60|$op-bf16-sm80|OSR_CUDA_CAPABILITY=80|--op $op --dtype bf16 --cases $cases"
      ;;
    linear)
      echo "60|$op-bf16||--op $op --dtype bf16 --cases $((2 * cases)) --seed $seed"
      echo "60|$op-f32||--op $op --dtype f32 --cases $cases --seed $seed"
      for gate in vector weights none; do
        echo "60|$op-gate-$gate|OSR_CUDA_GATE=$gate|--op $op --cases $cases --seed $seed"
      done
      list_tuned first
      ;;
    *) echo "60|$op||--op $op --cases $cases --seed $seed" ;;
    esac
  done
  for op in linear conv3d; do
    wanted $op || continue
    echo "60|$op-tf32||--op $op --dtype f32 --tf32 --cases $cases --seed $seed"
    echo "70|large-$op-tf32||--large --op $op --dtype f32 --tf32"
  done
}

list_sanitized() { # TOOL
  for op in $ops; do
    echo "200|$1-$op||--op $op --cases 6 --seed $seed"
  done
  for op in attention conv3d; do
    wanted $op || continue
    echo "200|$1-$op-sm80|OSR_CUDA_CAPABILITY=80|--op $op --dtype bf16 --cases 6 --seed $seed"
  done
}

# One at a time: nothing else may use the GPU.
list_benches() {
  echo '90|bench-linear||--bench --large --dtype bf16 --op linear'
  echo '90|bench-attention||--bench --large --dtype bf16 --op attention'
  echo '90|bench-conv3d||--bench --large --dtype bf16 --op conv3d'
  others=$("$out/checkops" --list | grep -v -e linear -e attention -e conv3d | paste -s -d ,)
  echo "90|bench-other||--bench --large --dtype bf16 --op $others"
}

TOOL=''
export TOOL
start=$(seconds)
if has_mode check; then
  list_checks >"$out/checks"
  rm -f "$out/tuned"
  run_list "$out/checks" $((processors < 12 ? processors : 12))
  if wanted linear; then
    list_tuned second >"$out/checks"
    run_list "$out/checks" 1
  fi
  echo "checked in $(($(seconds) - start)) s, seed $seed"
fi
if has_mode bench; then
  start=$(seconds)
  list_benches >"$out/benches"
  run_list "$out/benches" 1
  echo "timed in $(($(seconds) - start)) s"
fi
if has_mode sanitize; then
  start=$(seconds)
  sanitizer=$(command -v compute-sanitizer || echo "$cuda/bin/compute-sanitizer")
  for tool in memcheck racecheck; do
    TOOL="$sanitizer --tool $tool --error-exitcode 9 --print-limit 10"
    list_sanitized $tool >"$out/sanitized"
    run_list "$out/sanitized" $((processors < 8 ? processors : 8))
  done
  echo "sanitized in $(($(seconds) - start)) s"
fi

if has_mode tune; then
  for op in attention conv; do
    timeout -k 5 100 "$out/$op-bench" time >"$out/tune-$op.log" 2>&1 ||
      echo "FAIL exit status $?" >>"$out/tune-$op.log"
    cat "$out/tune-$op.log"
  done
fi

# --- the tables, and what failed ---

cat "$out"/large-*.log 2>/dev/null | sed -n 's/^large //p' | sort -k 2,2 -k 1,1 | tr -s ' '
failed=0 passed=''
if has_mode bench; then
  for log in "$out"/bench-*.log; do
    # Without the small shapes, which are launches and little more.
    awk '/^ceiling/ || / ms / && /%/ { for (i = 2; i < NF; i++)
      if ($i == "ms" && $(i - 1) < 0.012) next; print }' "$log" | tr -s ' '
    grep -q '^exit status 0$' "$log" || { failed=1; tail -n 3 "$log"; }
  done
fi
for log in "$out"/*.log; do
  name=$(basename "$log" .log)
  case $name in bench-* | tune-*) continue ;; esac
  if grep -q '^exit status 0$' "$log"; then
    passed="$passed $name"
    continue
  fi
  failed=1
  echo "FAILED $name: $(grep -h -e ' passed, ' -e '^exit status' "$log" | tr '\n' ' ')"
  grep -e '^FAIL' -A 1 -m 2 "$log" | cut -c 1-360
  grep -e '^========= [A-Z][a-z]' -e '^=========     at' "$log" | grep -v SUMMARY | head -n 4 |
    cut -c 1-200
  grep -q -e '^FAIL' -e '^=====' "$log" || tail -n 4 "$log" | cut -c 1-300
done
[ -z "$passed" ] || echo "passed:$passed" | fold -s -w 100
exit $failed
