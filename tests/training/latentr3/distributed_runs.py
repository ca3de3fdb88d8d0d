"""Run small trainings as one process of a world: ``python -m`` this module, with the output folder."""

import sys
from pathlib import Path

from tests.training.latentr3.first_gradients import FirstGradients, callbacks_of_trainings
from tests.training.latentr3.latentr3_runs import grpo, sft, titles

SFT_OPTIONS = {"num_train_epochs": 1, "evals_per_epoch": 1, "ranking_samples": 0, "max_train_samples": 120}
GRPO_OPTIONS = {"max_steps": 3, "ranking_samples": 0, "eval_steps": 3, "load_best_model_at_end": False}
RUNS = {
    "sft_packed": ("sft", {"packing": "exact"}),
    "sft_plain": ("sft", {"packing": "none"}),
    "sft_in_groups": ("sft", {"packing": "exact", "max_tokens_per_forward": 300}),
    "title_objective": ("titles", {}),
    "grpo_target_likelihood": ("grpo", {"estimator": "target_likelihood", "advantage": "batch"}),
    "grpo_gaussian": ("grpo", {"estimator": "gaussian", "advantage": "own", "diagnostics_every": 0}),
    "sft_sharded": ("sft", {"packing": "exact", "sharding": "fsdp", "ranking_samples": 20}),
    "title_objective_sharded": ("titles", {"sharding": "fsdp", "ranking_samples": 20}),
    "title_objective_frozen_sharded": ("titles", {"sharding": "fsdp", "train_backbone": False}),
}


def train_all(folder: Path) -> None:
    """Train each run of :data:`RUNS` into ``folder``; stage 2 starts from ``folder/../stage_1``.

    The gradients of each run's first step are kept below ``folder/gradients``.
    """
    dataset = folder.parent / "dataset"
    for name, (stage, options) in RUNS.items():
        with callbacks_of_trainings(FirstGradients(folder / "gradients" / name)):
            if stage == "sft":
                sft(dataset, folder / name, **(SFT_OPTIONS | options))
            else:
                train = titles if stage == "titles" else grpo
                train(dataset, folder.parent / "stage_1", folder / name, **(GRPO_OPTIONS | options))


if __name__ == "__main__":
    train_all(Path(sys.argv[1]))
