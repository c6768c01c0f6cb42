#!/bin/sh
# Desk bench: three prompt methods x (student alone, CDL-Prompt, KDP) on CIFAR-100 classes 0 to 49, which the small pair of
# backbones has never seen; five tasks of ten classes, a sub-sample of the images.  CPU.  Run from prompt_distill:
#
#   sh experiments/desk.sh               # all rows with seed 0
#   sh experiments/desk.sh coda-kdp --seed 1
#   python -m prompt_distill.desk        # the table of all finished runs, and the claim with its interval
#
# Rate: five times the original's, since the tasks are short (README, "Desk bench").
# Rows: coda-alone coda-cdl coda-kdp dual-alone dual-cdl dual-kdp l2p-alone l2p-cdl l2p-kdp
set -eu
GPUID="${GPUID:--1}"
. "$(dirname "$0")/rows.sh"

# pools for five tasks in 64 dimensions; the backbones have six blocks
prompts() {
    case "$1" in
        coda) echo "--learner_name CODAPrompt --prompt_param 50 8 0.0" ;;
        dual) echo "--learner_name DualPrompt --prompt_param 5 20 6" ;;
        l2p) echo "--learner_name L2P --prompt_param 30 8 -1" ;;
    esac
}

# desk ROW LEARNER METHOD flags...
desk() {
    row="$1"; prompts="$2"; distillation="$3"; shift 3
    # shellcheck disable=SC2046
    train cifar-100_prompt.yaml "${SEED:-0}" "desk/$row" --cell "prompt_distill/desk-$row" --max_task 5 \
        --t_model vit_pair_teacher --s_model vit_pair_student --images_per_class 100 --schedule 4 --batch_size 25 \
        --lr 0.005 \
        --normalise --virtual_devices 1 $(prompts "$prompts") $(method "$distillation") --kd_prompt_param 6 6 "$@"
}

wanted coda-alone && desk coda-alone coda alone --overrides "$@"
wanted coda-cdl && desk coda-cdl coda cdl --overrides "$@"
wanted coda-kdp && desk coda-kdp coda kdp --overrides "$@"
wanted dual-alone && desk dual-alone dual alone --overrides "$@"
wanted dual-cdl && desk dual-cdl dual cdl --overrides "$@"
wanted dual-kdp && desk dual-kdp dual kdp --overrides "$@"
wanted l2p-alone && desk l2p-alone l2p alone --overrides "$@"
wanted l2p-cdl && desk l2p-cdl l2p cdl --overrides "$@"
wanted l2p-kdp && desk l2p-kdp l2p kdp --overrides "$@"
checked
