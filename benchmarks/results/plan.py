"""What is compared: the datasets, the cells, and the commands that make them."""

from __future__ import annotations

from dataclasses import dataclass, field

SEEDS = (1, 2, 3)
GAMES_USERS = 12_000
SMALL_GAMES_USERS = 4_000


@dataclass(frozen=True)
class DatasetPlan:
    """One dataset: its files under the data root, the flags of ``data-prep``, and the sizes that it needs.

    Attributes:
        title_tokens: longest title that the text models read and write.
        backbone: preset of the text models.
        epochs: of stage 1, at most; early stopping on validation loss ends sooner.
        limits: further flags by command, where a machine must pay less than the defaults ask.
    """

    name: str
    title: str
    reviews: str
    metadata: str
    flags: tuple[str, ...]
    backbone: str = "small"
    epochs: int = 8
    limits: dict[str, tuple[str, ...]] = field(default_factory=dict)


DATASETS = {
    plan.name: plan
    for plan in (
        DatasetPlan(
            "office",
            "Office Products 2018 (rebuilt events), temporal 8:1:1",
            "amazon2018/Office_Products/Office_Products.json.gz",
            "amazon2018/Office_Products/meta_Office_Products.json.gz",
            ("--k-core", "1", "--split", "temporal"),
        ),
        DatasetPlan(
            "cds",
            "CDs and Vinyl 2018 (rebuilt events), temporal 8:1:1",
            "amazon2018/CDs_and_Vinyl/CDs_and_Vinyl.json.gz",
            "amazon2018/CDs_and_Vinyl/meta_CDs_and_Vinyl.json.gz",
            ("--k-core", "1", "--split", "temporal"),
        ),
        DatasetPlan(
            "games",
            f"Video Games, leave-one-out, {GAMES_USERS:,} users drawn with seed 42",
            "amazon2018/Video_Games_sequences/Video_Games.json.gz",
            "amazon2018/Video_Games_sequences/meta_Video_Games.json.gz",
            ("--k-core", "1", "--split", "leave_one_out", "--max-users", str(GAMES_USERS)),
            epochs=5,
        ),
        DatasetPlan(
            "games-small",
            f"Video Games, leave-one-out, {SMALL_GAMES_USERS:,} of these users, histories of 20",
            "amazon2018/Video_Games_sequences/Video_Games.json.gz",
            "amazon2018/Video_Games_sequences/meta_Video_Games.json.gz",
            (
                *("--k-core", "1", "--split", "leave_one_out", "--max-history", "20"),
                *("--max-users", str(SMALL_GAMES_USERS)),
            ),
            epochs=5,
            limits={
                "train-sequential": ("--max-epochs", "20", "--patience", "5"),
                "rpt": ("--epochs", "4", "--patience", "3"),
            },
        ),
    )
}


@dataclass(frozen=True)
class Cell:
    """One system: the command that trains it, or the models that it decodes.

    Attributes:
        name: of the cell, also of its files.
        label: as the tables call it.
        command: arguments of ``latentrec`` without dataset, output and seed; empty for a cell that only
            decodes what others trained. ``{model:NAME}`` stands for another cell's model directory.
        model: cell whose model is decoded (default: this one's).
        host: ``bigrec`` or ``d3``; d3 takes the seed's SASRec as assistant and tunes α on validation.
        latents: ``own``, or a control at inference: ``mean`` of the batch, or ``shuffled`` between users.
        ablation: shown in the ablation table instead of the main one.
    """

    name: str
    label: str
    command: tuple[str, ...] = ()
    model: str | None = None
    host: str = "bigrec"
    latents: str = "own"
    ablation: bool = False
    needs: tuple[str, ...] = field(default=())


def _sft(*flags: str) -> tuple[str, ...]:
    return ("sft", "--backbone", "{backbone}", "--epochs", "{epochs}", *flags)


def _grpo(*flags: str) -> tuple[str, ...]:
    return ("grpo", "--model", "{model:latentr3-sft}", *flags)


def _sequential(encoder: str, *flags: str) -> tuple[str, ...]:
    return ("train-sequential", "--encoder", encoder, *flags)


def _rpt(*flags: str) -> tuple[str, ...]:
    return ("rpt", "--model", "{model:lares-spt}", *flags)


CELLS = {
    cell.name: cell
    for cell in (
        Cell("popularity", "Popularity", _sequential("popularity")),
        Cell("gru4rec", "GRU4Rec", _sequential("gru4rec")),
        Cell("sasrec", "SASRec", _sequential("sasrec")),
        Cell("caser", "Caser", _sequential("caser")),
        Cell("lares-spt", "LARES, SPT", _sequential("lares")),
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
            "last-hidden",
            "no LatentRATT (last hidden state is the latent)",
            _sft("--reasoning-tokens", "1", "--latent", "last_hidden"),
            ablation=True,
        ),
        Cell(
            "rl-group",
            "RL with group advantage",
            _grpo("--advantage", "group"),
            ablation=True,
            needs=("latentr3-sft",),
        ),
        Cell(
            "rl-published",
            "RL as published (target likelihood, batch advantage, σ = 1.5)",
            _grpo("--profile", "paper", "--advantage-prompts", "0"),
            ablation=True,
            needs=("latentr3-sft",),
        ),
        Cell(
            "rl-likelihood",
            "RL with the published estimator at our reward and σ",
            _grpo("--estimator", "target_likelihood"),
            ablation=True,
            needs=("latentr3-sft",),
        ),
        Cell(
            "sasrec-deep",
            "control: SASRec of 10 layers, the layers that LARES passes at μ = 4",
            _sequential("sasrec", "--layers", "10"),
            ablation=True,
        ),
        Cell(
            "lares-spt-long",
            "control: LARES, SPT continued for as many epochs as RPT may take",
            _rpt("--objective", "spt"),
            ablation=True,
            needs=("lares-spt",),
        ),
        Cell(
            "lares-rpt-published",
            "LARES, RPT with the published estimator",
            _rpt("--estimator", "target_likelihood"),
            ablation=True,
            needs=("lares-spt",),
        ),
        Cell(
            "mean-latent",
            "control: the batch's mean latent at inference",
            model="latentr3-sft",
            latents="mean",
            ablation=True,
            needs=("latentr3-sft",),
        ),
        Cell(
            "shuffled-latent",
            "control: another user's latent at inference",
            model="latentr3-sft",
            latents="shuffled",
            ablation=True,
            needs=("latentr3-sft",),
        ),
    )
}
