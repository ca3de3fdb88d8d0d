"""Which way do the estimators of stage 2 point? Cosines and slopes at models that stage 1 has trained.

The expected reward of the noised latent, ``J(θ) = E_ε[s(r_θ + ε)]``, has an analytic gradient where the
reward is a likelihood: the derivative of ``s`` through the latent, averaged over noise. Each estimator's
gradient is compared with it, with the gradient of stage 1's loss, and with finite differences of J.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentrec.data import sample_at_most
from latentrec.models.latentr3 import IGNORED, LatentR3Model, PromptState, load_latentr3
from latentrec.training.latentr3 import grpo_loss as objective
from latentrec.training.latentr3.collator import NextItemTokens, plain_batch
from latentrec.training.latentr3.text_model import open_text_dataset

COPIES = 8
PROMPTS_AT_ONCE = 32
STEP = 0.01
REWARDS = ("nll", "perplexity")
ESTIMATORS = {
    "published: target likelihood, perplexity, batch": ("target_likelihood", "perplexity", "batch"),
    "target likelihood, perplexity, own": ("target_likelihood", "perplexity", "own"),
    "target likelihood, nll, own": ("target_likelihood", "nll", "own"),
    "score function, perplexity, batch": ("gaussian", "perplexity", "batch"),
    "score function, nll, own": ("gaussian", "nll", "own"),
}
"""name → estimator, reward, baseline."""


@dataclass(frozen=True)
class Direction:
    """One estimator at one model and one σ.

    Attributes:
        model, hidden_size, parameters: the model.
        sigma: σ as a share of the latent's root mean square.
        estimator: a key of :data:`ESTIMATORS`.
        with_sft: cosine of its loss gradient with that of stage 1's loss.
        with_reward: cosine with the analytic gradient of −J for its own reward.
        agreement: cosine between two halves of the noise draws: how much of it is signal.
        slope: finite difference of J over a step along its descent direction, relative to the step that the
            analytic gradient allows (1 is the best that a step of this length can do, below 0 is downhill).
        beats_clean: share of the noised copies with a better reward than the clean one.
        concentration: share of ΣA² in the heaviest 1 % of the prompts.
    """

    model: str
    hidden_size: int
    parameters: int
    sigma: float
    estimator: str
    with_sft: float
    with_reward: float
    agreement: float
    slope: float
    beats_clean: float
    concentration: float


def study(
    dataset: Path,
    model_dir: Path,
    *,
    name: str,
    sigmas: tuple[float, ...],
    prompts: int,
    draws: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Measure every estimator at every σ on a draw of training prompts; JSON values."""
    data = open_text_dataset(dataset)
    loaded = load_latentr3(model_dir)
    model = loaded.model
    model.backbone.requires_grad_(False)
    samples = data.split("train")
    tokens = NextItemTokens(
        samples.subset(sample_at_most(len(samples), prompts, seed)), data.titles, loaded.prompt
    )
    batches = _encoded(model, tokens)
    weights = list(model.latent_ratt.parameters())  # type: ignore[union-attr]
    sft = _sum(_gradient(-_clean(model, state, labels)[0], weights) for state, labels in batches)
    found = []
    for sigma in sigmas:
        halves = [_gradients(model, batches, weights, sigma, seed + 1 + draw) for draw in range(draws)]
        total = {key: _sum(half[key] for half in halves) for key in halves[0]}
        slopes = _slopes(model, batches, weights, sigma, seed + 100, total)
        figures = _copies(model, batches, sigma, seed + 1)
        for label, (_, reward, _) in ESTIMATORS.items():
            gradient = total[label]
            found.append(
                asdict(
                    Direction(
                        model=name,
                        hidden_size=model.backbone.hidden_size,
                        parameters=sum(p.numel() for p in model.parameters()),
                        sigma=sigma,
                        estimator=label,
                        with_sft=_cosine(gradient, sft),
                        with_reward=_cosine(gradient, total[reward]),
                        agreement=_cosine(halves[0][label], halves[1][label]) if draws > 1 else 1.0,
                        slope=slopes[label] / slopes[reward],
                        beats_clean=figures[f"beats_{reward}"],
                        concentration=figures[label],
                    )
                )
            )
    return found


Batch = tuple[PromptState, Tensor]


@torch.no_grad()
def _encoded(model: LatentR3Model, tokens: NextItemTokens) -> list[Batch]:
    order = tokens.prompt_lengths.argsort(kind="stable").tolist()
    batches = []
    for at in range(0, len(order), PROMPTS_AT_ONCE):
        batch = plain_batch(tokens, order[at : at + PROMPTS_AT_ONCE])
        batches.append((model.encode_prompt(batch["input_ids"], batch["attention_mask"]), batch["labels"]))
    return batches


def _clean(model: LatentR3Model, state: PromptState, labels: Tensor) -> tuple[Tensor, Tensor]:
    log_probs = model.answer_log_probs(state, model.roll_out(state), labels)
    return log_probs.sum(), log_probs


def _noise(
    model: LatentR3Model, state: PromptState, sigma: float, seed: int, index: int
) -> tuple[Tensor, Tensor]:
    """Noise of each copy (P, K, N, d), none on the first, and its scale (P, 1)."""
    with torch.no_grad():
        clean_PKND = model.roll_out(state).means_BMND
    scale_P1 = sigma * clean_PKND.square().mean(dim=(1, 2, 3)).sqrt()[:, None]
    generator = torch.Generator().manual_seed(seed * 100_003 + index)
    shape = (len(clean_PKND), COPIES, *clean_PKND.shape[2:])
    noise = torch.randn(shape, generator=generator) * scale_P1[..., None, None]
    noise[:, 0] = 0
    return noise, scale_P1


def _gradients(
    model: LatentR3Model, batches: list[Batch], weights: list[Tensor], sigma: float, seed: int
) -> dict[str, Tensor]:
    """Loss gradients of every estimator, and of −J for every reward, summed over batches."""
    sums: dict[str, Tensor] = {}
    for index, (state, labels) in enumerate(batches):
        noise, scale = _noise(model, state, sigma, seed, index)
        counted = labels[:, 0] != IGNORED
        rollout = model.roll_out(state, copies=COPIES, noise_BMND=noise)
        log_probs = model.answer_log_probs(state, rollout, labels)
        rewards = {name: objective.likelihood_reward(name, log_probs, counted) for name in REWARDS}
        losses = {name: -reward.mean() for name, reward in rewards.items()}
        actions = rollout.actions_BMND.detach()
        means = model.roll_out(state, copies=COPIES, actions_BMND=actions).means_BMND
        for label, (estimator, reward, baseline) in ESTIMATORS.items():
            advantages = objective.advantages(rewards[reward].detach(), baseline)
            if estimator == "gaussian":
                ratio = objective.gaussian_log_ratio(actions, means, means.detach(), scale)
                losses[label] = -(ratio * advantages).mean()
            else:
                per_token = log_probs * advantages[..., None]
                losses[label] = -per_token[counted[:, None].expand_as(per_token)].mean()
        for name, loss in losses.items():
            gradient = _gradient(loss, weights)
            sums[name] = sums[name] + gradient if name in sums else gradient
    return sums


def _slopes(
    model: LatentR3Model,
    batches: list[Batch],
    weights: list[Tensor],
    sigma: float,
    seed: int,
    gradients: dict[str, Tensor],
) -> dict[str, float]:
    """Half the difference of J a step along and a step against each direction, under the same noise."""
    start = torch.nn.utils.parameters_to_vector(weights).detach().clone()
    rewards_of = {name: name for name in REWARDS} | {label: r for label, (_, r, _) in ESTIMATORS.items()}
    found = {}
    for name, gradient in gradients.items():
        step = -STEP * start.norm() * gradient / gradient.norm().clamp(min=1e-30)
        sides = []
        for sign in (1, -1):
            torch.nn.utils.vector_to_parameters(start + sign * step, weights)
            sides.append(_expected_reward(model, batches, sigma, seed, rewards_of[name]))
        found[name] = (sides[0] - sides[1]) / 2
    torch.nn.utils.vector_to_parameters(start, weights)
    return found


@torch.no_grad()
def _expected_reward(
    model: LatentR3Model, batches: list[Batch], sigma: float, seed: int, reward: str
) -> float:
    total, count = 0.0, 0
    for index, (state, labels) in enumerate(batches):
        rewards_PK = _rewards(model, state, labels, sigma, seed, index, reward)
        total, count = total + float(rewards_PK.sum()), count + rewards_PK.numel()
    return total / count


@torch.no_grad()
def _rewards(
    model: LatentR3Model, state: PromptState, labels: Tensor, sigma: float, seed: int, index: int, reward: str
) -> Tensor:
    noise, _ = _noise(model, state, sigma, seed, index)
    log_probs = model.answer_log_probs(state, model.roll_out(state, copies=COPIES, noise_BMND=noise), labels)
    return objective.likelihood_reward(reward, log_probs, labels[:, 0] != IGNORED)


def _copies(model: LatentR3Model, batches: list[Batch], sigma: float, seed: int) -> dict[str, float]:
    """How informative the copies are: share that beats the clean one, and the advantages' concentration."""
    figures = {}
    for reward in REWARDS:
        rewards_PK = torch.cat(
            [
                _rewards(model, state, labels, sigma, seed, index, reward)
                for index, (state, labels) in enumerate(batches)
            ]
        )
        figures[f"beats_{reward}"] = float((rewards_PK[:, 1:] > rewards_PK[:, :1]).float().mean())
        for label, (_, own, baseline) in ESTIMATORS.items():
            if own == reward:
                figures[label] = float(objective.concentration(objective.advantages(rewards_PK, baseline)))
    return figures


def _gradient(loss: Tensor, weights: list[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, retain_graph=True)])


def _sum(values: Any) -> Tensor:
    total: Tensor = sum(values)  # type: ignore[assignment]
    return total


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a, b, dim=0))
