#!/bin/sh
# RCIL on the class-incremental Cityscapes, 10-9; the original cannot run (D15), this is its repaired form.  Run from
# segmentation:
#
#   sh scripts/rcil/cityscapeClL.sh
#   SMOKE=1 sh scripts/rcil/cityscapeClL.sh
#
# Values: zhangchbin/RCIL@b9aad58 scripts/cityscapeClL/dev.sh.
# Rows: dev
set -eu
. "$(dirname "$0")/../rows.sh"

# paper: not found
if wanted dev; then
    steps rcil-cityscape-10-9 cityscape 10-9 1 0.02 0.001 50 50 --overlap --method RCIL --num_workers 4 --val_interval 15 \
        --overrides "$@"
fi
checked
