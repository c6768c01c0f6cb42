#!/bin/sh
# VDFD and plain fine-tuning on the embedded sample: 5 tasks of 4 CIFAR-100 classes, a small network, a few minutes on
# two CPU cores.  No published table has these rows.  Run from classification/task_incremental:
#
#   sh scripts/demo.sh                 # both rows
#   sh scripts/demo.sh finetuning      # one row; further flags go on to main.py
#
# Rows: vdfd finetuning
set -eu
PYTHON="${PYTHON:-python}"
PYTHONPATH="$(cd ../.. && pwd)${PYTHONPATH:+:$PYTHONPATH}"; export PYTHONPATH
GPUID="${GPUID:-0}"
SEED="${SEED:-0}"
OUT="${OUT:-outputs}"
[ "${SMOKE:-0}" = 0 ] || OUT="$OUT/smoke"

ROW="${1:-all}"
case "$ROW" in -*) ROW=all ;; *) [ $# -eq 0 ] || shift ;; esac
[ "${SMOKE:-0}" = 0 ] || set -- --smoke "$@"
FOUND=no

run() {
    name="$1"; output="$2"; shift 2
    "$PYTHON" -u main.py --cell "vdfd/$name" --gpuid "$GPUID" --seed "$SEED" --output_dir "$OUT/$output" \
        --dataset Sample --first_split_size 4 --other_split_size 4 --widths 16 32 64 128 --blocks 2 2 2 2 \
        --schedule 8 --batch_size 32 --model_lr 1e-3 --head_lr 5e-3 --hypermodel_lr 7e-4 \
        --model_weight_decay 5e-4 --hypermodel_weight_decay 5e-4 --epsilons 1e-3 "$@"
}

wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
}

if wanted vdfd; then
    run demo-ti demo/vdfd --agent_type vdfd --agent_name VDFD --reg_coef 10 --overrides "$@"
fi

if wanted finetuning; then
    run demo-ti-finetuning demo/finetuning --agent_type finetune --agent_name FineTuning --overrides "$@"
fi

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected one of: vdfd finetuning" >&2
    exit 2
fi
