#!/bin/sh
# Desk bench: CamVid at 128 x 128 with a small network, from random weights, on the CPU.  Run from segmentation:
#
#   python -m repro data prepare camvid --from camvid_domains.zip     # once, from the repository's root
#   sh scripts/desk.sh                      # all rows with one seed
#   sh scripts/desk.sh class-plop --seed 1
#   SMOKE=1 sh scripts/desk.sh              # every row in its short form, on the embedded sample
#
# class: 5 classes, then tree, sign and fence, then car, pedestrian and bicyclist, overlapped; domain: the sequences 0001TP,
# 0006R0, 0016E5, Seq05VD one after the other, all 11 classes. Joint training sees everything at once. ResNet with one
# bottleneck per stage, 16 to 512 channels.
# VDFD: weights 1e-4 and 3e-5; the paper's 10 makes gradient descent unstable here (README, "Derived choices").
# Rows: {class,domain}-{ft,joint,mib,plop,rcil,vdfd}
set -eu
GPUID="${GPUID:--1}"
. "$(dirname "$0")/rows.sh"

# desk ROW flags... : sizes that all rows share
desk() {
    row="$1"; shift
    program --cell "seg/desk-$row" --gpuid $GPUID --seed "$SEED" --data_root "$DATAROOT" --output_dir "$OUT/desk-$row" \
        --name "desk-$row" --backbone resnet14 --width 16 --head_width 64 --no_pretrained --output_stride 8 --pooling 16 \
        --crop_size 128 --batch_size 8 --num_workers 0 --val_interval 20 --sample_num 1 "$@"
}

# classes ROW flags... : 6 + 3 + 3 classes, background included
classes() {
    row="$1"; shift
    desk "class-$row" --dataset camvid --task 5-3 --step 0 1 2 --lr 0.05 0.01 0.01 --epochs 60 30 30 --overlap "$@"
}

# domains ROW flags... : four sequences
domains() {
    row="$1"; shift
    desk "domain-$row" --dataset camvid_domain --task 1-1 --step 0 1 2 3 --lr 0.05 0.01 0.01 0.01 \
        --epochs 120 60 60 60 --overlap "$@"
}

if wanted class-ft; then classes ft --method FT --overrides "$@"; fi
if wanted class-joint; then
    desk class-joint --dataset camvid --task offline --step 0 --lr 0.05 --epochs 100 --overlap --method FT --overrides "$@"
fi
if wanted class-mib; then classes mib --method MiB --overrides "$@"; fi
if wanted class-plop; then classes plop --method PLOP --overrides "$@"; fi
if wanted class-rcil; then classes rcil --method RCIL --overrides "$@"; fi
if wanted class-vdfd; then classes vdfd --method VDFD --reg_importance 1e-4 --overrides "$@"; fi

if wanted domain-ft; then domains ft --method FT --overrides "$@"; fi
if wanted domain-joint; then
    desk domain-joint --dataset camvid_domain --task offline --step 0 --lr 0.05 --epochs 65 --overlap --method FT \
        --overrides "$@"
fi
if wanted domain-mib; then domains mib --method FT --loss_kd 10.0 --overrides "$@"; fi
if wanted domain-plop; then
    domains plop --method FT --pod local --pod_factor 0.0001 --pod_logits \
        --pod_options '{"switch": {"after": {"extra_channels": "sum", "factor": 0.0001, "type": "local"}}}' --overrides "$@"
fi
if wanted domain-rcil; then
    domains rcil --codebase rcil --method FT --pod local --pod_factor 0.0001 --pod_logits --overrides "$@"
fi
if wanted domain-vdfd; then domains vdfd --method VDFD --reg_importance 3e-5 --overrides "$@"; fi
checked
