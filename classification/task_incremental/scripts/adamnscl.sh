#!/bin/sh
# Adam-NSCL (CVPR 2021), a baseline of VDFD's tables, task-incremental.  Run from classification/task_incremental:
#
#   sh scripts/adamnscl.sh                        # all rows, in the paper's order
#   sh scripts/adamnscl.sh cifar100-10            # one row
#   sh scripts/adamnscl.sh cifar100-10 --seed 1   # one row; what follows goes on to main.py
#   SMOKE=1 sh scripts/adamnscl.sh                # every row in its short form, on the embedded sample
#
# A finished row is skipped, an interrupted one goes on.  Rows:
#   cifar100-10 cifar100-20 tinyimagenet-25
# Values: ShipengWang/Adam-NSCL@a2f39b4 scripts_svd/adamnscl.sh (its --gamma 0.5 is fixed here).
set -eu
PYTHON="${PYTHON:-python}"
PYTHONPATH="$(cd ../.. && pwd)${PYTHONPATH:+:$PYTHONPATH}"; export PYTHONPATH
GPUID="${GPUID:-0}"
DATAROOT="${DATAROOT:-../../data}"
SEED="${SEED:-0}"
OUT="${OUT:-outputs}"
[ "${SMOKE:-0}" = 0 ] || OUT="$OUT/smoke"

ROW="${1:-all}"
case "$ROW" in -*) ROW=all ;; *) [ $# -eq 0 ] || shift ;; esac
[ "${SMOKE:-0}" = 0 ] || set -- --smoke "$@"
FOUND=no

# run ROW OUTPUT flags... : one published row; the user's flags follow the marker
run() {
    name="$1"; output="$2"; shift 2
    "$PYTHON" -u main.py --cell "vdfd/ti-adamnscl-$name" --gpuid "$GPUID" --seed "$SEED" --output_dir "$OUT/adamnscl/$output" "$@"
}

wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
}

# 10-split CIFAR-100 | paper: ACC 73.77, BWT -1.60 (Adam-NSCL Table 1; VDFD's poster)
if wanted cifar100-10; then
    run cifar100-10 CIFAR100_10tasks \
        --agent_type svd_based --agent_name svd_based --dataset CIFAR100 --dataroot "$DATAROOT" \
        --repeat 1 --model_optimizer Adam --force_out_dim 0 --first_split_size 10 --other_split_size 10 \
        --schedule 30 60 80 --batch_size 32 --model_name resnet18 --model_type resnet \
        --model_lr 1e-4 --head_lr 1e-3 --svd_lr 5e-5 --bn_lr 5e-4 --svd_thres 10 \
        --model_weight_decay 5e-5 --reg_coef 100 --overrides "$@"
fi

# 20-split CIFAR-100 | paper: ACC 75.95, BWT -3.66 (Adam-NSCL Table 2; VDFD's poster)
if wanted cifar100-20; then
    run cifar100-20 CIFAR100_20tasks \
        --agent_type svd_based --agent_name svd_based --dataset CIFAR100 --dataroot "$DATAROOT" \
        --repeat 1 --model_optimizer Adam --force_out_dim 0 --first_split_size 5 --other_split_size 5 \
        --schedule 30 60 80 --batch_size 16 --model_name resnet18 --model_type resnet \
        --model_lr 1e-4 --head_lr 1e-3 --svd_lr 5e-5 --bn_lr 5e-4 --svd_thres 30 \
        --model_weight_decay 5e-5 --reg_coef 100 --overrides "$@"
fi

# 25-split TinyImageNet | paper: ACC 58.28, BWT -6.05 (Adam-NSCL Table 3)
if wanted tinyimagenet-25; then
    run tinyimagenet-25 TinyImageNet_25tasks \
        --agent_type svd_based --agent_name svd_based --dataset TinyImageNet --dataroot "$DATAROOT/tiny-imagenet-200/" \
        --repeat 1 --model_optimizer Adam --force_out_dim 0 --first_split_size 8 --other_split_size 8 \
        --schedule 30 60 80 --batch_size 16 --model_name resnet18 --model_type resnet \
        --model_lr 5e-5 --head_lr 1e-3 --svd_lr 5e-5 --bn_lr 5e-4 --svd_thres 10 \
        --model_weight_decay 5e-5 --reg_coef 100 --overrides "$@"
fi

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected one of: cifar100-10 cifar100-20 tinyimagenet-25" >&2
    exit 2
fi
