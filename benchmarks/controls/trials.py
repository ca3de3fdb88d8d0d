"""The trials: which model, trained from which other by which command, evaluated on which split."""

from __future__ import annotations

from dataclasses import dataclass

SFT = (
    *(
        "sft",
        "--backbone",
        "tiny",
        "--num-train-epochs",
        "3",
        "--batch-size",
        "32",
        "--learning-rate",
        "3e-3",
    ),
    *("--evals-per-epoch", "1", "--validation-samples", "400", "--ranking-samples", "0"),
    *("--save-steps", "100000", "--logging-steps", "100", "--max-title-tokens", "256"),
)
"""Stage 1 as in ``docs/results.md``: chosen on validation of Office and CDs, seed 1."""
TITLES = (
    *(
        "title-objective",
        "--eval-steps",
        "100000",
        "--no-load-best-model-at-end",
        "--validation-samples",
        "400",
    ),
    *("--ranking-samples", "0", "--collapse-below", "0", "--save-steps", "100000", "--logging-steps", "100"),
)
"""Stage 2 on titles: one pass, last weights, so that no trial gains by choosing among its own checkpoints."""
PUBLISHED = (
    *("grpo", "--profile", "paper", "--save-steps", "100000", "--logging-steps", "100"),
    *("--diagnostics-every", "0", "--validation-samples", "400"),
)
RATES = ("1e-4", "3e-4", "1e-3")
EXTRA_COMPUTE = 1.4
"""Passes that N = 0 gets in stage 2 in place of 1: four passes with one latent cost what 4.4 without cost."""


@dataclass(frozen=True)
class Trial:
    """One model.

    Attributes:
        name: of the trial, also of its files.
        label: as tables call it.
        command: arguments of ``latentrec`` without dataset, model, output and seed.
        parent: trial whose model it begins at.
        split: which split it is evaluated on.
        gpu: needs a GPU to be done in reasonable time.
        objective: the learning rate is the best of :data:`RATES` for this objective, on validation.
        reuse: nothing is trained, the parent's model is evaluated.
        readings: of other latents than its own that it is also ranked with: ``shuffled``, ``mean``.
    """

    name: str
    label: str
    command: tuple[str, ...]
    parent: str | None = None
    split: str = "test"
    gpu: bool = False
    objective: str | None = None
    readings: tuple[str, ...] = ()
    reuse: bool = False


OBJECTIVES: dict[str, tuple[str, tuple[str, ...]]] = {
    "arcsin": ("2 arcsin √p (G = ∞)", ("--objective", "arcsin")),
    "likelihood": ("likelihood", ("--objective", "likelihood")),
    "gce25": ("GCE, q = ¼", ("--objective", "power", "--exponent", "0.25")),
    "gce50": ("GCE, q = ½", ("--objective", "power", "--exponent", "0.5")),
    "gce75": ("GCE, q = ¾", ("--objective", "power", "--exponent", "0.75")),
    "g8": ("w_G, G = 8", ("--objective", "grpo", "--num-generations", "8")),
    "g64": ("w_G, G = 64", ("--objective", "grpo", "--num-generations", "64")),
}
TUNED_ON = (("cds", 1), ("office", 1))
"""Datasets and seed whose validation chooses each objective's learning rate, for all parents and datasets."""
PARENTS = {"n0": "N = 0", "ratt": "LatentRATT", "pause": "pause token"}


def _stage_1(name: str, label: str, *flags: str, readings: tuple[str, ...] = ()) -> Trial:
    return Trial(name, label, (*SFT, *flags), readings=readings)


def _stage_2(parent: str, objective: str, *flags: str, suffix: str = "", note: str = "") -> Trial:
    title, chosen = OBJECTIVES[objective]
    return Trial(
        f"{parent}-{suffix or objective}",
        f"{PARENTS[parent]}, then {title}{note}",
        (*TITLES, *chosen, *flags),
        parent=parent,
        objective=objective,
        readings=("shuffled",) if parent == "ratt" and not suffix else (),
    )


def tuning_name(objective: str, rate: str) -> str:
    """Name of the trial that tries a learning rate."""
    return f"tune-{objective}-{rate}"


STAGE_1 = (
    _stage_1("n0", "BIGRec (N = 0)", "--reasoning-tokens", "0"),
    _stage_1("ratt", "LatentR³, SFT (N = 1)", "--reasoning-tokens", "1", readings=("shuffled",)),
    _stage_1("pause", "pause token, SFT", "--latent", "pause_token"),
)
STAGE_2 = (
    *(_stage_2(p, o) for p in PARENTS for o in OBJECTIVES if p != "pause" or o == "arcsin"),
    _stage_2(
        "n0",
        "arcsin",
        "--num-train-epochs",
        str(EXTRA_COMPUTE),
        suffix="compute",
        note=", equal compute to N = 1",
    ),
    _stage_2(
        "n0",
        "g8",
        *("--estimator", "sampled", "--loss-type", "dr_grpo"),
        suffix="sampled",
        note=", titles really drawn",
    ),
)
TUNING = tuple(
    Trial(
        tuning_name(objective, rate),
        f"N = 0, then {title}, learning rate {rate}",
        (*TITLES, *chosen, "--learning-rate", rate),
        parent="n0",
        split="valid",
    )
    for objective, (title, chosen) in OBJECTIVES.items()
    for rate in RATES
)
PUBLISHED_TRIALS = (
    Trial(
        "rl-published",
        "LatentR³, SFT + RL as published",
        PUBLISHED,
        parent="ratt",
        gpu=True,
        readings=("shuffled",),
    ),
    Trial(
        "rl-published-start",
        "the stage 1 that it started from",
        (*SFT, "--reasoning-tokens", "1"),
        parent="ratt",
        readings=("shuffled",),
        reuse=True,
    ),
)
BOTTLENECK = ("--ablation.answer-reads", "latents")
_IDEAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bottleneck": ("answer reads latents only", BOTTLENECK),
    "bottleneck-n4": ("answer reads latents only, N = 4", (*BOTTLENECK, "--reasoning-tokens", "4")),
    "bottleneck-wide": (
        "answer reads latents only, LatentRATT 512 wide",
        (*BOTTLENECK, "--ablation.latent-width", "512"),
    ),
    "bottleneck-contrastive": (
        "answer reads latents only, contrastive term",
        (*BOTTLENECK, "--ablation.latent-loss", "contrastive"),
    ),
    "dropout-50": ("half of the prompt's keys hidden in training", ("--ablation.prompt-key-dropout", "0.5")),
    "dropout-90": ("nine of ten hidden in training", ("--ablation.prompt-key-dropout", "0.9")),
    "n2": ("N = 2", ("--reasoning-tokens", "2")),
    "n4": ("N = 4", ("--reasoning-tokens", "4")),
    "variance": ("variance term", ("--ablation.latent-loss", "variance")),
    "contrastive": ("contrastive term", ("--ablation.latent-loss", "contrastive")),
    "contrastive-1": (
        "contrastive term, weight 1",
        ("--ablation.latent-loss", "contrastive", "--ablation.latent-loss-weight", "1"),
    ),
    "wide": ("LatentRATT 512 wide", ("--ablation.latent-width", "512")),
    "last-hidden": ("the last hidden state is the latent", ("--latent", "last_hidden")),
}
_FROZEN = ("--init-from", "{parent}", "--train-backbone", "frozen", "--num-train-epochs", "2")
IDEAS = (
    *(
        Trial(
            f"idea-{name}",
            label,
            (*SFT, "--reasoning-tokens", "1", *flags),
            split="valid",
            readings=("shuffled",),
        )
        for name, (label, flags) in _IDEAS.items()
    ),
    *(
        Trial(
            f"idea-frozen-{name}",
            label,
            (*SFT, *flags, *_FROZEN),
            parent="n0",
            split="valid",
            readings=("shuffled",),
        )
        for name, label, flags in (
            ("ratt", "LatentRATT on the frozen N = 0 model", ("--reasoning-tokens", "1")),
            ("ratt-n4", "the same, N = 4", ("--reasoning-tokens", "4")),
            ("pause", "pause token on the frozen N = 0 model", ("--latent", "pause_token")),
            (
                "contrastive",
                "LatentRATT on the frozen N = 0 model, contrastive term",
                ("--reasoning-tokens", "1", "--ablation.latent-loss", "contrastive"),
            ),
        )
    ),
    *(
        Trial(
            f"idea-{name}-for-comparison",
            f"{label} (for comparison)",
            (*SFT, *flags),
            parent=name,
            split="valid",
            readings=("shuffled",) if name == "ratt" else (),
            reuse=True,
        )
        for name, label, flags in (
            ("n0", "N = 0", ("--reasoning-tokens", "0")),
            ("ratt", "N = 1", ("--reasoning-tokens", "1")),
            ("pause", "pause token", ("--latent", "pause_token")),
        )
    ),
)
_SEQUENTIAL = ("train-sequential", "--num-train-epochs", "100", "--patience", "10")
_RPT = ("rpt", "--profile", "paper", "--num-train-epochs", "20", "--patience", "5")
LARES = (
    Trial("sasrec", "SASRec", (*_SEQUENTIAL, "--encoder", "sasrec")),
    Trial(
        "spt", "LARES, SPT as published", (*_SEQUENTIAL, "--encoder", "lares", "--profile", "paper"), gpu=True
    ),
    Trial("spt-ours", "LARES, SPT with our defaults", (*_SEQUENTIAL, "--encoder", "lares"), gpu=True),
    Trial("rpt", "LARES, SPT + RPT as published", _RPT, parent="spt", gpu=True),
    Trial(
        "rpt-spt",
        "LARES, SPT, then as many epochs of SPT as RPT may take",
        (*_RPT, "--objective", "spt"),
        parent="spt",
        gpu=True,
    ),
    *(
        Trial(f"rpt-{name}", f"RPT, {label}", (*_RPT, *flags), parent="spt", split="valid", gpu=True)
        for name, label, flags in (
            ("lr1e-4", "learning rate 1e-4", ("--learning-rate", "1e-4")),
            ("lr1e-3", "learning rate 1e-3", ("--learning-rate", "1e-3")),
            ("beta0", "β = 0", ("--beta", "0")),
            ("beta01", "β = 0.1", ("--beta", "0.1")),
            ("g16", "G = 16", ("--num-generations", "16")),
            ("ndcg", "reward NDCG", ("--reward", "ndcg")),
            ("all", "no hard-sample filter", ("--filter-passes", "0")),
            ("smoothed", "our smoothed estimator", ("--estimator", "smoothed")),
            ("published-valid", "as published", ()),
        )
    ),
)
"""SPT against SASRec and RPT against SPT; the settings of RPT are searched on validation."""
TRIALS = {trial.name: trial for trial in (*STAGE_1, *STAGE_2, *TUNING, *PUBLISHED_TRIALS, *IDEAS, *LARES)}
