"""What a sampled group of titles tells of the arcsin objective's gradient, and what all titles together tell.

GRPO as it is usually run draws G titles of the policy for each prompt. A group without the true title, or of
nothing else, has no gradient at all. Here every title's probability is known (each is scored), so the share
of groups that have one is exact, and sampled groups' gradients are compared with the expectation that
``title-objective --objective arcsin`` takes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentrec.catalog import Catalogue, TokenTrie
from latentrec.data import sample_at_most
from latentrec.decoding.exact_ranking import score_every_title
from latentrec.decoding.title_recommender import title_sequences
from latentrec.decoding.trie_tensors import TrieTensors
from latentrec.models.latentr3 import IGNORED, LatentR3Model, load_latentr3
from latentrec.training.latentr3.collator import NextItemTokens, plain_batch
from latentrec.training.latentr3.text_model import open_text_dataset
from latentrec.training.latentr3.title_weights import gradient_weight

GROUPS = (8, 64, 512)
PROMPTS_AT_ONCE = 16


@dataclass(frozen=True)
class Groups:
    """One group size at one model.

    Attributes:
        model: its label.
        titles: of the catalogue.
        prompts: training prompts that were looked at.
        mean_probability: of the true title, mean over prompts.
        group: G.
        informative: share of groups whose rewards differ, in expectation.
        cosine: of a batch's sampled gradient with the expected one, mean over draws; 0 where there is none.
    """

    model: str
    titles: int
    prompts: int
    mean_probability: float
    group: int
    informative: float
    cosine: float


def study(
    dataset: Path, model: Path, *, name: str, prompts: int = 64, draws: int = 4, seed: int = 1
) -> list[dict[str, Any]]:
    """Compare groups of each size in :data:`GROUPS` with the expectation, on a seeded draw of prompts.

    Args:
        dataset, model: a dataset and a stage-1 model on it.
        name: label for the table.
        prompts: of one batch.
        draws: of every group.
        seed: of prompts and titles.
    """
    data, loaded = open_text_dataset(dataset), load_latentr3(model)
    policy = loaded.model.eval()
    samples = data.split("train")
    tokens = NextItemTokens(
        samples.subset(sample_at_most(len(samples), prompts, seed)), data.titles, loaded.prompt
    )
    catalogue = Catalogue.from_dataset(data)
    sequences = title_sequences(catalogue, loaded.prompt)
    trie = TrieTensors(TokenTrie.build(sequences))
    log_policy = _log_policy(policy, tokens, trie)
    targets = torch.from_numpy(catalogue.title_ids[tokens.samples.targets]).long()
    log_p = log_policy.gather(1, targets[:, None])[:, 0]
    chosen = [(row, [int(title)]) for row, title in enumerate(targets)]
    weights = [w[None] for w in gradient_weight(log_p, "arcsin")]
    expected = _gradient(policy, tokens, sequences, trie, chosen, weights)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for group in GROUPS:
        cosines = []
        for _ in range(draws):
            drawn = torch.multinomial(log_policy.exp(), group, replacement=True, generator=generator)
            sampled = _sampled_gradient(policy, tokens, sequences, trie, drawn, targets)
            cosines.append(float(torch.nn.functional.cosine_similarity(sampled, expected, dim=0)))
        p = log_p.double().exp()
        informative = (1 - (1 - p) ** group - p**group).mean()
        found.append(
            Groups(
                name,
                catalogue.n_titles,
                len(tokens),
                float(p.mean()),
                group,
                float(informative),
                float(np.mean(cosines)),
            )
        )
    return [asdict(one) for one in found]


def _log_policy(model: LatentR3Model, tokens: NextItemTokens, trie: TrieTensors) -> Tensor:
    """log π of every title after every prompt, (prompts, titles)."""
    leaf_of_title = torch.from_numpy(trie.trie.leaf_of_sequence()).long()
    rows = []
    for begin in range(0, len(tokens), PROMPTS_AT_ONCE):
        batch = plain_batch(tokens, range(begin, min(begin + PROMPTS_AT_ONCE, len(tokens))))
        start = model.start_decoding(batch["input_ids"], batch["attention_mask"])
        ranked = score_every_title(model, start, trie, length_penalty=0.0, renormalized=True)
        by_leaf = torch.empty_like(ranked.scores).scatter(1, ranked.leaves, ranked.scores)
        rows.append(by_leaf[:, leaf_of_title])
    log_policy = torch.cat(rows)
    assert torch.allclose(log_policy.exp().sum(dim=1), torch.ones(len(tokens)), atol=1e-3)
    return log_policy


def _sampled_gradient(
    model: LatentR3Model,
    tokens: NextItemTokens,
    sequences: Any,
    trie: TrieTensors,
    drawn: Tensor,
    targets: Tensor,
) -> Tensor:
    """GRPO's gradient from the titles that were drawn, (prompts, G); each distinct title is read once."""
    chosen, weights = [], []
    for row, (titles, target) in enumerate(zip(drawn, targets, strict=True)):
        rewards = (titles == target).float()
        if rewards.std() == 0:
            continue
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        distinct, which = titles.unique(return_inverse=True)
        chosen.append((row, distinct.tolist()))
        weights.append(torch.zeros(len(distinct)).index_add(0, which, advantages) / len(titles))
    return _gradient(model, tokens, sequences, trie, chosen, weights)


def _gradient(
    model: LatentR3Model,
    tokens: NextItemTokens,
    sequences: Any,
    trie: TrieTensors,
    chosen: list[tuple[int, list[int]]],
    weights: list[Tensor],
) -> Tensor:
    """Σ over rows and their titles of weight · ∇log π(title), flat over all parameters."""
    model.zero_grad(set_to_none=True)
    for (row, titles), weight in zip(chosen, weights, strict=True):
        batch = plain_batch(tokens, [row])
        answers = [torch.as_tensor(sequences[title]) for title in titles]
        labels = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=IGNORED)
        state = model.encode_prompt(batch["input_ids"], batch["attention_mask"])
        rollout = model.roll_out(state, copies=len(titles))
        log_probs = model.answer_log_probs(state, rollout, labels[None], allowed_tokens=trie.choices)
        (log_probs.sum(dim=-1)[0] * weight).sum().backward()
    zero = torch.zeros(())
    return torch.cat(
        [(p.grad if p.grad is not None else zero.expand_as(p)).flatten() for p in model.parameters()]
    )
