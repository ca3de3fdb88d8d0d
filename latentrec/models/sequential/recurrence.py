"""How many times the core-block is applied in one training step (LARES, arXiv 2505.16865, §3)."""

from __future__ import annotations

import math

import torch

from latentrec.models.sequential.encoders import STEP_SAMPLERS

SIGMA = 0.5


def sample_steps(kind: str, mean: int) -> int:
    """Draw a number of steps, at least 1, from torch's global CPU generator.

    Args:
        kind: ``poisson_lognormal``: rate ~ LogNormal(ln μ − σ²/2, σ = 0.5), min(Poisson(rate) + 1, 3μ);
            ``uniform``: 1 … 2μ − 1, whose mean is μ; ``uniform_to_double``: 1 … 2μ, as the authors' code has
            it; ``constant``: μ.
        mean: μ.
    """
    if kind == "constant":
        return mean
    if kind == "uniform":
        return int(torch.randint(1, 2 * mean, ()))
    if kind == "uniform_to_double":
        return int(torch.randint(1, 2 * mean + 1, ()))
    if kind == "poisson_lognormal":
        rate = torch.exp(math.log(mean) - SIGMA**2 / 2 + SIGMA * torch.randn(()))
        return min(int(torch.poisson(rate)) + 1, 3 * mean)
    raise ValueError(f"step sampler is {kind!r}; there are: {', '.join(STEP_SAMPLERS)}")
