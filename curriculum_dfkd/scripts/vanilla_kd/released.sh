#!/bin/sh
# Distillation on real (or pre-inverted) images.  Run from curriculum_dfkd:
#
#   sh scripts/vanilla_kd/released.sh                 # all rows
#   sh scripts/vanilla_kd/released.sh full_cifar10_resnet34_resnet18 --seed 1   # one row; what follows goes on to the program
#   SMOKE=1 sh scripts/vanilla_kd/released.sh         # every row in its short form, on the embedded sample
#
# Values: ljrprocc/DataFree@bf3096b scripts/full_data_kd, scripts/run_kd_*.sh; zju-vipa/CMI@9e79fa9 README.md.
set -eu
ROWS="full_cifar10_resnet34_resnet18 run_kd_resnet34to18_cifar10 wrn402_wrn161_cifar10 wrn402_wrn161_cifar100 nonadv_cmi_cifar10_wrn402_wrn161"
. scripts/common.sh

# resnet34 to resnet18, transfer set cifar10
if wanted full_cifar10_resnet34_resnet18; then
    run vanilla_kd.py - --dataset cifar10 --teacher resnet34 --student resnet18 --transfer_set cifar10 \
        --lr 0.01 --T 20 --epochs 200 --batch_size 512 --curr_option none --lambda_0 3 --seed "${SEED:-0}" --overrides "$@"
fi

# vgg11 to resnet18, transfer set cifar10
if wanted run_kd_resnet34to18_cifar10; then
    run vanilla_kd.py - --dataset cifar10 --teacher vgg11 --student resnet18 --transfer_set cifar10 \
        --lr 0.1 --T 4 --epochs 200 --batch_size 512 --curr_option none --open_ratio --ratio 1 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_1, transfer set cifar10
if wanted wrn402_wrn161_cifar10; then
    run vanilla_kd.py - --dataset cifar10 --teacher wrn40_2 --student wrn16_1 --transfer_set cifar10 \
        --lr 0.1 --epochs 200 --batch_size 128 --beta 0.1 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_1, transfer set cifar100
if wanted wrn402_wrn161_cifar100; then
    run vanilla_kd.py - --dataset cifar10 --teacher wrn40_2 --student wrn16_1 --transfer_set cifar100 \
        --lr 0.1 --epochs 200 --batch_size 128 --beta 0 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_1, transfer set run/cmi-preinverted-wrn402
# the pre-inverted images were a download that is gone; scripts/cmi/released.sh says how to make them
if wanted nonadv_cmi_cifar10_wrn402_wrn161; then
    run vanilla_kd.py - --dataset cifar10 --teacher wrn40_2 --student wrn16_1 --transfer_set run/cmi-preinverted-wrn402 \
        --lr 0.1 --T 20 --epochs 200 --batch_size 128 --beta 0 --seed "${SEED:-0}" --overrides "$@"
fi

check_row
