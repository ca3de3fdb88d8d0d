"""Title probabilities among the catalogue: in training what decoding searches by, and they sum to one."""

import pytest
import torch

from latentrec.catalog import TokenTrie
from latentrec.data import Dataset
from latentrec.decoding.exact_ranking import score_every_title
from latentrec.decoding.trie_tensors import TrieTensors
from latentrec.models import read_model
from latentrec.models.latentr3 import IGNORED, backbone, load_latentr3
from latentrec.training.latentr3.collator import NextItemTokens
from latentrec.training.latentr3.likelihood import CatalogueTokens
from latentrec.training.latentr3.text_model import validation_figures
from tests.decoding.tiny import EOS, plain_scores, tiny_model
from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.latentr3_runs import grpo, sft

PROMPT = [3, 9, 4, 7]
TITLES = [[5, 6, EOS], [5, 6, 7, 8, EOS], [5, EOS], [9, 3, EOS], [EOS], [9, 4, 4, 4, EOS]]


def scored(model, prompts, titles):
    """Σ log p, among the titles of ``TITLES``, of each title after each prompt; (prompts, titles)."""
    allowed_tokens = TrieTensors(TokenTrie.build(TITLES)).choices
    length = max(map(len, titles))
    labels = torch.tensor([row + [IGNORED] * (length - len(row)) for row in titles])
    if model.n_latents == 0:
        rows = [torch.tensor(prompt) for prompt in prompts for _ in titles]
        plain = model.plain_log_probs(rows, labels.repeat(len(prompts), 1), allowed_tokens)
        return plain.sum(dim=-1).view(len(prompts), len(titles))
    state = model.encode_prompt(torch.tensor(prompts))
    rollout = model.roll_out(state, copies=len(titles))
    labels_BML = labels.expand(len(prompts), -1, -1)
    return model.answer_log_probs(state, rollout, labels_BML, allowed_tokens=allowed_tokens).sum(dim=-1)


@pytest.fixture(params=[0, 1, 2], ids=lambda n: f"N={n}")
def model(request):
    return tiny_model(n_latents=request.param)


@pytest.mark.parametrize("logits_at_once", [2**26, 7 * 32])
def test_probabilities_of_all_titles_sum_to_one_and_are_those_of_decoding(model, logits_at_once, monkeypatch):
    monkeypatch.setattr(backbone, "LOGIT_ELEMENTS_AT_ONCE", logits_at_once)
    prompts = [PROMPT, PROMPT[::-1]]
    ours = scored(model, prompts, TITLES)
    torch.testing.assert_close(ours.exp().sum(dim=1), torch.ones(2))
    trie = TokenTrie.build(TITLES)
    leaf_of_title = trie.leaf_of_sequence()
    for row, prompt in enumerate(prompts):
        by_hand = torch.tensor(plain_scores(model, prompt, TITLES, among_themselves=True))
        torch.testing.assert_close(ours[row], by_hand, atol=1e-5, rtol=1e-5)
    start = model.start_decoding(torch.tensor(prompts))
    decoded = score_every_title(model, start, TrieTensors(trie), length_penalty=0.0, renormalized=True)
    for row in range(2):
        by_leaf = dict(zip(decoded.leaves[row].tolist(), decoded.scores[row].tolist(), strict=True))
        expected = torch.tensor([by_leaf[int(leaf)] for leaf in leaf_of_title])
        torch.testing.assert_close(ours[row], expected, atol=1e-5, rtol=1e-5)


def test_gradient_is_finite_and_of_what_was_summed(model):
    loss = -scored(model, [PROMPT], TITLES[:3]).sum()
    loss.backward()
    weight = model.backbone.model.get_input_embeddings().weight
    assert torch.isfinite(weight.grad).all()
    direction = weight.grad / weight.grad.norm()
    step = 1e-3
    with torch.no_grad():
        weight += step * direction
        up = -scored(model, [PROMPT], TITLES[:3]).sum()
        weight -= 2 * step * direction
        down = -scored(model, [PROMPT], TITLES[:3]).sum()
    assert float((up - down) / (2 * step)) == pytest.approx(float(weight.grad.norm()), rel=2e-2)


def test_a_title_outside_the_catalogue_has_no_probability(model):
    with pytest.raises(ValueError, match=r"\b2\b"):
        scored(model, [PROMPT], [[9, 9, EOS]])


def test_both_stages_train_by_it_and_stage_2_follows_stage_1(tmp_path):
    dataset = write_dataset(tmp_path / "dataset", n_users=40, n_items=24, length=(4, 9))
    options = {"num_train_epochs": 1, "likelihood": "catalogue"}
    sft(dataset, tmp_path / "one", **options)
    sft(dataset, tmp_path / "unpacked", packing="none", **options)
    for n_latents in (0, 2):
        sft(dataset, tmp_path / f"n{n_latents}", reasoning_tokens=n_latents, **options)
    for estimator in ("gaussian", "target_likelihood"):
        output = tmp_path / estimator
        grpo(dataset, tmp_path / "one", output, estimator=estimator, max_steps=4, ranking_samples=40)
        info, _ = read_model(output)
        assert info.config["likelihood"] == "catalogue"
        loaded, data = load_latentr3(output), Dataset(dataset)
        tokens = NextItemTokens(data.split("valid"), data.titles, loaded.prompt)
        by_vocabulary = validation_figures(loaded.model, tokens)["loss"]
        tokens.allowed_tokens = CatalogueTokens(data, loaded.prompt)
        assert info.metrics["loss"] == pytest.approx(
            validation_figures(loaded.model, tokens)["loss"], abs=1e-4
        )
        assert info.metrics["loss"] < 0.8 * by_vocabulary
