"""The output layer computed for some tokens only: the same where no other token counts."""

import pytest
import torch

from latentrec.models.latentr3.allowed_tokens import AllowedTokens
from tests.models.latentr3.test_equivalence import FAMILIES, V, make_model

USED = torch.tensor([1, 3, 4, 10, 11, 40, 96])


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_the_used_tokens_are_those_of_the_whole_layer(family):
    backbone = make_model(family).backbone
    hidden = torch.randn(3, 5, 32)
    whole = backbone.logits(hidden)
    with backbone.restricted_to(USED):
        some = backbone.logits(hidden)
    assert some.shape == whole.shape
    torch.testing.assert_close(some[..., USED], whole[..., USED])
    others = torch.ones(V, dtype=torch.bool)
    others[USED] = False
    assert (some[..., others] == torch.finfo(torch.float32).min).all()
    assert backbone.logits(hidden).equal(whole)  # over with the block


def test_loss_and_gradients_among_used_tokens_are_the_same():
    """Probabilities among some of the used tokens, as of a catalogue's titles."""
    model = make_model("qwen2")
    hidden = torch.randn(4, 32)
    labels = torch.tensor([3, 96, 40, 1])
    choices = AllowedTokens(torch.tensor([3, 4, 10, 96, 1, 40, 11, 1]), torch.tensor([0, 3, 4, 7, 8]))
    found = []
    for restricted in (False, True):
        model.zero_grad()
        read = hidden.clone().requires_grad_()
        if restricted:
            with model.backbone.restricted_to(USED):
                losses = model.backbone.token_log_probs(read, labels, choices)
        else:
            losses = model.backbone.token_log_probs(read, labels, choices)
        losses.sum().backward()
        weight = model.backbone.model.get_output_embeddings().weight.grad
        found.append((losses.detach(), read.grad, weight.clone()))
    for whole, some in zip(*found, strict=True):
        torch.testing.assert_close(some, whole, atol=1e-6, rtol=1e-5)


def test_weights_that_learn_meanwhile_are_read_anew():
    backbone = make_model("llama").backbone
    hidden = torch.randn(2, 32)
    with backbone.restricted_to(USED):
        before = backbone.logits(hidden)[..., USED]
        with torch.no_grad():
            backbone.model.get_output_embeddings().weight.mul_(2)
        after = backbone.logits(hidden)[..., USED]
    torch.testing.assert_close(after, 2 * before)


def test_softmax_over_the_vocabulary_becomes_one_over_the_used_tokens():
    backbone = make_model("qwen2").backbone
    hidden, labels = torch.randn(3, 32), torch.tensor([3, 10, 96])
    expected = (
        backbone.logits(hidden)[:, USED].log_softmax(-1).gather(1, torch.searchsorted(USED, labels)[:, None])
    )
    with backbone.restricted_to(USED):
        torch.testing.assert_close(backbone.token_log_probs(hidden, labels), expected[:, 0])
