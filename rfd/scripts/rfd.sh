#!/bin/sh
# RFD: every data set and task split.  Values: S2VTouser/RFD@ede67fa config/*.yaml; the other splits follow R-DFCIL.
# Run from rfd/:
#
#   sh scripts/rfd.sh                         # all rows
#   sh scripts/rfd.sh cifar100-10             # one row
#   sh scripts/rfd.sh cifar100-10 --seed 1    # one row; what follows goes on to main.py
#   SMOKE=1 sh scripts/rfd.sh                  # every row in its short form, on the embedded sample
#
# A finished row is skipped, an interrupted one goes on.  SEED (or --seed) 0, 1, 2: the repetitions, each with
# its published class order (ImageNet-100 has one order); without it: seed and order of the config.
set -eu
PYTHON="${PYTHON:-python}"
PYTHONPATH="$(cd .. && pwd)${PYTHONPATH:+:$PYTHONPATH}"; export PYTHONPATH
GPUID="${GPUID:-0}"
DATAROOT="${DATAROOT:-../data}"
OUT="${OUT:-outputs}"
[ "${SMOKE:-0}" = 0 ] || OUT="$OUT/smoke"

ROW="${1:-all}"
case "$ROW" in -*) ROW=all ;; *) [ $# -eq 0 ] || shift ;; esac
[ "${SMOKE:-0}" = 0 ] || set -- --smoke "$@"
[ -z "${SEED:-}" ] || set -- --seed "$SEED" "$@"
FOUND=no

case "$GPUID" in -*) GPUS=0 ;; *) GPUS="[$GPUID]" ;; esac

# run ROW CONFIG keys... : one setting; the user's flags follow the marker
run() {
    name="$1"; config="$2"; shift 2
    "$PYTHON" -u main.py --config "$config" --data.root "$DATAROOT" --trainer.gpus "$GPUS" \
        --cell "rfd/rfd-$name" --output_dir "$OUT/rfd/$name" "$@"
}

wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
}

# CIFAR-10 as released: 5 classes, then 1 + 1 + 1 + 1 + 1 (README, Deviations R4)
if wanted cifar10; then
    run cifar10 config/cifar10.yaml --overrides "$@"
fi

# CIFAR-10, 5 tasks of 2 classes
if wanted cifar10-5x2; then
    run cifar10-5x2 config/cifar10-5x2.yaml --overrides "$@"
fi

# CIFAR-100, 5 equal tasks
if wanted cifar100-5; then
    run cifar100-5 config/cifar100.yaml --data.num_tasks 5 --overrides "$@"
fi

# CIFAR-100, 10 equal tasks: as released
if wanted cifar100-10; then
    run cifar100-10 config/cifar100.yaml --data.num_tasks 10 --overrides "$@"
fi

# CIFAR-100, 20 equal tasks
if wanted cifar100-20; then
    run cifar100-20 config/cifar100.yaml --data.num_tasks 20 --overrides "$@"
fi

# CIFAR-100, half of the classes first, then 5 tasks
if wanted cifar100-half-5; then
    run cifar100-half-5 config/cifar100.yaml --data.num_tasks 6 --data.init_task_splits 0.5 --overrides "$@"
fi

# CIFAR-100, half of the classes first, then 10 tasks
if wanted cifar100-half-10; then
    run cifar100-half-10 config/cifar100.yaml --data.num_tasks 11 --data.init_task_splits 0.5 --overrides "$@"
fi

# CIFAR-100, half of the classes first, then 25 tasks
if wanted cifar100-half-25; then
    run cifar100-half-25 config/cifar100.yaml --data.num_tasks 26 --data.init_task_splits 0.5 --overrides "$@"
fi

# Tiny-ImageNet, 5 equal tasks: as released
if wanted tinyimagenet-5; then
    run tinyimagenet-5 config/tiny-imagenet200.yaml --data.num_tasks 5 --overrides "$@"
fi

# Tiny-ImageNet, 10 equal tasks
if wanted tinyimagenet-10; then
    run tinyimagenet-10 config/tiny-imagenet200.yaml --data.num_tasks 10 --overrides "$@"
fi

# Tiny-ImageNet, 20 equal tasks
if wanted tinyimagenet-20; then
    run tinyimagenet-20 config/tiny-imagenet200.yaml --data.num_tasks 20 --overrides "$@"
fi

# Tiny-ImageNet, half of the classes first, then 5 tasks
if wanted tinyimagenet-half-5; then
    run tinyimagenet-half-5 config/tiny-imagenet200.yaml --data.num_tasks 6 --data.init_task_splits 0.5 --overrides "$@"
fi

# Tiny-ImageNet, half of the classes first, then 10 tasks
if wanted tinyimagenet-half-10; then
    run tinyimagenet-half-10 config/tiny-imagenet200.yaml --data.num_tasks 11 --data.init_task_splits 0.5 --overrides "$@"
fi

# Tiny-ImageNet, half of the classes first, then 25 tasks
if wanted tinyimagenet-half-25; then
    run tinyimagenet-half-25 config/tiny-imagenet200.yaml --data.num_tasks 26 --data.init_task_splits 0.5 --overrides "$@"
fi

# ImageNet-100, 5 equal tasks
if wanted imagenet100-5; then
    run imagenet100-5 config/imagenet100.yaml --data.num_tasks 5 --overrides "$@"
fi

# ImageNet-100, 10 equal tasks: as released
if wanted imagenet100-10; then
    run imagenet100-10 config/imagenet100.yaml --data.num_tasks 10 --overrides "$@"
fi

# ImageNet-100, 20 equal tasks
if wanted imagenet100-20; then
    run imagenet100-20 config/imagenet100.yaml --data.num_tasks 20 --overrides "$@"
fi

# ImageNet-100, half of the classes first, then 5 tasks
if wanted imagenet100-half-5; then
    run imagenet100-half-5 config/imagenet100.yaml --data.num_tasks 6 --data.init_task_splits 0.5 --overrides "$@"
fi

# ImageNet-100, half of the classes first, then 10 tasks
if wanted imagenet100-half-10; then
    run imagenet100-half-10 config/imagenet100.yaml --data.num_tasks 11 --data.init_task_splits 0.5 --overrides "$@"
fi

# ImageNet-100, half of the classes first, then 25 tasks
if wanted imagenet100-half-25; then
    run imagenet100-half-25 config/imagenet100.yaml --data.num_tasks 26 --data.init_task_splits 0.5 --overrides "$@"
fi

# ImageNet-R, 5 equal tasks
if wanted imagenet-r-5; then
    run imagenet-r-5 config/imagenet-r.yaml --data.num_tasks 5 --overrides "$@"
fi

# ImageNet-R, 10 equal tasks: as released
if wanted imagenet-r-10; then
    run imagenet-r-10 config/imagenet-r.yaml --data.num_tasks 10 --overrides "$@"
fi

# ImageNet-R, 20 equal tasks
if wanted imagenet-r-20; then
    run imagenet-r-20 config/imagenet-r.yaml --data.num_tasks 20 --overrides "$@"
fi

# ImageNet-R, half of the classes first, then 5 tasks
if wanted imagenet-r-half-5; then
    run imagenet-r-half-5 config/imagenet-r.yaml --data.num_tasks 6 --data.init_task_splits 0.5 --overrides "$@"
fi

# ImageNet-R, half of the classes first, then 10 tasks
if wanted imagenet-r-half-10; then
    run imagenet-r-half-10 config/imagenet-r.yaml --data.num_tasks 11 --data.init_task_splits 0.5 --overrides "$@"
fi

# ImageNet-R, half of the classes first, then 25 tasks
if wanted imagenet-r-half-25; then
    run imagenet-r-half-25 config/imagenet-r.yaml --data.num_tasks 26 --data.init_task_splits 0.5 --overrides "$@"
fi

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected one of: cifar10 cifar10-5x2 cifar100-5 cifar100-10 cifar100-20 cifar100-half-5 cifar100-half-10 cifar100-half-25 tinyimagenet-5 tinyimagenet-10 tinyimagenet-20 tinyimagenet-half-5 tinyimagenet-half-10 tinyimagenet-half-25 imagenet100-5 imagenet100-10 imagenet100-20 imagenet100-half-5 imagenet100-half-10 imagenet100-half-25 imagenet-r-5 imagenet-r-10 imagenet-r-20 imagenet-r-half-5 imagenet-r-half-10 imagenet-r-half-25" >&2
    exit 2
fi
