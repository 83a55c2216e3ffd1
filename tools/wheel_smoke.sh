#!/usr/bin/env bash
# Build the wheel, install it into a fresh environment outside the clone, and there, from an empty directory, make digits,
# train a teacher, a plain and a distilled student for a few steps, evaluate and compare them. The environment takes PyTorch
# and the OpenMMLab stack from .venv (KD_DET_VENV), so nothing is downloaded; the kd_det that runs must be the wheel's.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH # a kd_det found there would be taken for an installed one
base=$(realpath "${KD_DET_VENV:-.venv}")/bin/python
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
# a copy is built: the build leaves files beside setup.py
git ls-files -z -- kd_det configs tools/benchmarks/studies setup.py README.md LICENSE | tar --null -T - -cf - | (mkdir "$place/source" && tar -xf - -C "$place/source")
"$base" -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w "$place" "$place/source"
"$base" -m venv "$place/venv"
python=$place/venv/bin/python
"$python" -m pip install -q --disable-pip-version-check --no-deps "$place"/kd_det-*.whl
rm -rf "$place/source"
# behind the wheel in the search order; a .pth there is not read, so an editable kd_det of .venv is out of sight
"$base" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' >"$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/stack.pth"
mkdir "$place/empty"
cd "$place/empty"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONWARNINGS=ignore
kd_det=$place/venv/bin/kd-det
"$python" -c "import kd_det, sys; assert kd_det.__file__.startswith('$place/venv/'), kd_det.__file__"
run() { # NAME COMMAND...: quiet unless it fails
    local name=$1 start=$SECONDS
    shift
    if ! "$@" >"$name.log" 2>&1; then tail -n 20 "$name.log" >&2; echo "wheel: $name failed" >&2; exit 1; fi
    echo "wheel: $name, $((SECONDS - start)) s"
}
run version "$kd_det" --version
run configs "$kd_det" configs digits
run digits "$kd_det" data digits --size 160x120 --train 4 --dev 2 --val 2 --out elsewhere/digits
student=kd_det::faster_rcnn/faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120.py
teacher=kd_det::faster_rcnn/faster-rcnn_r18-w32_fpn-c32_9e_digits-160x120.py
distil=kd_det::distill_faster_rcnn/faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120_distill-w32.py
short=(--data-root elsewhere/digits --cfg-options train_cfg.max_epochs=1 train_dataloader.batch_size=2
       train_dataloader.num_workers=0 train_dataloader.persistent_workers=False val_dataloader.num_workers=0
       val_dataloader.persistent_workers=False)
run teacher "$kd_det" train "$teacher" --work-dir teacher "${short[@]}"
run plain "$kd_det" train "$student" --work-dir plain "${short[@]}"
printf "_base_ = '%s'\n" "$distil" >mine.py # a user's own config on a shipped one
run distilled "$kd_det" train mine.py --work-dir distilled --teacher "$teacher" teacher/epoch_1.pth "${short[@]}"
run distill "$kd_det" distill --data elsewhere/digits --teacher "$teacher" teacher/epoch_1.pth --student "$student" --epochs 1 \
    --teacher-epochs 1 --out on_my_data
test -s on_my_data/report.html && ls on_my_data/exported/*.pth >/dev/null
run test "$kd_det" test "$distil" distilled/epoch_1.pth --data-root elsewhere/digits --work-dir tested
run compare "$kd_det" compare plain distilled teacher --data-root elsewhere/digits --no-latency --json table.json
"$python" -c "import json; rows = json.load(open('table.json')); assert rows, rows"
echo "wheel: trains, tests and compares outside the clone"
