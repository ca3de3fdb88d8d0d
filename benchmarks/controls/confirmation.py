"""The contrasts of ``docs/research/confirmation-protocol.md`` on its users, and its rule for them."""

from __future__ import annotations

from benchmarks.controls.formats import METRICS, NOT_RUN, relative, signed
from benchmarks.controls.statistics import compare_trials

DATASET = "games-confirm"
OWN, OTHER = "title_rank", "title_rank_shuffled"
CONTRASTS: tuple[tuple[str, str, str, str, str], ...] = (
    ("1", "ratt-arcsin", "n0", OWN, "LatentR³ (SFT, then arcsin) over BIGRec"),
    ("2", "n0-arcsin", "n0", OWN, "the objective without latents"),
    ("3", "ratt-arcsin", "n0-arcsin", OWN, "over N = 0 with the same objective"),
    ("4", "ratt-arcsin", "n0-compute", OWN, "over N = 0 at equal compute"),
    ("5", "ratt-arcsin", "pause-arcsin", OWN, "over a pause token with the same objective"),
    ("6", "ratt-arcsin", "ratt-arcsin", OTHER, "one's own latent over another user's"),
    ("7a", "ratt", "n0", OWN, "stage 1 alone, over N = 0"),
    ("7b", "ratt", "pause", OWN, "stage 1 alone, over a pause token"),
)
"""Number in the protocol, first, second, the second's column, meaning."""
REASONING = ("5", "6")
"""Contrasts that must both be confirmed before a gain may be called reasoning."""
SEEDS = 5
"""As the protocol asks for."""


def confirmation_table() -> str:
    """Every contrast with its interval over seeds and users, and the protocol's decision."""
    rows, confirmed, fewest = [], set(), SEEDS
    for number, first, second, column, meaning in CONTRASTS:
        for metric in METRICS:
            one = compare_trials(DATASET, first, second, metric, second_column=column)
            if one is None:
                return NOT_RUN + "\n"
            seeds = len(one.by_seed)
            fewest = min(fewest, seeds)
            if one.confirmed:
                confirmed.add((number, metric))
            rows.append(
                f"| {number} | {meaning} | {metric} | {seeds} | {one.second:.4f} → {one.first:.4f} | "
                f"{signed(one)} | {relative(one)} | {'yes' if one.confirmed else 'no'} |"
            )
    head = (
        "| | contrast | metric | seeds | means | difference [95 %] | relative [95 %] | confirmed |\n"
        + "|---" * 8
        + "|\n"
    )
    partly = "" if fewest == SEEDS else f"\n*{fewest} of {SEEDS} seeds so far.*\n"
    return head + "\n".join(rows) + f"\n{partly}\n{_decision(confirmed)}\n"


def _decision(confirmed: set[tuple[str, str]]) -> str:
    """The protocol's rule in words."""

    def confirmed_on(number: str) -> list[str]:
        return [metric for metric in METRICS if (number, metric) in confirmed]

    lines = []
    for number, *_, meaning in CONTRASTS:
        found = confirmed_on(number)
        state = "confirmed" if len(found) == len(METRICS) else "not confirmed"
        if found and len(found) < len(METRICS):
            state = f"confirmed on {found[0]} only"
        lines.append(f"{meaning} ({number}): {state}")
    reasoning = all(confirmed_on(number) for number in REASONING)
    verdict = "may be called reasoning" if reasoning else "may not be called reasoning"
    return f"**By the protocol: {'; '.join(lines)}. What is gained {verdict}.**"
