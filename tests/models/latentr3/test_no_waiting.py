"""A training step of stage 1 asks nothing of the device: on one whose values cannot be read it still runs."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from latentrec.models.latentr3 import LatentR3Model
from latentrec.training.latentr3.collator import answer_log_probs
from tests.models.latentr3.test_equivalence import tiny_backbone

ROWS, WIDTH, BRANCHES, LENGTH = 3, 20, 4, 6


@pytest.fixture
def fake_cuda():
    """Tensors of shapes, types and a device, without values."""
    with FakeTensorMode():
        try:
            torch.empty(1, device="cuda")
        except (RuntimeError, AssertionError) as error:
            pytest.skip(f"this torch has no fake CUDA device: {error}")
        yield


def batch(packed: bool) -> dict[str, torch.Tensor]:
    ids = lambda *shape: torch.empty(*shape, dtype=torch.long, device="cuda")  # noqa: E731
    indices = {"prompt_index": ids(40), "answer_index": ids(50), "later_answer_index": ids(40)}
    if not packed:
        both = {"input_ids": ids(ROWS, WIDTH), "attention_mask": ids(ROWS, WIDTH)}
        return both | {"labels": ids(ROWS, 1, LENGTH)} | indices
    rows = {name: ids(ROWS, WIDTH) for name in ("input_ids", "positions", "segments")}
    branches = {name: ids(ROWS, BRANCHES) for name in ("trunk_lengths", "last", "lengths")}
    return rows | branches | {"labels": ids(ROWS, BRANCHES, LENGTH)} | indices


@pytest.mark.parametrize(("packed", "n_latents"), [(True, 0), (True, 1), (True, 2), (False, 1)])
def test_step_does_not_wait_for_the_device(fake_cuda, packed, n_latents):
    with torch.device("cuda"):
        model = LatentR3Model(tiny_backbone("llama"), n_latents=n_latents)
    with torch.no_grad():
        log_probs = answer_log_probs(model, batch(packed))
    assert log_probs.device.type == "cuda"
    with pytest.raises(DataDependentOutputException):  # what waiting would look like
        bool(log_probs.sum() > 0)
