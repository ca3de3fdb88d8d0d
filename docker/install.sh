#!/bin/sh
# usage: install.sh REQUIREMENTS [TORCH_VERSION cpu|cuda]
# With cpu, takes CUDA out of a torch that was built with it (without_cuda.py says how), and tries what is left.
# Installs locked requirements into /venv with the pip of /builder, so that the final image carries no pip.
set -eu
requirements=$1 torch=${2:-} variant=${3:-}
if [ -f /run/secrets/pip_conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip_conf; fi
if [ -f /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi
pip() { /builder/bin/python -m pip --python /venv/bin/python "$@"; }
pip install --no-deps --require-hashes -r "$requirements"
if [ -n "$torch" ]; then
    pip install "torch==$torch"
    TORCH=$torch VARIANT=$variant /venv/bin/python - <<'PYTHON'
import os

import torch

assert torch.__version__.split("+")[0] == os.environ["TORCH"], f"torch is {torch.__version__}"
if os.environ["VARIANT"] == "cuda":
    assert torch.version.cuda, f"torch {torch.__version__} was built without CUDA; check the builder's pip"
PYTHON
fi
if [ "$variant" = cpu ]; then
    /venv/bin/python /without_cuda/without_cuda.py \
        "$(/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    CUDA_VISIBLE_DEVICES=-1 /venv/bin/python - <<'PYTHON'
import torch
import transformers  # noqa: F401
import trl  # noqa: F401

assert not torch.cuda.is_available()
weights = torch.ones(3, 3, requires_grad=True)
torch.nn.functional.scaled_dot_product_attention(weights, weights, torch.linalg.inv(torch.eye(3))).sum().backward()
assert weights.grad is not None and torch.isfinite(weights.grad).all()
PYTHON
fi
# The compiled modules stay: under a read-only root no step could write them, and each would compile them anew.
