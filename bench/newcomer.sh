#!/usr/bin/env bash
# A newcomer's way to a first tuned search of real embeddings: two commands in a new environment, with their seconds.
#
#     bench/newcomer.sh [python3.11]      # nothing is taken from pip's cache; needs a C++20 compiler, as a newcomer does
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH NESTVEC_BACKEND
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${1:-python3}" -m venv "$work/venv"

timed() {
  local began=$SECONDS
  echo "\$ $*"
  "$work/venv/bin/$@"
  took=$((SECONDS - began))
  total=$((total + took))
  echo "== $took s"
}

total=0
mkdir "$work/nestvec"
git archive HEAD | tar -x -C "$work/nestvec"  # as cloned, without what was built here
cd "$work/nestvec"
timed pip -q install ".[demo]"
timed nestvec demo --no-table --recall 0.99 "merge sorted lists"
echo "== from nothing to an answer: $total s"
[ "$total" -le 300 ] || { echo "== more than the 5 minutes it should take"; exit 1; }
