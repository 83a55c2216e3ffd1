#!/usr/bin/env bash
# Make .venv with kd_det and the tested set of constraints.txt, or reuse it. Needs Python >= 3.10 and pip; PYTHON chooses
# the interpreter, KD_DET_VENV another folder.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${KD_DET_VENV:-.venv}
python=${PYTHON:-python3}
stamp=$venv/.kd_det-$(cat setup.py constraints.txt kd_det/version.py | sha256sum | cut -c1-16)
if [ -e "$stamp" ]; then exit 0; fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "kd_det needs Python 3.10 or newer; $python is $("$python" --version 2>&1 || echo missing). Set PYTHON=..." >&2
    exit 1
fi
echo "== making $venv (PyTorch is a large download: some minutes)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
log=$venv/install.log
start=$SECONDS
"$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
    -c constraints.txt -e '.[openmmlab,tools,test]' >"$log" 2>&1 &
pid=$!
while kill -0 $pid 2>/dev/null; do
    sleep 5
    if [ $(( (SECONDS - start) % 20 )) -lt 5 ]; then
        printf '   %3d s  %s\n' $((SECONDS - start)) "$(grep -vE '^(WARNING|Looking)' "$log" | tail -n 1 | cut -c1-90)"
    fi
done
if ! wait $pid; then
    tail -n 20 "$log" >&2
    echo "installation failed; the whole log is $log" >&2
    exit 1
fi
rm -f "$venv"/.kd_det-*
touch "$stamp"
echo "== installed in $((SECONDS - start)) s"
