#!/bin/sh
# CuDFKD on CIFAR-10.  Run from curriculum_dfkd:
#
#   sh scripts/cudfkd/cifar10.sh                 # all rows
#   sh scripts/cudfkd/cifar10.sh resnet34-resnet18 --seed 1   # one row; what follows goes on to the program
#   SMOKE=1 sh scripts/cudfkd/cifar10.sh         # every row in its short form, on the embedded sample
#
# Values: ljrprocc/DataFree scripts/cudfkd/*.sh at the commits named.
# The README does not say which script made which value; the nearest committed one is used.
set -eu
ROWS="resnet34-resnet18 vgg11-resnet18 wrn402-wrn401 wrn402-wrn162 wrn402-wrn161"
. scripts/common.sh

# resnet34 to resnet18 | published: 95.28
# values: 7eddc65 (2022-08-05), the same at bf3096b
if wanted resnet34-resnet18; then
    run main.py c10-resnet34-resnet18-cudfkd --method cudfkd --dataset cifar10 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 512 --epochs 250 --T 20 --loss l1 --adv 0. --grad_adv 0.5 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2.0 --log_fidelity --seed "${SEED:-30}" --overrides "$@"
fi

# vgg11 to resnet18 | published: 91.61
# values: 7eddc65 (2022-08-05), script _agg
if wanted vgg11-resnet18; then
    run main.py c10-vgg11-resnet18-cudfkd --method cudfkd --dataset cifar10 --teacher vgg11 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 250 --T 20 --loss kl --adv 0. --grad_adv 0.5 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2.0 --seed "${SEED:-20}" --overrides "$@"
fi

# wrn40_2 to wrn40_1 | published: 93.18
# values: none was committed for this value: those of wrn402-wrn161 (7eddc65)
if wanted wrn402-wrn401; then
    run main.py c10-wrn402-wrn401-cudfkd --method cudfkd --dataset cifar10 --teacher wrn40_2 --student wrn40_1 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 250 --T 20 --loss kl --adv 0.5 --grad_adv 0.05 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_2 | published: 92.98
# values: none was committed: those of wrn402-wrn161 (7eddc65)
if wanted wrn402-wrn162; then
    run main.py c10-wrn402-wrn162-cudfkd --method cudfkd --dataset cifar10 --teacher wrn40_2 --student wrn16_2 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 250 --T 20 --loss kl --adv 0.5 --grad_adv 0.05 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_1 | published: 88.77
# values: 7eddc65 (2022-08-05), the same at bf3096b
if wanted wrn402-wrn161; then
    run main.py c10-wrn402-wrn161-cudfkd --method cudfkd --dataset cifar10 --teacher wrn40_2 --student wrn16_1 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 1024 --epochs 250 --T 20 --loss kl --adv 0.5 --grad_adv 0.05 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_log --lambda_0 2 --seed "${SEED:-0}" --overrides "$@"
fi

check_row
