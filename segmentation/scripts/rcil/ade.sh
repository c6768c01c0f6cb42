#!/bin/sh
# RCIL on ADE20K, overlapped (CVPR 2022).  Run from segmentation:
#
#   sh scripts/rcil/ade.sh                          # all rows
#   sh scripts/rcil/ade.sh RCIL_ade_100-10 --seed 1
#   SMOKE=1 sh scripts/rcil/ade.sh
#
# Values: zhangchbin/RCIL@b9aad58 scripts/ade/*.sh. --pod_factor and --pod_options are given there and have no effect
# (D8: the factors follow the data set).
# Rows: RCIL_ade_100-50 RCIL_ade_100-10 RCIL_ade_100-5
set -eu
. "$(dirname "$0")/../rows.sh"

# ade CELL TASK LAST flags...
ade() {
    cell="$1"; task="$2"; last="$3"; shift 3
    steps "$cell" ade "$task" "$last" 0.01 0.001 60 60 --overlap --codebase rcil --method FT --pod local \
        --pod_factor 0.001 --pod_logits --unce --unkd --loss_kd 100 --classif_adaptive_factor --init_balanced \
        --pod_options '{"switch": {"after": {"extra_channels": "sum", "factor": 0.00001, "type": "local"}}}' \
        --num_workers 4 --val_interval 15 "$@"
}

# README: all 34.5
if wanted RCIL_ade_100-50; then ade rcil-ade-100-50 100-50 1 --overrides "$@"; fi

# README: all 32.1
if wanted RCIL_ade_100-10; then ade rcil-ade-100-10 100-10 5 --overrides "$@"; fi

# README: all 29.6
if wanted RCIL_ade_100-5; then ade rcil-ade-100-5 100-5 10 --overrides "$@"; fi
checked
