"""What a recommendation costs: latency of one user at a time, throughput in batches, split by phase."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from latentrec.data import Samples
from latentrec.evaluation.ranking.scoring import K_MAX
from latentrec.models import Recommender

WARM_UP = 2


@dataclass(frozen=True)
class Cost:
    """Measured on this machine.

    Attributes:
        latency_ms_p50, latency_ms_p99: of one user's request, batch of one.
        users_per_second: in the batches of the evaluation.
        phases_ms: title models: mean milliseconds a request in ``prefill``, ``latent`` and ``decode``.
    """

    latency_ms_p50: float
    latency_ms_p99: float
    users_per_second: float
    phases_ms: dict[str, float] = field(default_factory=dict)


def measure_cost(
    recommender: Recommender,
    samples: Samples,
    *,
    n_requests: int,
    seconds_in_batches: float,
    excluded: Callable[[np.ndarray], list[np.ndarray]] | None = None,
    seed: int = 42,
) -> Cost:
    """Time single requests of seeded users; batch throughput comes from the scoring that was done anyway."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(samples), size=min(n_requests, len(samples)), replace=False)
    timings = getattr(recommender, "timings", None)
    left_out = {int(index): excluded(np.array([index])) if excluded else None for index in chosen}
    for index in chosen[:WARM_UP]:
        recommender.rank([samples.history(index)], K_MAX, exclude=left_out[int(index)])
    if timings is not None:
        timings.reset()
    milliseconds = []
    for index in chosen:
        start = time.perf_counter()
        recommender.rank([samples.history(index)], K_MAX, exclude=left_out[int(index)])
        milliseconds.append(1e3 * (time.perf_counter() - start))
    phases = {}
    if timings is not None:
        phases = {name: 1e3 * seconds / len(chosen) for name, seconds in timings.seconds.items()}
    return Cost(
        latency_ms_p50=float(np.percentile(milliseconds, 50)),
        latency_ms_p99=float(np.percentile(milliseconds, 99)),
        users_per_second=len(samples) / max(seconds_in_batches, 1e-9),
        phases_ms=phases,
    )
