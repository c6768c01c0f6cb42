#!/bin/sh
# Baselines of VDFD's Cityscapes domain table, which have no script in the originals.  Run from
# segmentation:
#
#   sh scripts/baselines_domain.sh                 # all rows
#   sh scripts/baselines_domain.sh lwf-1-1 --seed 1
#   SMOKE=1 sh scripts/baselines_domain.sh
#
# Schedule of VDFD's appendix C.2, whose authors ran them again; iCaRL is the preset LWF-MC, MiB plain distillation of weight
# 10 (D18).
# Rows: {ft,lwf,icarl,ilt,mib}-{11-5,11-1,1-1}
set -eu
. "$(dirname "$0")/rows.sh"

# flags NAME
flags() {
    case "$1" in
        ft) echo "--method FT" ;;
        lwf) echo "--method LWF" ;;
        icarl) echo "--method LWF-MC" ;;
        ilt) echo "--method ILT" ;;
        mib) echo "--method FT --loss_kd 10.0" ;;
    esac
}

for protocol in "11-5 2" "11-1 10" "1-1 20"; do
    for name in ft lwf icarl ilt mib; do
        row="$name-${protocol% *}"
        if wanted "$row"; then
            # shellcheck disable=SC2046
            steps "$name-domain-vdfd-${protocol% *}" cityscapes_domain "${protocol% *}" "${protocol#* }" 0.02 0.001 50 50 \
                --overlap $(flags "$name") --overrides "$@"
        fi
    done
done
checked
