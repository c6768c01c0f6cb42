#!/bin/sh
# The original ABD and the baselines of its paper.  Values: GT-RIPL/AlwaysBeDreaming-DFCIL@9295039 experiments/*.sh.
# Run from rfd/:
#
#   sh scripts/abd.sh                         # all rows
#   sh scripts/abd.sh cifar100-10-abd             # one row
#   sh scripts/abd.sh cifar100-10-abd --seed 1    # one row; what follows goes on to run_dfcil.py
#   SMOKE=1 sh scripts/abd.sh                  # every row in its short form, on the embedded sample
#
# A finished row is skipped, an interrupted one goes on.  SEED (or --seed) 0, 1, 2: the repetitions, each
# with its seed and class order; without it: 0.
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

# run NAME CLASSES_PER_TASK flags... : one row; the user's flags follow the marker
run() {
    name="$1"; split="$2"; shift 2
    "$PYTHON" -u run_dfcil.py --cell "rfd/abd-$name" --output_dir "$OUT/abd/$name" --gpuid "$GPUID" --dataroot "$DATAROOT" \
        --train_aug --rand_split --repeat 1 --first_split_size "$split" --other_split_size "$split" \
        --schedule_type decay --optimizer SGD --lr 0.1 --momentum 0.9 --overwrite 0 "$@"
}

cifar() {
    name="$1"; split="$2"; shift 2
    run "$name" "$split" --dataset CIFAR100 --schedule 100 150 200 250 --batch_size 128 --weight_decay 0.0002 \
        --model_type resnet --model_name resnet32 --max_task -1 "$@"
}

tiny() {
    name="$1"; split="$2"; shift 2
    run "$name" "$split" --dataset TinyImageNet --schedule 100 150 200 250 --batch_size 128 --weight_decay 0.0002 \
        --model_type resnet --model_name resnet32 --max_task -1 "$@"
}

imagenet() {
    name="$1"; split="$2"; shift 2
    run "$name" "$split" --dataset ImageNet --schedule 30 60 80 90 100 --batch_size 256 --weight_decay 0.0001 \
        --model_type resnet --model_name resnet18 --max_task 5 "$@"
}

wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
}

# CIFAR-100, 5 tasks (experiments/cifar100-fivetask.sh)
if wanted cifar100-5-abd; then
    cifar cifar100-5-abd 20 \
        --mu 1e-1 --memory 0 --learner_type datafree --learner_name AlwaysBeDreaming --beta 1 \
        --gen_model_type generator --gen_model_name CIFAR_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted cifar100-5-lwf_synthetic; then
    cifar cifar100-5-lwf_synthetic 20 \
        --mu 1e-1 --memory 0 --learner_type datafree --learner_name DeepInversionLWF --beta 1 \
        --gen_model_type generator --gen_model_name CIFAR_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted cifar100-5-deepinv; then
    cifar cifar100-5-deepinv 20 \
        --mu 1 --memory 0 --learner_type datafree --learner_name DeepInversionGenBN --gen_model_type generator \
        --gen_model_name CIFAR_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted cifar100-5-lwf; then
    cifar cifar100-5-lwf 20 \
        --mu 1 --memory 0 --learner_type kd --learner_name LWF --overrides "$@"
fi
if wanted cifar100-5-lwf_mc; then
    cifar cifar100-5-lwf_mc 20 \
        --mu 1 --memory 0 --learner_type kd --learner_name LWF_MC --overrides "$@"
fi
if wanted cifar100-5-base; then
    cifar cifar100-5-base 20 \
        --memory 0 --learner_type default --learner_name NormalNN --overrides "$@"
fi
if wanted cifar100-5-oracle; then
    cifar cifar100-5-oracle 20 \
        --memory 0 --learner_type default --learner_name NormalNN --oracle_flag --overrides "$@"
fi

# CIFAR-100, 10 tasks (experiments/cifar100-tentask.sh)
if wanted cifar100-10-abd; then
    cifar cifar100-10-abd 10 \
        --mu 1e-1 --memory 0 --learner_type datafree --learner_name AlwaysBeDreaming --beta 1 \
        --gen_model_type generator --gen_model_name CIFAR_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted cifar100-10-lwf_synthetic; then
    cifar cifar100-10-lwf_synthetic 10 \
        --mu 1e-1 --memory 0 --learner_type datafree --learner_name DeepInversionLWF --beta 1 \
        --gen_model_type generator --gen_model_name CIFAR_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted cifar100-10-deepinv; then
    cifar cifar100-10-deepinv 10 \
        --mu 1 --memory 0 --learner_type datafree --learner_name DeepInversionGenBN --gen_model_type generator \
        --gen_model_name CIFAR_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted cifar100-10-lwf; then
    cifar cifar100-10-lwf 10 \
        --mu 1 --memory 0 --learner_type kd --learner_name LWF --overrides "$@"
fi
if wanted cifar100-10-lwf_mc; then
    cifar cifar100-10-lwf_mc 10 \
        --mu 1 --memory 0 --learner_type kd --learner_name LWF_MC --overrides "$@"
fi
if wanted cifar100-10-base; then
    cifar cifar100-10-base 10 \
        --memory 0 --learner_type default --learner_name NormalNN --overrides "$@"
fi
if wanted cifar100-10-oracle; then
    cifar cifar100-10-oracle 10 \
        --memory 0 --learner_type default --learner_name NormalNN --oracle_flag --overrides "$@"
fi

# CIFAR-100, 20 tasks (experiments/cifar100-twentytask.sh)
if wanted cifar100-20-abd; then
    cifar cifar100-20-abd 5 \
        --mu 1e-1 --memory 0 --learner_type datafree --learner_name AlwaysBeDreaming --beta 1 \
        --gen_model_type generator --gen_model_name CIFAR_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted cifar100-20-lwf_synthetic; then
    cifar cifar100-20-lwf_synthetic 5 \
        --mu 1e-1 --memory 0 --learner_type datafree --learner_name DeepInversionLWF --beta 1 \
        --gen_model_type generator --gen_model_name CIFAR_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted cifar100-20-deepinv; then
    cifar cifar100-20-deepinv 5 \
        --mu 1 --memory 0 --learner_type datafree --learner_name DeepInversionGenBN --gen_model_type generator \
        --gen_model_name CIFAR_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted cifar100-20-lwf; then
    cifar cifar100-20-lwf 5 \
        --mu 1 --memory 0 --learner_type kd --learner_name LWF --overrides "$@"
fi
if wanted cifar100-20-lwf_mc; then
    cifar cifar100-20-lwf_mc 5 \
        --mu 1 --memory 0 --learner_type kd --learner_name LWF_MC --overrides "$@"
fi
if wanted cifar100-20-base; then
    cifar cifar100-20-base 5 \
        --memory 0 --learner_type default --learner_name NormalNN --overrides "$@"
fi
if wanted cifar100-20-oracle; then
    cifar cifar100-20-oracle 5 \
        --memory 0 --learner_type default --learner_name NormalNN --oracle_flag --overrides "$@"
fi

# Tiny-ImageNet, 20 tasks (experiments/tinyimnet-twentytask.sh, where every command is commented out)
if wanted tinyimagenet-20-abd; then
    tiny tinyimagenet-20-abd 10 \
        --mu 1e-1 --memory 0 --learner_type datafree --learner_name AlwaysBeDreaming --beta 1 \
        --gen_model_type generator --gen_model_name TINYIMNET_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted tinyimagenet-20-lwf_synthetic; then
    tiny tinyimagenet-20-lwf_synthetic 10 \
        --mu 1e-1 --memory 0 --learner_type datafree --learner_name DeepInversionLWF --beta 1 \
        --gen_model_type generator --gen_model_name TINYIMNET_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted tinyimagenet-20-deepinv; then
    tiny tinyimagenet-20-deepinv 10 \
        --mu 1 --memory 0 --learner_type datafree --learner_name DeepInversionGenBN --gen_model_type generator \
        --gen_model_name TINYIMNET_GEN --power_iters 10000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted tinyimagenet-20-lwf; then
    tiny tinyimagenet-20-lwf 10 \
        --mu 1 --memory 0 --learner_type kd --learner_name LWF --overrides "$@"
fi
if wanted tinyimagenet-20-lwf_mc; then
    tiny tinyimagenet-20-lwf_mc 10 \
        --mu 1 --memory 0 --learner_type kd --learner_name LWF_MC --overrides "$@"
fi
if wanted tinyimagenet-20-base; then
    tiny tinyimagenet-20-base 10 \
        --memory 0 --learner_type default --learner_name NormalNN --overrides "$@"
fi
if wanted tinyimagenet-20-oracle; then
    tiny tinyimagenet-20-oracle 10 \
        --memory 0 --learner_type default --learner_name NormalNN --oracle_flag --overrides "$@"
fi

# 50 classes of ImageNet, 5 tasks (experiments/imnet-fivetask.sh)
if wanted imagenet50-5-abd; then
    imagenet imagenet50-5-abd 10 \
        --mu 1e-1 --memory 0 --learner_type datafree --learner_name AlwaysBeDreaming --beta 1 \
        --gen_model_type generator --gen_model_name IMNET_GEN --power_iters 50000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted imagenet50-5-lwf_synthetic; then
    imagenet imagenet50-5-lwf_synthetic 10 \
        --mu 1e-1 --memory 0 --learner_type datafree --learner_name DeepInversionLWF --beta 1 \
        --gen_model_type generator --gen_model_name IMNET_GEN --power_iters 50000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted imagenet50-5-deepinv; then
    imagenet imagenet50-5-deepinv 10 \
        --mu 1 --memory 0 --learner_type datafree --learner_name DeepInversionGenBN --gen_model_type generator \
        --gen_model_name IMNET_GEN --power_iters 50000 --deep_inv_params 1e-3 5e1 1e-3 1e3 1 --overrides "$@"
fi
if wanted imagenet50-5-lwf; then
    imagenet imagenet50-5-lwf 10 \
        --mu 1 --memory 0 --learner_type kd --learner_name LWF --overrides "$@"
fi
if wanted imagenet50-5-lwf_mc; then
    imagenet imagenet50-5-lwf_mc 10 \
        --mu 1 --memory 0 --learner_type kd --learner_name LWF_MC --overrides "$@"
fi
if wanted imagenet50-5-base; then
    imagenet imagenet50-5-base 10 \
        --memory 0 --learner_type default --learner_name NormalNN --overrides "$@"
fi
if wanted imagenet50-5-oracle; then
    imagenet imagenet50-5-oracle 10 \
        --memory 0 --learner_type default --learner_name NormalNN --oracle_flag --overrides "$@"
fi

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected one of: cifar100-5-abd cifar100-5-lwf_synthetic cifar100-5-deepinv cifar100-5-lwf cifar100-5-lwf_mc cifar100-5-base cifar100-5-oracle cifar100-10-abd cifar100-10-lwf_synthetic cifar100-10-deepinv cifar100-10-lwf cifar100-10-lwf_mc cifar100-10-base cifar100-10-oracle cifar100-20-abd cifar100-20-lwf_synthetic cifar100-20-deepinv cifar100-20-lwf cifar100-20-lwf_mc cifar100-20-base cifar100-20-oracle tinyimagenet-20-abd tinyimagenet-20-lwf_synthetic tinyimagenet-20-deepinv tinyimagenet-20-lwf tinyimagenet-20-lwf_mc tinyimagenet-20-base tinyimagenet-20-oracle imagenet50-5-abd imagenet50-5-lwf_synthetic imagenet50-5-deepinv imagenet50-5-lwf imagenet50-5-lwf_mc imagenet50-5-base imagenet50-5-oracle" >&2
    exit 2
fi
