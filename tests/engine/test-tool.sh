#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# opensora-tool from the outside: test-tool.sh TOOL GOLDEN_FOLDER
# What needs a model is left out, with a message, where there is no model folder.
set -eu

tool=$1
golden=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C
n=0

fail()
{
  echo "FAIL: $*"
  sed 's/^/  out: /' "$work/out"
  sed 's/^/  err: /' "$work/err"
  exit 1
}

# runs STATUS ARGUMENT...: the tool ends in STATUS; its output is in $work/out and $work/err
runs()
{
  want=$1
  shift
  n=$((n + 1))
  status=0
  "$tool" "$@" >"$work/out" 2>"$work/err" || status=$?
  [ "$status" -eq "$want" ] || fail "opensora-tool $*: exit status $status, not $want"
}

# The last run failed with one line that has the text in it.
says()
{
  [ "$(wc -l <"$work/err")" -eq 1 ] || fail "more or less than one line of error"
  grep -qF -- "$1" "$work/err" || fail "no '$1' in the error"
}

prints()
{
  grep -qE -- "$1" "$work/out" || fail "no '$1' in the output"
}

# Usage

runs 0 --version
prints '^opensora-tool [0-9]+\.[0-9]+'
runs 0 --help
prints '^Usage:'
for command in info plan generate bench run; do
  runs 0 $command --help
  prints "opensora-tool $command"
  runs 2 $command --no-such-option
  says "no-such-option"
done
runs 2
runs 2 dance
says "dance"
runs 2 generate
says "--prompt and --output"
runs 2 generate --prompt "a cube" --output "$work/x.y4m" --steps -3
says "--steps cannot be -3"
runs 2 generate --prompt "a cube" --output "$work/x.y4m" --tiling wild
says "wild"
for threads in 2147483647 1025 -1; do
  runs 2 bench --threads $threads
  says "--threads is 1 to 1024, not $threads"
done
runs 2 bench --repeat 0
says "--repeat"
runs 2 bench --tiny --model "$work"
says "--tiny and --model"
runs 2 plan --dtype I32
says "I32"
runs 2 info one two
says "two"
runs 2 run --component t5 --inputs x
says "--output"
runs 1 bench --device nonsense
says "nonsense"

# Wrong folders and files

printf 'version https://git-lfs.github.com/spec/v1\n' >"$work/pointer.pt"
runs 1 run --component t5 --weights x --inputs "$work/pointer.pt" --output "$work/y"
says "a pointer of Git LFS"

for command in info plan; do
  runs 1 $command "$work/not-there"
  says "$work/not-there"
  runs 1 $command "$work"
  says "$work"
done
echo "this is no safetensors file" >"$work/bad.safetensors"
runs 1 run --component t5 --weights "$work/bad.safetensors" --inputs "$work/bad.safetensors" \
  --output "$work/out.safetensors"
says "bad.safetensors"

# Components on the goldens, whose weights get their own names

plain()
{
  python3 - "$golden/$1.safetensors" "$work/$1.safetensors" <<'END'
import json, struct, sys
with open(sys.argv[1], "rb") as f:
    n, = struct.unpack("<Q", f.read(8))
    header, data = json.loads(f.read(n)), f.read()
header = {k[2:] if k.startswith("w.") else k: v for k, v in header.items()}
text = json.dumps(header).encode()
with open(sys.argv[2], "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + data)
END
}

component()
{
  plain "$2"
  for device in cpu ref; do
    runs 0 run --component "$1" --device $device --weights "$work/$2.safetensors" \
      --inputs "$golden/$2.safetensors" --output "$work/result.safetensors" \
      --compare "$golden/$2.safetensors" $3
    prints 'relative error [0-9.]+e-0[5-9]'
    runs 0 run --component "$1" --device $device --weights "$work/$2.safetensors" \
      --inputs "$golden/$2.safetensors" --compare "$work/result.safetensors" $3
    prints 'relative error 0$'
  done
}

component mmdit mmdit-split ""
component mmdit mmdit-guidance ""
component t5 t5-len37 ""
component clip clip-eos ""
component vae-encode vae-t1 ""
component vae-decode vae-t5 ""
component vae-encode vae-tiles-both "--tiling both"
component vae-decode vae-tiles-both "--tiling both"
component flux mmdit-guidance ""
component flux-ae ae-picture ""
component flux-ae ae-frames "--tiling both"

runs 1 run --component flux-ae --weights "$work/ae-picture.safetensors" \
  --inputs "$golden/t5-len37.safetensors" --output "$work/out.safetensors"
says "the input 'video' or 'latent' is missing"
runs 1 run --component flux-ae --model "$golden/../flux" \
  --inputs "$golden/ae-picture.safetensors" --output "$work/out.safetensors"
says "H and W multiples of 8"
runs 1 run --component flux --model "$work" \
  --inputs "$golden/mmdit-guidance.safetensors" --output "$work/out.safetensors"
says "no model of pictures in it"

# Without its tiles the result is another, and the tool says so.
runs 1 run --component vae-decode --weights "$work/vae-tiles-both.safetensors" \
  --inputs "$golden/vae-tiles-both.safetensors" --compare "$golden/vae-tiles-both.safetensors"
says "1 of 1 outputs differ"
runs 1 run --component vae-decode --weights "$work/vae-t5.safetensors" \
  --inputs "$golden/t5-len37.safetensors" --output "$work/out.safetensors"
says "'latent' is missing"
runs 1 run --component t5 --weights "$work/vae-t5.safetensors" \
  --inputs "$golden/t5-len37.safetensors" --output "$work/out.safetensors"
says "vae-t5.safetensors: config: vocab_size: is missing"

# config TEXT MESSAGE: a config that cannot be
config()
{
  echo "$1" >"$work/config.json"
  runs 1 run --component t5 --weights "$work/t5-len37.safetensors" --config "$work/config.json" \
    --inputs "$golden/t5-len37.safetensors" --output "$work/out.safetensors"
  says "$work/config.json: "
  says "$2"
}

sizes='"d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 3'
config '{ "d_model": [' "offset"
config "{ \"vocab_size\": 40, $sizes, \"x\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[" "nested too deep"
config "{ \"vocab_size\": 4294967336, $sizes }" "vocab_size: 4294967336 is not in 1 to 1048576"
config "{ \"vocab_size\": 40, $sizes, \"model_type\": \"bert\" }" "model_type: \"bert\" is not"
runs 1 run --component t5 --weights "$work/t5-len37.safetensors" --config "$work/no.json" \
  --inputs "$golden/t5-len37.safetensors" --output "$work/out.safetensors"
says "no.json"
runs 2 run --component cube --weights "$work/t5-len37.safetensors" \
  --inputs "$golden/t5-len37.safetensors" --output "$work/out.safetensors"
says "cube"

# A model of pictures, without text encoders

flux="$golden/../flux"
runs 0 info "$flux"
prints '^random \(flux\) in '
prints '^vae .*compression 1 in time and 8 in space'
prints 'encoders are not in this folder'
runs 0 plan "image:$flux"
prints '4 steps, 4 forwards of 16 \+ '
prints '^decode .*e\+'
runs 1 plan --num-frames 5 "$flux"
says "this model makes pictures"
runs 0 parts flux --grid 1x3x4 --tokens 5 --model "$flux" --device cpu --repeat 1 --warm-up 0
prints '^flux +1x3x4 batch 1 text 5: median'
runs 0 parts flux-ae --grid 2x3x4 --model "$flux" --device cpu --repeat 1 --warm-up 0
prints '^flux-ae 2x3x4 batch 1: median'

# A whole model

if ! "$tool" info >"$work/out" 2>"$work/err"; then
  [ -z "${OPENSORA_MODEL:-}" ] || [ ! -e "$OPENSORA_MODEL/config.json" ] || fail "info"
  echo "ok: $n runs; without a model folder the rest is left out"
  exit 0
fi
prints '^mmdit +[0-9]+ '
prints '^sampling '
prints '^sizes +of resolution [0-9]+px: 2\.39:1 [0-9]+ x [0-9]+, 2:1 [0-9]+ x [0-9]+, '
prints '3:4 [0-9]+ x [0-9]+$'
runs 0 info --json
prints '"format" : "safetensors"'
prints '"hidden_size" : [0-9]+'
prints '"missing" : \[\]'
runs 0 info --vae "$OPENSORA_MODEL/vae.safetensors"
prints '^vae .*safetensors'
runs 1 info --vae "$work/nowhere.pth"
says "vae: $work/nowhere.pth: there is no such file or folder"
runs 1 info --mmdit "$OPENSORA_MODEL/vae.safetensors"
says "not a denoiser of Open-Sora 2.0, but the autoencoder of Open-Sora 2.0"
runs 0 plan --num-frames 5 --steps 3
prints '^denoise .*e\+'
prints 'estimates'
runs 1 plan --width 100
says "width"

clip="--device cpu --width 64 --height 64 --num-frames 5 --steps 2 --seed 7"
runs 0 bench --tiny $clip --repeat 2 --threads 2
prints '^denoise '
prints '[0-9]+ forwards'
prints 'process [0-9.]+ MiB'

runs 0 generate --prompt "a red cube" --output "$work/a.y4m" $clip
head -n 1 "$work/a.y4m" | grep -q '^YUV4MPEG2 W64 H64 F[0-9]*:1 ' || fail "header of y4m"
[ "$(grep -ao FRAME "$work/a.y4m" | wc -l)" -ge 5 ] || fail "frames of y4m"
[ "$(wc -c <"$work/a.y4m")" -eq $(($(head -n 1 "$work/a.y4m" | wc -c) + 5 * (6 + 64 * 64 * 3 / 2))) ] ||
  fail "size of y4m"
runs 0 generate --prompt "a red cube" --output - $clip
cmp "$work/out" "$work/a.y4m" || fail "the same seed gives another clip"
runs 0 generate --prompt "a red cube" --output "$work/a.rgb" $clip
[ "$(wc -c <"$work/a.rgb")" -eq $((5 * 64 * 64 * 3)) ] || fail "size of rgb"
runs 0 generate --prompt "a red cube" --output "$work/frames" $clip
tail -c $((64 * 64 * 3)) "$work/frames/frame-00004.ppm" >"$work/last"
tail -c $((64 * 64 * 3)) "$work/a.rgb" | cmp - "$work/last" || fail "last frame of the folder"
runs 0 generate --prompt "a red cube" --output "$work/b.rgb" --device cpu --width 64 --height 64 \
  --num-frames 5 --steps 2 --seed 8
! cmp -s "$work/a.rgb" "$work/b.rgb" || fail "another seed gives the same clip"

# A picture, its text encoded by the encoders beside the model
mkdir "$work/pictures"
cp "$flux/mmdit.safetensors" "$flux/ae.safetensors" "$work/pictures"
sed 's/"family"/"t5": {"max_length": 64}, "clip": {"max_length": 64}, &/' "$flux/config.json" \
  >"$work/pictures/config.json"
cp -r "$OPENSORA_MODEL/t5" "$OPENSORA_MODEL/clip" "$work/pictures"
runs 0 generate --model "image:$work/pictures" --prompt "a red cube" --output "$work/p.rgb" \
  --device cpu --width 48 --height 32
[ "$(wc -c <"$work/p.rgb")" -eq $((48 * 32 * 3)) ] || fail "size of the picture"
runs 1 generate --model "$flux" --prompt "a red cube" --output "$work/q.rgb" --device cpu
says "t5/spiece.model"

runs 1 generate --prompt "a red cube" --output "$work/not-there/a.y4m" $clip
says "not-there/a.y4m"
runs 1 generate --prompt "$(printf "caf\351")" --output "$work/c.y4m" $clip
says "UTF-8"
[ ! -e "$work/c.y4m" ] || fail "a file is left behind"
runs 1 generate --prompt "a red cube" --output "$work/c.y4m" --device cpu --num-frames 6
says "frames"
[ ! -e "$work/c.y4m" ] || fail "a file is left behind"

# One model alone, on random weights
sizes="--model $OPENSORA_MODEL --device cpu --repeat 3 --warm-up 1"
runs 0 parts mmdit --grid 3x4x4 --batch 2 $sizes
prints '^mmdit +3x4x4 batch 2 text 64: median [0-9.]+ ms, best [0-9.]+ ms of 3; .* TFLOP/s; peak'
runs 0 parts vae --grid 2x4x4 $sizes
prints '^vae +2x4x4 batch 1: median'
runs 0 parts t5 --tokens 9 $sizes
prints '^t5 +text 9: median'
runs 0 parts clip $sizes
prints '^clip +text 64: median'
runs 2 parts wheel
says "mmdit, vae, t5, clip, flux or flux-ae"
runs 2 parts mmdit --grid 3x4 $sizes
says "FRAMESxROWSxCOLUMNS"
runs 2 parts t5 --preset open-sora-v9
says "open-sora-v2"

# Noise: that of PyTorch is the same for all who are told the GPU
runs 0 noise --device cpu --rng torch-cuda --blocks 108 --frames 2 --output "$work/n.safetensors"
runs 0 noise --device ref --rng torch-cuda --blocks 108 --frames 2 --output "$work/m.safetensors"
cmp -s "$work/n.safetensors" "$work/m.safetensors" || fail "noise depends on the device"
runs 0 noise --device ref --frames 2 --output "$work/m.safetensors"
! cmp -s "$work/n.safetensors" "$work/m.safetensors" || fail "--rng changes nothing"
runs 2 noise --rng dice --output "$work/m.safetensors"
says "philox or torch-cuda"
runs 2 noise
says "--output"

# Interrupted in the middle
status=0
"$tool" generate --prompt "a red cube" --output "$work/c.y4m" --device cpu --steps 10000 \
  >"$work/out" 2>"$work/err" &
pid=$!
sleep 2
kill -TERM $pid
wait $pid || status=$?
[ "$status" -eq 130 ] || fail "interrupted: exit status $status, not 130"
says "interrupted"
[ ! -e "$work/c.y4m" ] || fail "a file is left behind"

echo "ok: $n runs"
