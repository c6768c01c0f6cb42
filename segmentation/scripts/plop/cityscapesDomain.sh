#!/bin/sh
# PLOP and MiB on the Cityscapes domain protocols (CVPR 2021).  Run from segmentation:
#
#   sh scripts/plop/cityscapesDomain.sh                   # all rows
#   sh scripts/plop/cityscapesDomain.sh plop_1-1 --seed 1
#   SMOKE=1 sh scripts/plop/cityscapesDomain.sh
#
# Values: arthurdouillard/CVPR2021_PLOP@4b4a060 scripts/cityscapesDomain/*.sh. There is no script for 11-5; it takes the
# values of 11-1 (D19).
# Rows: plop_11-5 plop_11-1 plop_1-1 mib_1-1
set -eu
. "$(dirname "$0")/../rows.sh"

# plop CELL TASK LAST FACTOR flags... : FACTOR weights the distillation of the logits
plop() {
    cell="$1"; task="$2"; last="$3"; factor="$4"; shift 4
    steps "$cell" cityscapes_domain "$task" "$last" 0.01 0.001 50 50 --overlap --method FT --pod local \
        --pod_factor 0.0001 --pod_logits \
        --pod_options '{"switch": {"after": {"extra_channels": "sum", "factor": '"$factor"', "type": "local"}}}' "$@"
}

# paper: 63.5
if wanted plop_11-5; then plop plop-domain-11-5 11-5 2 0.0001 --overrides "$@"; fi

# paper: 62.1
if wanted plop_11-1; then plop plop-domain-11-1 11-1 10 0.0001 --overrides "$@"; fi

# paper: 45.2
if wanted plop_1-1; then plop plop-domain-1-1 1-1 20 0.001 --overrides "$@"; fi

# paper: 42.2
if wanted mib_1-1; then
    steps mib-domain-1-1 cityscapes_domain 1-1 20 0.01 0.001 50 50 --overlap --method FT --loss_kd 10.0 --overrides "$@"
fi
checked
