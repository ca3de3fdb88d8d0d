"""The promotion gate as a table: challenger, champion, baselines, overlap, readable share → decision."""

import json

import numpy as np
import pytest

from latentrec.evaluation.gate import ChampionScores, decide
from latentrec.evaluation.gate_decision import GateDecision
from tests.errors import refused

RNG = np.random.default_rng(0)
USERS = np.repeat(np.arange(400), 3)
BASE = RNG.random(1200) * 0.2
POPULARITY = np.full(1200, 0.02)
SASREC = BASE - 0.01
EVERY = np.ones(1200, bool)
NOISE = np.random.default_rng(5).normal(0.0, 0.3, 1200)
NOISE -= NOISE.mean()


def champion(values=BASE, **changes):
    return ChampionScores(**({"name": "shop v3", "version": "3", "values": values, "overlap": 0.9} | changes))


def ask(challenger, **changes):
    settings = {
        "metric": "ndcg_at_10",
        "users": USERS,
        "challenger": challenger,
        "baselines": {"popularity": POPULARITY, "sasrec": SASREC},
        "challenger_name": "latentr3",
        "n_resamples": 500,
    }
    return decide(**(settings | changes))


TABLE = {
    # no champion yet: baselines alone decide
    "above all baselines": (BASE, {}, "passed"),
    "level with the strongest": (SASREC + NOISE * 0.1 + 0.0005, {}, "passed"),
    "equal to the strongest": (SASREC.copy(), {}, "passed"),
    "sasrec better beyond the interval": (SASREC - 0.01, {}, "below_baseline"),
    "sasrec better, floor popularity": (SASREC - 0.01, {"floor": "popularity"}, "passed"),
    "sasrec better within the interval": (SASREC - 0.002 + NOISE, {}, "passed"),
    "equal to popularity": (POPULARITY.copy(), {}, "not_above_trivial_baseline"),
    "above popularity by rounding": (POPULARITY + 1.7e-8, {}, "not_above_trivial_baseline"),
    "below popularity": (POPULARITY - 0.01, {"floor": "popularity"}, "not_above_trivial_baseline"),
    # a champion is there
    "above champion and baselines": (BASE + 0.02, {"champion": champion()}, "passed"),
    "equal to the champion": (BASE.copy(), {"champion": champion()}, "not_above_champion"),
    "above the champion by rounding": (BASE + 1.7e-8, {"champion": champion()}, "not_above_champion"),
    "below the champion": (BASE - 0.005, {"champion": champion()}, "not_above_champion"),
    "above the champion by noise only": (
        BASE + NOISE + 0.002,
        {"champion": champion()},
        "not_above_champion",
    ),
    "within the margin": (BASE + 0.02, {"champion": champion(), "margin": 0.03}, "not_above_champion"),
    "beyond the margin": (BASE + 0.02, {"champion": champion(), "margin": 0.01}, "passed"),
    "above a poor champion, below sasrec": (
        SASREC - 0.02,
        {"champion": champion(SASREC - 0.05)},
        "below_baseline",
    ),
    # catalogues
    "half of the catalogue in common": (BASE + 0.02, {"champion": champion(overlap=0.5)}, "passed"),
    "another shop's champion": (BASE + 0.02, {"champion": champion(overlap=0.49)}, "not_comparable"),
    "champion not scored": (BASE + 0.02, {"champion": champion(None, overlap=0.0)}, "not_comparable"),
    "overlap unknown": (BASE + 0.02, {"champion": champion(overlap=None)}, "passed"),
    # leaks
    "champion trained on all": (
        BASE + 0.02,
        {"champion": champion(), "trained_on": {"shop v3": EVERY}},
        "not_comparable",
    ),
    "challenger trained on all": (BASE + 0.02, {"trained_on": {"latentr3": EVERY}}, "not_comparable"),
    "a model that is not compared trained on all": (BASE, {"trained_on": {"other": EVERY}}, "passed"),
    "figures that cannot decide": (BASE + 0.02, {"not_for_promotion": "on validation"}, "not_comparable"),
    # models that answer in text
    "all answers readable": (BASE, {"readable_share": 1.0}, "passed"),
    "just readable enough": (BASE, {"readable_share": 0.95}, "passed"),
    "too few readable": (BASE, {"readable_share": 0.949}, "unreadable"),
    "none readable": (BASE, {"readable_share": 0.0, "champion": champion()}, "unreadable"),
    "asked for less": (BASE, {"readable_share": 0.6, "min_readable_share": 0.5}, "passed"),
}


@pytest.mark.parametrize("case", TABLE)
def test_decision(case):
    challenger, changes, code = TABLE[case]
    decision = ask(challenger, **changes)
    assert decision.code == code
    assert decision.promote == (code == "passed")
    assert decision.reason.startswith(
        f"latentr3 {'passes' if decision.promote else 'does not pass'} the gate"
    )
    assert decision.reason.count(". ") == 0, "one sentence"
    if code != "not_comparable":
        for name in ("popularity", "sasrec"):
            row = next(row for row in decision.baselines if row.name == name)
            assert f"{name} {row.value:.4f} {row.stands}" in decision.reason


@pytest.mark.parametrize(
    ("shift", "stands", "code"),
    [(0.01, "below", "passed"), (0.0, "level", "passed"), (-0.01, "above", "below_baseline")],
)
def test_where_a_baseline_stands(shift, stands, code):
    decision = ask(SASREC + shift)
    row = next(row for row in decision.baselines if row.name == "sasrec")
    assert (row.stands, decision.code) == (stands, code)
    assert row.difference == pytest.approx(shift)


def test_many_samples_of_one_lucky_user_are_one_piece_of_evidence():
    one_user = np.where(USERS < 40, 0, USERS)
    gain = np.where(USERS < 40, 0.2, -0.0005)
    assert ask(BASE + gain, champion=champion()).promote
    assert not ask(BASE + gain, champion=champion(), users=one_user).promote


def test_figures_are_over_the_same_samples_and_add_up():
    early = np.arange(1200) < 900
    challenger = np.where(early, BASE + 0.1, BASE - 0.05)
    decision = ask(challenger, champion=champion(), trained_on={"shop v3": early})
    assert (decision.n_samples, decision.n_users, decision.n_left_out) == (300, 100, 900)
    assert decision.left_out_by == {"shop v3": 900}
    assert decision.challenger == pytest.approx(challenger[~early].mean())
    assert decision.champion + decision.difference == pytest.approx(decision.challenger)
    for row in decision.baselines:
        assert row.value + row.difference == pytest.approx(decision.challenger)
    assert not decision.promote
    assert ask(challenger, champion=champion()).promote


def test_another_shops_champion_is_refused_with_the_cure():
    decision = ask(BASE + 0.02, champion=champion(overlap=0.1))
    assert "10%" in decision.reason
    assert "--name" in decision.reason
    assert decision.expected_champion == "3"


def test_several_seeds_count_as_well_as_users():
    rng = np.random.default_rng(1)
    lucky = SASREC + 0.03
    runs = np.stack([SASREC + shift for shift in (0.03, -0.03, -0.02)])
    assert ask(lucky, baselines={"sasrec": SASREC}, champion=champion(SASREC)).promote
    decision = ask(runs, baselines={"sasrec": SASREC}, champion=champion(SASREC))
    assert not decision.promote
    assert decision.n_runs == 3
    good = np.stack([SASREC + 0.02 + rng.normal(0, 0.002) for _ in range(3)])
    assert ask(good, champion=champion(SASREC)).promote


def test_first_model_expects_that_there_is_no_champion():
    decision = ask(BASE)
    assert (decision.champion, decision.difference, decision.expected_champion) == (None, None, None)


def test_share_of_targets_unknown_to_the_champion_is_reported():
    decision = ask(BASE + 0.02, champion=champion(unscorable=np.arange(1200) < 120))
    assert decision.champion_unscorable_share == pytest.approx(0.1)


def test_negated_errors_work_like_any_metric():
    errors = -np.abs(RNG.normal(size=1200))
    settings = {
        "baselines": {"global median": errors - 1},
        "trivial": ("global median",),
        "metric": "neg_mae",
    }
    assert ask(errors + 0.05, champion=champion(errors), **settings).promote
    assert not ask(errors - 1, **settings).promote


def test_values_that_are_not_finite_are_refused():
    broken = BASE.copy()
    broken[7] = np.nan
    with refused("gate.not_finite", "latentr3", "ndcg_at_10"):
        ask(broken)


def test_no_samples_are_refused():
    empty = np.zeros(0)
    with refused("gate.no_samples"):
        ask(empty, users=empty, baselines={})


def test_written_decision_reads_back_the_same(tmp_path):
    decision = ask(BASE + 0.02, champion=champion())
    decision.write(tmp_path / "gate.json")
    assert GateDecision.read(tmp_path / "gate.json") == decision


@pytest.mark.parametrize("change", [{"schema_version": 1}, {"baselines": 7}, {"extra": 1}])
def test_a_file_that_is_no_decision_is_refused(tmp_path, change):
    path = tmp_path / "gate.json"
    ask(BASE).write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with refused("gate.unreadable"):
        GateDecision.read(path)
