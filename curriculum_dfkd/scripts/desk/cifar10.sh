#!/bin/sh
# Desk bench: WRN-16-2 to WRN-16-1 on CIFAR-10, every method with 8000 student updates of 32 images, on a CPU.
# Run from curriculum_dfkd:
#
#   sh scripts/desk/cifar10.sh teacher             # trains the teacher into common/teachers (hours on a CPU)
#   sh scripts/desk/cifar10.sh                     # all other rows
#   repro run cudfkd-desk-cifar10                  # the same through the runner
#
# No published table has these rows.  Weights of the terms, student's rate and temperatures are those of the published
# rows.  Ours, chosen on seed 0 in runs of 2000 student updates (README, "Desk bench"): generators of 32 filters, their
# rates for DAFL, ZSKT and DFAD (published: 1e-3; a faster generator left the students of ZSKT and DFAD at chance),
# student updates per synthesis update (10 for ZSKT, published: 5; 5 for DFQ, published: 10).  ADI makes 40 calls of 25
# updates (published: 200 of 1000), CMI 20 of 20 (200 of 200), of 128 images; CMI has 1024 negatives.
# In bf16, several times as fast where the processor has units for it (label "fast"); elsewhere: --precision fp32.
set -eu
ROWS="teacher vanilla dafl zskt dfad dfq adi cmi cudfkd"
. scripts/common.sh

# desk ROW PROGRAM flags...
desk() {
    row="$1"; program="$2"; shift 2
    run "$program" "desk-cifar10-$row" --dataset cifar10 --teacher wrn16_2 --student wrn16_1 --batch_size 32 \
        --lr 0.1 --epochs 10 --ep_steps 800 --log_fidelity --desk_scale --test_images_per_class 200 \
        --precision bf16 --fast --seed "${SEED:-0}" "$@"
}

if [ "$ROW" = teacher ]; then
    wanted teacher
    run train_scratch.py - --model wrn16_2 --dataset cifar10 --recipe modern --lr 0.1 --epochs 40 \
        --teacher_dir ../common/teachers --seed "${SEED:-0}" --overrides "$@"
fi

# the ceiling: real images
if wanted vanilla; then
    desk vanilla vanilla_kd.py --transfer_set cifar10 --T 4 --schedule cosine --overrides "$@"
fi

if wanted dafl; then
    desk dafl main.py --method dafl --kd_steps 5 --g_steps 1 --lr_g 3e-4 --adv 0 --bn 0 --oh 1 --act 0.001 \
        --balance 20 --ngf 32 --nz 128 --overrides "$@"
fi

if wanted zskt; then
    desk zskt main.py --method zskt --kd_steps 10 --g_steps 1 --lr_g 1e-4 --adv 1 --ngf 32 --nz 128 --overrides "$@"
fi

if wanted dfad; then
    desk dfad main.py --method dfad --kd_steps 5 --g_steps 1 --lr_g 3e-5 --adv 1 --ngf 32 --nz 128 --overrides "$@"
fi

if wanted dfq; then
    desk dfq main.py --method dfq --kd_steps 5 --g_steps 1 --lr_g 1e-3 --adv 1 --bn 1 --oh 1 --balance 20 \
        --ngf 32 --nz 128 --overrides "$@"
fi

if wanted adi; then
    desk adi main.py --method deepinv --kd_steps 200 --g_steps 25 --lr_g 0.1 --adv 1 --bn 10 --oh 1 --T 20 \
        --synthesis_batch_size 128 --overrides "$@"
fi

if wanted cmi; then
    desk cmi main.py --method cmi --kd_steps 400 --g_steps 20 --lr_g 1e-3 --adv 0.5 --bn 1 --oh 1 --cr 0.8 --cr_T 0.1 \
        --synthesis_batch_size 128 --n_neg 1024 --T 20 --ngf 32 --nz 128 --overrides "$@"
fi

# the threshold grows from 2 to 12 within the run, as in the published one
if wanted cudfkd; then
    desk cudfkd main.py --method cudfkd --kd_steps_interval 10 --g_steps_interval 1 --lr_g 1e-3 --lmda_ent -20 --oh 1 \
        --bn 1 --adv_type kl --adv 0 --grad_adv 0.5 --begin_fraction 0.25 --end_fraction 0.75 --T 20 --loss l1 \
        --curr_option curr_log --lambda_0 2 --lambda_rate 1.25e-3 --ngf 32 --nz 128 --overrides "$@"
fi

check_row
