#!/bin/sh
# Baselines of PLOP's and RCIL's Pascal VOC tables that have no script in the originals.  Run from
# segmentation:
#
#   sh scripts/baselines_voc.sh                 # all rows
#   sh scripts/baselines_voc.sh ilt-15-1 --seed 1
#   SMOKE=1 sh scripts/baselines_voc.sh
#
# Presets and schedule of PLOP's code; MiB 15-1 stands in plop/voc.sh.
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

for protocol in "19-1 19-1 1" "15-5 15-5 1" "15-1 15-5s 5" "10-1 10-1 10"; do
    for name in ewc lwfmc ilt mib lwf; do
        row="$name-${protocol%% *}"
        [ "$row" != mib-15-1 ] || continue
        task="${protocol% *}"
        if wanted "$row"; then
            # shellcheck disable=SC2046
            steps "$name-voc-${protocol%% *}" voc "${task#* }" "${protocol##* }" 0.01 0.001 30 30 --overlap $(flags "$name") \
                --overrides "$@"
        fi
    done
done
checked
