# Sourced by the scripts below this folder, which are run from segmentation: environment, row selection, rows.
#
# NGPU processes (torchrun) share the total batch of 24, as the originals' launcher did, and must divide it; GPUID names
# their devices: one number for each, or the first one's. WORKERS: threads that read images, where a row says nothing.
PYTHON="${PYTHON:-python}"
PYTHONPATH="$(cd .. && pwd)${PYTHONPATH:+:$PYTHONPATH}"; export PYTHONPATH
GPUID="${GPUID:-0}"
DATAROOT="${DATAROOT:-../data}"
SEED="${SEED:-42}"
OUT="${OUT:-outputs}"
NGPU="${NGPU:-${REPRO_PROCESSES:-1}}"
[ "${SMOKE:-0}" = 0 ] || OUT="$OUT/smoke"

ROW="${1:-all}"
case "$ROW" in -*) ROW=all ;; *) [ $# -eq 0 ] || shift ;; esac
[ "${SMOKE:-0}" = 0 ] || set -- --smoke "$@"
FOUND=no

# wanted ROW : whether it was asked for
wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
}

# checked : complain if no row matched
checked() {
    [ "$FOUND" = yes ] || { echo "error: unknown row '$ROW'; the script's head lists its rows" >&2; exit 2; }
}

# numbers LAST : 0 1 ... LAST
numbers() {
    number=0
    while [ "$number" -le "$1" ]; do echo "$number"; number=$((number + 1)); done
}

# each FIRST LATER LAST : the value of step 0, then that of every later step
each() {
    echo "$1"
    for number in $(numbers "$3"); do [ "$number" = 0 ] || echo "$2"; done
}

# program flags... : main.py in one process, or in NGPU ones
program() {
    if [ "$NGPU" -gt 1 ] && [ -z "${REPRO_PROCESSES:-}" ]; then
        "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$NGPU" main.py "$@"
    else
        "$PYTHON" -u main.py "$@"
    fi
}

# steps CELL DATASET TASK LAST RATE_0 RATE_LATER EPOCHS_0 EPOCHS_LATER flags... : all steps of a protocol, batch 24 in all
steps() {
    [ $((24 % NGPU)) -eq 0 ] || { echo "error: NGPU=$NGPU does not divide the batch of 24; give 1, 2, 3, 4, 6 or 8" >&2; exit 2; }
    cell="$1"; dataset="$2"; task="$3"; last="$4"
    rates="$(each "$5" "$6" "$4")"; epochs="$(each "$7" "$8" "$4")"; shift 8
    # shellcheck disable=SC2046,SC2086
    program --cell "seg/$cell" --gpuid $GPUID --seed "$SEED" --data_root "$DATAROOT" --output_dir "$OUT/$cell" \
        --name "$cell" --dataset "$dataset" --task "$task" --step $(numbers "$last") --lr $rates --epochs $epochs \
        --batch_size $((24 / NGPU)) --opt_level O1 --num_workers "${WORKERS:-1}" "$@"
}
