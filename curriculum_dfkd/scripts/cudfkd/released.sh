#!/bin/sh
# The seven released scripts of CuDFKD under their own names, as they stand at the last commit.  Run from curriculum_dfkd:
#
#   sh scripts/cudfkd/released.sh                 # all rows
#   sh scripts/cudfkd/released.sh cifar10_resnet34_resnet18 --seed 1   # one row; what follows goes on to the program
#   SMOKE=1 sh scripts/cudfkd/released.sh         # every row in its short form, on the embedded sample
#
# Values: ljrprocc/DataFree@bf3096b scripts/cudfkd/<row>.sh.
set -eu
ROWS="cifar10_resnet34_resnet18 cifar10_resnet34_resnet18_agg cifar10_resnet34_resnet18_mem cifar10_wrn402_wrn161 cifar100_resnet34_resnet18 cifar100_wrn402_wrn161 timagenet"
. scripts/common.sh

# resnet34 to resnet18
if wanted cifar10_resnet34_resnet18; then
    run main.py - --method cudfkd --dataset cifar10 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 512 --epochs 250 --T 20 --loss l1 --adv 0. --grad_adv 0.5 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2.0 --seed "${SEED:-30}" --overrides "$@"
fi

# resnet34 to resnet18
if wanted cifar10_resnet34_resnet18_agg; then
    run main.py - --method cudfkd --dataset cifar10 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 768 --epochs 250 --T 20 --loss kl --adv 0. --grad_adv 0.35 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option none --lambda_0 2.0 --log_fidelity --seed "${SEED:-95}" --overrides "$@"
fi

# resnet34 to resnet18
if wanted cifar10_resnet34_resnet18_mem; then
    run main.py - --method cudfkd --dataset cifar10 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 768 --epochs 250 --T 20 --loss kl --adv 1.0 --grad_adv 0.0 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2.0 --log_fidelity --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_1
if wanted cifar10_wrn402_wrn161; then
    run main.py - --method cudfkd --dataset cifar10 --teacher wrn40_2 --student wrn16_1 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 250 --T 20 --loss kl --adv 0.5 --grad_adv 0.05 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2 --log_fidelity --seed "${SEED:-0}" --overrides "$@"
fi

# resnet34 to resnet18
if wanted cifar100_resnet34_resnet18; then
    run main.py - --method cudfkd --dataset cifar100 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 768 --epochs 400 --T 5 --loss l1 --adv 0. --grad_adv 0.35 \
        --begin_fraction 0.2 --end_fraction 0.8 --curr_option curr_log --lambda_0 1 --log_fidelity --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn40_1
# runs wrn40_1 in spite of its name, as released
if wanted cifar100_wrn402_wrn161; then
    run main.py - --method cudfkd --dataset cifar100 --teacher wrn40_2 --student wrn40_1 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 500 --T 2 --loss kl --adv 0. --grad_adv 0.12 \
        --begin_fraction 0.2 --end_fraction 0.75 --curr_option curr_log --lambda_0 1 --log_fidelity --seed "${SEED:-0}" --overrides "$@"
fi

# resnet34_tiny to resnet18_imagenet
# released for 2 GPUs; here one device and the full batch; teacher and student have the stems that the release gives them
if wanted timagenet; then
    run main.py - --method cudfkd --dataset tiny_imagenet --teacher resnet34_tiny --student resnet18_imagenet \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 3 --batch_size 512 --epochs 400 --T 5 --loss l1 --adv 1. --grad_adv 0.15 \
        --begin_fraction 0.2 --end_fraction 0.75 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" --overrides "$@"
fi

check_row
