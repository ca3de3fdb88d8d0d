"""The reasons that the demo shows are the model's own numbers."""

import numpy as np
import torch

from examples.demo.why import nearest
from latentrec.models.latentr3.latent_ratt import LatentRATT
from tests.errors import refused


def test_nearest_items_of_the_history_come_nearest_first_and_once():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0]], float)
    assert nearest(vectors, 2, [0, 1, 1, 0]) == [(1, 0.8), (0, 0.6)]
    assert nearest(vectors, 3, [0, 1], count=1) == [(0, 1.0)]


def test_attention_weights_make_the_latent():
    torch.manual_seed(0)
    attention, rows, width = LatentRATT(8), 2, 5
    hidden = torch.randn(rows, width, 8)
    positions = torch.arange(width).expand(rows, width)
    visible = torch.ones(rows, 1, width, dtype=torch.bool)
    visible[1, 0, 3:] = False
    last = visible.sum(-1) - 1
    query = hidden.gather(1, last[..., None].expand(-1, -1, 8))
    keys = attention.keys(hidden, positions)
    weights = attention.attention(query, last, keys, visible)
    assert torch.allclose(weights.sum(-1), torch.ones(rows, 1))
    assert (weights[1, 0, 3:] == 0).all()
    made = attention(query, last, keys, hidden, visible)
    assert torch.allclose(made, torch.einsum("bmt,btd->bmd", weights, attention.v_proj(hidden)), atol=1e-5)


def test_a_model_without_latents_says_so():
    from latentrec.models.latentr3.model import LatentR3Model

    model = LatentR3Model.__new__(LatentR3Model)
    torch.nn.Module.__init__(model)
    model.latent_ratt = None
    with refused("model.no_latent_ratt"):
        model.latent_attention(None)
