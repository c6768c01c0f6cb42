#!/bin/sh
# VDFD on the Cityscapes domain protocols (TPAMI 2023): the command that the authors' README promises; they never released
# it. Run from segmentation:
#
#   sh scripts/vdfd.sh               # all rows, in the paper's order
#   sh scripts/vdfd.sh 1-1           # one row
#   sh scripts/vdfd.sh 1-1 --seed 1  # one row; what follows goes on to main.py
#   SMOKE=1 sh scripts/vdfd.sh       # every row in its short form, on the embedded sample
#   NGPU=2 GPUID="0 1" sh scripts/vdfd.sh 11-5
#
# 11-5 and 11-1 have the same step 0: OUT=o sh scripts/vdfd.sh 11-1 --step0_ckpt \
#   o/vdfd-11-5/checkpoints/step/11-5-cityscapes_domain_vdfd-11-5_0.pth reuses it.
# Values: appendix C.2 of the paper (SGD, 50 epochs, batch 24, 0.02 then 0.001, lambda 10, r 1, graph network 0.001);
# everything else is derived, see README.md.
# Rows: 11-5 11-1 1-1
set -eu
. "$(dirname "$0")/rows.sh"

# 3 tasks | paper: 64.77
if wanted 11-5; then
    steps vdfd-11-5 cityscapes_domain 11-5 2 0.02 0.001 50 50 --overlap --method VDFD --hypermodel_lr 0.001 --overrides "$@"
fi

# 11 tasks | paper: 63.53
if wanted 11-1; then
    steps vdfd-11-1 cityscapes_domain 11-1 10 0.02 0.001 50 50 --overlap --method VDFD --hypermodel_lr 0.001 --overrides "$@"
fi

# 21 tasks | paper: 49.34
if wanted 1-1; then
    steps vdfd-1-1 cityscapes_domain 1-1 20 0.02 0.001 50 50 --overlap --method VDFD --hypermodel_lr 0.001 --overrides "$@"
fi
checked
