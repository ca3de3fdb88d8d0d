"""What is compared: the cells, and the commands that make them."""

from __future__ import annotations

from benchmarks.results.cell import (
    Cell,
    on_latents,
    other_latents,
    ratt_alone,
    rpt,
    sequential,
    sft,
    under_d3,
)
from benchmarks.results.titles import CONTINUED, TITLES
from benchmarks.results.variants import VARIANTS

SEEDS = (1, 2, 3)
LARES_DROPOUT = ("--hidden-dropout", "0.4", "--attention-dropout", "0.4")

SYSTEMS = (
    Cell("popularity", "Popularity", sequential("popularity")),
    Cell("gru4rec", "GRU4Rec", sequential("gru4rec")),
    Cell("sasrec", "SASRec", sequential("sasrec")),
    Cell("caser", "Caser", sequential("caser")),
    Cell("lares-spt", "LARES, SPT", sequential("lares", *LARES_DROPOUT)),
    Cell("lares", "LARES, SPT + RPT", rpt(), needs=("lares-spt",)),
    Cell("bigrec", "BIGRec (backbone, N = 0)", sft("--reasoning-tokens", "0")),
    Cell("latentr3-sft", "BIGRec + LatentR³, SFT", sft("--reasoning-tokens", "1")),
    Cell("latentr3", "BIGRec + LatentR³, SFT + RL on latents", on_latents(), needs=("latentr3-sft",)),
    under_d3("d3", "D3", "bigrec"),
    under_d3("d3-latentr3-sft", "D3 + LatentR³, SFT", "latentr3-sft"),
    under_d3("d3-latentr3", "D3 + LatentR³, SFT + RL on latents", "latentr3"),
)
ABLATIONS = (
    Cell(
        "last-hidden",
        "no LatentRATT (last hidden state is the latent)",
        sft("--reasoning-tokens", "1", "--latent", "last_hidden"),
        table="ablation",
    ),
    Cell(
        "pause",
        "control: one learned pause token in the latent's place",
        sft("--reasoning-tokens", "1", "--latent", "pause_token"),
        table="ablation",
    ),
    Cell(
        "rl-group",
        "RL with group advantage",
        on_latents("--advantage", "group"),
        table="ablation",
        needs=("latentr3-sft",),
    ),
    Cell(
        "rl-likelihood",
        "RL with the published estimator at our reward and σ",
        on_latents("--estimator", "target_likelihood"),
        table="ablation",
        needs=("latentr3-sft",),
    ),
    Cell(
        "sasrec-deep",
        "control: SASRec of 10 layers, the layers that LARES passes at μ = 4",
        sequential("sasrec", "--layers", "10"),
        table="ablation",
    ),
    Cell(
        "lares-spt-long",
        "control: LARES, SPT continued for as many epochs as RPT may take",
        rpt("--objective", "spt"),
        table="ablation",
        needs=("lares-spt",),
    ),
    Cell(
        "lares-rpt-published",
        "LARES, RPT with the published estimator",
        rpt("--estimator", "target_likelihood"),
        table="ablation",
        needs=("lares-spt",),
    ),
    Cell(
        "sft-continued",
        "control: stage 1 continued for as long as stage 2 takes",
        sft("--reasoning-tokens", "1", "--init-from", "{model:latentr3-sft}", *CONTINUED),
        table="ablation",
        needs=("latentr3-sft",),
    ),
    Cell(
        "ratt-exact",
        "control: LatentRATT alone goes on by the exact gradient, where stage 2 has noisy ones",
        ratt_alone("latentr3-sft", "--num-train-epochs", "1", "--learning-rate", "1e-3"),
        table="ablation",
        needs=("latentr3-sft",),
    ),
    Cell(
        "sft-early",
        "control: stage 1 on the first 80 % of the training samples by time",
        sft("--reasoning-tokens", "1", "--train-to", "0.8"),
        table="ablation",
    ),
    Cell(
        "ratt-held-out",
        "control: from there, LatentRATT by the exact gradient on the 20 % held out",
        ratt_alone("sft-early", "--num-train-epochs", "1", "--learning-rate", "1e-3", "--train-from", "0.8"),
        table="ablation",
        needs=("sft-early",),
    ),
    Cell(
        "rl-held-out",
        "control: from there, RL on the 20 % held out",
        on_latents("--train-from", "0.8", parent="sft-early"),
        table="ablation",
        needs=("sft-early",),
    ),
    Cell(
        "bigrec-continued",
        "control: N = 0 continued as long: equal compute",
        sft("--reasoning-tokens", "0", "--init-from", "{model:bigrec}", *CONTINUED),
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
        ratt_alone("bigrec", "--num-train-epochs", "2"),
        table="ablation",
        needs=("bigrec",),
    ),
    other_latents(
        "mean-latent",
        "control: the batch's mean latent at inference",
        "latentr3-sft",
        "mean",
        table="ablation",
    ),
    other_latents(
        "shuffled-latent",
        "control: another user's latent at inference",
        "latentr3-sft",
        "shuffled",
        table="ablation",
    ),
)
CELLS = {cell.name: cell for cell in (*SYSTEMS, *TITLES, *VARIANTS, *ABLATIONS)}
