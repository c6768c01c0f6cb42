#!/bin/sh
# R-DFCIL: every data set and task split.  Values: gqk/R-DFCIL@f47e123 config/*.yaml.
# Run from rfd/:
#
#   sh scripts/rdfcil.sh                         # all rows
#   sh scripts/rdfcil.sh cifar100-10             # one row
#   sh scripts/rdfcil.sh cifar100-10 --seed 1    # one row; what follows goes on to main.py
#   SMOKE=1 sh scripts/rdfcil.sh                  # every row in its short form, on the embedded sample
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
        --cell "rfd/rdfcil-$name" --output_dir "$OUT/rdfcil/$name" "$@"
}

wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
}

# CIFAR-100, 5 equal tasks
if wanted cifar100-5; then
    run cifar100-5 config/rdfcil/cifar100.yaml --data.num_tasks 5 --overrides "$@"
fi

# CIFAR-100, 10 equal tasks: as released
if wanted cifar100-10; then
    run cifar100-10 config/rdfcil/cifar100.yaml --data.num_tasks 10 --overrides "$@"
fi

# CIFAR-100, 20 equal tasks
if wanted cifar100-20; then
    run cifar100-20 config/rdfcil/cifar100.yaml --data.num_tasks 20 --overrides "$@"
fi

# CIFAR-100, half of the classes first, then 5 tasks
if wanted cifar100-half-5; then
    run cifar100-half-5 config/rdfcil/cifar100.yaml --data.num_tasks 6 --data.init_task_splits 0.5 --overrides "$@"
fi

# CIFAR-100, half of the classes first, then 10 tasks
if wanted cifar100-half-10; then
    run cifar100-half-10 config/rdfcil/cifar100.yaml --data.num_tasks 11 --data.init_task_splits 0.5 --overrides "$@"
fi

# CIFAR-100, half of the classes first, then 25 tasks
if wanted cifar100-half-25; then
    run cifar100-half-25 config/rdfcil/cifar100.yaml --data.num_tasks 26 --data.init_task_splits 0.5 --overrides "$@"
fi

# Tiny-ImageNet, 5 equal tasks
if wanted tinyimagenet-5; then
    run tinyimagenet-5 config/rdfcil/tiny-imagenet200.yaml --data.num_tasks 5 --overrides "$@"
fi

# Tiny-ImageNet, 5 equal tasks with RFD's batch and seed: beside RFD's row tinyimagenet-5 (README, Deviations R18)
if wanted tinyimagenet-5-batch256; then
    run tinyimagenet-5-batch256 config/rdfcil/tiny-imagenet200.yaml --data.num_tasks 5 --data.batch_size 256 --seed 0 --overrides "$@"
fi

# Tiny-ImageNet, 10 equal tasks: as released
if wanted tinyimagenet-10; then
    run tinyimagenet-10 config/rdfcil/tiny-imagenet200.yaml --data.num_tasks 10 --overrides "$@"
fi

# Tiny-ImageNet, 20 equal tasks
if wanted tinyimagenet-20; then
    run tinyimagenet-20 config/rdfcil/tiny-imagenet200.yaml --data.num_tasks 20 --overrides "$@"
fi

# Tiny-ImageNet, half of the classes first, then 5 tasks
if wanted tinyimagenet-half-5; then
    run tinyimagenet-half-5 config/rdfcil/tiny-imagenet200.yaml --data.num_tasks 6 --data.init_task_splits 0.5 --overrides "$@"
fi

# Tiny-ImageNet, half of the classes first, then 10 tasks
if wanted tinyimagenet-half-10; then
    run tinyimagenet-half-10 config/rdfcil/tiny-imagenet200.yaml --data.num_tasks 11 --data.init_task_splits 0.5 --overrides "$@"
fi

# Tiny-ImageNet, half of the classes first, then 25 tasks
if wanted tinyimagenet-half-25; then
    run tinyimagenet-half-25 config/rdfcil/tiny-imagenet200.yaml --data.num_tasks 26 --data.init_task_splits 0.5 --overrides "$@"
fi

# ImageNet-100, 5 equal tasks
if wanted imagenet100-5; then
    run imagenet100-5 config/rdfcil/imagenet100.yaml --data.num_tasks 5 --overrides "$@"
fi

# ImageNet-100, 10 equal tasks: as released
if wanted imagenet100-10; then
    run imagenet100-10 config/rdfcil/imagenet100.yaml --data.num_tasks 10 --overrides "$@"
fi

# ImageNet-100, 20 equal tasks
if wanted imagenet100-20; then
    run imagenet100-20 config/rdfcil/imagenet100.yaml --data.num_tasks 20 --overrides "$@"
fi

# ImageNet-100, half of the classes first, then 5 tasks
if wanted imagenet100-half-5; then
    run imagenet100-half-5 config/rdfcil/imagenet100.yaml --data.num_tasks 6 --data.init_task_splits 0.5 --overrides "$@"
fi

# ImageNet-100, half of the classes first, then 10 tasks
if wanted imagenet100-half-10; then
    run imagenet100-half-10 config/rdfcil/imagenet100.yaml --data.num_tasks 11 --data.init_task_splits 0.5 --overrides "$@"
fi

# ImageNet-100, half of the classes first, then 25 tasks
if wanted imagenet100-half-25; then
    run imagenet100-half-25 config/rdfcil/imagenet100.yaml --data.num_tasks 26 --data.init_task_splits 0.5 --overrides "$@"
fi

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected one of: cifar100-5 cifar100-10 cifar100-20 cifar100-half-5 cifar100-half-10 cifar100-half-25 tinyimagenet-5 tinyimagenet-5-batch256 tinyimagenet-10 tinyimagenet-20 tinyimagenet-half-5 tinyimagenet-half-10 tinyimagenet-half-25 imagenet100-5 imagenet100-10 imagenet100-20 imagenet100-half-5 imagenet100-half-10 imagenet100-half-25" >&2
    exit 2
fi
