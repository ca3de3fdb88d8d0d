"""HR and NDCG by the real decoder, while a title model trains: for validation and as a reward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from latentrec.catalog import Catalogue, TokenTrie
from latentrec.data import Dataset, sample_at_most
from latentrec.decoding.beam_search import ConstrainedBeamSearch
from latentrec.decoding.options import DecodingOptions
from latentrec.decoding.title_recommender import SCORING, TitleRecommender, title_sequences
from latentrec.decoding.trie_tensors import TrieTensors
from latentrec.metrics.ranking import ndcg_at_k, rank_of_target, ranking_figures
from latentrec.models.latentr3 import LatentR3Model, PromptState
from latentrec.prompts import NextItemPrompt

K = 10


def ranking_measure(
    model: LatentR3Model,
    prompt: NextItemPrompt,
    data: Dataset,
    limit: int,
    seed: int,
    decoding: str = "catalogue",
) -> Callable[[], dict[str, float]] | None:
    """A function that ranks ``limit`` validation samples with the model as it stands; ``None`` for 0.

    It gives ``hr_at_10`` and ``ndcg_at_10`` at title level, as evaluation does under ``decoding``.
    """
    if not limit:
        return None
    catalogue = Catalogue.from_dataset(data)
    valid = data.split("valid")
    samples = valid.subset(sample_at_most(len(valid), limit, seed))
    targets = catalogue.title_ids[samples.targets]
    recommender: TitleRecommender | None = None

    def rank() -> dict[str, float]:
        nonlocal recommender
        if recommender is None:  # the catalogue is tokenized once, when the model is where it will stay
            options = DecodingOptions(decoding=decoding, beam_width=K)
            recommender = TitleRecommender(model, prompt, catalogue, options=options)
        ranks = []
        for begin in range(0, len(samples), 64):
            rows = range(begin, min(begin + 64, len(samples)))
            prompts = [
                prompt.encode_history([data.titles[item] for item in samples.history(row)]) for row in rows
            ]
            found = recommender.search(prompts, [samples.history(row) for row in rows])
            leaves = found.leaves.cpu().numpy()
            wanted = recommender.trie.trie.leaf_of_sequence()[targets[rows.start : rows.stop]]
            ranks.append(rank_of_target(leaves, wanted))
        return ranking_figures(np.concatenate(ranks), K)

    return rank


class NdcgReward:
    """NDCG@10 of the true title when each noised latent is decoded over the catalogue: a costly reward."""

    def __init__(
        self, model: LatentR3Model, prompt: NextItemPrompt, data: Dataset, decoding: str = "catalogue"
    ):
        """Tokenize the catalogue; titles are scored as under ``decoding``."""
        self._model = model
        catalogue = Catalogue.from_dataset(data)
        trie = TokenTrie.build(title_sequences(catalogue, prompt))
        self._leaf_of_item = trie.leaf_of_sequence()[catalogue.title_ids]
        self._search = ConstrainedBeamSearch(
            TrieTensors(trie, model.device), beam_width=K, **SCORING[decoding]
        )

    @torch.no_grad()
    def __call__(self, state: PromptState, actions_PKND: Tensor, target_items: np.ndarray) -> Tensor:
        """Reward of each copy, (P, K)."""
        prompts, copies = actions_PKND.shape[:2]
        rows = torch.arange(prompts, device=actions_PKND.device).repeat_interleave(copies)
        start = self._model.begin_answer(state.rows(rows), latents_BND=actions_PKND.flatten(0, 1))
        leaves = self._search.search(self._model, start).leaves.cpu().numpy()
        ranks = rank_of_target(leaves, np.repeat(self._leaf_of_item[target_items], copies))
        return torch.from_numpy(ndcg_at_k(ranks, K)).float().view(prompts, copies).to(actions_PKND.device)
