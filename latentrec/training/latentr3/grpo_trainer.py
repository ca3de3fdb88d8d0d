"""trl's GRPO trainer with a continuous action: the latent token. No text is generated.

trl asks for a batch of prompts and gets back copies with rewards and advantages
(:meth:`~LatentGRPOTrainer.make_rollout`), then asks for the loss of a part of them
(:meth:`~LatentGRPOTrainer.rollout_loss`). Both are ours;
batching, re-use over several iterations, accumulation, distribution and optimization stay trl's.

Each prompt is read once and without gradient; its keys and values serve the K copies of the reward pass and,
kept beside the copies, those of the loss pass.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from trl import GRPOTrainer

from latentrec.models.latentr3 import IGNORED, LatentR3Model, LatentRollout, PromptState
from latentrec.training.common.policy_gradient import kl_estimate
from latentrec.training.common.resumable_trainer import ResumableTrainerMixin
from latentrec.training.common.trainer_compat import RolloutHooks
from latentrec.training.latentr3 import grpo_loss as objective
from latentrec.training.latentr3.collator import NextItemTokens, plain_batch
from latentrec.training.latentr3.gradient_diagnostics import GradientCosines
from latentrec.training.latentr3.grpo_config import LatentGRPOConfig
from latentrec.training.latentr3.latent_policy import batch_of_state, frozen_copy, state_of_batch
from latentrec.training.latentr3.text_model import Throughput
from latentrec.training.latentr3.validation_ranking import NdcgReward


class LatentGRPOTrainer(RolloutHooks, ResumableTrainerMixin, GRPOTrainer):
    """GRPO on the latent. ``config`` decides estimator, reward, baseline and noise."""

    def __init__(
        self,
        *,
        config: LatentGRPOConfig,
        tokens: NextItemTokens,
        batch_sampler: Any,
        throughput: Throughput,
        ranker: NdcgReward | None = None,
        **options: Any,
    ):
        """Set up trl's trainer; ``ranker`` gives the rewards of ``reward ndcg``."""
        self._latent_config = config
        self._tokens = tokens
        self._batch_sampler = batch_sampler
        self._throughput = throughput
        self._ranker = ranker
        no_reward: Any = _reward_is_made_in_the_rollout
        super().__init__(reward_funcs=[no_reward], **options)
        policy: Any = self.model
        self._latentr3: LatentR3Model = policy.latentr3
        self._reference = frozen_copy(self._latentr3, config.train_backbone) if config.beta else None
        self._cosines = None
        if config.diagnostics_every:
            self._cosines = GradientCosines(self._latentr3, tokens.allowed_tokens)

    def may_save(self, step: int) -> bool:
        """Between two batches of copies; within one, its copies would be lost."""
        return step % self._latent_config.num_iterations == 0

    def train_sampler(self) -> Any:
        """Order of prompts and copies."""
        return self._batch_sampler

    def make_rollout(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Copies of each prompt with their noise, rewards and advantages, first dimension P."""
        with self.accelerator.autocast():  # as the loss pass runs
            return self._make_copies(inputs)

    def _make_copies(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        config, model = self._latent_config, self._latentr3
        copies = config.num_generations
        indices = [row["prompt"] for row in inputs][::copies]
        batch = {k: v.to(self.args.device) for k, v in plain_batch(self._tokens, indices).items()}
        labels_PL = batch["labels"][:, 0]
        counted_PL = labels_PL != IGNORED
        with torch.no_grad():
            state = model.encode_prompt(batch["input_ids"], batch["attention_mask"])
        noise, sigma = self._noise(state, indices)
        live = self._graph_is_kept
        with torch.set_grad_enabled(live):
            rollout = model.roll_out(state, copies=copies, noise_BMND=noise)
            log_probs = self._answer_log_probs(model, state, rollout, labels_PL)
        with torch.no_grad():
            rewards_PK = self._rewards(
                batch, state, rollout, log_probs.detach(), counted_PL, self._tokens.samples.targets[indices]
            )
            gathered = self.accelerator.gather(rewards_PK)
            advantages = objective.batch_advantages(
                gathered, str(config.advantage), str(config.advantage_batch)
            )
            mine = slice(
                self.accelerator.process_index * len(indices),
                (self.accelerator.process_index + 1) * len(indices),
            )
        kept: dict[str, Tensor] = {
            "advantages": advantages[mine],
            "old_log_probs": log_probs.detach(),
            "old_means": rollout.means_BMND.detach(),
            "actions": rollout.actions_BMND.detach(),
            "noise": noise,
            "sigma": sigma,
            "labels": labels_PL,
            "total_prompts": torch.tensor(len(gathered)),
            **batch_of_state(state, batch, keep=not config.train_backbone),
        }
        if live:
            kept["live_log_probs"] = log_probs
        if self._reference is not None:
            kept |= self._reference_figures(batch, state, rollout, noise, labels_PL)
        self._note_rollout(gathered, advantages, rollout, sigma)
        self._throughput.tokens += int(batch["attention_mask"].sum()) + log_probs.numel()
        return kept

    def _answer_log_probs(
        self, model: LatentR3Model, state: PromptState, rollout: LatentRollout, labels_PL: Tensor
    ) -> Tensor:
        """log π of the one answer of each prompt under each of its copies, (P, K, L)."""
        allowed_tokens = self._tokens.allowed_tokens
        return model.answer_log_probs(state, rollout, labels_PL[:, None], allowed_tokens=allowed_tokens)

    def rollout_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """GRPO's loss of a part of the rollout; shape ()."""
        config = self._latent_config
        if "live_log_probs" in inputs:
            loss, figures = self._likelihood_loss(inputs["live_log_probs"], inputs)
        else:
            loss, figures = model(lambda latentr3: self._loss(latentr3, inputs))
        for name, value in figures.items():
            self.note_metric(name, float(value))
        loss = loss * self.accelerator.num_processes  # DDP averages over processes
        if self._cosines is not None and self.state.global_step % config.diagnostics_every == 0:
            self._measure_cosines(loss, inputs)
        return loss

    def _loss(self, latentr3: LatentR3Model, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        copies = self._latent_config.num_generations
        state = state_of_batch(latentr3, inputs)
        if self._latent_config.estimator == "target_likelihood":
            rollout = latentr3.roll_out(state, copies=copies, noise_BMND=inputs["noise"])
            log_probs = self._answer_log_probs(latentr3, state, rollout, inputs["labels"])
            return self._likelihood_loss(log_probs, inputs)
        if latentr3.n_latents == 1:  # the first latent does not depend on its copies' noise
            means = latentr3.roll_out(state, actions_BMND=inputs["actions"][:, :1]).means_BMND
        else:
            means = latentr3.roll_out(state, copies=copies, actions_BMND=inputs["actions"]).means_BMND
        return self._gaussian_loss(means, inputs)

    def _likelihood_loss(
        self, log_probs_PKL: Tensor, inputs: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over prompts of the token mean of the clipped surrogate on the answer's probability: the
        published estimator."""
        config = self._latent_config
        counted_PL = inputs["labels"] != IGNORED
        counted = counted_PL[:, None].expand_as(log_probs_PKL)
        log_ratio = log_probs_PKL - inputs["old_log_probs"]
        surrogate, active = objective.clipped_surrogate(
            log_ratio,
            inputs["advantages"][..., None],
            config.epsilon,
            config.epsilon_high,
        )
        prompts = inputs["total_prompts"]
        loss = objective.prompt_token_means(surrogate, counted_PL).sum() / prompts
        figures = {"clip_share": active[counted].float().mean(), "ratio": log_ratio[counted].exp().mean()}
        if config.beta:
            kl = kl_estimate(log_probs_PKL, inputs["reference_log_probs"])
            loss = loss + config.beta * objective.prompt_token_means(kl, counted_PL).sum() / prompts
            figures["kl"] = kl[counted].mean()
        return loss, {name: value.detach() for name, value in figures.items()}

    def _gaussian_loss(self, means: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over copies of the clipped surrogate on the density of the latent that was tried."""
        config = self._latent_config
        log_ratio = objective.gaussian_log_ratio(
            inputs["actions"], means, inputs["old_means"], inputs["sigma"]
        )
        surrogate, active = objective.clipped_surrogate(
            log_ratio, inputs["advantages"], config.epsilon, config.epsilon_high
        )
        copies = inputs["total_prompts"] * config.num_generations
        loss = surrogate.sum() / copies
        figures = {"clip_share": active.float().mean(), "ratio": log_ratio.exp().mean()}
        if config.beta:
            kl = objective.gaussian_kl(means, inputs["reference_means"], inputs["sigma"]).expand_as(surrogate)
            loss = loss + config.beta * kl.sum() / copies
            figures["kl"] = kl.mean()
        return loss, {name: value.detach() for name, value in figures.items()}

    @property
    def _graph_is_kept(self) -> bool:
        """One iteration on one part in one process: the reward pass is the loss pass, ρ = 1 throughout."""
        config = self._latent_config
        return (
            config.estimator == "target_likelihood"
            and config.num_iterations == 1
            and config.gradient_accumulation_steps == 1
            and self.accelerator.num_processes == 1
            and not config.train_backbone
        )

    @torch.no_grad()
    def _noise(self, state: PromptState, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Noise of each copy (P, K, N, d), none on the first, and σ (P, 1).

        Drawn for (seed, rollout, sample), so it does not depend on which process has a prompt.
        """
        config, model = self._latent_config, self._latentr3
        shape = (config.num_generations, model.n_latents, model.backbone.hidden_size)
        rollout = self.state.global_step // config.num_iterations
        draws = []
        for index in indices:
            digest = hashlib.sha256(f"{config.seed} {rollout} {index}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            draws.append(torch.randn(shape, generator=generator))
        sigma = torch.full((len(indices), 1), float(config.noise_std or 0), device=self.args.device)
        if config.noise == "relative":
            clean = model.roll_out(state).means_BMND
            sigma = sigma * clean.float().square().mean(dim=(1, 2, 3))[:, None].sqrt()
        noise = torch.stack(draws).to(self.args.device) * sigma[..., None, None]
        noise[:, 0] = 0
        return noise, sigma

    def _rewards(
        self,
        batch: dict[str, Tensor],
        state: PromptState,
        rollout: LatentRollout,
        log_probs_PKL: Tensor,
        counted_PL: Tensor,
        targets: np.ndarray,
    ) -> Tensor:
        config = self._latent_config
        if config.reward == "exact_match":
            return self._latentr3.answers_are_greedy(state, rollout, batch["labels"]).float()
        if config.reward == "ndcg":
            assert self._ranker is not None
            return self._ranker(state, rollout.actions_BMND.detach(), targets)
        return objective.likelihood_reward(str(config.reward), log_probs_PKL, counted_PL)

    @torch.no_grad()
    def _reference_figures(
        self,
        batch: dict[str, Tensor],
        state: PromptState,
        rollout: LatentRollout,
        noise: Tensor,
        labels_PL: Tensor,
    ) -> dict[str, Tensor]:
        """What the stage-1 model gives in the same place: latents, or the answer's tokens."""
        reference, copies = self._reference, self._latent_config.num_generations
        assert reference is not None
        if self._latent_config.train_backbone:
            state = reference.encode_prompt(batch["input_ids"], batch["attention_mask"])
        if self._latent_config.estimator == "gaussian":
            means = reference.roll_out(
                state, copies=copies, actions_BMND=rollout.actions_BMND.detach()
            ).means_BMND
            return {"reference_means": means}
        own = reference.roll_out(state, copies=copies, noise_BMND=noise)
        return {"reference_log_probs": self._answer_log_probs(reference, state, own, labels_PL)}

    def _measure_cosines(self, loss: Tensor, inputs: dict[str, Tensor]) -> None:
        assert self._cosines is not None
        state = state_of_batch(self._latentr3, inputs)
        self._cosines.add(loss, state, inputs["labels"], str(self._latent_config.reward))
        if self.accelerator.sync_gradients:
            cosines = self._cosines.finish(lambda x: self.accelerator.reduce(x, reduction="sum"))
            for name, value in cosines.items():
                self.note_metric(name, value)

    def _note_rollout(
        self, rewards_PK: Tensor, advantages_PK: Tensor, rollout: LatentRollout, sigma: Tensor
    ) -> None:
        latent_rms = rollout.means_BMND.detach()[:, 0].float().square().mean().sqrt()
        figures = {
            "reward": rewards_PK.mean(),
            "reward_std": rewards_PK.std(),
            "reward_clean": rewards_PK[:, 0].mean(),
            "noise_beats_clean": (rewards_PK[:, 1:] > rewards_PK[:, :1]).float().mean(),
            "advantage_concentration": objective.concentration(advantages_PK),
            "latent_rms": latent_rms,
            "noise_to_signal": sigma.mean() / latent_rms,
        }
        for name, value in figures.items():
            self.note_metric(name, float(value))


def _reward_is_made_in_the_rollout(**_: Any) -> list[float]:
    """Stands where trl expects a reward function; rewards come from the teacher-forced pass."""
    raise AssertionError("the rollout is overridden, so trl's reward functions are never asked")
