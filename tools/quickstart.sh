#!/usr/bin/env bash
# From nothing to a comparison: installs into .venv, makes the digits, trains a teacher, the plain student and the
# distilled student, prints the table. Everything it writes is in .venv, data/digits and work_dirs/quickstart.
# SEED=1 bash tools/quickstart.sh repeats it with another seed.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/setup_env.sh
python=${KD_DET_VENV:-.venv}/bin/python
begin=$SECONDS
seed=${SEED:-0}
out=work_dirs/quickstart
[ "$seed" = 0 ] || out=$out-seed$seed
teacher=configs/faster_rcnn/faster-rcnn_r18-w32_fpn-c32_9e_digits-160x120.py
student=configs/faster_rcnn/faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120.py
distil=configs/distill_faster_rcnn/faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120_distill-w32.py

echo "== checking the installation"
"$python" -m kd_det.doctor | tail -n 3
echo "== data"
"$python" -m kd_det data digits

train() { # name config [options]: skips what is finished, resumes what is not
    local name=$1 config=$2
    shift 2
    if [ -e "$out/$name/finished" ]; then echo "== $name: finished before"; return; fi
    echo "== training $name"
    mkdir -p "$out"
    if ! "$python" -W ignore -m kd_det train "$config" --work-dir "$out/$name" --seed "$seed" --resume "$@" \
        >"$out/$name.log" 2>&1; then
        tail -n 20 "$out/$name.log" >&2
        echo "training failed; the whole log is $out/$name.log" >&2
        return 1
    fi
    touch "$out/$name/finished"
}
follow() { # progress lines of the runs that are going on, with their ETA
    local name line
    while sleep 15; do
        for name in "$@"; do
            [ -e "$out/$name/finished" ] && continue
            line=$(grep -a 'Epoch(train)' "$out/$name.log" 2>/dev/null | tail -n 1 | sed -E \
                's/.*Epoch\(train\) *\[ *([0-9]+)\]\[ *([0-9]+\/ *[0-9]+)\].* eta: ([0-9:]+).* loss: ([0-9.]+).*/epoch \1, step \2, loss \4, eta \3/') || true
            [ -z "$line" ] || printf '   %4d s  %-9s %s\n' $((SECONDS - begin)) "$name" "$line"
        done
    done
}
together() { # run the given training functions side by side, with progress
    follow $1 & local follower=$!
    shift
    local failed=0 pids=()
    for job in "$@"; do $job & pids+=($!); done
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
    kill $follower 2>/dev/null || true
    wait $follower 2>/dev/null || true
    return $failed
}
run_teacher() { train teacher "$teacher"; }
run_plain() { train plain "$student"; }
run_distilled() {
    train distilled "$distil" --cfg-options model.teacher.checkpoint="$out/teacher/epoch_9.pth"
}
trap 'kill 0' INT TERM
together "teacher" run_teacher
if "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available() and len(__import__("os").sched_getaffinity(0)) > 1)'; then
    together "plain" run_plain
    together "distilled" run_distilled
else # two one-thread jobs side by side finish sooner than one two-thread job after the other
    export OMP_NUM_THREADS=1
    together "plain distilled" run_plain run_distilled
fi
echo "== comparison"
"$python" -W ignore -m kd_det compare "$out/plain" "$out/distilled" "$out/teacher" --plot "$out/ap_latency.png" \
    --curves "$out/curves.png"
echo "pictures: $out/ap_latency.png and $out/curves.png; trained and compared in $((SECONDS - begin)) s"
