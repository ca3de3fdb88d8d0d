"""Cells of stage 2 on the arcsin objective: decoded by the probability that it is trained on."""

from __future__ import annotations

from benchmarks.results.cell import Cell, other_latents, sft, title_objective, under_d3

CONTINUED = ("--num-train-epochs", "1", "--learning-rate", "3e-4")
"""As long, and at the learning rate, of stage 2."""


def on_titles(name: str, label: str, command: tuple[str, ...], parent: str) -> Cell:
    """A model that went on from another cell's, decoded by the title's probability in the catalogue."""
    return Cell(name, label, command, decoding="catalogue", table="titles", needs=(parent,))


def continued(parent: str, tokens: str) -> tuple[str, ...]:
    """The control: the same steps on the same probabilities, each sample counted alike."""
    start = ("--reasoning-tokens", tokens, "--init-from", f"{{model:{parent}}}")
    return sft(*start, "--likelihood", "catalogue", "--no-load-best-model-at-end", *CONTINUED)


def with_sasrec(name: str, label: str, model: str) -> Cell:
    """D3 over the catalogue's titles: the model's and the assistant's probability of a title, mixed."""
    return under_d3(name, label, model, "titles", decoding="d3-catalogue")


TITLES = (
    on_titles("titles-latentr3", "+ LatentR³, SFT, then arcsin", title_objective(), "latentr3-sft"),
    on_titles(
        "titles-bigrec",
        "BIGRec's model, then the same objective (N = 0)",
        title_objective(parent="bigrec"),
        "bigrec",
    ),
    on_titles(
        "titles-pause",
        "control: a pause token's model + the same objective",
        title_objective(parent="pause"),
        "pause",
    ),
    on_titles(
        "titles-continued",
        "control: + LatentR³, SFT, then as many steps of likelihood",
        continued("latentr3-sft", "1"),
        "latentr3-sft",
    ),
    on_titles(
        "titles-bigrec-continued",
        "control: BIGRec's model, then as many steps of likelihood",
        continued("bigrec", "0"),
        "bigrec",
    ),
    on_titles(
        "titles-unscaled",
        "the same with p in place of arcsin (expected 0/1 reward)",
        title_objective("--objective", "power", "--exponent", "1"),
        "latentr3-sft",
    ),
    on_titles(
        "titles-frozen",
        "arcsin beneath a frozen backbone: LatentRATT alone",
        title_objective("--no-train-backbone", "--learning-rate", "1e-3"),
        "latentr3-sft",
    ),
    other_latents(
        "titles-mean-latent",
        "control: the batch's mean latent at inference",
        "titles-latentr3",
        "mean",
        table="titles",
        decoding="catalogue",
    ),
    other_latents(
        "titles-shuffled-latent",
        "control: another user's latent at inference",
        "titles-latentr3",
        "shuffled",
        table="titles",
        decoding="catalogue",
    ),
    on_titles(
        "titles-catalogue-latentr3",
        "+ LatentR³, SFT on the catalogue's likelihood, then arcsin",
        title_objective(parent="catalogue-latentr3-sft"),
        "catalogue-latentr3-sft",
    ),
    with_sasrec("d3-catalogue", "D3's model, with SASRec", "bigrec"),
    with_sasrec("d3-catalogue-latentr3-sft", "+ LatentR³, SFT, with SASRec", "latentr3-sft"),
    with_sasrec("d3-titles-latentr3", "+ LatentR³, SFT, then arcsin, with SASRec", "titles-latentr3"),
    with_sasrec(
        "d3-titles-bigrec", "D3's model, then the same objective (N = 0), with SASRec", "titles-bigrec"
    ),
)
