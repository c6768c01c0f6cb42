#!/bin/sh
# ZSKT on CIFAR-10.  Run from curriculum_dfkd:
#
#   sh scripts/zskt/cifar10.sh                 # all rows
#   sh scripts/zskt/cifar10.sh resnet34-resnet18 --seed 1   # one row; what follows goes on to the program
#   SMOKE=1 sh scripts/zskt/cifar10.sh         # every row in its short form, on the embedded sample
#
# Values: zju-vipa/CMI@9e79fa9 scripts/zskt/zskt_cifar10_wrn402_wrn161.sh.
set -eu
ROWS="resnet34-resnet18 vgg11-resnet18 wrn402-wrn401 wrn402-wrn162 wrn402-wrn161"
. scripts/common.sh

# resnet34 to resnet18 | published: 93.32
# no values were released for this pair: those of the released script with the networks changed
if wanted resnet34-resnet18; then
    run main.py c10-resnet34-resnet18-zskt --method zskt --dataset cifar10 --teacher resnet34 --student resnet18 \
        --batch_size 256 --lr 0.1 --epochs 200 --kd_steps 5 --ep_steps 400 --g_steps 1 --lr_g 1e-3 \
        --adv 1 --T 20 --bn 0 --oh 0 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# vgg11 to resnet18 | published: 89.46
# no values were released for this pair: those of the released script with the networks changed
if wanted vgg11-resnet18; then
    run main.py c10-vgg11-resnet18-zskt --method zskt --dataset cifar10 --teacher vgg11 --student resnet18 \
        --batch_size 256 --lr 0.1 --epochs 200 --kd_steps 5 --ep_steps 400 --g_steps 1 --lr_g 1e-3 \
        --adv 1 --T 20 --bn 0 --oh 0 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn40_1 | published: 86.07
# no values were released for this pair: those of the released script with the networks changed
if wanted wrn402-wrn401; then
    run main.py c10-wrn402-wrn401-zskt --method zskt --dataset cifar10 --teacher wrn40_2 --student wrn40_1 \
        --batch_size 256 --lr 0.1 --epochs 200 --kd_steps 5 --ep_steps 400 --g_steps 1 --lr_g 1e-3 \
        --adv 1 --T 20 --bn 0 --oh 0 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_2 | published: 89.66
# no values were released for this pair: those of the released script with the networks changed
if wanted wrn402-wrn162; then
    run main.py c10-wrn402-wrn162-zskt --method zskt --dataset cifar10 --teacher wrn40_2 --student wrn16_2 \
        --batch_size 256 --lr 0.1 --epochs 200 --kd_steps 5 --ep_steps 400 --g_steps 1 --lr_g 1e-3 \
        --adv 1 --T 20 --bn 0 --oh 0 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_1 | published: 83.74
if wanted wrn402-wrn161; then
    run main.py c10-wrn402-wrn161-zskt --method zskt --dataset cifar10 --teacher wrn40_2 --student wrn16_1 \
        --batch_size 256 --lr 0.1 --epochs 200 --kd_steps 5 --ep_steps 400 --g_steps 1 --lr_g 1e-3 \
        --adv 1 --T 20 --bn 0 --oh 0 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

check_row
