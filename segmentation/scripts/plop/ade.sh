#!/bin/sh
# PLOP on ADE20K, overlapped (CVPR 2021).  Run from segmentation:
#
#   sh scripts/plop/ade.sh                           # all rows
#   sh scripts/plop/ade.sh plop_ade_100-10 --seed 1
#   SMOKE=1 sh scripts/plop/ade.sh
#
# Values: arthurdouillard/CVPR2021_PLOP@4b4a060 scripts/ade/*.sh.
# Rows: plop_ade_100-50 plop_ade_100-10 plop_ade_100-5
set -eu
. "$(dirname "$0")/../rows.sh"

# ade CELL TASK LAST flags...
ade() {
    cell="$1"; task="$2"; last="$3"; shift 3
    steps "$cell" ade "$task" "$last" 0.01 0.001 60 60 --overlap --method FT --pod local --pod_factor 0.001 --pod_logits \
        --pseudo entropy --threshold 0.001 --classif_adaptive_factor --init_balanced \
        --pod_options '{"switch": {"after": {"extra_channels": "sum", "factor": 0.00001, "type": "local"}}}' "$@"
}

# paper (quoted by RCIL): all 32.9
if wanted plop_ade_100-50; then ade plop-ade-100-50 100-50 1 --overrides "$@"; fi

# paper (quoted by RCIL): all 31.6
if wanted plop_ade_100-10; then ade plop-ade-100-10 100-10 5 --overrides "$@"; fi

# paper (quoted by RCIL): all 28.7
if wanted plop_ade_100-5; then ade plop-ade-100-5 100-5 10 --overrides "$@"; fi
checked
