"""Tests that run on a CUDA device, skipped where there is none.

``LATENTREC_GPU_TESTS=cpu`` runs them on the CPU, so that they can be rehearsed.
"""

import os

import pytest
import torch

DEVICE = os.environ.get("LATENTREC_GPU_TESTS", "cuda")


def pytest_collection_modifyitems(items):
    """Every test of this folder is a ``gpu`` test."""
    for item in items:
        if "tests/gpu/" in str(item.path).replace(os.sep, "/"):
            item.add_marker("gpu")
            if DEVICE == "cuda" and not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(autouse=True)
def on_device(monkeypatch):
    """Tensors and generators are made on the device, so that a test written for the CPU runs there."""
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device=DEVICE: generator(device))
    torch.set_default_device(DEVICE)
    yield torch.device(DEVICE)
    torch.set_default_device(None)
