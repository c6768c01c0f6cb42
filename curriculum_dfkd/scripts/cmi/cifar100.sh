#!/bin/sh
# CMI on CIFAR-100.  Run from curriculum_dfkd:
#
#   sh scripts/cmi/cifar100.sh                 # all rows
#   sh scripts/cmi/cifar100.sh resnet34-resnet18 --seed 1   # one row; what follows goes on to the program
#   SMOKE=1 sh scripts/cmi/cifar100.sh         # every row in its short form, on the embedded sample
#
# Values: zju-vipa/CMI@9e79fa9 and ljrprocc/DataFree@bf3096b scripts/cmi/scratch_cmi_*.sh.
set -eu
ROWS="resnet34-resnet18 vgg11-resnet18 wrn402-wrn401 wrn402-wrn162"
. scripts/common.sh

# resnet34 to resnet18 | published: 77.02 / 73.75
# no values were released for this data set: those for CIFAR-10
if wanted resnet34-resnet18; then
    run main.py c100-resnet34-resnet18-cmi --method cmi --dataset cifar100 --teacher resnet34 --student resnet18 \
        --batch_size 256 --synthesis_batch_size 512 --lr 0.1 --epochs 200 --kd_steps 400 --ep_steps 400 \
        --g_steps 200 --lr_g 1e-3 --adv 0.5 --bn 1 --oh 1 --cr 0.8 --cr_T 0.1 --T 20 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# vgg11 to resnet18 | published: 70.56
# no values were released for this data set: those for CIFAR-10
if wanted vgg11-resnet18; then
    run main.py c100-vgg11-resnet18-cmi --method cmi --dataset cifar100 --teacher vgg11 --student resnet18 \
        --batch_size 256 --synthesis_batch_size 512 --lr 0.1 --epochs 200 --kd_steps 400 --ep_steps 400 \
        --g_steps 200 --lr_g 1e-3 --adv 0.5 --bn 1 --oh 1 --cr 0.8 --cr_T 0.1 --T 20 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn40_1 | published: 68.88 / 66.88
# no values were released for this data set: those for CIFAR-10
if wanted wrn402-wrn401; then
    run main.py c100-wrn402-wrn401-cmi --method cmi --dataset cifar100 --teacher wrn40_2 --student wrn40_1 \
        --batch_size 256 --synthesis_batch_size 512 --lr 0.1 --epochs 200 --kd_steps 400 --ep_steps 400 \
        --g_steps 200 --lr_g 1e-3 --adv 0.5 --bn 1 --oh 1 --cr 0.8 --cr_T 0.1 --T 20 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

# wrn40_2 to wrn16_2 | published: 68.57 / 66.07
# no values were released for this data set: those for CIFAR-10
if wanted wrn402-wrn162; then
    run main.py c100-wrn402-wrn162-cmi --method cmi --dataset cifar100 --teacher wrn40_2 --student wrn16_2 \
        --batch_size 256 --synthesis_batch_size 512 --lr 0.1 --epochs 200 --kd_steps 400 --ep_steps 400 \
        --g_steps 200 --lr_g 1e-3 --adv 0.5 --bn 1 --oh 1 --cr 0.8 --cr_T 0.1 --T 20 --act 0 --balance 0 --seed "${SEED:-0}" --overrides "$@"
fi

check_row
