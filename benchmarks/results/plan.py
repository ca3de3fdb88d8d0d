"""What is compared: the cells, and the commands that make them."""

from __future__ import annotations

from dataclasses import dataclass, field

SEEDS = (1, 2, 3)
LARES_DROPOUT = ("--hidden-dropout", "0.4", "--attention-dropout", "0.4")
CATALOGUE = ("--likelihood", "catalogue")
CONTINUED = ("--epochs", "1", "--learning-rate", "3e-4")


@dataclass(frozen=True)
class Cell:
    """One system: the command that trains it, or the models that it decodes.

    Attributes:
        name: of the cell, also of its files.
        label: as the tables call it.
        command: arguments of ``latentrec`` without dataset, output and seed; empty for a cell that only
            decodes what others trained. ``{model:NAME}`` stands for another cell's model directory.
        model: cell whose model is decoded (default: this one's).
        host: ``bigrec``, ``catalogue``, or ``d3``, which takes the seed's SASRec as assistant and tunes α on
            validation.
        latents: ``own``, or a control at inference: ``mean`` of the batch, or ``shuffled`` between users.
        table: of the page that shows it: ``main``, ``long`` (hosts trained for longer), ``catalogue``
            (decoding by the title's probability in the catalogue), ``by-catalogue`` (training too),
            ``ablation``.
        needs: cells whose models it reads.
    """

    name: str
    label: str
    command: tuple[str, ...] = ()
    model: str | None = None
    host: str = "bigrec"
    latents: str = "own"
    table: str = "main"
    needs: tuple[str, ...] = field(default=())


def _sft(*flags: str) -> tuple[str, ...]:
    return ("sft", "--backbone", "{backbone}", *flags)


def _ratt_alone(parent: str, *flags: str) -> tuple[str, ...]:
    """LatentRATT alone goes on from another cell's model, whose backbone is frozen."""
    start = ("--reasoning-tokens", "1", "--init-from", f"{{model:{parent}}}")
    return _sft(*start, "--train-backbone", "frozen", *flags)


def _grpo(*flags: str) -> tuple[str, ...]:
    return ("grpo", "--model", "{model:latentr3-sft}", *flags)


def _sequential(encoder: str, *flags: str) -> tuple[str, ...]:
    return ("train-sequential", "--encoder", encoder, *flags)


def _rpt(*flags: str) -> tuple[str, ...]:
    return ("rpt", "--model", "{model:lares-spt}", *flags)


def _in_catalogue(model: str, label: str) -> Cell:
    """The same model, decoded by the title's probability among the catalogue's."""
    return Cell(f"{model}-catalogue", label, model=model, host="catalogue", table="catalogue", needs=(model,))


def _by_catalogue(
    name: str,
    label: str,
    command: tuple[str, ...] = (),
    *,
    model: str | None = None,
    latents: str = "own",
    needs: str = "",
) -> Cell:
    """A model trained on, and decoded by, the title's probability among the catalogue's."""
    needed = tuple(filter(None, (needs, model)))
    return Cell(name, label, command, model, "catalogue", latents, table="by-catalogue", needs=needed)


CELLS = {
    cell.name: cell
    for cell in (
        Cell("popularity", "Popularity", _sequential("popularity")),
        Cell("gru4rec", "GRU4Rec", _sequential("gru4rec")),
        Cell("sasrec", "SASRec", _sequential("sasrec")),
        Cell("caser", "Caser", _sequential("caser")),
        Cell("lares-spt", "LARES, SPT", _sequential("lares", *LARES_DROPOUT)),
        Cell("lares", "LARES, SPT + RPT", _rpt(), needs=("lares-spt",)),
        Cell("bigrec", "BIGRec (backbone, N = 0)", _sft("--reasoning-tokens", "0")),
        Cell("latentr3-sft", "BIGRec + LatentR³, SFT", _sft("--reasoning-tokens", "1")),
        Cell("latentr3", "BIGRec + LatentR³, SFT + RL", _grpo(), needs=("latentr3-sft",)),
        Cell("d3", "D3", model="bigrec", host="d3", needs=("bigrec", "sasrec")),
        Cell(
            "d3-latentr3-sft",
            "D3 + LatentR³, SFT",
            model="latentr3-sft",
            host="d3",
            needs=("latentr3-sft", "sasrec"),
        ),
        Cell(
            "d3-latentr3",
            "D3 + LatentR³, SFT + RL",
            model="latentr3",
            host="d3",
            needs=("latentr3", "sasrec"),
        ),
        Cell(
            "bigrec-long",
            "BIGRec, 10 epochs",
            _sft("--reasoning-tokens", "0", "--epochs", "10"),
            table="long",
        ),
        Cell(
            "latentr3-sft-long",
            "BIGRec + LatentR³, SFT for 10 epochs",
            _sft("--reasoning-tokens", "1", "--epochs", "10"),
            table="long",
        ),
        Cell(
            "latentr3-long",
            "BIGRec + LatentR³, SFT for 10 epochs + RL",
            ("grpo", "--model", "{model:latentr3-sft-long}"),
            table="long",
            needs=("latentr3-sft-long",),
        ),
        Cell(
            "d3-long",
            "D3, 10 epochs",
            model="bigrec-long",
            host="d3",
            table="long",
            needs=("bigrec-long", "sasrec"),
        ),
        Cell(
            "d3-latentr3-sft-long",
            "D3 + LatentR³, SFT for 10 epochs",
            model="latentr3-sft-long",
            host="d3",
            table="long",
            needs=("latentr3-sft-long", "sasrec"),
        ),
        Cell(
            "d3-latentr3-long",
            "D3 + LatentR³, SFT for 10 epochs + RL",
            model="latentr3-long",
            host="d3",
            table="long",
            needs=("latentr3-long", "sasrec"),
        ),
        Cell(
            "mean-latent-long",
            "10 epochs, control: the batch's mean latent at inference",
            model="latentr3-sft-long",
            latents="mean",
            table="long",
            needs=("latentr3-sft-long",),
        ),
        Cell(
            "shuffled-latent-long",
            "10 epochs, control: another user's latent at inference",
            model="latentr3-sft-long",
            latents="shuffled",
            table="long",
            needs=("latentr3-sft-long",),
        ),
        _in_catalogue("bigrec", "BIGRec's model, 3 epochs"),
        _in_catalogue("latentr3-sft", "+ LatentR³, SFT"),
        _in_catalogue("latentr3", "+ LatentR³, SFT + RL"),
        _in_catalogue("bigrec-long", "BIGRec's model, 10 epochs"),
        _in_catalogue("latentr3-sft-long", "+ LatentR³, SFT for 10 epochs"),
        _in_catalogue("latentr3-long", "+ LatentR³, SFT for 10 epochs + RL"),
        _by_catalogue("catalogue-bigrec", "BIGRec's model", _sft("--reasoning-tokens", "0", *CATALOGUE)),
        _by_catalogue(
            "catalogue-latentr3-sft", "+ LatentR³, SFT", _sft("--reasoning-tokens", "1", *CATALOGUE)
        ),
        _by_catalogue(
            "catalogue-latentr3",
            "+ LatentR³, SFT + RL",
            ("grpo", "--model", "{model:catalogue-latentr3-sft}"),
            needs="catalogue-latentr3-sft",
        ),
        _by_catalogue(
            "catalogue-rl-likelihood",
            "RL with the published estimator at our reward and σ",
            ("grpo", "--model", "{model:catalogue-latentr3-sft}", "--estimator", "target_likelihood"),
            needs="catalogue-latentr3-sft",
        ),
        _by_catalogue(
            "catalogue-ratt-exact",
            "control: LatentRATT alone goes on by the exact gradient",
            _ratt_alone("catalogue-latentr3-sft", *CATALOGUE, "--epochs", "1", "--learning-rate", "1e-3"),
            needs="catalogue-latentr3-sft",
        ),
        _by_catalogue(
            "catalogue-ratt-only",
            "LatentRATT alone on the frozen BIGRec model",
            _ratt_alone("catalogue-bigrec", *CATALOGUE, "--epochs", "2"),
            needs="catalogue-bigrec",
        ),
        _by_catalogue(
            "catalogue-mean-latent",
            "control: the batch's mean latent at inference",
            model="catalogue-latentr3-sft",
            latents="mean",
        ),
        _by_catalogue(
            "catalogue-shuffled-latent",
            "control: another user's latent at inference",
            model="catalogue-latentr3-sft",
            latents="shuffled",
        ),
        Cell(
            "last-hidden",
            "no LatentRATT (last hidden state is the latent)",
            _sft("--reasoning-tokens", "1", "--latent", "last_hidden"),
            table="ablation",
        ),
        Cell(
            "rl-group",
            "RL with group advantage",
            _grpo("--advantage", "group"),
            table="ablation",
            needs=("latentr3-sft",),
        ),
        Cell(
            "rl-published",
            "RL as published (target likelihood, batch advantage, σ = 1.5)",
            _grpo("--profile", "paper", "--advantage-prompts", "0", "--learning-rate", "1e-4"),
            table="ablation",
            needs=("latentr3-sft",),
        ),
        Cell(
            "rl-likelihood",
            "RL with the published estimator at our reward and σ",
            _grpo("--estimator", "target_likelihood"),
            table="ablation",
            needs=("latentr3-sft",),
        ),
        Cell(
            "sasrec-deep",
            "control: SASRec of 10 layers, the layers that LARES passes at μ = 4",
            _sequential("sasrec", "--layers", "10"),
            table="ablation",
        ),
        Cell(
            "lares-spt-long",
            "control: LARES, SPT continued for as many epochs as RPT may take",
            _rpt("--objective", "spt"),
            table="ablation",
            needs=("lares-spt",),
        ),
        Cell(
            "lares-rpt-published",
            "LARES, RPT with the published estimator",
            _rpt("--estimator", "target_likelihood"),
            table="ablation",
            needs=("lares-spt",),
        ),
        Cell(
            "sft-continued",
            "control: stage 1 continued for as long as stage 2 takes",
            _sft("--reasoning-tokens", "1", "--init-from", "{model:latentr3-sft}", *CONTINUED),
            table="ablation",
            needs=("latentr3-sft",),
        ),
        Cell(
            "ratt-exact",
            "control: LatentRATT alone goes on by the exact gradient, where stage 2 has noisy ones",
            _ratt_alone("latentr3-sft", "--epochs", "1", "--learning-rate", "1e-3"),
            table="ablation",
            needs=("latentr3-sft",),
        ),
        Cell(
            "sft-early",
            "control: stage 1 on the first 80 % of the training samples by time",
            _sft("--reasoning-tokens", "1", "--train-to", "0.8"),
            table="ablation",
        ),
        Cell(
            "ratt-held-out",
            "control: from there, LatentRATT by the exact gradient on the 20 % held out",
            _ratt_alone("sft-early", "--epochs", "1", "--learning-rate", "1e-3", "--train-from", "0.8"),
            table="ablation",
            needs=("sft-early",),
        ),
        Cell(
            "rl-held-out",
            "control: from there, RL on the 20 % held out",
            ("grpo", "--model", "{model:sft-early}", "--train-from", "0.8"),
            table="ablation",
            needs=("sft-early",),
        ),
        Cell(
            "bigrec-continued",
            "control: N = 0 continued as long: equal compute",
            _sft("--reasoning-tokens", "0", "--init-from", "{model:bigrec}", *CONTINUED),
            table="ablation",
            needs=("bigrec",),
        ),
        Cell(
            "bigrec-wide",
            "control: N = 0 with LatentRATT's parameters in wider layers: equal parameters",
            ("sft", "--backbone", "{wide}", "--reasoning-tokens", "0"),
            table="ablation",
        ),
        Cell(
            "ratt-only",
            "LatentRATT alone on the frozen BIGRec model",
            _ratt_alone("bigrec", "--epochs", "2"),
            table="ablation",
            needs=("bigrec",),
        ),
        Cell(
            "mean-latent",
            "control: the batch's mean latent at inference",
            model="latentr3-sft",
            latents="mean",
            table="ablation",
            needs=("latentr3-sft",),
        ),
        Cell(
            "shuffled-latent",
            "control: another user's latent at inference",
            model="latentr3-sft",
            latents="shuffled",
            table="ablation",
            needs=("latentr3-sft",),
        ),
    )
}
