#!/bin/sh
# The same on a machine that has a GPU and PyTorch, and no network:
#   sh benchmarks/gpu/offline.sh fetch 3.12    here: what else is needed, for its Python, into .gpu/
#   sh benchmarks/gpu/offline.sh run FOLDER    there, with .gpu/ beside it: results into FOLDER
set -eu
cd "$(dirname "$0")/../.."

# What a machine with PyTorch, transformers' needs, pandas, scikit-learn and pytest may still lack.
NEEDED="annotated-types bitsandbytes pandas peft pydantic pydantic-core ruamel.yaml
  regex transformers typing-extensions typing-inspection"

fetch() {
  pinned=$(for name in $NEEDED; do grep -i "^$name==" requirements-dev.lock | cut -d ' ' -f 1; done)
  rm -rf .gpu
  for glibc in 2_28 2_24 2_17; do platforms="${platforms-} --platform manylinux_$glibc""_x86_64"; done
  # shellcheck disable=SC2086
  python -m pip download --quiet --no-deps --only-binary=:all: --python-version "$1" \
    --implementation cp $platforms --platform manylinux2014_x86_64 --dest .gpu $pinned
  # Of bitsandbytes' libraries, one for each CUDA, 13.0's and the CPU's are enough.
  mkdir .gpu/unpacked
  python -m zipfile -e .gpu/bitsandbytes-*.whl .gpu/unpacked
  rm .gpu/bitsandbytes-*.whl
  find .gpu/unpacked -name "libbitsandbytes_*" ! -name "*_cuda130.so" ! -name "*_cpu.so" -delete
  du -sh .gpu
}

run() {
  site=$(mktemp -d)
  python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site" .gpu/*.whl
  PYTHONPATH="$PWD/src:$site:$PWD/.gpu/unpacked" LORA_COMPARE_TRACKING=off PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 python3 -m benchmarks.gpu run --output "$1/gpu.json"
}

"$@"
