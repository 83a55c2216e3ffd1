#!/usr/bin/env bash
# All tests on the maintained forks (onedl-mmdetection, onedl-mmengine, onedl-mmcv) in place of the official packages.
# They share import names, so they get an environment of their own: .venv-forks, made if missing. KD_DET_FORKS_VENV
# chooses another folder, PYTHON the interpreter. Arguments go to pytest: bash tools/run_fork_tests.sh -k teacher
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${KD_DET_FORKS_VENV:-.venv-forks}
python=${PYTHON:-python3}
stamp=$venv/.kd_det-$(cat setup.py constraints.txt kd_det/version.py | sha256sum | cut -c1-16)
if [ ! -e "$stamp" ]; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        echo "kd_det needs Python 3.10 or newer; $python is $("$python" --version 2>&1 || echo missing). Set PYTHON=..." >&2
        exit 1
    fi
    log=$venv/install.log
    echo "== making $venv (PyTorch is a large download: some minutes); the log is $log"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    # onedl-mmcv is a source package that compiles its ops wherever its build sees PyTorch. pip builds it in isolation,
    # where there is none, unless the user's pip is set up otherwise; kd_det serves the ops.
    if ! env -u PIP_NO_BUILD_ISOLATION "$venv/bin/python" -m pip install --disable-pip-version-check \
        --progress-bar off -c constraints.txt -e '.[onedl,tools,test]' >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "installation failed; the whole log is $log" >&2
        exit 1
    fi
    rm -f "$venv"/.kd_det-*
    touch "$stamp"
fi
python=$venv/bin/python
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
echo "== environment"
"$python" -m kd_det.doctor # stops here if a detector cannot train, or official packages lie in the same folders
echo "== tests"
workers=$("$python" -c 'import os; print(min(4, len(os.sched_getaffinity(0))))')
exec "$python" -m pytest -q -n "$workers" tests "$@"
