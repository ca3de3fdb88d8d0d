"""Configuration of LatentR³'s stage 1."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from latentrec.core import Config, UserError
from latentrec.core.config import (
    LARGEST,
    OPERATIONAL,
    LearningRate,
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveInt,
    Seed,
    Share,
)
from latentrec.data.time_range import check_time_range
from latentrec.models.latentr3.variants import ANSWER_READS, LATENT_SOURCES
from latentrec.models.presets import PRESETS
from latentrec.training.common.early_stopping import LOSS, SELECTIONS, check_selection
from latentrec.training.common.world import check_share

LATENT_LOSSES = ("none", "variance", "contrastive")
SCRATCH_LEARNING_RATE = 2e-3
MOST_REASONING_TOKENS = 256
"""Each is one more pass through the backbone, after the other: the paper uses 1."""
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "learning_rate": 3e-4,
        "lr_scheduler_type": "linear",
        "bf16": True,
        "packing": "none",
        "evals_per_epoch": 1,
        "patience": 1,
    },
    "default": {
        "learning_rate": 3e-4,
        "lr_scheduler_type": "cosine",
        "bf16": False,
        "packing": "exact",
        "evals_per_epoch": 2,
        "patience": 2,
    },
}
"""What unset options become. ``paper`` is the publication; its epochs, batch and warm-up are the defaults."""


class SFTAblation(Config):
    """Variants of the latent that were measured against the published one; none of them is a default."""

    step_name: ClassVar[str] = "sft.ablation"

    latent_width: Annotated[int, Field(ge=2, le=LARGEST)] | None = Field(
        None, description="width of LatentRATT's attention (default: the backbone's, as published)"
    )
    answer_reads: Annotated[str, OneOf(*ANSWER_READS)] = Field(
        "prompt",
        description="what latents and answer attend to: the prompt, as published, or latents only (a "
        "bottleneck)",
    )
    prompt_key_dropout: Share = Field(
        0.0, description="in training, probability that a prompt position is hidden from latents and answer"
    )
    latent_loss: Annotated[str, OneOf(*LATENT_LOSSES)] = Field(
        "none",
        description="term that asks latents to differ between users: variance, or contrastive against "
        "target titles",
    )
    latent_loss_weight: NonNegativeFloat = Field(
        0.1, description="weight of latent_loss against the token mean"
    )


class SFTConfig(Config):
    """Stage 1: backbone and LatentRATT learn the next title together (arXiv 2505.19092, §3.3)."""

    step_name: ClassVar[str] = "sft"

    backbone: str = Field(
        "tiny", description="preset (micro, tiny, small, medium, large), directory, gs://, hub id"
    )
    profile: Literal["default", "paper"] = Field(
        "default", description="what unset options become; paper: as published"
    )
    reasoning_tokens: Annotated[int, Field(ge=0, le=MOST_REASONING_TOKENS)] = Field(
        1, description="N, latent tokens before the answer; 0 is the backbone alone"
    )
    latent: Annotated[str, OneOf(*LATENT_SOURCES)] = Field(
        "latent_ratt",
        description="where a latent comes from; last_hidden is the paper's ablation, pause_token the "
        "control: learnt vectors, the same for every prompt",
    )
    likelihood: Literal["vocabulary", "catalogue"] = Field(
        "vocabulary",
        description="among what a token's probability is taken: the vocabulary (as published), or the "
        "tokens that continue some title of the catalogue; decode the latter with --decoding catalogue",
    )
    train_backbone: Literal["full", "lora", "frozen"] = Field(
        "full", description="what of the backbone learns; frozen trains LatentRATT only"
    )
    train_layers: NonNegativeInt = Field(
        0,
        description="train_backbone full: only the last so many decoder layers learn, and the final norm; "
        "embeddings and the layers below stay (0: all)",
    )
    output_tokens: Literal["vocabulary", "used"] = Field(
        "vocabulary",
        description="tokens of the output layer in training: used computes those of the titles only, a "
        "softmax over them (the same loss with likelihood catalogue, otherwise another one)",
    )
    lora_rank: PositiveInt = Field(16, description="rank of the adapters (train_backbone lora)")
    lora_alpha: PositiveInt = Field(32, description="scale of the adapters is lora_alpha / lora_rank")
    num_train_epochs: PositiveInt = Field(
        3, description="passes over the training split; early stopping may end sooner"
    )
    batch_size: PositiveInt = Field(
        128, description="samples of an optimizer step, over all processes and accumulation"
    )
    gradient_accumulation_steps: PositiveInt = Field(
        1, description="micro-batches that each process takes for one optimizer step"
    )
    max_tokens_per_forward: Annotated[NonNegativeInt | None, OPERATIONAL] = Field(
        None,
        description="tokens that pass through the model at once; a larger micro-batch is split by rows, for "
        "the same gradient (unset: on a CPU as many as hold 1.5 GiB of activations; 0: no limit)",
    )
    learning_rate: LearningRate | None = Field(
        None,
        description="peak of the schedule; unset: 2e-3 for presets, 3e-4 otherwise and in the paper profile",
    )
    warmup_steps: NonNegativeInt = Field(20, description="steps of linear warm-up")
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] | None = Field(
        None, description="what follows the warm-up (default cosine, paper linear)"
    )
    weight_decay: NonNegativeFloat = Field(0.0, description="weight decay of AdamW")
    max_grad_norm: NonNegativeFloat = Field(1.0, description="gradients are clipped to this norm; 0: not")
    bf16: bool | None = Field(None, description="autocast to bf16, weights stay fp32 (default off, paper on)")
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
    torch_compile: bool = Field(
        False, description="fuse norms and feed-forward of every layer by torch.compile; pays on a large GPU"
    )
    sharding: Annotated[Literal["ddp", "fsdp"], OPERATIONAL] = Field(
        "ddp",
        description="several processes: ddp, each holds all weights; fsdp shares out weights, gradients and "
        "optimizer (FSDP2)",
    )
    packing: Literal["none", "exact"] | None = Field(
        None,
        description="exact: prefixes of a user share a row where the loss stays the same; none: one sample "
        "a row (default profile exact, paper none)",
    )
    max_history: PositiveInt = Field(10, description="titles of a prompt, counted from the newest")
    max_prompt_tokens: PositiveInt = Field(
        512, description="longest prompt; oldest titles are dropped to fit"
    )
    max_title_tokens: PositiveInt = Field(128, description="longest title; a longer one is refused")
    train_from: Share = Field(
        0.0,
        description="where the training samples used begin, as a share of them by time; a share held out "
        "of one stage may serve the other",
    )
    train_to: Share = Field(
        1.0, description="where the training samples used end, as a share of them by time"
    )
    max_train_samples: NonNegativeInt = Field(
        0, description="train on a seeded draw of so many samples; 0: all"
    )
    evals_per_epoch: PositiveInt | None = Field(
        None, description="evaluations on validation per epoch (default 2, paper 1)"
    )
    patience: NonNegativeInt | None = Field(
        None,
        description="evaluations without improvement before training stops; 0: never (default 2, paper 1)",
    )
    metric_for_best_model: Annotated[str, OneOf(*SELECTIONS)] = Field(
        LOSS,
        description="validation figure that decides which weights are kept, and when to stop; the loss is "
        "mostly spelling and may fall while the ranking gets worse",
    )
    load_best_model_at_end: bool = Field(
        True, description="end with the weights that were best on validation, else with the last"
    )
    validation_samples: NonNegativeInt = Field(
        2000, description="validation samples of an evaluation, a seeded draw; 0: all"
    )
    ranking_samples: NonNegativeInt = Field(
        200, description="validation samples that are ranked by the real decoder; 0: none"
    )
    save_steps: Annotated[PositiveInt, OPERATIONAL] = Field(
        200, description="steps between checkpoints, besides one at each evaluation"
    )
    logging_steps: Annotated[PositiveInt, OPERATIONAL] = Field(10, description="steps between figures")
    seed: Seed = Field(42, description="seed of weights, order and draws")
    ablation: SFTAblation = Field(default_factory=SFTAblation)

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        """Fill what the profile decides, and refuse what cannot be meant."""
        values = dict(PROFILES[self.profile])
        if self.profile == "default" and self.backbone in PRESETS:
            values["learning_rate"] = SCRATCH_LEARNING_RATE
        self.fill(values)
        check_time_range("sft", self.train_from, self.train_to)
        check_selection("sft", self.metric_for_best_model, self.ranking_samples)
        self._check_latent()
        if self.train_layers and self.train_backbone != "full":
            raise UserError(
                f"sft.train_layers is {self.train_layers}, but train_backbone is '{self.train_backbone}'; it "
                "chooses layers of train_backbone full",
                code="config.conflict",
            )
        self._check_sharding()
        if self.train_backbone == "frozen" and (self.reasoning_tokens == 0 or self.latent == "last_hidden"):
            raise UserError(
                "sft.train_backbone is 'frozen', but without LatentRATT nothing would learn; "
                "use reasoning_tokens >= 1 with latent 'latent_ratt', or train the backbone",
                code="config.conflict",
            )
        return self

    def _check_sharding(self) -> None:
        """Refuse what reads weights outside the pass under FSDP, and passes that would change the result."""
        if self.sharding == "fsdp" and self.ablation.latent_loss != "none":
            raise UserError(
                f"sft.ablation.latent_loss is '{self.ablation.latent_loss}' with sharding 'fsdp': no process "
                "has all weights; give ablation.latent_loss 'none'",
                code="config.conflict",
            )
        if self.max_tokens_per_forward and not self.splits_exactly:
            raise UserError(
                f"sft.max_tokens_per_forward is {self.max_tokens_per_forward}, but with sharding 'fsdp' all "
                "processes pass together, and ablation.latent_loss and .prompt_key_dropout depend on what "
                "passes together; raise gradient_accumulation_steps instead",
                code="config.conflict",
            )

    def _check_latent(self) -> None:
        """Refuse options of latents that there are not."""
        variant = self.ablation
        if variant.latent_width is not None and self.latent != "latent_ratt":
            raise UserError(
                f"sft.ablation.latent_width is {variant.latent_width}, but latent '{self.latent}' has none",
                code="config.conflict",
            )
        for name, neutral in (("answer_reads", "prompt"), ("prompt_key_dropout", 0), ("latent_loss", "none")):
            if self.reasoning_tokens == 0 and getattr(variant, name) != neutral:
                raise UserError(
                    f"sft.ablation.{name} is {getattr(variant, name)!r}, but reasoning_tokens is 0: "
                    f"there is no latent; use --reasoning-tokens 1 or leave {name} at {neutral!r}",
                    code="config.conflict",
                )
        if variant.latent_loss != "none" and self.latent == "pause_token":
            raise UserError(
                f"sft.ablation.latent_loss is '{variant.latent_loss}', but a pause token is the same for "
                "every user",
                code="config.conflict",
            )

    @property
    def splits_exactly(self) -> bool:
        """Whether rows of a micro-batch may pass through the model in groups and nothing else changes."""
        variant = self.ablation
        return self.sharding == "ddp" and variant.latent_loss == "none" and not variant.prompt_key_dropout

    def check_world(self, processes: int) -> None:
        """Refuse a batch that processes and micro-batches cannot share evenly.

        Raises:
            UserError: see :func:`check_share`.
        """
        check_share(
            f"sft.batch_size is {self.batch_size}",
            self.batch_size,
            processes,
            "gradient_accumulation_steps",
            self.gradient_accumulation_steps,
        )
