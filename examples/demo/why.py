"""Why an item was recommended: what in the history is nearest to it, and what LatentRATT attended to.

Both are readings of the model's own numbers and no proof of a cause: the nearest item of the history is the
one whose vector points most nearly the same way; an attention weight says where a latent was read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def item_vectors(recommender: Any) -> np.ndarray | None:
    """Unit vectors (n_items, d) of today's catalogue in the model's own space; ``None`` where it has none.

    An ID-based encoder has one embedding an item; a title model gets the mean embedding of the title's
    tokens. Items that an ID-based model has never seen are zero.
    """
    if hasattr(recommender, "encoder"):
        weights = recommender.encoder.item_embedding.weight.detach().float().cpu().numpy()
        trained = recommender.trained_ids
        vectors = np.where(trained[:, None] >= 0, weights[np.maximum(trained, 0)], 0.0)
    elif hasattr(recommender, "prompt"):
        lines = recommender.prompt.history_lines
        titles = recommender.catalogue.unique_titles
        embed = recommender.model.backbone.embed
        with torch.no_grad():
            means = [
                embed(torch.tensor(lines([title])[0]).to(recommender.device)).mean(0) for title in titles
            ]
        vectors = torch.stack(means).float().cpu().numpy()[recommender.catalogue.title_ids]
    else:
        return None
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def nearest(
    vectors: np.ndarray, item: int, history: Sequence[int], count: int = 2
) -> list[tuple[int, float]]:
    """The items of a history that are nearest to ``item``, with their cosine, nearest first."""
    seen = list(dict.fromkeys(history))
    cosines = vectors[seen] @ vectors[item]
    return [(seen[place], float(cosines[place])) for place in np.argsort(-cosines, kind="stable")[:count]]


@torch.no_grad()
def latent_attention(recommender: Any, history: Sequence[int]) -> list[tuple[str, float]] | None:
    """Share of the first latent's attention on each title of the prompt, and on the words around them.

    Returns:
        (title or ``"instruction"``, share) in the order of the prompt; shares sum to 1. ``None`` for a model
        without LatentRATT.
    """
    model = getattr(recommender, "model", None)
    if model is None or getattr(model, "latent_ratt", None) is None:
        return None
    prompt, catalogue = recommender.prompt, recommender.catalogue
    titles = [catalogue.titles[item] for item in history]
    lines = prompt.history_lines(titles)
    ids = torch.tensor([prompt.encode_history(titles)], device=recommender.device)
    weights = model.latent_attention(model.encode_prompt(ids))[0, 0].float().cpu().numpy()
    begin = len(prompt.prefix_ids)
    shares = []
    for title, line in zip(titles[-len(lines) :], lines, strict=True):
        shares.append((title, float(weights[begin : begin + len(line)].sum())))
        begin += len(line)
    around = float(weights[: len(prompt.prefix_ids)].sum() + weights[begin:].sum())
    return [("instruction", around), *shares]
