"""A trained encoder as a recommender over today's catalogue, and its model directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentrec.catalog import ITEMS_FILE, Catalogue
from latentrec.core import UserError
from latentrec.models.model_directory import ModelInfo, read_model
from latentrec.models.recommender import Ranking
from latentrec.models.sequential.encoder import SequenceEncoder, pad_right
from latentrec.models.sequential.encoders import ENCODERS, build_encoder
from latentrec.models.top_k import Histories, mask_items, stack_rankings, top_items

WEIGHTS = "model.safetensors"
SCORE_BYTES = 64 * 2**20
"""Memory of one chunk's score matrix: how many users are scored at once follows from it."""


class SequentialRecommender:
    """Scores the whole catalogue after each history, in chunks of bounded memory.

    Items are matched by ``item_key``: history items that the model does not know are skipped, and today's
    items that it has never seen in training are ``unscorable`` and never listed. A history without any
    known item gets the training popularity.

    Args:
        encoder: trained on ``trained``'s item ids.
        trained: the catalogue of the training day.
        catalogue: today's; ``None`` for the same.
        name: for tables.
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        trained: Catalogue,
        catalogue: Catalogue | None = None,
        *,
        name: str = "sasrec",
    ):
        catalogue = catalogue or trained
        self.name, self.encoder, self.catalogue = name, encoder.eval(), catalogue
        self.device = next(encoder.parameters()).device
        # Trained id of each of today's items; −1 where the model has not seen it.
        self.trained_ids = trained.item_map_from(catalogue).astype(np.int64)
        self.trained_ids[(trained.train_counts[self.trained_ids] == 0)] = -1
        self.unscorable = self.trained_ids < 0
        columns = np.where(self.unscorable, 0, self.trained_ids)
        same_order = len(columns) == encoder.n_items and bool(
            (self.unscorable | (columns == np.arange(len(columns)))).all()
        )
        # Where today's catalogue is the trained one, its columns need no copy into another order.
        self._columns = slice(None) if same_order else torch.from_numpy(columns).to(self.device)
        self._masked = torch.from_numpy(self.unscorable).to(self.device)
        counts = np.where(self.unscorable, 0, trained.train_counts[self.trained_ids])
        self._popularity = torch.from_numpy(np.log1p(counts).astype(np.float32)).to(self.device)
        self.users_per_chunk = max(1, SCORE_BYTES // (4 * max(1, encoder.n_items)))

    @classmethod
    def load(
        cls, model_dir: str | Path, catalogue: Catalogue | None = None, *, name: str | None = None
    ) -> SequentialRecommender:
        """Read a model directory.

        Raises:
            UserError: not a finished model directory, or not one of a sequential encoder.
        """
        directory = Path(model_dir)
        info, _ = read_model(directory)
        if info.system not in ENCODERS:
            raise UserError(
                f"{directory} holds a {info.system} model, expected one of {', '.join(sorted(ENCODERS))}",
                code="model.other_kind",
            )
        encoder = encoder_of(info, directory)
        encoder.load_state_dict(load_file(directory / WEIGHTS))
        encoder.to("cuda" if torch.cuda.is_available() else "cpu")
        trained = Catalogue.read(directory / ITEMS_FILE)
        return cls(encoder, trained, catalogue, name=name or info.system)

    def rank(
        self, histories: Histories, k: int, *, exclude: Sequence[Sequence[int] | np.ndarray] | None = None
    ) -> Ranking:
        """The k best items after each history (oldest first), leaving out each user's ``exclude`` items."""
        parts = []
        for start in range(0, len(histories), self.users_per_chunk):
            chunk = slice(start, start + self.users_per_chunk)
            scores_BN = self._scores(histories[chunk])
            if exclude is not None:
                mask_items(scores_BN, exclude[chunk])
            parts.append(top_items(scores_BN, k))
        return stack_rankings(parts, k)

    def item_logits(self, histories: Histories) -> np.ndarray:
        """float32 (B, n_items) over today's catalogue; −inf where unscorable. For D3's assistant."""
        return self._scores(histories).cpu().numpy()

    @torch.no_grad()
    def _scores(self, histories: Histories) -> Tensor:
        """Logits (B, n_items) in today's ids."""
        known = [self._known(history) for history in histories]
        empty = torch.tensor([len(history) == 0 for history in known], device=self.device)
        items_BL, lengths_B = pad_right(known, self.encoder.n_items, self.encoder.max_length, self.device)
        states_BD = self.encoder.last_states(items_BL, lengths_B.clamp(min=1))
        scores_BN = self.encoder.score(states_BD)[:, self._columns]
        scores_BN[empty] = self._popularity
        return scores_BN.masked_fill_(self._masked, -torch.inf)

    def _known(self, history: Sequence[int] | np.ndarray) -> np.ndarray:
        """The items of one history that the model was trained on, in its ids."""
        ids = self.trained_ids[np.asarray(history, dtype=np.int64)]
        return ids[ids >= 0]


def encoder_of(info: ModelInfo, directory: str | Path) -> SequenceEncoder:
    """The untrained encoder that a model directory describes.

    Raises:
        UserError: an earlier version described it otherwise.
    """
    try:
        return build_encoder(info.system, info.architecture)
    except UserError as error:
        raise UserError(
            f"{directory} was written by another version ({error}); train the model again",
            code="manifest.other_version",
        ) from None


def save_encoder(encoder: SequenceEncoder, directory: Path) -> None:
    """Write the weights into a model directory that is being made."""
    weights = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    save_file(weights, directory / WEIGHTS)
