"""Matrix factorization with biases: ``r̂ = μ + b_u + b_i + p_u · q_i`` (Koren, Bell & Volinsky 2009)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from latentrec.models.rating.baselines import BiasModel, RatingTriples


@dataclass
class MatrixFactorization:
    """Alternating least squares on what the bias model leaves, early-stopped on validation error.

    Each half-step solves ``(QᵀQ + λ n_u I) p_u = Qᵀ e_u`` for every user over their rated items (ALS-WR, Zhou
    et al. 2008), then the same for the items.

    Args:
        rank: length of p_u and q_i.
        regularization: λ.
        rounds: most alternations; the best one on ``validation`` is kept, which may be none.
        validation: ratings that choose the round; ``None`` runs them all.
        seed: of the initial factors.
    """

    rank: int = 8
    regularization: float = 0.1
    rounds: int = 15
    validation: RatingTriples | None = None
    seed: int = 42
    name: str = "matrix factorization"
    _bias: BiasModel = field(default_factory=BiasModel)
    _p: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    _q: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def fit(self, train: RatingTriples) -> None:
        """Learn biases, then factors."""
        self._bias.fit(train)
        rest = train.ratings - self._bias.predict(train.users, train.items)
        rng = np.random.default_rng(self.seed)
        p = np.zeros((train.n_users, self.rank))
        q = rng.normal(0, 0.1, (train.n_items, self.rank))
        best = (np.zeros_like(p), np.zeros_like(q))
        lowest = self._validation_error(*best)
        by_user, by_item = _groups(train.users), _groups(train.items)
        for _ in range(self.rounds):
            p = self._solve(by_user, train.items, rest, q, train.n_users)
            q = self._solve(by_item, train.users, rest, p, train.n_items)
            error = self._validation_error(p, q)
            if error >= lowest and self.validation is not None:
                break
            lowest, best = error, (p, q)
        self._p, self._q = best

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """μ + b_u + b_i + p_u · q_i."""
        return self._bias.predict(users, items) + (self._p[users] * self._q[items]).sum(axis=1)

    def _validation_error(self, p: np.ndarray, q: np.ndarray) -> float:
        if self.validation is None or not len(self.validation.ratings):
            return np.inf
        held = self.validation
        predicted = self._bias.predict(held.users, held.items) + (p[held.users] * q[held.items]).sum(axis=1)
        return float(((predicted - held.ratings) ** 2).mean())

    def _solve(
        self,
        groups: list[tuple[int, np.ndarray]],
        others: np.ndarray,
        rest: np.ndarray,
        factors: np.ndarray,
        n: int,
    ) -> np.ndarray:
        solved = np.zeros((n, self.rank))
        ridge = self.regularization * np.eye(self.rank)
        for key, rows in groups:
            across = factors[others[rows]]
            solved[key] = np.linalg.solve(across.T @ across + len(rows) * ridge, across.T @ rest[rows])
        return solved


def _groups(ids: np.ndarray) -> list[tuple[int, np.ndarray]]:
    order = np.argsort(ids, kind="stable")
    keys, starts = np.unique(ids[order], return_index=True)
    return list(zip(keys.tolist(), np.split(order, starts[1:]), strict=True))
