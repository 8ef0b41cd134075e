#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Everything that is tested and measured on a GPU, on a host that has CUDA but maybe neither
# GStreamer nor GLib: the kernels are built there, the rest is brought along (bundle.sh).
#
#   run.sh [--bundle FILE.tar.xz] [MODE]...
#
#   kernels    every op against float64: kernels.sh check
#   ops        every op's time, beside a large copy and a large product: kernels.sh bench
#   sanitize   kernels.sh sanitize
#   engine     the models' golden tensors in f32; the parts of Open-Sora 2.0 run once
#   elements   whole clips against the CPU's, copies, allocations, cudadownload, a file
#   torch      the table of docs/performance.md: PyTorch and the engine in turn
#   compiled   the same with torch.compile, minutes more
#
# Without modes: kernels engine elements. All but the first three need the bundle. Logs go to $OUT
# (default ./out), with clip.mp4. A summary comes last; exit status 0: all passed.
set -u

top=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
out=${OUT:-./out}
bundle='' modes=''
while [ $# -gt 0 ]; do
  case $1 in
  --bundle) bundle=${2:?--bundle FILE}; shift ;;
  kernels | ops | sanitize | engine | elements | torch | compiled) modes="$modes $1" ;;
  *) sed -n '3,17s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift
done
modes=${modes:- kernels engine elements}
mkdir -p "$out"
out=$(CDPATH= cd -- "$out" && pwd)

has_mode() {
  for wanted; do
    case "$modes " in *" $wanted "*) return 0 ;; esac
  done
  return 1
}

summary='' failed=0
# step NAME LIMIT COMMAND...: its output into a log, its end of it here as well.
step() {
  name=$1 limit=$2
  shift 2
  start=$(date +%s)
  timeout -k 10 "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  if [ $status -eq 0 ]; then
    summary="$summary
ok     $name ($(($(date +%s) - start)) s)"
  elif [ $status -eq 77 ]; then
    summary="$summary
SKIP   $name: $(tail -n 1 "$out/$name.log")"
    failed=1
  else
    summary="$summary
FAILED $name: exit status $status"
    failed=1
    tail -n 15 "$out/$name.log"
  fi
  return $status
}

# --- the kernels, and the module that all else uses ---

kernel_modes=''
! has_mode kernels || kernel_modes="$kernel_modes check"
! has_mode ops || kernel_modes="$kernel_modes bench"
! has_mode sanitize || kernel_modes="$kernel_modes sanitize"
# shellcheck disable=SC2086
OUT=$out/kernels step kernels 580 sh "$top/tests/gpu/kernels.sh" ${kernel_modes:-module}
cat "$out/kernels.log"

if ! has_mode engine elements torch compiled; then
  printf '%s\n' "$summary"
  exit $failed
fi

# --- what was brought along ---

[ -f "$bundle" ] || { echo "run.sh: --bundle FILE is needed for$modes" >&2; exit 2; }
mkdir -p "$out/bundle"
tar -C "$out/bundle" -xf "$bundle" || exit 1
cp "$out/kernels/libopensora-cuda.so" "$out/bundle/lib/" || exit 1
cat >"$out/in-bundle" <<'END'
#!/bin/bash
# in-bundle COMMAND...: with the bundle's programs and libraries.
. "$(dirname "$0")/bundle/env.sh"
exec "$@"
END
chmod +x "$out/in-bundle"
# The driver's library may lie where only the toolkit's tools look for it.
for dir in /usr/local/nvidia/lib64 /usr/lib/x86_64-linux-gnu /usr/local/cuda/compat; do
  [ ! -e "$dir/libcuda.so.1" ] || { LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$dir; break; }
done
export LD_LIBRARY_PATH
export G_TEST_SRCDIR="$top/tests" G_TEST_BUILDDIR="$out" G_DEBUG=fatal-criticals
export OPENSORA_MODEL="$top/engine/tiny-model"
# CUDA does not live through fork().
export CK_FORK=no CK_DEFAULT_TIMEOUT=240 OPENSORA_FULL_CLIP=1
tests=$out/bundle/tests

if has_mode engine; then
  for golden in mmdit:/mmdit/golden text:/t5/golden text:/clip/golden vae:/vae/golden \
    sampler:/sampler/golden; do
    path=${golden#*:}/cuda:0
    step "golden$(echo "${golden#*:}" | tr / -)" 120 \
      env GOLDEN_DEVICES=cuda:0 "$out/in-bundle" "$tests/test-${golden%%:*}" -p "$path"
  done
  for part in t5 clip vae mmdit; do
    step "part-$part" 120 "$out/in-bundle" opensora-tool parts $part --device cuda:0 \
      --warm-up 1 --repeat 3
    cat "$out/part-$part.log"
  done
fi

if has_mode elements; then
  step inspect 60 "$out/in-bundle" gst-inspect-1.0 opensora
  step elements 240 "$out/in-bundle" "$tests/test-gpu"
  grep '^# ' "$out/elements.log"
  step file 120 "$out/in-bundle" gst-launch-1.0 -q \
    opensorasrc device=cuda:0 prompt="a red circle moving right on a blue background" ! \
    'video/x-raw(memory:CUDAMemory),format=NV12' ! cudadownload ! x264enc ! mp4mux ! \
    filesink location="$out/clip.mp4"
  step cpu 120 "$out/in-bundle" gst-launch-1.0 -q opensorasrc device=cpu prompt="a red circle" \
    num-frames=1 ! fakesink
  step bench 120 "$out/in-bundle" opensora-tool bench --device cuda:0 --repeat 5
  step bench-no-graphs 120 "$out/in-bundle" opensora-tool bench --device cuda:0 --repeat 5 \
    --no-graphs
  tail -n 8 "$out/bench.log" "$out/bench-no-graphs.log"
fi

# PyTorch is the host's, the tool the bundle's, each with its own libraries.
if has_mode torch compiled; then
  printf '#!/bin/sh\nexec "%s/in-bundle" opensora-tool "$@"\n' "$out" >"$out/tool"
  chmod +x "$out/tool"
  compile=''
  ! has_mode compiled || compile=--compile
  step torch 560 env -u LD_LIBRARY_PATH "${PYTHON:-python3}" \
    "$top/tests/reference/bench_torch.py" --tool "$out/tool" --json "$out/torch.json" $compile
  cat "$out/torch.log"
fi

printf '%s\n' "$summary"
exit $failed
