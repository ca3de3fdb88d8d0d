"""What a gain is due to: each contrast, its median over datasets, and a sentence."""

from __future__ import annotations

from benchmarks.controls.formats import METRICS, NAMES, NOT_RUN, relative, signed
from benchmarks.controls.statistics import compare_trials, median_gain

CONTRASTS = (
    ("ratt-arcsin", "n0", "title_rank", "LatentR³ (SFT, then arcsin) over BIGRec"),
    ("n0-arcsin", "n0", "title_rank", "the objective alone: N = 0, then arcsin, over BIGRec"),
    ("ratt-arcsin", "n0-arcsin", "title_rank", "over N = 0 with the same objective"),
    ("ratt-arcsin", "n0-compute", "title_rank", "over N = 0 at equal compute"),
    ("pause-arcsin", "n0-arcsin", "title_rank", "a pause token over N = 0, both with the objective"),
    ("ratt-arcsin", "pause-arcsin", "title_rank", "over a pause token with the same objective"),
    ("ratt-arcsin", "ratt-arcsin", "title_rank_shuffled", "another user's latent over one's own"),
    ("ratt", "n0", "title_rank", "stage 1 alone: LatentRATT over N = 0"),
    ("ratt", "pause", "title_rank", "stage 1 alone: LatentRATT over a pause token"),
)
"""What is compared: first, second, the first's column, meaning."""


def attribution_table(datasets: tuple[str, ...] = ("cds", "office")) -> str:
    """The goal: each contrast on each dataset, the median over datasets, and what the gain is due to."""
    rows, medians = [], {}
    for first, second, column, meaning in CONTRASTS:
        for metric in METRICS:
            found = {
                name: one
                for name in datasets
                if (one := compare_trials(name, first, second, metric, first_column=column)) is not None
            }
            for name, one in found.items():
                rows.append(
                    f"| {meaning} | {metric} | {NAMES[name]} | {len(one.by_seed)} | {one.second:.4f} → "
                    f"{one.first:.4f} | {signed(one)} | {relative(one)} |"
                )
            if found:
                middle = median_gain(list(found.values()))
                medians[first, second, column, metric] = middle
                if len(found) > 1:
                    text = f"{middle[0]:+.1%} [{middle[1]:+.1%}, {middle[2]:+.1%}]"
                    rows.append(f"| {meaning} | {metric} | **median of {len(found)}** | | | | **{text}** |")
    if not rows:
        return NOT_RUN + "\n"
    head = (
        "| contrast | metric | dataset | seeds | means | difference [95 %] | relative [95 %] |\n" + "|---" * 7
    )
    return f"{head}|\n" + "\n".join(rows) + f"\n\n{verdict(medians)}\n"


def verdict(medians: dict[tuple[str, str, str, str], tuple[float, float, float]]) -> str:
    """A sentence on what the gain is due to, from the contrasts' medians on NDCG@10."""

    def above(first: str, second: str, column: str = "title_rank") -> bool:
        middle = medians.get((first, second, column, "NDCG@10"))
        return middle is not None and middle[1] > 0

    def below(first: str, second: str, column: str) -> bool:
        middle = medians.get((first, second, column, "NDCG@10"))
        return middle is not None and middle[2] < 0

    if not above("ratt-arcsin", "n0"):
        return "**No gain over BIGRec is shown**: its interval over seeds and users holds zero."
    parts = []
    if above("n0-arcsin", "n0"):
        parts.append("the gain over BIGRec is due to the objective, which N = 0 gains by as well")
    else:
        parts.append("the objective alone is not shown to gain on N = 0")
    over_n0 = above("ratt-arcsin", "n0-arcsin")
    over_compute = above("ratt-arcsin", "n0-compute")
    if over_n0 and over_compute:
        parts.append("latents add to it, also at equal compute")
    elif over_n0:
        parts.append("latents add to it at equal steps, which equal compute does not show")
    else:
        parts.append("that latents add to it is not shown")
    own = below("ratt-arcsin", "ratt-arcsin", "title_rank_shuffled")
    if own and above("ratt-arcsin", "pause-arcsin"):
        parts.append("and what they say about the user matters: it may be called reasoning")
    else:
        parts.append(
            "and it is not due to latent reasoning: one's own latent is not shown to rank better than "
            "another user's and than a pause token"
        )
    text = "; ".join(parts)
    return "**" + text[0].upper() + text[1:] + ".**"
