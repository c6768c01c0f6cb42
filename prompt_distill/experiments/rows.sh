# Sourced by the scripts of this folder, which are run from prompt_distill: environment, row selection, published values.
PYTHON="${PYTHON:-python}"
PYTHONPATH="$(cd .. && pwd)${PYTHONPATH:+:$PYTHONPATH}"; export PYTHONPATH
GPUID="${GPUID:-0 1}"
DATAROOT="${DATAROOT:-../data}"
OUT="${OUT:-outputs}"
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

# train CONFIG SEED OUTPUT flags... : GPUID may name several devices; losses are added up as by the original's two, always
train() {
    config="$1"; seed="$2"; output="$3"; shift 3
    # shellcheck disable=SC2086
    "$PYTHON" -u main.py --config "configs/$config" --gpuid $GPUID --seed "$seed" --dataroot "$DATAROOT" \
        --log_dir "$OUT/$output" --learner_type prompt --virtual_devices 2 ${WEIGHTS:+--weights "$WEIGHTS"} "$@"
}

# learner NAME : flags of a prompt method
learner() {
    case "$1" in
        coda) echo "--learner_name CODAPrompt --prompt_param 100 8 0.0" ;;
        dual) echo "--learner_name DualPrompt --prompt_param 10 20 6" ;;
        l2p) echo "--learner_name L2P --prompt_param 30 20 -1" ;;
        apt) echo "--learner_name APT --prompt_param 0.01 --ema_coeff 0.7" ;;
    esac
}

# method NAME : flags of a distillation method; NAME-2024: as it was when the boards of 2024 were made (another key loss)
method() {
    case "$1" in
        *-2024) echo "$(method "${1%-2024}") --variant kd_token_2024_12" ;;
        alone) echo "--KD_method none" ;;
        cdl) echo "--KD_method CDL-Prompt --variant cdl_prompt_2024_07" ;;
        kd) echo "--KD_method KD" ;;
        dkd) echo "--KD_method DKD" ;;
        fitnets) echo "--KD_method FitNets" ;;
        reviewkd) echo "--KD_method ReviewKD" ;;
        token) echo "--KD_method KD_Token --variant kd_token_2025_01" ;;
        kdp) echo "--KD_method KD_Token --variant d_cdl_2026_04 --kd_prompt_param 12 6" ;;
    esac
}

# vit NAME : the original's name of a backbone
vit() { echo "vit_$1_patch16_224"; }

# board CONFIG ROW TEACHER STUDENT LEARNER METHOD flags... : one entry of a results board (teacher "-": the student alone)
board() {
    config="$1"; row="$2"; teacher="$3"; student="$4"; prompts="$5"; distillation="$6"; shift 6
    [ "$teacher" != large ] || set -- --batch_size 32 "$@"
    [ "$teacher" != - ] || teacher=base
    # shellcheck disable=SC2046
    train "$config" "${SEED:-1}" "boards/$BOARD/$row" --cell "prompt_distill/$BOARD-$row" --t_model "$(vit "$teacher")" \
        --s_model "$(vit "$student")" $(learner "$prompts") $(method "$distillation") "$@"
}
