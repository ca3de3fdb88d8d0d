"""Cells that vary training and decoding: longer training, and probabilities among the catalogue."""

from __future__ import annotations

from benchmarks.results.cell import Cell, on_latents, other_latents, ratt_alone, sft, under_d3

CATALOGUE = ("--likelihood", "catalogue")


def in_catalogue(model: str, label: str) -> Cell:
    """The same model, decoded by the title's probability among the catalogue's."""
    return Cell(
        f"{model}-catalogue", label, model=model, decoding="catalogue", table="catalogue", needs=(model,)
    )


def by_catalogue(
    name: str,
    label: str,
    command: tuple[str, ...],
    *,
    needs: str = "",
) -> Cell:
    """A model trained on, and decoded by, the title's probability among the catalogue's."""
    needed = (needs,) if needs else ()
    return Cell(name, label, command, decoding="catalogue", table="by-catalogue", needs=needed)


VARIANTS = (
    Cell(
        "bigrec-long",
        "BIGRec, 10 epochs",
        sft("--reasoning-tokens", "0", "--num-train-epochs", "10"),
        table="long",
    ),
    Cell(
        "latentr3-sft-long",
        "BIGRec + LatentR³, SFT for 10 epochs",
        sft("--reasoning-tokens", "1", "--num-train-epochs", "10"),
        table="long",
    ),
    Cell(
        "latentr3-long",
        "BIGRec + LatentR³, SFT for 10 epochs + RL",
        on_latents(parent="latentr3-sft-long"),
        table="long",
        needs=("latentr3-sft-long",),
    ),
    under_d3("d3-long", "D3, 10 epochs", "bigrec-long", "long"),
    under_d3("d3-latentr3-sft-long", "D3 + LatentR³, SFT for 10 epochs", "latentr3-sft-long", "long"),
    under_d3("d3-latentr3-long", "D3 + LatentR³, SFT for 10 epochs + RL", "latentr3-long", "long"),
    other_latents(
        "mean-latent-long",
        "10 epochs, control: the batch's mean latent at inference",
        "latentr3-sft-long",
        "mean",
        table="long",
    ),
    other_latents(
        "shuffled-latent-long",
        "10 epochs, control: another user's latent at inference",
        "latentr3-sft-long",
        "shuffled",
        table="long",
    ),
    in_catalogue("bigrec", "BIGRec's model, 3 epochs"),
    in_catalogue("latentr3-sft", "+ LatentR³, SFT"),
    in_catalogue("latentr3", "+ LatentR³, SFT + RL"),
    in_catalogue("bigrec-long", "BIGRec's model, 10 epochs"),
    in_catalogue("latentr3-sft-long", "+ LatentR³, SFT for 10 epochs"),
    in_catalogue("latentr3-long", "+ LatentR³, SFT for 10 epochs + RL"),
    by_catalogue("catalogue-bigrec", "BIGRec's model", sft("--reasoning-tokens", "0", *CATALOGUE)),
    by_catalogue("catalogue-latentr3-sft", "+ LatentR³, SFT", sft("--reasoning-tokens", "1", *CATALOGUE)),
    by_catalogue(
        "catalogue-latentr3",
        "+ LatentR³, SFT + RL",
        on_latents(parent="catalogue-latentr3-sft"),
        needs="catalogue-latentr3-sft",
    ),
    by_catalogue(
        "catalogue-rl-likelihood",
        "RL with the published estimator at our reward and σ",
        on_latents("--estimator", "target_likelihood", parent="catalogue-latentr3-sft"),
        needs="catalogue-latentr3-sft",
    ),
    by_catalogue(
        "catalogue-ratt-exact",
        "control: LatentRATT alone goes on by the exact gradient",
        ratt_alone(
            "catalogue-latentr3-sft", *CATALOGUE, "--num-train-epochs", "1", "--learning-rate", "1e-3"
        ),
        needs="catalogue-latentr3-sft",
    ),
    by_catalogue(
        "catalogue-ratt-only",
        "LatentRATT alone on the frozen BIGRec model",
        ratt_alone("catalogue-bigrec", *CATALOGUE, "--num-train-epochs", "2"),
        needs="catalogue-bigrec",
    ),
    other_latents(
        "catalogue-mean-latent",
        "control: the batch's mean latent at inference",
        "catalogue-latentr3-sft",
        "mean",
        table="by-catalogue",
        decoding="catalogue",
    ),
    other_latents(
        "catalogue-shuffled-latent",
        "control: another user's latent at inference",
        "catalogue-latentr3-sft",
        "shuffled",
        table="by-catalogue",
        decoding="catalogue",
    ),
)
