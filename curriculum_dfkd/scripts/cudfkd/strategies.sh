#!/bin/sh
# CuDFKD with other curricula (the log curriculum is row resnet34-resnet18 of cifar10.sh).  Run from curriculum_dfkd:
#
#   sh scripts/cudfkd/strategies.sh                 # all rows
#   sh scripts/cudfkd/strategies.sh none --seed 1   # one row; what follows goes on to the program
#   SMOKE=1 sh scripts/cudfkd/strategies.sh         # every row in its short form, on the embedded sample
#
# Values: those of that row; the notebook does not state others.
set -eu
ROWS="none hard soft"
. scripts/common.sh

# none | published: 93.24
if wanted none; then
    run main.py c10-strategy-none --method cudfkd --dataset cifar10 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 512 --epochs 250 --T 20 --loss l1 --adv 0. --grad_adv 0.5 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option none --lambda_0 2.0 --log_fidelity --seed "${SEED:-30}" --overrides "$@"
fi

# hard | published: 94.97
if wanted hard; then
    run main.py c10-strategy-hard --method cudfkd --dataset cifar10 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 512 --epochs 250 --T 20 --loss l1 --adv 0. --grad_adv 0.5 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_hard --lambda_0 2.0 --log_fidelity --seed "${SEED:-30}" --overrides "$@"
fi

# soft | published: 95.01
if wanted soft; then
    run main.py c10-strategy-soft --method cudfkd --dataset cifar10 --teacher resnet34 --student resnet18 \
        --lr 0.1 --kd_steps_interval 10 --g_steps_interval 1 --ep_steps 400 --g_steps 1 --lr_g 0.001 --lmda_ent -20 \
        --oh 1 --act 0. --bn 1 --no_feature --adv_type kl --depth 2 --batch_size 512 --epochs 250 --T 20 --loss l1 --adv 0. --grad_adv 0.5 \
        --begin_fraction 0.25 --end_fraction 0.75 --curr_option curr_soft --lambda_0 2.0 --log_fidelity --seed "${SEED:-30}" --overrides "$@"
fi

check_row
