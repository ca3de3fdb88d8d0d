"""The datasets that are compared on, and what each lets a training cost."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

GAMES_USERS = 10_000
SMALL_GAMES_USERS = 4_000
TITLE_EPOCHS = 0
"""The option to read titles first is off: what it would bring has not been measured."""


@dataclass(frozen=True)
class DatasetPlan:
    """One dataset: its files under the data root, the flags of ``data-prep``, and the sizes that it needs.

    Attributes:
        profile: ``cpu``, or ``gpu`` for what needs one (``make results PROFILE=gpu``).
        backbone: preset of the text models, or a directory in Hugging Face layout.
        title_epochs: passes over the catalogue's titles that make the text models' common backbone, the
            placeholder for a pretrained one; 0: the backbone is used as it is.
        limits: flags by command: the settings chosen on validation, the same for every cell of the dataset
            (a cell's own flags come after them and win).
        newest: flags by command that leave out the older training samples, for cells that name no range.
        validation_samples: how many of the validation split, drawn with a seed, every cell is scored on, and
            D3 chooses α by; 0: what ``score_models`` takes.
        test_samples: how many of the test split, drawn with a seed, every cell is scored on; 0: all.
        dtype: of title models' weights while they are scored.
        budget: what a model may cost, for the page.
        not_run: why a cell without a record has none, for the page.
    """

    name: str
    title: str
    reviews: str
    metadata: str
    flags: tuple[str, ...]
    profile: str = "cpu"
    backbone: str = "tiny"
    title_epochs: int = TITLE_EPOCHS
    limits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    newest: dict[str, tuple[str, ...]] = field(default_factory=dict)
    validation_samples: int = 0
    test_samples: int = 0
    dtype: str = "float32"
    budget: str = ""
    not_run: str = "the time that the CPU cells were given was up before it"


TEXT_LIMITS: dict[str, tuple[str, ...]] = {
    "sft": (
        *("--num-train-epochs", "3", "--batch-size", "32", "--learning-rate", "3e-3"),
        *("--evals-per-epoch", "1", "--validation-samples", "400", "--ranking-samples", "0"),
        *("--save-steps", "100000", "--logging-steps", "50"),
    ),
}
TEXT_LIMITS |= dict.fromkeys(
    ("grpo", "title-objective"),
    (
        *("--eval-steps", "200", "--validation-samples", "1000", "--ranking-samples", "0"),
        *("--save-steps", "100000", "--logging-steps", "50"),
    ),
)
"""Chosen on validation (Office and CDs, seed 1): what a small model learns most from in a few processor
minutes; docs/estimator.md holds the trials of stage 2. Evaluations and checkpoints are few: they cost."""

GAMES_LIMITS: dict[str, tuple[str, ...]] = {
    "sft": (*TEXT_LIMITS["sft"], "--max-title-tokens", "256"),
    "train-sequential": ("--batch-size", "256", "--num-train-epochs", "16", "--patience", "2"),
    "rpt": ("--batch-size", "256", "--num-train-epochs", "2", "--patience", "2", "--learning-rate", "1e-4"),
}
"""Chosen on validation (Video Games, 4,000 users, histories of 20, seed 42; docs/lares.md). Its longest title
has 207 tokens."""

SMOLLM2_LIMITS: dict[str, tuple[str, ...]] = {
    "sft": (
        *("--num-train-epochs", "1", "--batch-size", "32", "--learning-rate", "2e-4", "--bf16"),
        *("--evals-per-epoch", "1", "--validation-samples", "200", "--ranking-samples", "0"),
        *("--max-title-tokens", "256", "--max-prompt-tokens", "1024"),
        *("--save-steps", "100000", "--logging-steps", "50"),
    ),
    "grpo": (
        *("--bf16", "--eval-steps", "200", "--validation-samples", "200"),
        *("--ranking-samples", "0", "--save-steps", "100000", "--logging-steps", "50"),
    ),
    "title-objective": (
        *("--bf16", "--eval-steps", "200", "--validation-samples", "200"),
        *("--learning-rate", "1e-4", "--batch-size", "64", "--num-train-epochs", "0.5"),
        *("--ranking-samples", "0", "--save-steps", "100000", "--logging-steps", "50"),
    ),
}
"""With SmolLM2-135M: one pass; nothing was tuned."""
SMOLLM2_NEWEST = {"office": 0.85, "cds": 0.95, "games": 0.95}
"""Where the training samples begin, as a share of them by time; the rest costs a core some ten minutes."""
SMOLLM2_TEST_SAMPLES = 300
SMOLLM2_VALIDATION_SAMPLES = 100


def with_smollm2(plan: DatasetPlan) -> DatasetPlan:
    """The same dataset for text models that start from SmolLM2-135M-Instruct."""
    begin = SMOLLM2_NEWEST[plan.name]
    return replace(
        plan,
        name=f"{plan.name}-smollm2",
        title=f"{plan.title}, SmolLM2-135M",
        profile="pretrained",
        backbone="smollm2-135m",
        title_epochs=0,
        limits={**plan.limits, **SMOLLM2_LIMITS},
        newest=dict.fromkeys(SMOLLM2_LIMITS, ("--train-from", str(begin))),
        validation_samples=SMOLLM2_VALIDATION_SAMPLES,
        test_samples=SMOLLM2_TEST_SAMPLES,
        dtype="bfloat16",
        budget=f"Text models are trained on the newest {1 - begin:.0%} of the training samples, SASRec on "
        f"all; all are scored on {SMOLLM2_TEST_SAMPLES} test samples, drawn with seed 42, with weights "
        "in bfloat16: what two cores can do in an afternoon.",
        not_run="the time that two cores were given was up before it",
    )


DATASETS = {
    plan.name: plan
    for plan in (
        DatasetPlan(
            "office",
            "Office Products 2018 (rebuilt events), temporal 8:1:1",
            "amazon2018/Office_Products/Office_Products.json.gz",
            "amazon2018/Office_Products/meta_Office_Products.json.gz",
            ("--k-core", "1", "--split", "temporal"),
            limits=TEXT_LIMITS,
        ),
        DatasetPlan(
            "cds",
            "CDs and Vinyl 2018 (rebuilt events), temporal 8:1:1",
            "amazon2018/CDs_and_Vinyl/CDs_and_Vinyl.json.gz",
            "amazon2018/CDs_and_Vinyl/meta_CDs_and_Vinyl.json.gz",
            ("--k-core", "1", "--split", "temporal"),
            limits=TEXT_LIMITS,
        ),
        DatasetPlan(
            "games",
            f"Video Games, leave-one-out, {GAMES_USERS:,} users drawn with seed 42",
            "amazon2018/Video_Games_sequences/Video_Games.json.gz",
            "amazon2018/Video_Games_sequences/meta_Video_Games.json.gz",
            ("--k-core", "1", "--split", "leave_one_out", "--max-users", str(GAMES_USERS)),
            limits={**TEXT_LIMITS, **GAMES_LIMITS},
            not_run="an ablation costs ten minutes of a core here and three on CDs, which went first; the "
            "time that the CPU cells were given was up",
        ),
        DatasetPlan(
            "games-small",
            f"Video Games, leave-one-out, {SMALL_GAMES_USERS:,} of these users",
            "amazon2018/Video_Games_sequences/Video_Games.json.gz",
            "amazon2018/Video_Games_sequences/meta_Video_Games.json.gz",
            ("--k-core", "1", "--split", "leave_one_out", "--max-users", str(SMALL_GAMES_USERS)),
            limits={**TEXT_LIMITS, **GAMES_LIMITS},
        ),
        DatasetPlan(
            "games-full",
            "Video Games, leave-one-out, all 50,546 users",
            "amazon2018/Video_Games_sequences/Video_Games.json.gz",
            "amazon2018/Video_Games_sequences/meta_Video_Games.json.gz",
            ("--k-core", "1", "--split", "leave_one_out"),
            profile="gpu",
            not_run="no GPU was to be had; `make results PROFILE=gpu` runs it",
            backbone=os.environ.get("RESULTS_BACKBONE", "large"),
            title_epochs=0,
            limits={
                "sft": (
                    *("--num-train-epochs", "5", "--batch-size", "128", "--learning-rate", "3e-4"),
                    *("--bf16", "--warmup-steps", "500"),
                ),
                "grpo": ("--bf16",),
            },
        ),
    )
}
DATASETS |= {
    own.name: own for own in map(with_smollm2, (DATASETS[name] for name in ("office", "cds", "games")))
}
