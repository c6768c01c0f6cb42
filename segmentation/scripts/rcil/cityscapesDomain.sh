#!/bin/sh
# RCIL on the Cityscapes domain protocols (CVPR 2022).  Run from segmentation:
#
#   sh scripts/rcil/cityscapesDomain.sh                              # all rows
#   sh scripts/rcil/cityscapesDomain.sh RCIL_cityscapes_1-1 --seed 1
#   SMOKE=1 sh scripts/rcil/cityscapesDomain.sh
#
# Values: zhangchbin/RCIL@b9aad58 scripts/cityscapesDomain/*.sh. --pod_factor and --pod_options have no effect there (D8).
# Rows: RCIL_cityscapes_11-5 RCIL_cityscapes_11-1 RCIL_cityscapes_1-1
set -eu
. "$(dirname "$0")/../rows.sh"

# domain CELL TASK LAST RATE_LATER flags...
domain() {
    cell="$1"; task="$2"; last="$3"; rate="$4"; shift 4
    steps "$cell" cityscapes_domain "$task" "$last" 0.02 "$rate" 50 50 --overlap --codebase rcil --method FT --pod local \
        --pod_factor 0.0001 --pod_logits \
        --pod_options '{"switch": {"after": {"extra_channels": "sum", "factor": 0.001, "type": "local"}}}' \
        --num_workers 4 --val_interval 15 "$@"
}

# README: 64.3
if wanted RCIL_cityscapes_11-5; then domain rcil-domain-11-5 11-5 2 0.002 --overrides "$@"; fi

# README: 63.0
if wanted RCIL_cityscapes_11-1; then domain rcil-domain-11-1 11-1 10 0.004 --overrides "$@"; fi

# README: 48.9
if wanted RCIL_cityscapes_1-1; then domain rcil-domain-1-1 1-1 20 0.002 --overrides "$@"; fi
checked
