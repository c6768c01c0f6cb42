#!/bin/sh
# PLOP and MiB on Pascal VOC, overlapped (CVPR 2021, Table 1).  Run from segmentation:
#
#   sh scripts/plop/voc.sh                   # all rows
#   sh scripts/plop/voc.sh plop_15-1 --seed 1
#   SMOKE=1 sh scripts/plop/voc.sh           # every row in its short form, on the embedded sample
#
# Rows are named as the original's scripts; the papers' 15-1 is the task 15-5s.
# Values: arthurdouillard/CVPR2021_PLOP@4b4a060 scripts/voc/*.sh.
# Rows: plop_19-1 plop_15-5 plop_15-1 plop_10-1 mib_15-1
set -eu
. "$(dirname "$0")/../rows.sh"

# paper: old 75.35, new 37.35, all 73.54, avg 75.47
if wanted plop_19-1; then
    steps plop-voc-19-1 voc 19-1 1 0.01 0.001 30 30 --overlap --method PLOP --overrides "$@"
fi

# paper: old 75.73, new 51.71, all 70.09, avg 75.19
if wanted plop_15-5; then
    steps plop-voc-15-5 voc 15-5 1 0.01 0.001 30 30 --overlap --method PLOP --overrides "$@"
fi

# paper: old 65.12, new 21.11, all 54.64, avg 67.21
if wanted plop_15-1; then
    steps plop-voc-15-1 voc 15-5s 5 0.01 0.001 30 30 --overlap --method PLOP --overrides "$@"
fi

# RCIL's README: all 30.5
if wanted plop_10-1; then
    steps plop-voc-10-1 voc 10-1 10 0.01 0.001 30 10 --overlap --method PLOP --overrides "$@"
fi

# PLOP's table: MiB, 15-1
if wanted mib_15-1; then
    steps mib-voc-15-1 voc 15-5s 5 0.01 0.001 30 30 --overlap --method MiB --overrides "$@"
fi
checked
