#!/bin/sh
# VDFD with SSL, class-incremental (TPAMI 2023).  Run from classification/class_incremental:
#
#   sh scripts_ssl/vdfd.sh                        # both rows
#   sh scripts_ssl/vdfd.sh cifar100-10x10         # one row; what follows goes on to the program
#   SMOKE=1 sh scripts_ssl/vdfd.sh                # every row in its short form, on the embedded sample
#
# A finished row is skipped, an interrupted one goes on.  Rows: cifar100-10x10 tinyimagenet-10x20
# Values: XiaorongLi-95/VDFD@2c0dfce classification/class_incremental/scripts_ssl/vdfd.sh.
set -eu
PYTHON="${PYTHON:-python}"
PYTHONPATH="$(cd ../.. && pwd)${PYTHONPATH:+:$PYTHONPATH}"; export PYTHONPATH
GPUID="${GPUID:-0}"
DATAROOT="${DATAROOT:-../../data}"
SEED="${SEED:-0}"
OUT="${OUT:-outputs_ssl}"
[ "${SMOKE:-0}" = 0 ] || OUT="$OUT/smoke"

ROW="${1:-all}"
case "$ROW" in -*) ROW=all ;; *) [ $# -eq 0 ] || shift ;; esac
[ "${SMOKE:-0}" = 0 ] || set -- --smoke "$@"
FOUND=no

# run ROW OUTPUT flags... : one published row; the user's flags follow the marker
run() {
    name="$1"; output="$2"; shift 2
    "$PYTHON" -u main_classinc_ssl.py --cell "vdfd/ci-$name-ssl" --gpuid "$GPUID" --seed "$SEED" --output_dir "$OUT/$output" "$@"
}

wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
}

# CIFAR-100, 10 tasks of 10 classes | paper: 38.38, released log: 38.69 after the last task
if wanted cifar100-10x10; then
    run cifar100-10x10 CIFAR100_10_10 \
        --agent_type vdfd_ssl_la --agent_name VDFDLA --hypermodel_type gcn --hypermodel_name GCN \
        --dataset CIFAR100 --dataroot "$DATAROOT" --repeat 1 --model_optimizer Adam --force_out_dim 100 \
        --first_split_size 10 --other_split_size 10 --schedule 50 100 --batch_size 16 \
        --model_name resnet18 --model_type resnet --model_lr 1e-4 --head_lr 5e-3 --hypermodel_lr 1e-4 \
        --model_weight_decay 5e-4 --hypermodel_weight_decay 5e-4 --reg_coef 50 --epsilons 1e-3 \
        --temp 1 --singular 1 --overrides "$@"
fi

# TinyImageNet, 10 tasks of 20 classes | paper: 26.21 after the last task
if wanted tinyimagenet-10x20; then
    run tinyimagenet-10x20 Tiny_20_20 \
        --agent_type vdfd_ssl_la --agent_name VDFDLA --hypermodel_type gcn --hypermodel_name GCN \
        --dataset TinyImageNet --dataroot "$DATAROOT/tiny-imagenet-200" --repeat 1 --model_optimizer Adam --force_out_dim 200 \
        --first_split_size 20 --other_split_size 20 --schedule 50 100 --batch_size 16 \
        --model_name resnet18 --model_type resnet --model_lr 1e-4 --head_lr 2e-3 --hypermodel_lr 1e-4 \
        --model_weight_decay 5e-4 --hypermodel_weight_decay 5e-4 --reg_coef 90 --epsilons 1e-3 \
        --temp 1 --singular 1 --overrides "$@"
fi

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected one of: cifar100-10x10 tinyimagenet-10x20" >&2
    exit 2
fi
