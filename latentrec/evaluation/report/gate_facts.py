"""The gate's decision in words and figures, as every report and the model card show it."""

from __future__ import annotations

from latentrec.evaluation.gate_decision import GateDecision


def gate_sentence(gate: GateDecision) -> str:
    """The reason of the decision as a sentence."""
    return f"{gate.reason[:1].upper()}{gate.reason[1:]}."


def gate_facts(gate: GateDecision) -> list[tuple[str, str]]:
    """The figures of the decision, all over the same samples, as pairs of label and text."""
    facts = [(f"challenger {gate.challenger_name}, {gate.metric_label}", f"{gate.challenger:.4f}")]
    if gate.champion is not None and gate.difference is not None and gate.low is not None:
        facts += [
            (f"champion {gate.champion_name}", f"{gate.champion:.4f}"),
            ("challenger − champion", f"{gate.difference:+.4f}"),
            ("at least (one-sided 95 %)", f"{gate.low:+.4f}"),
            ("margin to beat", f"{gate.margin:g}"),
            ("champion cannot score", f"{gate.champion_unscorable_share:.1%}"),
        ]
    elif gate.champion_name is None:
        facts.append(("champion", "none yet"))
    if gate.champion_overlap is not None:
        facts.append(("catalogue in common with the champion", f"{gate.champion_overlap:.0%}"))
    facts += [
        (
            f"baseline {row.name}",
            f"{row.value:.4f} ({row.difference:+.4f}, one-sided 95 %: {row.low:+.4f} to {row.high:+.4f}): "
            f"{row.stands}",
        )
        for row in gate.baselines
    ]
    if gate.readable_share is not None:
        facts.append(("answers that can be read", f"{gate.readable_share:.1%}"))
    facts.append(("over", f"{gate.n_samples:,} samples, {gate.n_users:,} users"))
    if gate.n_left_out:
        facts.append(("left out (seen in training)", f"{gate.n_left_out:,} samples"))
    if gate.n_runs > 1:
        facts.append(("training runs compared", str(gate.n_runs)))
    return facts
