"""The promotion gate: every way it may be asked, with metrics that differ in both directions."""

import numpy as np
import pytest

from latentrec.core import UserError
from latentrec.evaluation.gate import GateDecision, decide

RNG = np.random.default_rng(0)
USERS = np.repeat(np.arange(400), 3)
CHAMPION = RNG.random(1200) * 0.2
FLOOR = np.full(1200, 0.05)


def ask(challenger, **changes):
    settings = {
        "metric": "ndcg_at_10",
        "users": USERS,
        "challenger": challenger,
        "champion": CHAMPION,
        "floor": FLOOR,
        "champion_version": "3",
    }
    return decide(**(settings | changes))


def test_better_challenger_is_promoted():
    decision = ask(CHAMPION + 0.02)
    assert decision.promote
    assert decision.difference == pytest.approx(0.02)
    assert decision.low > 0
    assert decision.expected_champion == "3"
    assert decision.reason.startswith("promoted")


def test_worse_challenger_is_refused():
    decision = ask(CHAMPION - 0.02)
    assert not decision.promote
    assert decision.difference == pytest.approx(-0.02)


def test_equal_challenger_is_refused():
    decision = ask(CHAMPION.copy())
    assert not decision.promote
    assert (decision.difference, decision.low) == (0.0, 0.0)


def test_challenger_better_only_by_noise_is_refused():
    noise = np.random.default_rng(5).normal(0.002, 0.3, 1200)
    decision = ask(CHAMPION + noise - noise.mean() + 0.002)
    assert decision.difference > 0
    assert decision.low < 0
    assert not decision.promote


def test_many_samples_of_one_lucky_user_are_one_piece_of_evidence():
    one_user = np.where(USERS < 40, 0, USERS)
    gain = np.where(USERS < 40, 0.2, -0.0005)
    assert ask(CHAMPION + gain).promote
    assert not ask(CHAMPION + gain, users=one_user).promote


def test_better_than_the_champion_but_below_popularity_is_refused():
    decision = ask(CHAMPION + 0.02, floor=np.full(1200, 0.5))
    assert not decision.promote
    assert decision.low > 0
    assert "not above the floor popularity" in decision.reason


def test_equal_to_the_floor_is_refused():
    assert not ask(FLOOR.copy(), champion=None).promote


def test_first_model_needs_only_the_floor():
    decision = ask(CHAMPION, champion=None)
    assert decision.promote
    assert decision.champion is None
    assert decision.expected_champion is None
    assert "no champion yet" in decision.reason
    assert not ask(FLOOR - 0.01, champion=None).promote


def test_gain_within_the_margin_is_refused():
    assert ask(CHAMPION + 0.02, margin=0.01).promote
    assert not ask(CHAMPION + 0.02, margin=0.03).promote


def test_only_samples_that_the_champion_cannot_have_trained_on_count():
    later = np.arange(1200) >= 900
    gain = np.where(later, -0.05, 0.1)
    assert ask(CHAMPION + gain).promote
    decision = ask(CHAMPION + gain, comparable=later)
    assert not decision.promote
    assert (decision.n_samples, decision.n_users) == (300, 100)
    assert decision.difference == pytest.approx(-0.05)


def test_nothing_comparable_means_no_promotion():
    decision = ask(CHAMPION + 0.5, comparable=np.zeros(1200, bool))
    assert not decision.promote
    assert not decision.comparable
    assert "not comparable" in decision.reason


def test_share_of_targets_unknown_to_the_champion_is_reported():
    decision = ask(CHAMPION + 0.02, unscorable=np.arange(1200) < 120)
    assert decision.champion_unscorable_share == pytest.approx(0.1)


def test_negated_errors_work_like_any_metric():
    champion = -np.abs(RNG.normal(size=1200))
    decision = ask(champion + 0.05, champion=champion, floor=champion - 1, metric="negative_mae")
    assert decision.promote


def test_values_that_are_not_finite_are_refused():
    broken = CHAMPION.copy()
    broken[7] = np.nan
    with pytest.raises(UserError, match="challenger has values of ndcg_at_10 that are not finite"):
        ask(broken)


def test_written_decision_reads_back_the_same(tmp_path):
    decision = ask(CHAMPION + 0.02)
    decision.write(tmp_path / "gate.json")
    assert GateDecision.read(tmp_path / "gate.json") == decision
