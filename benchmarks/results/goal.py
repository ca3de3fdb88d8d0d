"""What was asked of the figures, beside what they are: the head of ``docs/results.md``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.controls.statistics import Difference, Resampler, median_gain
from benchmarks.results.datasets import DATASETS
from benchmarks.results.records import Results


@dataclass(frozen=True)
class Goal:
    """A pair of cells; the difference is first − second.

    Attributes:
        meaning: for people.
        first, second: cells.
        gain: relative gain in HR@5 that the paper reports as its mean, with a pretrained model.
    """

    meaning: str
    first: str
    second: str
    gain: float | None = None


OVER_BIGREC = Goal("LatentR³ (SFT, then arcsin) over BIGRec", "titles-latentr3", "bigrec-catalogue", 0.170)
OBJECTIVE = Goal("the objective alone: N = 0, then arcsin, over BIGRec", "titles-bigrec", "bigrec-catalogue")
OVER_SAME = Goal("LatentR³ over N = 0, both with the objective", "titles-latentr3", "titles-bigrec")
RPT_OVER_SPT = ("lares-rpt-published", "lares-spt-long")
CATALOGUE_DECODING = ("bigrec-catalogue", "bigrec")
GOALS = (
    OVER_BIGREC,
    OBJECTIVE,
    OVER_SAME,
    Goal("arcsin over as many more steps of likelihood", "titles-latentr3", "titles-continued"),
    Goal("the same at N = 0", "titles-bigrec", "titles-bigrec-continued"),
    Goal("LatentR³ over D3, both over the catalogue's titles", "d3-titles-latentr3", "d3-catalogue", 0.084),
    Goal("D3: LatentR³ over N = 0, both with the objective", "d3-titles-latentr3", "d3-titles-bigrec"),
    Goal("LatentR³ over a pause token, both with the objective", "titles-latentr3", "titles-pause"),
    Goal("one's own latent over another user's", "titles-latentr3", "titles-shuffled-latent"),
    Goal("LatentR³ alone over SASRec", "titles-latentr3", "sasrec"),
    Goal("D3 + LatentR³ over SASRec", "d3-titles-latentr3", "sasrec"),
    Goal("D3 + LatentR³ over LatentR³ alone", "d3-titles-latentr3", "titles-latentr3"),
    Goal("stage 1 alone: LatentRATT over N = 0", "latentr3-sft", "bigrec"),
    Goal("RL on latents over stage 1", "latentr3", "latentr3-sft"),
    Goal("ranked by the title's probability in the catalogue over BIGRec's score", *CATALOGUE_DECODING),
    Goal("trained on that probability too, N = 0", "catalogue-bigrec", "bigrec-catalogue"),
    Goal("the same, LatentR³ (SFT)", "catalogue-latentr3-sft", "latentr3-sft-catalogue"),
    Goal("LatentR³ (SFT) over N = 0, both trained on it", "catalogue-latentr3-sft", "catalogue-bigrec"),
    Goal("LARES: SPT over SASRec", "lares-spt", "sasrec"),
    Goal("LARES: RPT over SPT", "lares", "lares-spt"),
    Goal("LARES: RPT over as much more SPT", "lares", "lares-spt-long"),
    Goal("LARES: SPT for as long as SPT + RPT, over SASRec", "lares-spt-long", "sasrec"),
    Goal("LARES: SPT over as many layers without recurrence", "lares-spt", "sasrec-deep"),
    Goal("LARES: RPT by the published estimator over SPT", "lares-rpt-published", "lares-spt"),
    Goal("LARES: RPT by the published estimator over as much more SPT", *RPT_OVER_SPT),
    Goal("LARES: SPT + RPT by the published estimator over SASRec", "lares-rpt-published", "sasrec"),
)
METRICS = ("HR@5", "NDCG@10")


def goal_table(
    found: dict[str, dict[str, Results]],
    resampler: Callable[[str], Resampler],
    title: str = "What the gain is due to",
) -> str:
    """Markdown: each contrast on each dataset, the median over datasets, and what the gain is due to.

    Args:
        found: dataset → cell → its records.
        resampler: of a dataset's users.
        title: of the section.
    """
    rows: list[str] = []
    medians: dict[tuple[Goal, str], tuple[float, float, float]] = {}
    for goal in GOALS:
        for metric in METRICS:
            pairs = {
                dataset: compare(results[goal.first], results[goal.second], metric, resampler(dataset))
                for dataset, results in found.items()
                if goal.first in results and goal.second in results
            }
            known = {dataset: one for dataset, one in pairs.items() if one is not None}
            asked = f"{goal.gain:+.1%}" if goal.gain is not None and metric == "HR@5" else ""
            rows += [_row(goal, metric, asked, dataset, one) for dataset, one in known.items()]
            if known:
                middle = medians[goal, metric] = median_gain(list(known.values()))
                if len(known) > 1:
                    text = f"{middle[0]:+.1%} [{middle[1]:+.1%}, {middle[2]:+.1%}]"
                    label = f"**median of {len(known)}**"
                    rows.append(f"| {goal.meaning} | {metric} | {label} | | | **{text}** | {asked} |")
    if not rows:
        return ""
    head = (
        f"## {title}\n\n"
        "Intervals (95 %) are over seeds and users: both are resampled, seeds of a pair together.\n\n"
        "| contrast | metric | dataset | seeds | difference [95 %] | relative [95 %] | the papers' mean |\n"
    )
    return head + "|---" * 7 + "|\n" + "\n".join(rows) + "\n\n" + verdict(medians) + "\n"


def compare(first: Results, second: Results, metric: str, resampler: Resampler) -> Difference | None:
    """Over the seeds that both have; ``None`` where there is none."""
    seeds = sorted(set(first.seeds) & set(second.seeds))
    if not seeds:
        return None
    tables = [one.by_sample[metric][[one.seeds.index(seed) for seed in seeds]] for one in (first, second)]
    return resampler.difference(*tables)


def verdict(medians: dict[tuple[Goal, str], tuple[float, float, float]]) -> str:
    """A sentence on what the gain is due to, from the medians of NDCG@10."""

    def shown(goal: Goal) -> bool:
        middle = medians.get((goal, "NDCG@10"))
        return middle is not None and middle[1] > 0

    if not shown(OVER_BIGREC):
        return "**No gain over BIGRec is shown: the interval of its median holds zero.**"
    objective = (
        "is due to the objective, which gains on N = 0 as well"
        if shown(OBJECTIVE)
        else "is not shown to be the objective's alone"
    )
    latents = (
        "what latents add to it is above zero"
        if shown(OVER_SAME)
        else "that latents add to it is not shown: the interval holds zero"
    )
    return (
        f"**The gain over BIGRec {objective}; {latents}. Whether an addition of latents is reasoning, "
        f"and not "
        "that of one more position, the controls in "
        "[research/latent-controls.md](research/latent-controls.md) decide.**"
    )


def _row(goal: Goal, metric: str, asked: str, dataset: str, one: Difference) -> str:
    title = DATASETS[dataset].title.split(" (")[0].split(",")[0]
    return (
        f"| {goal.meaning} | {metric} | {title} | {len(one.by_seed)} | {one.value:+.4f} [{one.low:+.4f}, "
        f"{one.high:+.4f}] | {one.relative:+.1%} [{one.relative_low:+.1%}, {one.relative_high:+.1%}] | "
        f"{asked} |"
    )
