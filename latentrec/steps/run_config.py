"""What a whole run is asked for, besides its steps' configurations: nodes, registered name, what to skip."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from latentrec.core import Config
from latentrec.core.config import Seed

QUANTITY = r"^$|^\d+(\.\d+)?([KMGTPE]i?|m)?$"
Quantity = Annotated[str, Field(pattern=QUANTITY)]
"""Kubernetes notation, such as ``8`` CPUs or ``32Gi``."""


class RunConfig(Config):
    """Parameters of a pipeline that no step's configuration has; a pipeline has those that it needs."""

    step_name: ClassVar[str] = "run"

    data_cutoff: str = Field(
        "",
        description="Day or time that ends the data where data_window_end is empty; scheduled: when the run "
        "was to start, which schedules use",
    )
    data_only_new: bool = Field(
        False, description="Stop after data preparation where the newest registered version had the same data"
    )
    profile: Literal["default", "paper"] = Field(
        "default", description="What fields left alone become in every step; paper is the published recipe"
    )
    resources: Literal["default", "small"] = Field(
        "default", description="Sizes of all steps; small is for a cluster of two cores and 8 GiB"
    )
    seed: Seed = Field(42, description="Seed of everything random, in every step")
    sft_warm_start: bool = Field(
        False, description="Begin stage 1 at the champion, where there is one, instead of at the backbone"
    )
    gpu_count: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Accelerators of a training pod, one process each; 0 is CPU nodes"
    )
    gpu_nodes: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="Nodes of a training step, each with gpu_count accelerators; above 1 a TrainJob of "
        "Kubeflow Trainer runs it",
    )
    gpu_type: str = Field("nvidia-l4", description="GKE accelerator type; preflight checks its memory")
    gpu_spot: bool = Field(False, description="Use spot nodes; interrupted steps resume from a checkpoint")
    gpu_machine_type: str = Field(
        "", description="GKE machine type of the pool; empty is the guide's own for gpu_type"
    )
    gpu_node_selector: dict[str, str] = Field(
        {}, description="Node labels instead of those that gpu_type and gpu_spot give, as JSON"
    )
    gpu_tolerations: list[dict[str, Any]] = Field(
        [], description="Tolerations besides those of GPU and spot nodes, as a JSON list"
    )
    registry_model_name: str = Field(
        "",
        description="Name in the model registry; empty: system and dataset (latentr3-gift-cards), so that "
        "every shop has champions of its own",
    )
    stage_2: Literal["profile", "title_objective", "grpo"] = Field(
        "profile",
        description="Stage 2: title_objective, grpo (on the latent), or as the profile says: title_objective "
        "by default, grpo for paper",
    )
    train_cpu: Quantity = Field(
        "",
        description="CPUs of a training pod, in Kubernetes notation; empty is what resources and pool give",
    )
    train_memory: Quantity = Field(
        "", description="Memory of a training pod, in Kubernetes notation; empty: likewise"
    )
    settings: dict[str, Any] = Field(
        {}, description='Any field of any step, as {"sft.learning_rate": 1e-4, "evaluate.max_users": 2000}'
    )
