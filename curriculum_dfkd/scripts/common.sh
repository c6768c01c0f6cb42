# Shared by all scripts; they are run from curriculum_dfkd and set ROWS before they read this file.
#
# Environment: DATAROOT (data), GPUID (unset: the first GPU if there is one, else the CPU), SEED (unset: the row's own),
# OUT (outputs), PYTHON, SMOKE=1.  A finished row is skipped, an interrupted one goes on.
PYTHON="${PYTHON:-python}"
PYTHONPATH="$(cd .. && pwd)${PYTHONPATH:+:$PYTHONPATH}"; export PYTHONPATH
DATAROOT="${DATAROOT:-../data}"
OUT="${OUT:-outputs}"
[ "${SMOKE:-0}" = 0 ] || OUT="$OUT/smoke"

ROW="${1:-all}"
case "$ROW" in -*) ROW=all ;; *) [ $# -eq 0 ] || shift ;; esac
[ "${SMOKE:-0}" = 0 ] || set -- --smoke "$@"
FOUND=no

# run PROGRAM CELL flags...: one row; CELL "-" stands for a row without a published value
run() {
    program="$1"; cell="$2"; shift 2
    name="$cell"
    [ "$cell" != - ] || name="$NAME"
    [ "$cell" = - ] || set -- --cell "cudfkd/$cell" "$@"
    [ -z "${GPUID:-}" ] || set -- --gpu "$GPUID" "$@"
    "$PYTHON" -u "$program" --data_root "$DATAROOT" --output_dir "$OUT/$name" "$@"
}

wanted() {
    [ "$ROW" = all ] || [ "$ROW" = "$1" ] || return 1
    FOUND=yes
    NAME="$1"
}

check_row() {
    [ "$FOUND" = yes ] || { echo "error: unknown row '$ROW'; expected one of: $ROWS" >&2; exit 2; }
}
