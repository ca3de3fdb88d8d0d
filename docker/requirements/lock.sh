#!/usr/bin/env bash
# Resolve every hash-locked requirements file from pyproject.toml's extras (needs uv on the PATH).
# torch and what only its CUDA build needs are left out: `make setup` and the Dockerfile install torch by
# name and version, so that a CPU wheel or a CUDA index of the machine's own pip configuration is used.
# Where pip is configured with indexes of its own, give them to uv through its environment (UV_INDEX…).
set -euo pipefail
cd "$(dirname "$0")/../.."

lock() { # lock NAME SOURCE... -- EXTRA...
    local name=$1 sources=() extras=()
    shift
    while [ "$1" != "--" ]; do sources+=("$1"); shift; done
    shift
    for extra in "$@"; do extras+=(--extra "$extra"); done
    uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate \
        --constraint docker/requirements/constraints.in \
        "${unsafe[@]}" "${extras[@]}" "${sources[@]}" -o "docker/requirements/$name.txt"
    echo "docker/requirements/$name.txt: $(grep -c '==' "docker/requirements/$name.txt") packages"
}

# Not locked: torch, and the packages that only its CUDA build draws in.
unsafe=()
for package in torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti \
    nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand \
    nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink \
    nvidia-nvshmem-cu13 nvidia-nvtx; do
    unsafe+=(--no-emit-package "$package")
done

lock dev pyproject.toml docker/requirements/dev.in -- data gcs train report tracking pipeline
lock data-prep pyproject.toml -- component data gcs report tracking-client
lock train pyproject.toml -- component data gcs train report tracking-client
lock register pyproject.toml -- component data gcs train report tracking
lock mlflow docker/requirements/mlflow.in --

# What `make demo`, `make docs` and the browser tests need beyond dev.txt, for environments on top of .venv.
overlay() { # overlay NAME EXTRA...
    local name=$1 extras=() pins
    shift
    for extra in "$@"; do extras+=(--extra "$extra"); done
    pins=$(mktemp)
    # gradio 6 wants pillow below 13; the environment on top holds its own copy.
    grep -E '^[a-zA-Z0-9._-]+==' docker/requirements/dev.txt | sed 's/ .*//' | grep -v '^pillow==' >"$pins"
    uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate \
        --constraint "$pins" "${extras[@]}" pyproject.toml |
        awk -v pins=docker/requirements/dev.txt '
            BEGIN { while ((getline line < pins) > 0) { split(line, word, " "); known[word[1]] = 1 } }
            /^[a-zA-Z0-9]/ { keep = !($1 in known) }
            keep' >"docker/requirements/$name.txt"
    rm -f "$pins"
    echo "docker/requirements/$name.txt: $(grep -c '==' "docker/requirements/$name.txt") packages beyond dev.txt"
}

overlay demo demo
overlay docs docs
overlay browser demo browser

# The lent GPU machine (make gpu-dry-run): what stands there and what travels, for its Python.
lent() { # lent NAME OPTIONS...
    local name=$1 pins
    shift
    pins=$(mktemp)
    grep -E '^[a-zA-Z0-9._-]+==' docker/requirements/dev.txt | sed 's/ .*//' |
        grep -vE '^(accelerate|huggingface-hub|numpy|safetensors|tokenizers|transformers|httpx|httpcore|urllib3|setuptools|sympy|triton|nvidia-.*|cuda-.*)==' >"$pins"
    uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
        --python-version 3.12 --python-platform x86_64-manylinux_2_28 --no-annotate \
        --constraint "$pins" "${unsafe[@]}" "$@" "docker/requirements/$name.in" -o "docker/requirements/$name.txt"
    rm -f "$pins"
    echo "docker/requirements/$name.txt: $(grep -c '==' "docker/requirements/$name.txt") packages"
}

lent gpu --no-emit-package pydantic --no-emit-package pydantic-core --no-emit-package annotated-types \
    --no-emit-package typing-inspection --no-emit-package setuptools --no-emit-package nvidia-cuda-cccl
lent gpu-carried --no-deps
