#!/bin/sh
# VDFD without SSL, task-incremental (TPAMI 2023).  Run from classification/task_incremental:
#
#   sh scripts/vdfd.sh                        # all rows, in the paper's order
#   sh scripts/vdfd.sh cifar100-10            # one row
#   sh scripts/vdfd.sh cifar100-10 --seed 1   # one row; what follows goes on to main.py
#   SMOKE=1 sh scripts/vdfd.sh                # every row in its short form, on the embedded sample
#
# A finished row is skipped, an interrupted one goes on.  Rows:
#   cifar100-10 cifar100-20 tinyimagenet-25 fivedatasets-5 subimagenet-10-resnet50 subimagenet-10-swin
# Values: XiaorongLi-95/VDFD@2c0dfce classification/task_incremental/scripts/vdfd.sh.
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

# run ROW PROGRAM OUTPUT flags... : one published row; the user's flags follow the marker
run() {
    name="$1"; program="$2"; output="$3"; shift 3
    "$PYTHON" -u "$program" --cell "vdfd/ti-$name" --gpuid "$GPUID" --seed "$SEED" --output_dir "$OUT/$output" "$@"
}

wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
}

# 10-split CIFAR-100 | paper: ACC 79.23, BWT -2.93 (poster; supplement Fig. 1)
if wanted cifar100-10; then
    run cifar100-10 main.py CIFAR100_10tasks \
        --agent_type vdfd --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
        --dataset CIFAR100 --dataroot "$DATAROOT" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
        --first_split_size 10 --other_split_size 10 --schedule 30 60 80 --batch_size 32 \
        --model_name resnet18 --model_type resnet --model_lr 1e-4 --head_lr 5e-3 --hypermodel_lr 7e-4 \
        --model_weight_decay 5e-4 --hypermodel_weight_decay 5e-4 --reg_coef 10 --epsilons 1e-3 --overrides "$@"
fi

# 20-split CIFAR-100 | paper: ACC 80.97, BWT -4.79 (poster; supplement)
if wanted cifar100-20; then
    run cifar100-20 main.py CIFAR100_20tasks \
        --agent_type vdfd --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
        --dataset CIFAR100 --dataroot "$DATAROOT" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
        --first_split_size 5 --other_split_size 5 --schedule 30 60 80 --batch_size 32 \
        --model_name resnet18 --model_type resnet --model_lr 1e-4 --head_lr 5e-3 --hypermodel_lr 7e-4 \
        --model_weight_decay 5e-4 --hypermodel_weight_decay 5e-4 --reg_coef 5 --epsilons 1e-3 --overrides "$@"
fi

# 25-split TinyImageNet | paper: ACC 60.58, BWT -4.60 (supplement Table 3, s = 0; Fig. 1)
if wanted tinyimagenet-25; then
    run tinyimagenet-25 main.py TinyImageNet_25tasks \
        --agent_type vdfd --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
        --dataset TinyImageNet --dataroot "$DATAROOT/tiny-imagenet-200/" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
        --first_split_size 8 --other_split_size 8 --schedule 30 60 80 --batch_size 16 \
        --model_name resnet18 --model_type resnet --model_lr 5e-5 --head_lr 5e-3 --hypermodel_lr 5e-4 \
        --model_weight_decay 1e-5 --hypermodel_weight_decay 5e-5 --reg_coef 100 --epsilons 1e-3 --overrides "$@"
fi

# 5-Datasets | paper: not found
if wanted fivedatasets-5; then
    run fivedatasets-5 main.py 5datasets \
        --agent_type vdfd --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
        --dataset FiveDatasets --dataroot "$DATAROOT/fivedatasets" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
        --first_split_size 10 --other_split_size 10 --schedule 15 30 --batch_size 16 \
        --model_name resnet18 --model_type resnet --model_lr 1e-4 --head_lr 5e-3 --hypermodel_lr 5e-4 \
        --model_weight_decay 1e-4 --hypermodel_weight_decay 5e-5 --reg_coef 80 --epsilons 1e-3 --overrides "$@"
fi

# 10-split SubImageNet, ResNet-50 | paper: not found without SSL
if wanted subimagenet-10-resnet50; then
    run subimagenet-10-resnet50 main.py SubImageNet_10tasks/resnet50 \
        --agent_type vdfd --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
        --dataset SubImageNet --dataroot "$DATAROOT/SubImageNet/" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
        --first_split_size 10 --other_split_size 10 --schedule 30 60 80 --batch_size 16 \
        --model_name resnet50 --model_type resnet --model_lr 1e-4 --head_lr 5e-3 --hypermodel_lr 1e-4 \
        --model_weight_decay 1e-5 --hypermodel_weight_decay 1e-5 --reg_coef 200 --epsilons 1e-3 --overrides "$@"
fi

# 10-split SubImageNet, Swin-T | paper: not found
if wanted subimagenet-10-swin; then
    run subimagenet-10-swin main_swin.py SubImageNet_10tasks/swin-t \
        --agent_type vdfd_swin --agent_name VDFDSwin --hypermodel_type gcn --hypermodel_name GCN \
        --dataset SubImageNet --dataroot "$DATAROOT/SubImageNet/" --repeat 1 --model_optimizer Adam \
        --model_weight_decay 5e-5 --hypermodel_weight_decay 1e-5 --force_out_dim 0 \
        --first_split_size 10 --other_split_size 10 --schedule 90 --warmup_epochs 5 --batch_size 16 \
        --model_type swin --model_name SwinTransformer --model_lr 1e-4 --min_lr 1e-6 --warmup_lr 1e-7 \
        --head_lr 1e-4 --hypermodel_lr 1e-4 --reg_coef 2000 --epsilons 1e-3 --overrides "$@"
fi

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected one of: cifar100-10 cifar100-20 tinyimagenet-25 fivedatasets-5 subimagenet-10-resnet50 subimagenet-10-swin" >&2
    exit 2
fi
