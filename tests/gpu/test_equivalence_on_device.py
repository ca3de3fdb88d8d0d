"""The equivalences of the shared-prefix passes and of the search, on the device; and in bf16."""

import pytest
import torch

from latentrec.catalog import TokenTrie
from latentrec.decoding.beam_search import ConstrainedBeamSearch
from latentrec.decoding.exact_ranking import score_every_title
from latentrec.decoding.trie_tensors import TrieTensors
from tests.decoding.tiny import EOS, started, tiny_model
from tests.models.latentr3.test_equivalence import *  # noqa: F403  (its tests are run here too)
from tests.models.latentr3.test_equivalence import (
    examples,
    gradients,
    make_model,
    mean_loss,
    plain_answer_log_probs,
    shared_loss,
)

# Another kernel serves another shape there, so equal to the last bit is more than a GPU gives.
del test_without_latents_the_plain_backbone_is_reproduced_bit_for_bit  # noqa: F821


@pytest.mark.parametrize("n_latents", [0, 1, 2])
def test_bf16_loss_and_gradients_are_those_of_the_double_forward(on_device, n_latents):
    model = make_model(n_latents=n_latents)
    prompts, answers = examples()
    with torch.autocast(on_device.type, torch.bfloat16):
        plain = torch.cat(
            [plain_answer_log_probs(model, p, a) for p, a in zip(prompts, answers, strict=True)]
        )
        expected = mean_loss(plain.float(), len(plain))
    theirs = gradients(model, expected)
    with torch.autocast(on_device.type, torch.bfloat16):
        loss = shared_loss(model, prompts, answers, "right")
    ours = gradients(model, loss)
    assert abs(float(loss - expected)) <= 2e-2 * float(expected)
    one = torch.cat([ours[name].flatten() for name in theirs])
    other = torch.cat([theirs[name].flatten() for name in theirs])
    assert float((one - other).norm() / other.norm()) <= 5e-2


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beams_and_exact_ranking_agree_with_the_search_on_a_cpu(on_device, penalty):
    titles = [[2 + (i * j) % 7 for j in range(1, 2 + i % 6)] + [EOS] for i in range(1, 60)]
    prompts = [[5, 9, 4, 11], [7, 3], [12, 6, 8, 10, 2]]

    def leaves(device):
        with torch.device(device):
            model = tiny_model(scale=3.0).to(device)
            trie = TrieTensors(TokenTrie.build(titles), device)
            start = started(model, prompts)
            beams = ConstrainedBeamSearch(trie, beam_width=10, length_penalty=penalty).search(model, start)
            exact = score_every_title(model, start, trie, length_penalty=penalty)
        return beams, exact

    beams, exact = leaves(on_device.type)
    assert torch.equal(beams.leaves[:, 0], exact.leaves[:, 0])
    assert torch.allclose(beams.scores[:, 0], exact.scores[:, 0], atol=1e-4)
    everything = exact.scores.gather(1, exact.leaves.argsort(dim=1))  # by leaf
    assert torch.allclose(beams.scores, everything.gather(1, beams.leaves), atol=1e-4)
