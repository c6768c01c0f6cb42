#!/bin/sh
# ImageNet-A, 10 tasks, base to small, CDL-Prompt.  The original has the data set, but no script.  Run from prompt_distill.
# Rows: coda-p dual-prompt l2p
set -eu
. "$(dirname "$0")/rows.sh"

# row NAME LEARNER flags...
row() {
    name="$1"; prompts="$2"; shift 2
    # shellcheck disable=SC2046
    train imnet-a_prompt.yaml "${SEED:-1}" "ImageNet_A/10-task/$name" --s_model vit_small_patch16_224 \
        $(learner "$prompts") $(method cdl) "$@"
}

wanted coda-p && row coda-p coda --overrides "$@"
wanted dual-prompt && row dual-prompt dual --overrides "$@"
wanted l2p && row l2p l2p --overrides "$@"
checked
