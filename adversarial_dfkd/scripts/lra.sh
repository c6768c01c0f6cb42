#!/bin/sh
# LRA, PRE-DFKD and MB-DFKD (CVPR 2023).  Run from adversarial_dfkd:
#
#   sh scripts/lra.sh                        # the released configurations
#   sh scripts/lra.sh ours-2                 # one row
#   sh scripts/lra.sh ours-2 --seed 1        # one row; what follows goes on to main.py (--set key=value too)
#   sh scripts/lra.sh all                    # every row
#   sh scripts/lra.sh desk                   # the desk bench
#   SMOKE=1 sh scripts/lra.sh all            # every row in its short form, on the embedded sample
#
# A row is a file of configs/.  A finished row is skipped, an interrupted one goes on.
# Environment: DATAROOT (data), TEACHERS (folder of teachers), GPUID (negative: CPU), SEED (unset: the row's own), OUT,
# PYTHON.
set -eu
PYTHON="${PYTHON:-python}"
PYTHONPATH="$(cd .. && pwd)${PYTHONPATH:+:$PYTHONPATH}"; export PYTHONPATH
DATAROOT="${DATAROOT:-../data}"
OUT="${OUT:-outputs}"
[ "${SMOKE:-0}" = 0 ] || OUT="$OUT/smoke"

ROW="${1:-released}"
case "$ROW" in -*) ROW=released ;; *) [ $# -eq 0 ] || shift ;; esac
[ "${SMOKE:-0}" = 0 ] || set -- --smoke "$@"
FOUND=no

wanted() {
    case "$ROW" in
        all | "$1" | "$GROUP") FOUND=yes; NAME="$1" ;;
        *) return 1 ;;
    esac
}

# run CONFIG: the wanted row; the user's flags follow the marker
run() {
    config="$1"; shift
    set -- --overrides "$@"
    [ -z "${SEED:-}" ] || set -- --seed "$SEED" "$@"
    [ -z "${TEACHERS:-}" ] || set -- --teacher_dir "$TEACHERS" "$@"
    case "${GPUID:-}" in
        "") ;;
        -*) set -- --set cuda=false "$@" ;;
        *) set -- --gpu_device "$GPUID" "$@" ;;
    esac
    "$PYTHON" -u main.py "./configs/$config.json" --cell "lra/$NAME" --data "$DATAROOT" --output_dir "$OUT/$NAME" "$@"
}

# CIFAR-100, ResNet-34 to ResNet-18, as released (PRE and MB with twice the batch and half the updates of Ours, D2)
GROUP=released
if wanted pre-dfkd; then run PRE-DFKD "$@"; fi
if wanted mb-dfkd; then run MB-DFKD "$@"; fi
if wanted ours-1; then run Ours-1 "$@"; fi
if wanted ours-1-benchmark; then run Ours-1_benchmark "$@"; fi
if wanted ours-2; then run Ours-2 "$@"; fi

# the same with equal batches, and with the paper's gradient (D1)
GROUP=unconfounded
if wanted pre-dfkd-b512; then run PRE-DFKD_b512 "$@"; fi
if wanted mb-dfkd-b512; then run MB-DFKD_b512 "$@"; fi
if wanted ours-1-second-order; then run Ours-1_second-order "$@"; fi
if wanted ours-2-second-order; then run Ours-2_second-order "$@"; fi

# CIFAR-10, ResNet-34 to ResNet-18 (not in the release; batches as on CIFAR-100, and rivals at the batch of Ours)
GROUP=cifar10
if wanted pre-dfkd-cifar10; then run PRE-DFKD_cifar10 "$@"; fi
if wanted mb-dfkd-cifar10; then run MB-DFKD_cifar10 "$@"; fi
if wanted pre-dfkd-cifar10-b512; then run PRE-DFKD_cifar10_b512 "$@"; fi
if wanted mb-dfkd-cifar10-b512; then run MB-DFKD_cifar10_b512 "$@"; fi
if wanted ours-1-cifar10; then run Ours-1_cifar10 "$@"; fi
if wanted ours-2-cifar10; then run Ours-2_cifar10 "$@"; fi

# SVHN, ResNet-34 to ResNet-18 (not in the release)
GROUP=svhn
if wanted pre-dfkd-svhn; then run PRE-DFKD_svhn "$@"; fi
if wanted mb-dfkd-svhn; then run MB-DFKD_svhn "$@"; fi
if wanted ours-1-svhn; then run Ours-1_svhn "$@"; fi
if wanted ours-2-svhn; then run Ours-2_svhn "$@"; fi

# Tiny-ImageNet, 64x64, ResNet-34 to ResNet-18 (not in the release)
GROUP=tiny-imagenet
if wanted pre-dfkd-tiny-imagenet; then run PRE-DFKD_tiny-imagenet "$@"; fi
if wanted mb-dfkd-tiny-imagenet; then run MB-DFKD_tiny-imagenet "$@"; fi
if wanted ours-1-tiny-imagenet; then run Ours-1_tiny-imagenet "$@"; fi
if wanted ours-2-tiny-imagenet; then run Ours-2_tiny-imagenet "$@"; fi

# MNIST, LeNet-5 to its half (not in the release)
GROUP=mnist
if wanted pre-dfkd-mnist; then run PRE-DFKD_mnist "$@"; fi
if wanted mb-dfkd-mnist; then run MB-DFKD_mnist "$@"; fi
if wanted ours-1-mnist; then run Ours-1_mnist "$@"; fi
if wanted ours-2-mnist; then run Ours-2_mnist "$@"; fi

# Fashion-MNIST, ResNet-34 to ResNet-18 (not in the release)
GROUP=fmnist
if wanted pre-dfkd-fmnist; then run PRE-DFKD_fmnist "$@"; fi
if wanted mb-dfkd-fmnist; then run MB-DFKD_fmnist "$@"; fi
if wanted ours-1-fmnist; then run Ours-1_fmnist "$@"; fi
if wanted ours-2-fmnist; then run Ours-2_fmnist "$@"; fi

# CIFAR-10, WRN-40-2 to WRN-16-1 (not in the release)
GROUP=cifar10-wrn
if wanted pre-dfkd-cifar10-wrn; then run PRE-DFKD_cifar10_wrn-40-2_wrn-16-1 "$@"; fi
if wanted mb-dfkd-cifar10-wrn; then run MB-DFKD_cifar10_wrn-40-2_wrn-16-1 "$@"; fi
if wanted ours-1-cifar10-wrn; then run Ours-1_cifar10_wrn-40-2_wrn-16-1 "$@"; fi
if wanted ours-2-cifar10-wrn; then run Ours-2_cifar10_wrn-40-2_wrn-16-1 "$@"; fi

# CIFAR-100, WRN-40-2 to WRN-16-1 (not in the release)
GROUP=cifar100-wrn
if wanted pre-dfkd-cifar100-wrn; then run PRE-DFKD_cifar100_wrn-40-2_wrn-16-1 "$@"; fi
if wanted mb-dfkd-cifar100-wrn; then run MB-DFKD_cifar100_wrn-40-2_wrn-16-1 "$@"; fi
if wanted ours-1-cifar100-wrn; then run Ours-1_cifar100_wrn-40-2_wrn-16-1 "$@"; fi
if wanted ours-2-cifar100-wrn; then run Ours-2_cifar100_wrn-40-2_wrn-16-1 "$@"; fi

# desk bench: Fashion-MNIST, the shipped LeNet-5 to its half, equal student updates
GROUP=desk
if wanted desk-pre-dfkd; then run desk_PRE-DFKD "$@"; fi
if wanted desk-mb-dfkd; then run desk_MB-DFKD "$@"; fi
if wanted desk-ours-1; then run desk_Ours-1 "$@"; fi
if wanted desk-ours-2; then run desk_Ours-2 "$@"; fi
if wanted desk-ours-1-second-order; then run desk_Ours-1_second-order "$@"; fi
if wanted desk-ours-2-second-order; then run desk_Ours-2_second-order "$@"; fi

if [ "$FOUND" = no ]; then
    echo "error: unknown row '$ROW'; expected all, a group (released unconfounded cifar10 svhn tiny-imagenet mnist fmnist cifar10-wrn cifar100-wrn desk) or a row of this script" >&2
    exit 2
fi
