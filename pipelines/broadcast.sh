#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A channel of generated video: MPEG-TS over UDP or SRT, or HLS in a folder. The output never
# waits for the generator: opensoraplayout repeats what there is until the next clip is complete.
# shellcheck disable=SC2054  # commas are those of caps
set -euo pipefail

usage() {
  cat <<EOF
Usage: pipelines/broadcast.sh udp|srt|hls|file [OPTION]...

Where to
  udp                   MPEG-TS over UDP, to --host and --port
  srt                   MPEG-TS over SRT; waits for callers on --port, or calls --host
  hls                   HLS, a playlist and segments in the folder --output
  file                  MPEG-TS in the file --output

      --host HOST       receiver (udp: 127.0.0.1; srt: none, so that receivers call)
      --port N          port (udp: 5004; srt: 7001)
      --latency MS      of SRT (125)
      --passphrase TEXT of SRT, 10 to 79 characters: the stream is encrypted
  -o, --output PATH     folder of hls (hls), file of file (broadcast.ts)
      --segment S       seconds of an HLS segment (4)

What is shown
  -p, --prompt TEXT     prompt ("$default_prompt")
      --prompts FILE    file of prompts, one a line, or .csv; "-": those that are typed in
      --seed N          seed of the first noise (42); -1 draws them
      --samples N       clips of each prompt (1)
      --once            ends with the last clip; without it, that one is repeated until Ctrl-C
      --preset NAME     preset of opensorasrc: fast, balanced, quality, ...
      --model DIR       folder of the model (the tiny model)
      --clip-size WxH   size of the clips, multiples of 16 (the model's own)
      --clip-frames N   frames of a clip (the model's own)
      --steps N         denoising steps (the model's own)
      --repeat HOW      of a clip until there is another: loop, ping-pong or once (loop)
      --slate PICTURE   shown until the first clip is there (black)

What goes out
      --size WxH        of the video (1280x720)
      --rate N[/D]      frames a second (25)
      --bitrate N       of the video, kbit/s (2500)
      --audio WHAT      tone (1 kHz, -20 dBFS), silence or none (silence)
      --timecode WHERE  burn (in the picture), sei (in the stream), both or none (none); time of day
      --title TEXT      lower third
      --pip WHAT        picture in picture: test, camera, or a device like /dev/video2
      --gpu             scale and encode with NVIDIA's elements

      --build-dir DIR   where the project is built (build, or what is installed)
  -n, --dry-run         print the pipeline and do nothing
  -h, --help            show this and do nothing

Ctrl-C ends the stream so that files and playlists are whole.
EOF
}

die() {
  echo "broadcast.sh: $*" >&2
  exit 2
}

# A value for a pipeline description, which may have quotation marks of its own in it.
quote() {
  local value=${1//\\/\\\\}
  printf '"%s"' "${value//\"/\\\"}"
}

is_number() {
  [[ $1 =~ ^[0-9]{1,9}$ ]]
}

default_prompt="a red circle moving right on a blue background"
host='' port='' latency=125 passphrase='' output='' segment=4
prompt=$default_prompt prompts='' seed=42 samples=1 once='' preset='' model='' clip_size=''
clip_frames='' steps='' repeat=loop slate=''
size=1280x720 rate=25 bitrate=2500 audio=silence timecode=none title='' pip='' gpu=''
build='' dry_run=''
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

target=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    -n | --dry-run) dry_run=yes; shift; continue ;;
    --once) once=yes; shift; continue ;;
    --gpu) gpu=yes; shift; continue ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
    -?*) [ $# -ge 2 ] || die "$1 needs a value" ;;
    *)
      [ -z "$target" ] || die "more than one target: $target and $1"
      target=$1
      shift
      continue
      ;;
  esac
  case $1 in
    --host) host=$2 ;;
    --port) port=$2 ;;
    --latency) latency=$2 ;;
    --passphrase) passphrase=$2 ;;
    -o | --output) output=$2 ;;
    --segment) segment=$2 ;;
    -p | --prompt) prompt=$2 ;;
    --prompts) prompts=$2 ;;
    --seed) seed=$2 ;;
    --samples) samples=$2 ;;
    --preset) preset=$2 ;;
    --model) model=$2 ;;
    --clip-size) clip_size=$2 ;;
    --clip-frames) clip_frames=$2 ;;
    --steps) steps=$2 ;;
    --repeat) repeat=$2 ;;
    --slate) slate=$2 ;;
    --size) size=$2 ;;
    --rate) rate=$2 ;;
    --bitrate) bitrate=$2 ;;
    --audio) audio=$2 ;;
    --timecode) timecode=$2 ;;
    --title) title=$2 ;;
    --pip) pip=$2 ;;
    --build-dir) build=$2 ;;
    *) die "unknown option $1 (--help lists them)" ;;
  esac
  shift 2
done

case $target in
  udp) host=${host:-127.0.0.1} port=${port:-5004} ;;
  srt) port=${port:-7001} ;;
  hls) output=${output:-hls} ;;
  file) output=${output:-broadcast.ts} ;;
  '') die "where to? udp, srt, hls or file (--help tells more)" ;;
  *) die "unknown target $target: udp, srt, hls and file are known" ;;
esac
for number in ${port:+port} latency segment samples bitrate ${steps:+steps} \
  ${clip_frames:+clip_frames}; do
  is_number "${!number}" || die "--${number//_/-} ${!number} is not a number"
done
[ "$seed" = -1 ] || is_number "$seed" || die "--seed $seed is not a number"
[ -z "$port" ] || { [ $((10#$port)) -ge 1 ] && [ $((10#$port)) -le 65535 ]; } ||
  die "--port $port is not 1 to 65535"
[ $((10#$segment)) -ge 1 ] || die "--segment has to be 1 or more"
[[ $size =~ ^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$ ]] || die "--size $size is not WIDTHxHEIGHT"
[[ ${clip_size:-16x16} =~ ^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$ ]] ||
  die "--clip-size $clip_size is not WIDTHxHEIGHT"
width=${size%x*} height=${size#*x}
[ $((width % 2 + height % 2)) -eq 0 ] || die "--size $size: width and height have to be even"
[[ $rate =~ ^[1-9][0-9]{0,5}(/[1-9][0-9]{0,5})?$ ]] || die "--rate $rate is not N or N/D"
[[ $rate == */* ]] || rate=$rate/1
[[ $repeat =~ ^(loop|ping-pong|once)$ ]] || die "--repeat $repeat is not loop, ping-pong or once"
[[ $audio =~ ^(tone|silence|none)$ ]] || die "--audio $audio is not tone, silence or none"
[[ $timecode =~ ^(burn|sei|both|none)$ ]] || die "--timecode $timecode is not burn, sei, both or none"
[ -z "$passphrase" ] || { [ ${#passphrase} -ge 10 ] && [ ${#passphrase} -le 79 ]; } ||
  die "--passphrase has to have 10 to 79 characters"
[ -z "$model" ] || [ -d "$model" ] || die "there is no folder $model"
[ -z "$slate" ] || [ -f "$slate" ] || die "there is no file $slate"
[ -z "$prompts" ] || [ "$prompts" = - ] || [ -f "$prompts" ] || die "there is no file $prompts"

# The generator. With is-queue the stream does not end with the last prompt.

properties=(seed="$seed" num-samples=$((10#$samples)))
denoise=()
[ -z "$model" ] || properties+=(model-location="$(quote "$model")")
[ -z "$clip_size" ] || denoise+=(width="${clip_size%x*}" height="${clip_size#*x}")
[ -z "$clip_frames" ] || denoise+=(num-frames=$((10#$clip_frames)))
[ -z "$steps" ] || denoise+=(steps=$((10#$steps)))
[ -z "$preset" ] || denoise+=(@preset="$(quote "$preset")")
if [ "$prompts" = - ]; then
  model_only=()
  [ -z "$model" ] || model_only=(model-location="$(quote "$model")")
  generator=(fdsrc ! text/x-raw,format=utf8 ! opensoratextenc skip-failed=true "${properties[@]}" !
    opensoradenoise "${model_only[@]}" "${denoise[@]}" ! opensoravaedec "${model_only[@]}")
else
  if [ -n "$prompts" ]; then
    properties+=(location="$(quote "$prompts")")
  else
    properties+=(prompt="$(quote "$prompt")")
  fi
  if [ -n "$once" ]; then
    properties+=(skip-failed=true)
  else
    properties+=(is-queue=true)
  fi
  generator=(opensorasrc "${properties[@]}" "${denoise[@]}")
fi
playout=(opensoraplayout repeat="$repeat" transition=cross-fade)
[ -n "$once" ] || playout+=(at-eos=continue)
[ -z "$slate" ] || playout+=(slate=picture slate-location="$(quote "$slate")")

# The picture, the same size and rate whatever is in it

frame="width=$width,height=$height,pixel-aspect-ratio=1/1"
overlays=()
case $timecode in
  none) ;;
  *) overlays+=(timecodestamper source=rtc drop-frame=false !) ;;
esac
case $timecode in
  burn | both)
    overlays+=(timeoverlay time-mode=time-code halignment=left valignment=top
      shaded-background=true 'font-desc="Monospace 16"' !)
    ;;
esac
[ -z "$title" ] ||
  overlays+=(textoverlay text="$(quote "$title")" halignment=left valignment=bottom
    shaded-background=true 'font-desc="Sans Bold 20"' !)

scale=(videoconvert ! videoscale add-borders=true ! "video/x-raw,format=I420,$frame")
insert=()
case $pip in
  '') ;;
  test) insert=(videotestsrc is-live=true pattern=ball) ;;
  camera) insert=(v4l2src) ;;
  /dev/*) insert=(v4l2src device="$(quote "$pip")") ;;
  *) die "--pip $pip is not test, camera or a device" ;;
esac
clips="framerate=$rate"
[ -z "$clip_size" ] || clips+=",width=${clip_size%x*},height=${clip_size#*x}"
picture=("${generator[@]}" ! "${playout[@]}" ! "video/x-raw,$clips")
if [ -n "$gpu" ] && [ -z "$pip" ] && [ "${#overlays[@]}" -eq 0 ]; then
  # Frames stay on the GPU; the slate is uploaded.
  picture=("${generator[@]}" ! "${playout[@]}" !
    "video/x-raw(memory:CUDAMemory),$clips;video/x-raw,$clips" ! cudaupload ! cudaconvert ! cudascale add-borders=true !
    "video/x-raw(memory:CUDAMemory),format=NV12,$frame" ! queue)
elif [ -n "$pip" ]; then
  inset_width=$((width / 4 & ~1)) inset_height=$((height / 4 & ~1))
  picture+=(! "${scale[@]}" ! queue ! mix.
    "${insert[@]}" ! videoconvert ! videoscale ! videorate
    ! "video/x-raw,format=I420,width=$inset_width,height=$inset_height,framerate=$rate"
    ! queue ! mix.
    compositor name=mix background=black
    sink_1::xpos=$((width - inset_width - width / 32)) sink_1::ypos=$((height / 18))
    ! "video/x-raw,format=I420,width=$width,height=$height,framerate=$rate" ! queue)
else
  picture+=(! "${scale[@]}" ! queue)
fi
[ "${#overlays[@]}" -eq 0 ] || picture+=(! "${overlays[@]:0:${#overlays[@]}-1}")
[ -z "$gpu" ] || [[ " ${picture[*]} " == *" cudaupload "* ]] || picture+=(! cudaupload)

# A key frame every second, so that receivers find in. pic-struct is where the timecode goes; the
# parser of 1.22 writes it with stray bytes behind it into a byte stream.

gop=$(((${rate%/*} + ${rate#*/} - 1) / ${rate#*/}))
if [ -n "$gpu" ]; then
  encoder=(nvh264enc preset=low-latency-hq zerolatency=true rc-mode=cbr bitrate=$((10#$bitrate))
    gop-size="$gop")
  [[ $timecode =~ ^(sei|both)$ ]] && die "--timecode $timecode needs x264enc: leave --gpu out"
else
  encoder=(x264enc tune=zerolatency speed-preset=veryfast bitrate=$((10#$bitrate))
    key-int-max="$gop")
  [[ $timecode =~ ^(sei|both)$ ]] && encoder+=(option-string="pic-struct=1")
fi
encoder+=(! video/x-h264,profile=main,stream-format=avc ! h264parse config-interval=-1)
[[ $timecode =~ ^(sei|both)$ ]] && encoder+=(update-timecode=true)

sound=()
case $audio in
  tone) sound=(audiotestsrc is-live=true wave=sine freq=1000 volume=0.1) ;;
  silence) sound=(audiotestsrc is-live=true wave=silence) ;;
esac
[ "${#sound[@]}" -eq 0 ] ||
  sound+=(! audio/x-raw,rate=48000,channels=2 ! queue ! audioconvert ! voaacenc bitrate=128000 !
    aacparse)

# The multiplex and where it goes. 7 packets of 188 bytes fit in a datagram.

mux=(mpegtsmux name=out alignment=7)
video_pad=out. audio_pad=out.
case $target in
  udp) mux+=(! udpsink host="$(quote "$host")" port="$port") ;;
  srt)
    uri="srt://$host:$port?mode=$([ -n "$host" ] && echo caller || echo listener)"
    mux+=(! srtsink uri="$(quote "$uri")" latency=$((10#$latency)) wait-for-connection=false)
    [ -z "$passphrase" ] || mux+=(passphrase="$(quote "$passphrase")")
    ;;
  hls)
    mux=(hlssink2 name=out location="$(quote "$output/segment%05d.ts")"
      playlist-location="$(quote "$output/index.m3u8")" target-duration=$((10#$segment))
      playlist-length=6 max-files=12)
    video_pad=out.video audio_pad=out.audio
    ;;
  file) mux+=(! filesink location="$(quote "$output")") ;;
esac

pipeline=("${mux[@]}" "${picture[@]}" ! "${encoder[@]}" ! queue ! "$video_pad")
[ "${#sound[@]}" -eq 0 ] || pipeline+=("${sound[@]}" ! queue ! "$audio_pad")
if [ -n "$dry_run" ]; then
  echo "${pipeline[*]}"
  exit 0
fi

# What is built here goes before what is installed.

build=${build:-$source_dir/build}
launch=opensora-launch
if [ -x "$build/pipelines/opensora-launch" ]; then
  build=$(cd "$build" && pwd)
  launch=$build/pipelines/opensora-launch
  export GST_PLUGIN_PATH_1_0=$build/gst${GST_PLUGIN_PATH_1_0:+:$GST_PLUGIN_PATH_1_0}
  export GST_REGISTRY_1_0=${GST_REGISTRY_1_0:-$build/gst-registry.bin}
  export GST_PRESET_PATH=${GST_PRESET_PATH:-$source_dir/gst/presets}
  export OPENSORA_MODEL=${OPENSORA_MODEL:-$source_dir/engine/tiny-model}
elif ! command -v opensora-launch >/dev/null; then
  die "there is no opensora-launch: build first (pipelines/demo.sh does), or say --build-dir"
fi
declare -A packages=([x264enc]=ugly [voaacenc]=bad [mpegtsmux]=bad [hlssink2]=bad [srtsink]=bad
  [h264parse]=bad [aacparse]=good [udpsink]=good [v4l2src]=good [timecodestamper]=bad
  [cudaupload]=bad [cudaconvert]=bad [cudascale]=bad [nvh264enc]=bad)
for element in "${!packages[@]}"; do
  [[ " ${pipeline[*]} " != *" $element "* ]] || gst-inspect-1.0 --exists "$element" ||
    die "GStreamer has no $element here (Debian: gstreamer1.0-plugins-${packages[$element]})"
done
for element in timeoverlay textoverlay; do
  [[ " ${pipeline[*]} " != *" $element "* ]] || gst-inspect-1.0 --exists "$element" ||
    die "GStreamer has no $element here (Debian: gstreamer1.0-x)"
done
[ "$target" != hls ] || mkdir -p "$output"

case $target in
  udp) echo "On air: udp://$host:$port" ;;
  srt) echo "On air: srt://${host:-0.0.0.0}:$port" ;;
  *) echo "On air: $output" ;;
esac
exec "$launch" "${pipeline[@]}"
