#!/bin/sh
# VDFD with SSL (rotation labels), task-incremental (TPAMI 2023): the study of the rank r of what is stored of a task.
# Its rank 1 is scripts_ssl/vdfd.sh, whose values these rows have but for the rank.  Reconstructed as that script is: the
# authors released the study's numbers only.  Run from classification/task_incremental:
#
#   sh scripts_ssl/rank_study.sh                        # all rows
#   sh scripts_ssl/rank_study.sh tinyimagenet-25-r2     # one row; what follows goes on to main.py
#   SMOKE=1 sh scripts_ssl/rank_study.sh                # every row in its short form: of two classes, so of rank 2
#
# A finished row is skipped, an interrupted one goes on.  Rows:
#   tinyimagenet-25-r2 ... tinyimagenet-25-r8 subimagenet-10-r2 ... subimagenet-10-r8
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

# 25-split TinyImageNet | paper: ACC 64.43 to 65.15, BWT -2.78 to -3.45 (rank study)
for RANK in 2 3 4 5 6 7 8; do
    if wanted "tinyimagenet-25-r$RANK"; then
        run "tinyimagenet-25-r$RANK" "TinyImageNet_25tasks_r$RANK" \
            --agent_type vdfd_ssl --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
            --dataset TinyImageNet --dataroot "$DATAROOT/tiny-imagenet-200/" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
            --first_split_size 8 --other_split_size 8 --schedule 30 60 80 --batch_size 16 \
            --model_name resnet18 --model_type resnet --model_lr 5e-5 --head_lr 5e-3 --hypermodel_lr 5e-4 \
            --model_weight_decay 1e-5 --hypermodel_weight_decay 5e-5 --reg_coef 200 --epsilons 1e-3 \
            --singular "$RANK" --overrides "$@"
    fi
done

# 10-split SubImageNet, ResNet-50 | paper: ACC 52.94 to 54.12, BWT -3.55 to -4.57 (rank study; its network is not stated)
for RANK in 2 3 4 5 6 7 8; do
    if wanted "subimagenet-10-r$RANK"; then
        run "subimagenet-10-r$RANK" "SubImageNet_10tasks/resnet50_r$RANK" \
            --agent_type vdfd_ssl --agent_name VDFD --hypermodel_type gcn --hypermodel_name GCN \
            --dataset SubImageNet --dataroot "$DATAROOT/SubImageNet/" --repeat 1 --model_optimizer Adam --force_out_dim 0 \
            --first_split_size 10 --other_split_size 10 --schedule 30 60 80 --batch_size 16 \
            --model_name resnet50 --model_type resnet --model_lr 1e-4 --head_lr 5e-3 --hypermodel_lr 1e-4 \
            --model_weight_decay 1e-5 --hypermodel_weight_decay 1e-5 --reg_coef 150 --epsilons 1e-3 \
            --singular "$RANK" --overrides "$@"
    fi
done

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected tinyimagenet-25-r2 to -r8 or subimagenet-10-r2 to -r8" >&2
    exit 2
fi
