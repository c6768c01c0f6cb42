#!/bin/sh
# The desk bench: 20 real CIFAR-100 classes in 5 tasks, a small network, CPU.  No published table has these rows.
# Run from rfd/:
#
#   sh scripts/desk.sh                         # all rows
#   sh scripts/desk.sh rfd             # one row
#   sh scripts/desk.sh rfd --seed 1    # one row; what follows goes on to main.py
#   SMOKE=1 sh scripts/desk.sh                  # every row in its short form, on the embedded sample
#
# A finished row is skipped, an interrupted one goes on.  SEED (or --seed) 0, 1, 2: the repetitions, each with
# its published class order (ImageNet-100 has one order); without it: seed and order of the config.
set -eu
PYTHON="${PYTHON:-python}"
PYTHONPATH="$(cd .. && pwd)${PYTHONPATH:+:$PYTHONPATH}"; export PYTHONPATH
GPUID="${GPUID:--1}"
DATAROOT="${DATAROOT:-../data}"
OUT="${OUT:-outputs}"
[ "${SMOKE:-0}" = 0 ] || OUT="$OUT/smoke"

ROW="${1:-all}"
case "$ROW" in -*) ROW=all ;; *) [ $# -eq 0 ] || shift ;; esac
[ "${SMOKE:-0}" = 0 ] || set -- --smoke "$@"
[ -z "${SEED:-}" ] || set -- --seed "$SEED" "$@"
FOUND=no

case "$GPUID" in -*) GPUS=0 ;; *) GPUS="[$GPUID]" ;; esac

# run ROW CONFIG keys... : one setting; the user's flags follow the marker
run() {
    name="$1"; config="$2"; shift 2
    "$PYTHON" -u main.py --config "$config" --data.root "$DATAROOT" --trainer.gpus "$GPUS" \
        --cell "rfd/desk-$name" --output_dir "$OUT/desk/$name" "$@"
}

wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
}

# RFD
if wanted rfd; then
    run rfd config/desk.yaml --model.method rfd --overrides "$@"
fi

# R-DFCIL
if wanted rdfcil; then
    run rdfcil config/desk.yaml --model.method rdfcil --overrides "$@"
fi

# Always-Be-Dreaming
if wanted abd; then
    run abd config/desk.yaml --model.method abd --overrides "$@"
fi

# learning without forgetting
if wanted lwf; then
    run lwf config/desk.yaml --model.method lwf --overrides "$@"
fi

# fine-tuning: nothing against forgetting
if wanted finetuning; then
    run finetuning config/desk.yaml --model.method base --overrides "$@"
fi

# the upper bound: all classes seen, a fresh network for every task
if wanted joint; then
    run joint config/desk.yaml --model.method joint --overrides "$@"
fi

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected one of: rfd rdfcil abd lwf finetuning joint" >&2
    exit 2
fi
