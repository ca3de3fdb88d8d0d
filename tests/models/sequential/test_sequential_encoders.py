"""What every encoder promises: causality, padding without effect, one pass for all prefixes, reload."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from latentrec.models.sequential import BLOCKS, ENCODERS, build_encoder, pad_right
from latentrec.models.sequential.layers import attention_with_dropout, dropout
from tests.errors import refused

N_ITEMS, LENGTH = 20, 8
KINDS = [(name, {}) for name in sorted(ENCODERS)] + [("lares", {"block": block}) for block in BLOCKS]


def make(name, extra=None, seed=0):
    torch.manual_seed(seed)
    shape = {"n_items": N_ITEMS, "hidden_size": 16, "max_length": LENGTH, **(extra or {})}
    encoder = build_encoder(name, shape).eval()
    with torch.no_grad():  # away from the small initial weights, so that leaks would show
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        encoder.item_embedding.weight[N_ITEMS] = 0
    return encoder


@pytest.mark.parametrize(("name", "extra"), KINDS)
@torch.no_grad()
def test_no_position_sees_later_items(name, extra):
    encoder = make(name, extra)
    items = torch.randint(N_ITEMS, (3, LENGTH))
    changed = items.clone()
    changed[:, 5:] = (changed[:, 5:] + 1 + torch.randint(N_ITEMS - 1, (3, LENGTH - 5))) % N_ITEMS
    before, after = encoder.states(items), encoder.states(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=1e-4, atol=1e-5)
    assert (before[:, 5:] - after[:, 5:]).abs().amax(dim=(0, 2)).min() > 1e-3


@pytest.mark.parametrize(("name", "extra"), KINDS)
@torch.no_grad()
def test_one_pass_gives_the_state_of_every_prefix_whatever_the_padding(name, extra):
    encoder = make(name, extra)
    history = np.random.default_rng(0).integers(N_ITEMS, size=LENGTH)
    states = encoder.states(torch.from_numpy(history)[None])[0]
    prefixes = [history[:length] for length in range(1, LENGTH + 1)]
    items, lengths = pad_right(prefixes, N_ITEMS, LENGTH)
    torch.testing.assert_close(encoder.last_states(items, lengths), states, rtol=1e-4, atol=1e-5)
    alone, length = pad_right([prefixes[2]], N_ITEMS, LENGTH)
    torch.testing.assert_close(encoder.last_states(alone, length)[0], states[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "extra"), KINDS)
@torch.no_grad()
def test_architecture_rebuilds_the_same_module(name, extra):
    encoder = make(name, extra)
    twin = build_encoder(name, encoder.architecture()).eval()
    twin.load_state_dict(encoder.state_dict())
    items = torch.randint(N_ITEMS, (2, LENGTH))
    assert torch.equal(twin.states(items), encoder.states(items))


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_order_of_the_history_matters(name):
    encoder = make(name)
    items = torch.tensor([[1, 2, 3, 4], [4, 3, 1, 2]])
    states = encoder.last_states(items, torch.tensor([4, 4]))
    assert (states[0] - states[1]).abs().max() > 1e-3


def test_cosine_scores_do_not_grow_with_the_vectors():
    encoder = make("sasrec", {"scoring": "cosine"})
    states = torch.randn(3, 16)
    torch.testing.assert_close(encoder.score(5 * states), encoder.score(states))
    assert encoder.score(states).abs().max() <= 16.0 + 1e-4


def test_an_unknown_encoder_or_argument_is_named():
    with refused("config.unknown_name", "bert4rec"):
        build_encoder("bert4rec", {})
    with refused("config.invalid", "sasrec", "'wide'"):
        build_encoder("sasrec", {"n_items": 3, "wide": 1})
    with refused("config.invalid", "hidden_size 15", "heads 2"):
        build_encoder("sasrec", {"n_items": 3, "hidden_size": 15})


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    ones = torch.ones(400_001)
    dropped = dropout(ones, share, training=True)
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=5e-3)
    assert dropped.mean().item() == pytest.approx(1.0, abs=5e-3)
    assert dropout(ones, share, training=False) is ones


def test_attention_with_dropout_agrees_with_torch_where_nothing_is_dropped():
    q, k, v = torch.randn(3, 2, 2, 7, 8)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attention_with_dropout(q, k, v, 0.0), expected, rtol=1e-4, atol=1e-5)


def test_hidden_and_attention_dropout_are_apart():
    encoder = make("sasrec", {"hidden_dropout": 0.0, "attention_dropout": 0.5}).train()
    items = torch.randint(N_ITEMS, (4, LENGTH))
    assert not torch.equal(encoder.states(items), encoder.states(items))
    still = make("sasrec", {"hidden_dropout": 0.0, "attention_dropout": 0.0}).train()
    assert torch.equal(still.states(items), still.states(items))
