#!/usr/bin/env bash
# Builds the wheel, installs it in a new environment, and runs it from an empty folder: conf/ must travel inside.
set -euo pipefail
root=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${VENV:-.venv}/bin/python" -m build --wheel --outdir "$work/dist" .
"${PYTHON:-python3}" -m venv "$work/venv"
wheel=$(ls "$work"/dist/*.whl)
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$wheel[demo]"
mkdir "$work/empty"
cd "$work/empty"
"$work/venv/bin/retinue" run data=cdnow
for table in forecasts.parquet segments.parquet features.parquet report.html metrics.json; do
  test -s "runs/cdnow/$table" || { echo "wheel test: runs/cdnow/$table is missing"; exit 1; }
done
cd "$root"
echo "wheel test: passed"
