#!/bin/sh
# ImageNet-R, 10 tasks: the original's runs.  Run from prompt_distill; usage as in cifar-100.sh.
# Rows: coda-p dual-prompt l2p  (the original's July script has only the first one active)
# Values: IRVLUTD/CDL experiments/imagenet-r.sh @dbe8170 (July 2024), @69a8b3b (FitNets), @bebe528, @dbfdbb7, @d980577.
set -eu
. "$(dirname "$0")/rows.sh"

CONFIG=imnet-r_prompt.yaml
VARIANT="${VARIANT:-cdl_prompt_2024_07}"
case "$VARIANT" in
    cdl_prompt_2024_07) SEED="${SEED:-2}"; STATE="--KD_method CDL-Prompt" ;;
    kd_token_2024_12) SEED="${SEED:-7}"; STATE="--KD_method FitNets" ;;
    kd_token_2025_01) SEED="${SEED:-7}"; STATE="--KD_method KD_Token" ;;
    kdp_2025_03) SEED="${SEED:-10}"; STATE="--KD_method KD_Token --kd_prompt_param 12 6" ;;
    d_cdl_2026_04) SEED="${SEED:-77}"; STATE="--KD_method KD_Token --kd_prompt_param 12 6" ;;
    *) echo "error: unknown VARIANT '$VARIANT'; cifar-100.sh lists them" >&2; exit 2 ;;
esac

# row NAME LEARNER flags...
row() {
    name="$1"; prompts="$2"; shift 2
    # shellcheck disable=SC2046,SC2086
    train "$CONFIG" "$SEED" "$VARIANT/ImageNet_R/10-task/$name" --variant "$VARIANT" --t_model vit_base_patch16_224 \
        --s_model vit_small_patch16_224 $STATE $(learner "$prompts") "$@"
}

wanted coda-p && row coda-p coda --overrides "$@"
wanted dual-prompt && row dual-prompt dual --overrides "$@"
wanted l2p && row l2p l2p --overrides "$@"
checked
