#!/bin/sh
# CIFAR-100, 10 tasks: the original's three runs.  Run from prompt_distill:
#
#   sh experiments/cifar-100.sh                             # CDL-Prompt, July 2024 (base to tiny)
#   sh experiments/cifar-100.sh coda-p --s_model vit_small_patch16_224   # one row; what follows goes on to main.py
#   VARIANT=kd_token_2025_01 sh experiments/cifar-100.sh    # a later state: kd_token_2024_12 kd_token_2025_01
#                                                           # kdp_2025_03 d_cdl_2026_04
#   SMOKE=1 sh experiments/cifar-100.sh                     # short form, embedded sample, random backbones
#
# WEIGHTS names the folder of the pretrained backbones, GPUID the devices (a missing one of the original's two is made up
# for by a virtual one), SEED, OUT, DATAROOT, PYTHON as usual.  A finished row is skipped, an interrupted one goes on.
# Rows: coda-p dual-prompt l2p
# Values: IRVLUTD/CDL experiments/cifar-100.sh @4346c89 (July 2024), @69a8b3b, @bebe528, @dbfdbb7, @d980577.
set -eu
. "$(dirname "$0")/rows.sh"

CONFIG=cifar-100_prompt.yaml
VARIANT="${VARIANT:-cdl_prompt_2024_07}"
case "$VARIANT" in
    cdl_prompt_2024_07) SEED="${SEED:-2}"; STATE="--KD_method CDL-Prompt" ;;
    kd_token_2024_12 | kd_token_2025_01) SEED="${SEED:-7}"; STATE="--KD_method KD_Token --s_model vit_small_patch16_224" ;;
    kdp_2025_03) SEED="${SEED:-10}"; STATE="--KD_method KD_Token --s_model vit_small_patch16_224 --kd_prompt_param 12 6" ;;
    d_cdl_2026_04) SEED="${SEED:-1}"; STATE="--KD_method KD_Token --s_model vit_small_patch16_224 --kd_prompt_param 12 6" ;;
    *) echo "error: unknown VARIANT '$VARIANT'; the script's head lists them" >&2; exit 2 ;;
esac

# row NAME LEARNER flags...
row() {
    name="$1"; prompts="$2"; shift 2
    # shellcheck disable=SC2046,SC2086
    train "$CONFIG" "$SEED" "$VARIANT/cifar-100/10-task/$name" --variant "$VARIANT" --t_model vit_base_patch16_224 $STATE \
        $(learner "$prompts") "$@"
}

wanted coda-p && row coda-p coda --overrides "$@"
wanted dual-prompt && row dual-prompt dual --overrides "$@"
wanted l2p && row l2p++ l2p --overrides "$@"
checked
