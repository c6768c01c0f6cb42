#!/bin/sh
# ADI on CIFAR-10.  Run from curriculum_dfkd:
#
#   sh scripts/deepinv/cifar10.sh                 # all rows
#   sh scripts/deepinv/cifar10.sh resnet34-resnet18 --seed 1   # one row; what follows goes on to the program
#   SMOKE=1 sh scripts/deepinv/cifar10.sh         # every row in its short form, on the embedded sample
#
# Values: zju-vipa/CMI@9e79fa9 and ljrprocc/DataFree@bf3096b scripts/deepinv/*.sh.
# --adv 1 makes it ADI; DeepInversion without competition: add --adv 0.
set -eu
ROWS="resnet34-resnet18 vgg11-resnet18 wrn402-wrn401 wrn402-wrn162 wrn402-wrn161"
. scripts/common.sh

# resnet34 to resnet18 | published: 93.26
if wanted resnet34-resnet18; then
    run main.py c10-resnet34-resnet18-deepinv --method deepinv --dataset cifar10 --teacher resnet34 --student resnet18 \
        --batch_size 1024 --lr 0.1 --epochs 200 --kd_steps 400 --ep_steps 400 --g_steps 1000 --lr_g 0.1 \
        --adv 1 --bn 10 --oh 1 --T 20 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# vgg11 to resnet18 | published: 90.36
if wanted vgg11-resnet18; then
    run main.py c10-vgg11-resnet18-deepinv --method deepinv --dataset cifar10 --teacher vgg11 --student resnet18 \
        --batch_size 256 --lr 0.1 --epochs 250 --kd_steps 400 --ep_steps 400 --g_steps 1000 --lr_g 0.1 \
        --adv 1 --bn 10 --oh 1 --T 20 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn40_1 | published: 86.85
if wanted wrn402-wrn401; then
    run main.py c10-wrn402-wrn401-deepinv --method deepinv --dataset cifar10 --teacher wrn40_2 --student wrn40_1 \
        --batch_size 256 --lr 0.1 --epochs 250 --kd_steps 400 --ep_steps 400 --g_steps 1000 --lr_g 0.1 \
        --adv 1 --bn 10 --oh 1 --T 20 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_2 | published: 89.72
if wanted wrn402-wrn162; then
    run main.py c10-wrn402-wrn162-deepinv --method deepinv --dataset cifar10 --teacher wrn40_2 --student wrn16_2 \
        --batch_size 256 --lr 0.1 --epochs 250 --kd_steps 400 --ep_steps 400 --g_steps 1000 --lr_g 0.1 \
        --adv 1 --bn 10 --oh 1 --T 20 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_1 | published: 83.01
if wanted wrn402-wrn161; then
    run main.py c10-wrn402-wrn161-deepinv --method deepinv --dataset cifar10 --teacher wrn40_2 --student wrn16_1 \
        --batch_size 256 --lr 0.1 --epochs 200 --kd_steps 400 --ep_steps 400 --g_steps 1000 --lr_g 0.1 \
        --adv 1 --bn 10 --oh 1 --T 20 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

check_row
