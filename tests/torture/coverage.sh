#!/usr/bin/env bash
# Which lines of Python and C++ the tests run. A line of C++ counts if any instruction set's copy of it ran.
#   bash tests/torture/coverage.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
bin=$work/venv/bin
# no isolated build: headers must still be there when lines are counted
"$bin/pip" -q install scikit-build-core pybind11 cmake ninja coverage gcovr
"$bin/pip" -q install --no-build-isolation ".[test]" -C build-dir="$work/build" -C cmake.build-type=RelWithDebInfo \
  -C cmake.define.NESTVEC_COVERAGE=ON -C cmake.define.NESTVEC_CUDA=EMULATED
export CI=true COVERAGE_FILE=$work/python
# kernels of nestvec.kernels run as compiled by Numba or, far too slow to be watched, as loops
"$bin/coverage" run --branch --source nestvec --omit '*/nestvec/kernels/*' -m pytest -q -p no:cacheprovider "$@" ||
  echo "some tests failed"
"$bin/coverage" report --show-missing --skip-covered
"$bin/gcovr" --root . --filter csrc/ --merge-mode-functions merge-use-line-min --merge-lines --exclude-throw-branches \
  --gcov-ignore-parse-errors suspicious_hits.warn_once_per_file --print-summary "$work/build"
