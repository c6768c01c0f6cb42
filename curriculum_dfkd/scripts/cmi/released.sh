#!/bin/sh
# The released script of adversarial CMI under its own name.  Run from curriculum_dfkd:
#
#   sh scripts/cmi/released.sh                 # all rows
#   sh scripts/cmi/released.sh adv_cmi_cifar10_wrn402_wrn161 --seed 1   # one row; what follows goes on to the program
#   SMOKE=1 sh scripts/cmi/released.sh         # every row in its short form, on the embedded sample
#
# Its pre-inverted images (50k) were a download that is gone.  Make them by CMI without the adversarial term, in a folder
# of its own, apart from the published cell's run:
#
#   OUT=run/inversion sh scripts/cmi/cifar10.sh wrn402-wrn161 --adv 0 --dump_pool --save_dir ../../cmi-preinverted-wrn402
#
# Values: zju-vipa/CMI@9e79fa9 scripts/cmi/<row>.sh.
set -eu
ROWS="adv_cmi_cifar10_wrn402_wrn161"
. scripts/common.sh

# wrn40_2 to wrn16_1, released without a seed
if wanted adv_cmi_cifar10_wrn402_wrn161; then
    run main.py - --method cmi --dataset cifar10 --teacher wrn40_2 --student wrn16_1 \
        --batch_size 128 --synthesis_batch_size 256 --lr 0.1 --epochs 40 --kd_steps 2000 --ep_steps 2000 \
        --g_steps 200 --lr_g 1e-3 --adv 0.5 --bn 1 --oh 0.5 --cr 0.8 --cr_T 0.1 --T 20 --act 0 --balance 0 \
        --cmi_init run/cmi-preinverted-wrn402 --seed "${SEED:-0}" --overrides "$@"
fi

check_row
