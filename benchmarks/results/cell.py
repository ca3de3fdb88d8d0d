"""What a cell of the comparison is, and the commands that cells are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

ON_LATENTS = (
    *("--max-steps", "120", "--eval-steps", "40", "--learning-rate", "1e-3"),
    *("--validation-samples", "400", "--ranking-samples", "400", "--metric-for-best-model", "ndcg_at_10"),
    *("--diagnostics-every", "0"),
)
"""Stage 2 on latents, chosen on validation (Office and CDs, seed 1): docs/estimator.md holds the trials."""


@dataclass(frozen=True)
class Cell:
    """One system: the command that trains it, or the models that it decodes.

    Attributes:
        name: of the cell, also of its files.
        label: as the tables call it.
        command: arguments of ``latentrec`` without dataset, output and seed; empty for a cell that only
            decodes what others trained. ``{model:NAME}`` stands for another cell's model directory.
        model: cell whose model is decoded (default: this one's).
        decoding: ``bigrec``, ``catalogue``, or ``d3`` and ``d3-catalogue``, which take the seed's SASRec as
            assistant and tune α on validation.
        latents: ``own``, or a control at inference: ``mean`` of the batch, or ``shuffled`` between users.
        table: of the page that shows it: ``main``, ``long`` (backbones trained for longer), ``catalogue``
            (decoding by the title's probability in the catalogue), ``by-catalogue`` (training too),
            ``titles`` (stage 2 on an objective over titles), ``ablation``.
        needs: cells whose models it reads.
    """

    name: str
    label: str
    command: tuple[str, ...] = ()
    model: str | None = None
    decoding: str = "bigrec"
    latents: str = "own"
    table: str = "main"
    needs: tuple[str, ...] = field(default=())


def sft(*flags: str) -> tuple[str, ...]:
    """Train stage 1 of LatentR³, or its backbone alone."""
    return ("sft", "--backbone", "{backbone}", *flags)


def ratt_alone(parent: str, *flags: str) -> tuple[str, ...]:
    """LatentRATT alone goes on from another cell's model, whose backbone is frozen."""
    start = ("--reasoning-tokens", "1", "--init-from", f"{{model:{parent}}}")
    return sft(*start, "--train-backbone", "frozen", *flags)


def title_objective(*flags: str, parent: str = "latentr3-sft") -> tuple[str, ...]:
    """Train stage 2 on an objective over titles from another cell's stage 1."""
    return ("title-objective", "--model", f"{{model:{parent}}}", *flags)


def on_latents(*flags: str, parent: str = "latentr3-sft") -> tuple[str, ...]:
    """Train stage 2 with the latent as the action, the backbone frozen."""
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    settled = dict(zip(ON_LATENTS[::2], ON_LATENTS[1::2], strict=True)) | given
    words = (word for pair in settled.items() for word in pair)
    return ("grpo", "--model", f"{{model:{parent}}}", *words)


def sequential(encoder: str, *flags: str) -> tuple[str, ...]:
    """Train an ID-based model."""
    return ("train-sequential", "--encoder", encoder, *flags)


def rpt(*flags: str) -> tuple[str, ...]:
    """Train LARES' stage 2 from the seed's stage 1."""
    return ("rpt", "--model", "{model:lares-spt}", *flags)


def under_d3(name: str, label: str, model: str, table: str = "main", decoding: str = "d3") -> Cell:
    """Another cell's model, decoded with the seed's SASRec as assistant."""
    return Cell(name, label, model=model, decoding=decoding, table=table, needs=(model, "sasrec"))


def other_latents(
    name: str, label: str, model: str, latents: str, *, table: str, decoding: str = "bigrec"
) -> Cell:
    """A control at inference: another cell's model, read with latents that are not the user's own."""
    return Cell(name, label, model=model, decoding=decoding, latents=latents, table=table, needs=(model,))
