#!/bin/sh
# CuDFKD from teachers of the modern recipe: every pair of cifar10.sh and cifar100.sh with nothing but its teacher changed.
# Train those first: scripts/scratch/cifar10.sh and cifar100.sh, rows resnet34-modern, vgg11-modern, wrn402-modern.
# Run from curriculum_dfkd:
#
#   sh scripts/cudfkd/modern_teachers.sh                 # all rows
#   sh scripts/cudfkd/modern_teachers.sh cifar10-resnet34-resnet18 --seed 1   # one row; what follows goes on to the program
#   SMOKE=1 sh scripts/cudfkd/modern_teachers.sh         # every row in its short form, on the embedded sample
#
# Values: those of the rows named. Added by this repository: the published teachers are gone and the released recipe
# stays below them (D12). A row of another method: add --teacher_weights checkpoints/modern/... to it.
set -eu
ROWS="cifar10-resnet34-resnet18 cifar10-vgg11-resnet18 cifar10-wrn402-wrn401 cifar10-wrn402-wrn162 cifar10-wrn402-wrn161 cifar100-resnet34-resnet18 cifar100-vgg11-resnet18 cifar100-wrn402-wrn401 cifar100-wrn402-wrn162"
. scripts/common.sh

# resnet34 to resnet18 | published: 95.28
# values: 7eddc65 (2022-08-05), the same at bf3096b
if wanted cifar10-resnet34-resnet18; then
    run main.py c10-resnet34-resnet18-modern-cudfkd --method cudfkd --dataset cifar10 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 512 --epochs 250 --T 20 --loss l1 --adv 0. --grad_adv 0.5 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2.0 --seed "${SEED:-30}" \
        --teacher_weights checkpoints/modern/cifar10_resnet34.safetensors --overrides "$@"
fi

# vgg11 to resnet18 | published: 91.61
# values: 7eddc65 (2022-08-05), script _agg
if wanted cifar10-vgg11-resnet18; then
    run main.py c10-vgg11-resnet18-modern-cudfkd --method cudfkd --dataset cifar10 --teacher vgg11 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 250 --T 20 --loss kl --adv 0. --grad_adv 0.5 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2.0 --seed "${SEED:-20}" \
        --teacher_weights checkpoints/modern/cifar10_vgg11.safetensors --overrides "$@"
fi

# wrn40_2 to wrn40_1 | published: 93.18
# values: none was committed for this value: those of wrn402-wrn161 (7eddc65)
if wanted cifar10-wrn402-wrn401; then
    run main.py c10-wrn402-wrn401-modern-cudfkd --method cudfkd --dataset cifar10 --teacher wrn40_2 --student wrn40_1 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 250 --T 20 --loss kl --adv 0.5 --grad_adv 0.05 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2 --seed "${SEED:-0}" \
        --teacher_weights checkpoints/modern/cifar10_wrn40_2.safetensors --overrides "$@"
fi

# wrn40_2 to wrn16_2 | published: 92.98
# values: none was committed: those of wrn402-wrn161 (7eddc65)
if wanted cifar10-wrn402-wrn162; then
    run main.py c10-wrn402-wrn162-modern-cudfkd --method cudfkd --dataset cifar10 --teacher wrn40_2 --student wrn16_2 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 250 --T 20 --loss kl --adv 0.5 --grad_adv 0.05 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2 --seed "${SEED:-0}" \
        --teacher_weights checkpoints/modern/cifar10_wrn40_2.safetensors --overrides "$@"
fi

# wrn40_2 to wrn16_1 | published: 88.77
# values: 7eddc65 (2022-08-05), the same at bf3096b
if wanted cifar10-wrn402-wrn161; then
    run main.py c10-wrn402-wrn161-modern-cudfkd --method cudfkd --dataset cifar10 --teacher wrn40_2 --student wrn16_1 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 250 --T 20 --loss kl --adv 0.5 --grad_adv 0.05 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2 --seed "${SEED:-0}" \
        --teacher_weights checkpoints/modern/cifar10_wrn40_2.safetensors --overrides "$@"
fi

# resnet34 to resnet18 | published: 75.87
# values: 7eddc65 (2022-08-05)
if wanted cifar100-resnet34-resnet18; then
    run main.py c100-resnet34-resnet18-modern-cudfkd --method cudfkd --dataset cifar100 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 768 --epochs 300 --T 5 --loss l1 --adv 0. --grad_adv 0.1 \
        --begin_fraction 0.2 --end_fraction 0.75 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" \
        --teacher_weights checkpoints/modern/cifar100_resnet34.safetensors --overrides "$@"
fi

# vgg11 to resnet18 | published: 71.22
# values: 165bcb0 (2022-05-07) for batch, epochs, T and loss; window from the notebook; lmda_ent -20 and grad_adv 0.1 assumed
if wanted cifar100-vgg11-resnet18; then
    run main.py c100-vgg11-resnet18-modern-cudfkd --method cudfkd --dataset cifar100 --teacher vgg11 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 300 --T 5 --loss l1 --adv 0. --grad_adv 0.1 \
        --begin_fraction 0.25 --end_fraction 0.667 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" \
        --teacher_weights checkpoints/modern/cifar100_vgg11.safetensors --overrides "$@"
fi

# wrn40_2 to wrn40_1 | published: 66.43
# values: a2d189b (2022-05-26)
if wanted cifar100-wrn402-wrn401; then
    run main.py c100-wrn402-wrn401-modern-cudfkd --method cudfkd --dataset cifar100 --teacher wrn40_2 --student wrn40_1 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 300 --T 4 --loss kl --adv 0. --grad_adv 0.2 \
        --begin_fraction 0.333 --end_fraction 0.75 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" \
        --teacher_weights checkpoints/modern/cifar100_wrn40_2.safetensors --overrides "$@"
fi

# wrn40_2 to wrn16_2 | published: 65.94 / 66.26
# values: 29146cc (2022-08-16)
if wanted cifar100-wrn402-wrn162; then
    run main.py c100-wrn402-wrn162-modern-cudfkd --method cudfkd --dataset cifar100 --teacher wrn40_2 --student wrn16_2 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 300 --T 2 --loss kl --adv 0. --grad_adv 0.15 \
        --begin_fraction 0.2 --end_fraction 0.75 --curr_option curr_log --lambda_0 1 --seed "${SEED:-0}" \
        --teacher_weights checkpoints/modern/cifar100_wrn40_2.safetensors --overrides "$@"
fi

check_row
