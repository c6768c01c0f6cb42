#!/bin/sh
# RCIL on Pascal VOC (CVPR 2022).  Run from segmentation:
#
#   sh scripts/rcil/voc.sh                             # all rows
#   sh scripts/rcil/voc.sh RCIL_15-1-overlap --seed 1
#   SMOKE=1 sh scripts/rcil/voc.sh
#
# Values: zhangchbin/RCIL@b9aad58 scripts/voc/*.sh (4 processes of 6 images there).
# Rows: RCIL_15-1-overlap RCIL_15-1-disjoint RCIL_10-1-overlap RCIL_10-1-disjoint
set -eu
. "$(dirname "$0")/../rows.sh"

# README: all 59.4
if wanted RCIL_15-1-overlap; then
    steps rcil-voc-15-1-overlap voc 15-5s 5 0.02 0.001 30 30 --overlap --method RCIL --num_workers 4 --val_interval 15 \
        --overrides "$@"
fi

# README: all 54.7
if wanted RCIL_15-1-disjoint; then
    steps rcil-voc-15-1-disjoint voc 15-5s 5 0.02 0.001 30 30 --method RCIL --num_workers 4 --val_interval 15 \
        --overrides "$@"
fi

# README: all 34.3
if wanted RCIL_10-1-overlap; then
    steps rcil-voc-10-1-overlap voc 10-1 10 0.02 0.001 30 30 --overlap --method RCIL --num_workers 4 --val_interval 15 \
        --overrides "$@"
fi

# README: all 18.2 (the published results file says 23.69)
if wanted RCIL_10-1-disjoint; then
    steps rcil-voc-10-1-disjoint voc 10-1 10 0.02 0.001 30 30 --method RCIL --num_workers 4 --val_interval 15 \
        --overrides "$@"
fi
checked
