#!/bin/sh
# VDFD with SSL (rotation labels), task-incremental (TPAMI 2023).  Reconstructed: the authors' README names this script, their
# release does not contain it.  Values: Table 1 of the supplement; head rate, epsilons, hypermodel decay and the numbers
# of classes as in scripts/vdfd.sh.  Run from classification/task_incremental:
#
#   sh scripts_ssl/vdfd.sh                        # all rows
#   sh scripts_ssl/vdfd.sh cifar100-10            # one row; what follows goes on to main.py
#   SMOKE=1 sh scripts_ssl/vdfd.sh                # every row in its short form, on the embedded sample
#
# A finished row is skipped, an interrupted one goes on.  Rows:
#   cifar100-10 cifar100-20 tinyimagenet-25 fivedatasets-5 subimagenet-10-resnet50
# --reg_tasks last --quad_scale tasks_squared --gcn residual: the released class-incremental form instead.
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

# run ROW OUTPUT flags... : one row; the user's flags follow the marker
run() {
    name="$1"; output="$2"; shift 2
    "$PYTHON" -u main.py --cell "vdfd/ti-$name-ssl" --gpuid "$GPUID" --seed "$SEED" --output_dir "$OUT/$output" "$@"
}

wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
}

# 10-split CIFAR-100 | paper: ACC 83.30, BWT -1.27 (poster; supplement)
if wanted cifar100-10; then
    run cifar100-10 CIFAR100_10tasks \
        --agent_type vdfd_ssl --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
        --dataset CIFAR100 --dataroot "$DATAROOT" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
        --first_split_size 10 --other_split_size 10 --schedule 30 60 80 --batch_size 32 \
        --model_name resnet18 --model_type resnet --model_lr 1e-4 --head_lr 5e-3 --hypermodel_lr 5e-4 \
        --model_weight_decay 5e-4 --hypermodel_weight_decay 5e-4 --reg_coef 5 --epsilons 1e-3 --overrides "$@"
fi

# 20-split CIFAR-100 | paper: ACC 85.84, BWT -1.53 (poster; supplement)
if wanted cifar100-20; then
    run cifar100-20 CIFAR100_20tasks \
        --agent_type vdfd_ssl --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
        --dataset CIFAR100 --dataroot "$DATAROOT" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
        --first_split_size 5 --other_split_size 5 --schedule 30 60 80 --batch_size 32 \
        --model_name resnet18 --model_type resnet --model_lr 1e-4 --head_lr 5e-3 --hypermodel_lr 7e-4 \
        --model_weight_decay 5e-4 --hypermodel_weight_decay 5e-4 --reg_coef 5 --epsilons 1e-3 --overrides "$@"
fi

# 25-split TinyImageNet | paper: ACC 65.99, BWT -2.35 (rank study, r = 1)
if wanted tinyimagenet-25; then
    run tinyimagenet-25 TinyImageNet_25tasks \
        --agent_type vdfd_ssl --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
        --dataset TinyImageNet --dataroot "$DATAROOT/tiny-imagenet-200/" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
        --first_split_size 8 --other_split_size 8 --schedule 30 60 80 --batch_size 16 \
        --model_name resnet18 --model_type resnet --model_lr 5e-5 --head_lr 5e-3 --hypermodel_lr 5e-4 \
        --model_weight_decay 1e-5 --hypermodel_weight_decay 5e-5 --reg_coef 200 --epsilons 1e-3 --overrides "$@"
fi

# 5-Datasets | paper: not found
if wanted fivedatasets-5; then
    run fivedatasets-5 5datasets \
        --agent_type vdfd_ssl --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
        --dataset FiveDatasets --dataroot "$DATAROOT/fivedatasets" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
        --first_split_size 10 --other_split_size 10 --schedule 15 20 30 --batch_size 16 \
        --model_name resnet18 --model_type resnet --model_lr 5e-4 --head_lr 5e-3 --hypermodel_lr 5e-4 \
        --model_weight_decay 5e-5 --hypermodel_weight_decay 5e-5 --reg_coef 80 --epsilons 1e-3 --overrides "$@"
fi

# 10-split SubImageNet, ResNet-50 | paper: ACC 54.48, BWT -3.82 (rank study, r = 1; its network is not stated)
if wanted subimagenet-10-resnet50; then
    run subimagenet-10-resnet50 SubImageNet_10tasks/resnet50 \
        --agent_type vdfd_ssl --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
        --dataset SubImageNet --dataroot "$DATAROOT/SubImageNet/" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
        --first_split_size 10 --other_split_size 10 --schedule 30 60 80 --batch_size 16 \
        --model_name resnet50 --model_type resnet --model_lr 1e-4 --head_lr 5e-3 --hypermodel_lr 1e-4 \
        --model_weight_decay 1e-5 --hypermodel_weight_decay 1e-5 --reg_coef 150 --epsilons 1e-3 --overrides "$@"
fi

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected one of: cifar100-10 cifar100-20 tinyimagenet-25 fivedatasets-5 subimagenet-10-resnet50" >&2
    exit 2
fi
