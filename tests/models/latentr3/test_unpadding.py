"""A pass that leaves padding out gives what a pass that computes it gives, wherever there is a token."""

import json

import pytest
import torch

from latentrec.models.latentr3 import IGNORED
from latentrec.models.latentr3.unpadding import ATTENTION, UnpaddedRows
from tests.models.latentr3.test_equivalence import (
    examples,
    gradients,
    make_model,
    padded,
    relative_error,
    shared_loss,
)

SDPA_FAMILIES = ("qwen2", "qwen3", "llama", "gemma", "gemma3", "mistral")


@pytest.fixture(params=["by_row", "padded"])
def used(request, monkeypatch):
    """Either attention, on any amount of padding; a list that gets each pass's share of real positions."""
    shares = []

    def of(real_BS, index_n=None):
        if real_BS is None:
            return None
        shares.append(float(real_BS.float().mean()))
        return UnpaddedRows(real_BS, index_n, by_row=request.param == "by_row")

    monkeypatch.setattr(UnpaddedRows, "of", of)
    return shares


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("n_latents", [0, 1, 3])
@pytest.mark.parametrize("family", SDPA_FAMILIES)
def test_loss_and_gradients_without_padding(used, family, n_latents, side):
    model = make_model(family, n_latents)
    prompts, answers = examples()
    model.backbone.skips_padding = False
    whole = shared_loss(model, prompts, answers, side)
    expected = gradients(model, whole)
    assert not used
    model.backbone.skips_padding = True
    loss = shared_loss(model, prompts, answers, side)
    assert len(used) == 2  # prompts, answers
    assert max(used) < 0.9
    assert abs(float(loss.detach() - whole.detach())) <= 1e-6
    assert relative_error(gradients(model, loss), expected) <= 1e-5


def test_every_token_of_prompt_and_copies(used):
    model = make_model(n_latents=1)
    prompts, answers = examples(prompts=(9, 1, 12), answers=(1, 6, 3))
    ids, mask = padded(prompts, "right", 0)
    labels, _ = padded(answers, "right", IGNORED)
    noise = torch.randn(3, 4, 1, 32, generator=torch.Generator().manual_seed(5))

    def outcome(skip):
        model.backbone.skips_padding = skip
        state = model.encode_prompt(ids, mask)
        rollout = model.roll_out(state, copies=4, noise_BMND=noise)
        keys = torch.stack([key.transpose(1, 2)[mask.bool()] for key, _ in state.key_values.layers])
        log_probs = model.answer_log_probs(state, rollout, labels[:, None])
        return state.hidden_BTD[mask.bool()], keys, log_probs

    with torch.no_grad():
        for ours, theirs in zip(outcome(True), outcome(False), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
    assert len(used) == 2


def test_recomputed_layers_leave_padding_out_too(used):
    prompts, answers = examples()
    found = []
    for checkpointed in (False, True):
        model = make_model().train()
        if checkpointed:
            model.backbone.enable_checkpointing()
        found.append(gradients(model, shared_loss(model, prompts, answers, "right")))
    assert relative_error(*found) <= 1e-6


def test_padding_is_not_computed():
    model = make_model()
    prompts, answers = examples(prompts=(30, 4, 3), answers=(9, 2, 2))
    seen = []
    mlp = model.backbone.model.model.layers[0].mlp
    mlp.register_forward_hook(lambda module, args, output: seen.append(output.shape[:2].numel()))
    shared_loss(model, prompts, answers, "right")
    assert seen == [37, 13]


def test_little_padding_is_computed_and_so_is_a_blank_batch():
    assert UnpaddedRows.of(None) is None
    assert UnpaddedRows.of(torch.zeros(2, 8, dtype=torch.bool)) is None
    assert UnpaddedRows.of(torch.ones(2, 8, dtype=torch.bool)) is None
    assert UnpaddedRows.of(torch.arange(8) < torch.tensor([[8], [7]])) is None
    assert UnpaddedRows.of(torch.arange(8) < torch.tensor([[8], [4]])).counts == [8, 4]


def test_there_and_back():
    real = UnpaddedRows(torch.tensor([[True, True, False], [False, False, False], [False, True, True]]))
    x = torch.randn(3, 3, 2)
    flat = real.flat(x)
    assert torch.equal(flat[0], torch.stack([x[0, 0], x[0, 1], x[2, 1], x[2, 2]]))
    back = real.padded(flat)
    assert torch.equal(back[real.real_BS], x[real.real_BS])
    assert not back[~real.real_BS].any()


def test_the_plain_model_and_its_directory_do_not_change(tmp_path):
    model = make_model()
    lm = model.backbone.model
    assert lm.config._attn_implementation == ATTENTION
    ids, mask = padded(examples()[0], "left", 0)
    with torch.no_grad():
        ours = lm(input_ids=ids, attention_mask=mask).logits
        lm.set_attn_implementation("sdpa")
        theirs = lm(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(ours, theirs)
    lm.set_attn_implementation(ATTENTION)
    lm.save_pretrained(tmp_path)
    assert ATTENTION not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
