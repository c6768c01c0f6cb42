#!/bin/sh
# Baselines of PLOP's and RCIL's Pascal VOC tables that have no script in the originals.  Run from
# segmentation:
#
#   sh scripts/baselines_voc.sh                 # all rows
#   sh scripts/baselines_voc.sh ilt-15-1 --seed 1
#   SMOKE=1 sh scripts/baselines_voc.sh
#
# Presets of PLOP's code, schedule of its scripts (10-1: 10 epochs in later steps); MiB 15-1 stands in plop/voc.sh.
# Rows: {ewc,lwfmc,ilt,mib,lwf}-{19-1,15-5,15-1,10-1}
set -eu
. "$(dirname "$0")/rows.sh"

# flags NAME
flags() {
    case "$1" in
        ewc) echo "--method EWC" ;;
        lwfmc) echo "--method LWF-MC" ;;
        ilt) echo "--method ILT" ;;
        mib) echo "--method MiB" ;;
        lwf) echo "--method LWF" ;;
    esac
}

# baseline NAME PROTOCOL TASK LAST EPOCHS_LATER flags...
baseline() {
    name="$1"; protocol="$2"; task="$3"; last="$4"; later="$5"; shift 5
    [ "$name-$protocol" != mib-15-1 ] || return 0
    if wanted "$name-$protocol"; then
        # shellcheck disable=SC2046
        steps "$name-voc-$protocol" voc "$task" "$last" 0.01 0.001 30 "$later" --overlap $(flags "$name") "$@"
    fi
}

for arguments in "19-1 19-1 1 30" "15-5 15-5 1 30" "15-1 15-5s 5 30" "10-1 10-1 10 10"; do
    for method in ewc lwfmc ilt mib lwf; do
        # shellcheck disable=SC2086
        baseline "$method" $arguments --overrides "$@"
    done
done
checked
