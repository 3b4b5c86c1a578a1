#!/usr/bin/env bash
# Installs the system programs and libraries that tests need, where they are missing and where that is possible;
# otherwise says what to install. Usage: scripts/system-packages.sh PROGRAM=PACKAGE LIBRARY.so.N=PACKAGE …
set -euo pipefail

is_there() {
  case $1 in
    *.so.*) ! command -v ldconfig >/dev/null 2>&1 || [[ $(ldconfig -p) == *"$1"* ]] ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

missing=()
for pair in "$@"; do
  is_there "${pair%%=*}" || missing+=("${pair#*=}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "Missing on this system; please install these packages (Debian's names): ${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
  root=()
elif sudo -n true 2>/dev/null; then
  root=(sudo)
else
  echo "Missing on this system; please run: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
"${root[@]}" apt-get update -qq
"${root[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}"
