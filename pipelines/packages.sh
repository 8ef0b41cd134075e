# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# What the project needs from Debian. Sourced by pipelines/demo.sh and tests/run.sh.

# shellcheck disable=SC2034  # used by those who source this
build_packages=(
  build-essential meson ninja-build pkg-config
  libglib2.0-dev libjson-glib-dev libsentencepiece-dev
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  libgstrtspserver-1.0-dev libsoup-3.0-dev
)
# shellcheck disable=SC2034
run_packages=(
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
  gstreamer1.0-plugins-ugly
)

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# install_packages PACKAGE...: installs those that are not there; asks for nothing if all are.
install_packages() {
  local package missing=() as_root=()

  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "Packages are installed on Debian and Ubuntu only. Install what these hold:" >&2
    printf '  %s\n' "$@" >&2
    echo "and start again with --no-install." >&2
    return 1
  fi
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0

  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "There is no sudo. As root, run" >&2
      echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "Installing ${missing[*]}"
  "${as_root[@]}" apt-get -qq update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# quietly LOG COMMAND...: output goes to LOG, whose end is shown if the command fails.
quietly() {
  local log=$1 status=0
  shift
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    tail -n 40 "$log" >&2
    echo "Failed: $* (all of the output: $log)" >&2
  fi
  return "$status"
}
