#!/bin/sh
# Builds the compiled package inplace_abn (segmentation: --norm_act pkg_iabn, pkg_iabn_sync) for the torch that is
# installed, about 75 s.  Not needed otherwise: --norm_act iabn and iabn_sync are plain PyTorch.
#
#   sh tools/build_inplace_abn.sh                 # into the environment of $PYTHON (python3)
#   sh tools/build_inplace_abn.sh --target DIR    # arguments are handed on to pip's second installation
#
# TORCH_CUDA_ARCH_LIST chooses the GPUs (default 9.0); MAX_JOBS the parallel compilers.
set -eu
PYTHON="${PYTHON:-python3}"
VERSION=1.1.0
# the build's own tools; its result depends on torch only
TOOLS="setuptools setuptools_scm==10.3.4 wheel==0.48.0"

fail() {
    echo "inplace-abn was not built: $1; --norm_act iabn and iabn_sync (plain PyTorch) work without it" >&2
    exit 1
}

if [ $# -eq 0 ] && "$PYTHON" -c "import inplace_abn" 2>/dev/null; then
    echo "inplace-abn is already built"
    exit 0
fi
"$PYTHON" -c "import torch" 2>/dev/null || fail "torch cannot be imported by $PYTHON"
command -v "${CXX:-c++}" >/dev/null || fail "there is no C++ compiler"
CUDA=$("$PYTHON" -c "import torch; print(torch.version.cuda or '')")

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM

if [ -n "$CUDA" ]; then
    # pip's CUDA runtime has no libcudart.so without a version, which the linker asks for
    runtime=$("$PYTHON" - <<'FIND'
import glob, os, sysconfig
places = {sysconfig.get_paths()[name] for name in ("purelib", "platlib")}
import torch
places.add(os.path.dirname(os.path.dirname(torch.__file__)))
found = sorted({path for place in places for path in glob.glob(f"{place}/nvidia/*/lib/libcudart.so.*")})
print(found[-1] if found else "")
FIND
    )
    command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] || fail "torch has CUDA $CUDA, but there is no nvcc"
    [ -z "$runtime" ] || ln -s "$runtime" "$folder/libcudart.so"
    LIBRARY_PATH="$folder${LIBRARY_PATH:+:$LIBRARY_PATH}"
    TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-9.0}"
    export LIBRARY_PATH TORCH_CUDA_ARCH_LIST
fi

log="$folder/log"
# shellcheck disable=SC2086  # several words
"$PYTHON" -m pip install --quiet --disable-pip-version-check $TOOLS >"$log" 2>&1 \
    || fail "setuptools_scm could not be installed: $(tail -n 1 "$log")"
"$PYTHON" -m pip install --disable-pip-version-check --no-build-isolation --no-deps --no-cache-dir "$@" \
    "inplace-abn==$VERSION" >"$log" 2>&1 || {
    cat "$log" >&2
    fail "its compilation failed (log above)"
}
[ $# -gt 0 ] || "$PYTHON" -c "import inplace_abn" || fail "it was compiled, but cannot be imported (line above)"
echo "inplace-abn $VERSION is built"
