"""A title model as a recommender of items: prompt, think, search the trie, expand titles to their items."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from latentrec.catalog import Catalogue, TokenTrie
from latentrec.core import UserError
from latentrec.decoding.beam_search import BeamResult, ConstrainedBeamSearch
from latentrec.decoding.cuda_graphs import GraphedModel
from latentrec.decoding.d3 import D3TokenMass, leaf_mass
from latentrec.decoding.exact_ranking import score_every_title
from latentrec.decoding.options import EXACT, MIXED, DecodingOptions
from latentrec.decoding.trie_tensors import ExcludedLeaves, TrieTensors
from latentrec.models import Ranking

SCORING: dict[str, dict[str, Any]] = {
    "bigrec": {"length_penalty": 1.0},
    "d3": {"length_penalty": 0.0},
    "catalogue": {"length_penalty": 0.0, "renormalized": True},
    "d3-catalogue": {"length_penalty": 0.0, "renormalized": True},
}
"""Decoding → how a title's score is made of its tokens' (see :class:`ConstrainedBeamSearch`)."""
ELEMENTS_AT_ONCE = 2**26
USERS_AT_ONCE = 64

ItemLists = Sequence[Sequence[int] | np.ndarray]


class Assistant(Protocol):
    """What D3 needs of an ID-based model."""

    def item_logits(self, histories: ItemLists) -> np.ndarray:
        """float32 (B, n_items) over today's catalogue; −inf where the model cannot score."""
        ...


@dataclass
class Timings:
    """Seconds spent in each phase since the last reset."""

    seconds: dict[str, float] = field(default_factory=lambda: {"prefill": 0.0, "latent": 0.0, "decode": 0.0})

    def reset(self) -> None:
        """Clear the measured times."""
        for phase in self.seconds:
            self.seconds[phase] = 0.0

    @contextmanager
    def phase(self, name: str, device: torch.device) -> Iterator[None]:
        """Add the time of the block, kernels included."""
        _synchronize(device)
        start = time.perf_counter()
        yield
        _synchronize(device)
        self.seconds[name] += time.perf_counter() - start


class TitleRecommender:
    """Ranks items by decoding titles with LatentR³ or with its backbone alone (BIGRec).

    The catalogue may be newer than the model: its titles make the trie, no weights change.

    Args:
        model: a :class:`~latentrec.models.latentr3.LatentR3Model`, in evaluation mode.
        prompt: its :class:`~latentrec.prompts.NextItemPrompt`.
        catalogue: whose items are ranked.
        name: for tables.
        options: how titles are searched and scored.
        assistant: mixtures: the ID-based model, which has the weight 1 − α.

    Attributes:
        beam_width, alpha: of the options; may be changed between calls.
        reads_titles: histories may be given as titles that the catalogue does not have.
        unscorable: all False: any title can be read and written.
        timings: seconds in prefill, latent and decode.
    """

    def __init__(
        self,
        model: Any,
        prompt: Any,
        catalogue: Catalogue,
        *,
        name: str = "latentr3",
        options: DecodingOptions | None = None,
        assistant: Assistant | None = None,
    ):
        """Tokenize the catalogue's titles and build the trie.

        Raises:
            UserError: a mixture (α below 1) without an assistant.
        """
        options = options or DecodingOptions()
        if options.is_mixture and not hasattr(assistant, "item_logits"):
            raise UserError(
                f"decoding {options.decoding} with alpha {options.alpha:g} needs an assistant that scores "
                "items (a sasrec model); alpha 1 is the language model alone",
                code="decoding.needs_assistant",
            )
        self.name, self.model, self.prompt, self.catalogue = name, model, prompt, catalogue
        self.options, self.beam_width, self.alpha = options, options.beam_width, options.alpha
        self.assistant = assistant if options.decoding in MIXED else None
        self.reads_titles = True
        self.device = model.device
        self._stepper = GraphedModel(model) if self.device.type == "cuda" else model
        self.unscorable = np.zeros(catalogue.n_items, bool)
        self.timings = Timings()
        self.trie = TrieTensors(TokenTrie.build(title_sequences(catalogue, prompt)), self.device)
        self._output_tokens = self._tokens_to_compute()
        leaf_of_title = self.trie.trie.leaf_of_sequence()
        self._leaf_of_item_host = leaf_of_title[catalogue.title_ids].astype(np.int64)
        self._leaf_of_item = torch.from_numpy(self._leaf_of_item_host).to(self.device)
        self._leaf_sizes = np.bincount(self._leaf_of_item_host, minlength=self.trie.trie.n_leaves)
        self._items_of_leaf = [self._items_below(leaf) for leaf in range(self.trie.trie.n_leaves)]

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        catalogue: Catalogue,
        *,
        name: str | None = None,
        options: DecodingOptions | None = None,
        assistant: Any = None,
    ) -> TitleRecommender:
        """Load a model directory of system ``latentr3``.

        Raises:
            UserError: not such a directory, or a setting is wrong.
        """
        from latentrec.models.latentr3 import load_latentr3

        options = options or DecodingOptions()
        loaded = load_latentr3(model_dir, dtype=options.dtype)
        model = loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
        return cls(
            model,
            loaded.prompt,
            catalogue,
            name=name or loaded.info.system,
            options=options,
            assistant=assistant,
        )

    def rank(
        self,
        histories: ItemLists,
        k: int,
        *,
        exclude: ItemLists | None = None,
        history_titles: Sequence[Sequence[str]] | None = None,
    ) -> Ranking:
        """The k best items after each history (oldest first).

        A list is shorter than k where the beams' titles have fewer items. A title is left out of the search
        when all its items are in ``exclude``; its other items stay. ``history_titles`` are what the prompt
        shows in place of the titles of ``histories``: they may name items that the catalogue no longer has.
        """
        item_ids = np.full((len(histories), k), -1, np.int32)
        scores = np.full((len(histories), k), -np.inf, np.float32)
        if history_titles is None:
            prompts = [self._prompt_of(history) for history in histories]
        else:
            prompts = [self.prompt.encode_history(list(titles)) for titles in history_titles]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for begin in range(0, len(order), self._batch_size()):
            batch = order[begin : begin + self._batch_size()]
            left_out = None if exclude is None else [exclude[index] for index in batch]
            found = self.search([prompts[i] for i in batch], [histories[i] for i in batch], left_out)
            leaves, values = found.leaves.cpu().numpy(), found.scores.cpu().numpy()
            for row, index in enumerate(batch):
                own = None if left_out is None else self._mask_of(left_out[row])
                self._expand(leaves[row], values[row], own, item_ids[index], scores[index])
        return Ranking(item_ids, scores)

    @torch.no_grad()
    def search(
        self, prompts: list[list[int]], histories: ItemLists, exclude: ItemLists | None = None
    ) -> BeamResult:
        """Best leaves of the trie after each prompt; ``histories`` are read by the assistant only."""
        if self._output_tokens is None:
            return self._search(prompts, histories, exclude)
        with self.model.backbone.restricted_to(self._output_tokens):
            return self._search(prompts, histories, exclude)

    def _search(
        self, prompts: list[list[int]], histories: ItemLists, exclude: ItemLists | None
    ) -> BeamResult:
        ids, mask = self._padded(prompts)
        timings = self.timings
        with timings.phase("prefill", self.device):
            state = self.model.encode_prompt(ids, mask)
        with timings.phase("latent", self.device):
            start = self.model.begin_answer(state)
        with timings.phase("decode", self.device):
            n_leaves = self.trie.trie.n_leaves
            excluded = None
            if exclude is not None:
                excluded = ExcludedLeaves.of(
                    [self._closed_leaves(own) for own in exclude], n_leaves, self.device
                )
            mass = None
            if self.assistant is not None and self.alpha < 1.0:
                logits = torch.from_numpy(self.assistant.item_logits(histories)).to(self.device)
                mass = D3TokenMass.of_leaves(
                    leaf_mass(logits, self._leaf_of_item, n_leaves), self.trie, excluded
                )
            settings: dict[str, Any] = {
                "excluded": excluded,
                "assistant": mass,
                "alpha": self.alpha if mass else 1.0,
            }
            scoring = SCORING[self.options.decoding]
            if self.beam_width == EXACT:
                return score_every_title(self.model, start, self.trie, **scoring, **settings)
            search = ConstrainedBeamSearch(self.trie, beam_width=int(self.beam_width), **scoring)
            return search.search(self._stepper, start, **settings)

    def _tokens_to_compute(self) -> Tensor | None:
        """The titles' tokens, ascending, where logits of others are never read: under decodings that take
        probabilities among the catalogue's. ``None``: all, where most tokens are titles', and on a GPU,
        whose recorded graphs hold the layer's weights by address."""
        if not SCORING[self.options.decoding].get("renormalized") or self.device.type == "cuda":
            return None
        tokens = torch.unique(self.trie.child_tokens)
        return tokens if 2 * len(tokens) <= self.model.backbone.vocab_size else None

    def _prompt_of(self, history: Sequence[int] | np.ndarray) -> list[int]:
        return self.prompt.encode_history([self.catalogue.titles[int(item)] for item in history])

    def _padded(self, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
        length = max(map(len, prompts))
        ids = torch.full((len(prompts), length), self.prompt.pad_id, dtype=torch.int64)
        mask = torch.zeros(len(prompts), length, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt, dtype=torch.int64)
            mask[row, : len(prompt)] = True
        return ids.to(self.device), mask.to(self.device)

    def _batch_size(self) -> int:
        """Users decoded together: as many as keep one step's logits within bounds."""
        width = 1 if self.beam_width == EXACT else int(self.beam_width)
        return max(1, min(USERS_AT_ONCE, ELEMENTS_AT_ONCE // (width * self.model.backbone.vocab_size)))

    def _mask_of(self, items: Sequence[int] | np.ndarray) -> np.ndarray:
        """bool (n_items,): which items of the catalogue are among ``items``."""
        mask = np.zeros(self.catalogue.n_items, bool)
        mask[np.asarray(items, np.int64)] = True
        return mask

    def _closed_leaves(self, items: Sequence[int] | np.ndarray) -> list[int]:
        """Leaves whose items are all among ``items``."""
        found = self._leaf_of_item_host[self._mask_of(items)]
        closed = np.bincount(found, minlength=len(self._leaf_sizes)) == self._leaf_sizes
        return np.flatnonzero(closed & (self._leaf_sizes > 0)).tolist()

    def _items_below(self, leaf: int) -> np.ndarray:
        """Items of all titles of a leaf, by training popularity, then by item id."""
        titles = self.trie.trie.sequences_of_leaf(leaf)
        items = np.concatenate([self.catalogue.items_of_title(int(title)) for title in titles])
        if len(titles) == 1:
            return items
        return items[np.lexsort((items, -self.catalogue.train_counts[items]))]

    def _expand(
        self,
        leaves: np.ndarray,
        values: np.ndarray,
        own: np.ndarray | None,
        items: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        place = 0
        for leaf, value in zip(leaves.tolist(), values.tolist(), strict=True):
            if leaf < 0 or place == len(items):
                return
            below = self._items_of_leaf[leaf]
            if own is not None:
                below = below[~own[below]]
            below = below[: len(items) - place]
            items[place : place + len(below)] = below
            scores[place : place + len(below)] = value
            place += len(below)


def title_sequences(catalogue: Catalogue, prompt: Any) -> list[list[int]]:
    """Answer tokens of each title, by title id.

    A title that is longer than the model was trained for (possible only in a newer catalogue) is cut; it
    then shares its leaf with titles that begin alike.
    """
    sequences = []
    for title in catalogue.unique_titles:
        try:
            sequences.append(prompt.encode_target(title))
        except UserError:
            sequences.append([*prompt.history_lines([title])[0], prompt.eos_id])
    return sequences


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
