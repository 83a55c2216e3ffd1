#!/usr/bin/env bash
# Lint and all tests, in .venv, which is made if missing. Arguments go to pytest: bash tools/run_tests.sh -k teacher
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/setup_env.sh
python=${KD_DET_VENV:-.venv}/bin/python
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
echo "== lint"
"$python" -m ruff check .
echo "== tests"
workers=$("$python" -c 'import os; print(min(4, len(os.sched_getaffinity(0))))')
exec "$python" -m pytest -q -n "$workers" tests "$@"
