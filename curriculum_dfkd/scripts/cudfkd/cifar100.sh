#!/bin/sh
# CuDFKD on CIFAR-100.  Run from curriculum_dfkd:
#
#   sh scripts/cudfkd/cifar100.sh                 # all rows
#   sh scripts/cudfkd/cifar100.sh resnet34-resnet18 --seed 1   # one row; what follows goes on to the program
#   SMOKE=1 sh scripts/cudfkd/cifar100.sh         # every row in its short form, on the embedded sample
#
# Values: ljrprocc/DataFree scripts/cudfkd/*.sh at the commits named.
# The README does not say which script made which value; the nearest committed one is used.
set -eu
ROWS="resnet34-resnet18 resnet34-resnet18-head vgg11-resnet18 wrn402-wrn401 wrn402-wrn401-head wrn402-wrn162"
. scripts/common.sh

# resnet34 to resnet18 | published: 75.87
# values: 7eddc65 (2022-08-05)
if wanted resnet34-resnet18; then
    run main.py c100-resnet34-resnet18-cudfkd --method cudfkd --dataset cifar100 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 768 --epochs 300 --T 5 --loss l1 --adv 0. --grad_adv 0.1 \
        --begin_fraction 0.2 --end_fraction 0.75 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" --overrides "$@"
fi

# resnet34 to resnet18 | published: 75.97
# values: bf3096b (2023-01-30)
if wanted resnet34-resnet18-head; then
    run main.py c100-resnet34-resnet18-head-cudfkd --method cudfkd --dataset cifar100 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 768 --epochs 400 --T 5 --loss l1 --adv 0. --grad_adv 0.35 \
        --begin_fraction 0.2 --end_fraction 0.8 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" --overrides "$@"
fi

# vgg11 to resnet18 | published: 71.22
# values: 165bcb0 (2022-05-07) for batch, epochs, T and loss; window from the notebook; lmda_ent -20 and grad_adv 0.1 assumed
if wanted vgg11-resnet18; then
    run main.py c100-vgg11-resnet18-cudfkd --method cudfkd --dataset cifar100 --teacher vgg11 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 300 --T 5 --loss l1 --adv 0. --grad_adv 0.1 \
        --begin_fraction 0.25 --end_fraction 0.667 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn40_1 | published: 66.43
# values: a2d189b (2022-05-26)
if wanted wrn402-wrn401; then
    run main.py c100-wrn402-wrn401-cudfkd --method cudfkd --dataset cifar100 --teacher wrn40_2 --student wrn40_1 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 300 --T 4 --loss kl --adv 0. --grad_adv 0.2 \
        --begin_fraction 0.333 --end_fraction 0.75 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn40_1 | published: 66.74
# values: bf3096b, under the name cifar100_wrn402_wrn161.sh
if wanted wrn402-wrn401-head; then
    run main.py c100-wrn402-wrn401-head-cudfkd --method cudfkd --dataset cifar100 --teacher wrn40_2 --student wrn40_1 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 500 --T 2 --loss kl --adv 0. --grad_adv 0.12 \
        --begin_fraction 0.2 --end_fraction 0.75 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_2 | published: 65.94 / 66.26
# values: 29146cc (2022-08-16)
if wanted wrn402-wrn162; then
    run main.py c100-wrn402-wrn162-cudfkd --method cudfkd --dataset cifar100 --teacher wrn40_2 --student wrn16_2 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 300 --T 2 --loss kl --adv 0. --grad_adv 0.15 \
        --begin_fraction 0.2 --end_fraction 0.75 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" --overrides "$@"
fi

check_row
