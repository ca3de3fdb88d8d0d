"""Compiled norms and feed-forward: the same losses and gradients, and no new program for every length."""

import pytest
import torch

from tests.models.latentr3.test_equivalence import examples, gradients, make_model, shared_loss

LENGTHS = ((9, 4, 12), (5, 7, 3), (20, 11, 6), (13, 30, 2), (8, 8, 8))


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo
    torch._dynamo.reset()


def test_compiled_layers_give_the_same_and_lengths_do_not_compile_again(dynamo):
    plain, compiled = make_model("qwen2"), make_model("qwen2")
    compiled.backbone.compile_layers("eager")
    programs = []
    for seed, lengths in enumerate(LENGTHS):
        prompts, answers = examples(seed, prompts=lengths)
        losses = [shared_loss(model, prompts, answers, "right") for model in (plain, compiled)]
        assert abs(float((losses[0] - losses[1]).detach())) <= 1e-5
        expected, found = (
            gradients(model, loss) for model, loss in zip((plain, compiled), losses, strict=True)
        )
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)
        programs.append(dynamo.utils.counters["stats"]["unique_graphs"])
    assert programs[0] > 0
    assert programs[-1] == programs[1]  # after the second length at the latest nothing is compiled
