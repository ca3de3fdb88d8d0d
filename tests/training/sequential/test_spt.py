"""SPT: alignment losses by hand, same-target draws, and one pass equal to prefix by prefix."""

import math

import numpy as np
import pytest
import torch

from latentrec.models.sequential import LARES, at_last_position, pad_right, sample_steps
from latentrec.models.sequential.lares import Injection
from latentrec.training.sequential.rows import NO_TARGET, Rows, one_row_per_sample, pack_by_user
from latentrec.training.sequential.same_target import SameTarget
from latentrec.training.sequential.spt import SPTLoss, alignment, info_nce, not_negatives
from latentrec.training.sequential.train import SequentialConfig, SequentialData, make_loss, train_sequential
from tests.errors import refused
from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.killing import count_steps, kill_after_first_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return SequentialData.read(write_dataset(tmp_path_factory.mktemp("spt") / "data", n_users=30))


def make_lares(n_items=30, dropout=0.0, **extra):
    torch.manual_seed(0)
    return LARES(
        n_items=n_items, hidden_size=8, inner_dim=16, max_length=10, hidden_dropout=dropout,
        attention_dropout=dropout, **extra,
    ).train()  # fmt: skip


def test_info_nce_equals_the_sum_written_out():
    a, b = torch.randn(2, 3, 4, dtype=torch.float64)
    excluded = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    expected = 0.0
    for i in range(3):
        terms = [math.exp(float(a[i] @ b[j]) / 0.7) for j in range(3) if j == i or not excluded[i, j]]
        expected -= math.log(math.exp(float(a[i] @ b[i]) / 0.7) / sum(terms)) / 3
    assert info_nce(a, b, 0.7, excluded).item() == pytest.approx(expected, rel=1e-9)


def test_alignment_is_the_mean_of_both_directions():
    a, b = torch.randn(2, 5, 4)
    expected = (info_nce(a, b, 1.0, None) + info_nce(b, a, 1.0, None)) / 2
    assert torch.equal(alignment(a, b, 1.0, None), expected)


def test_same_target_and_same_row_are_no_negatives():
    excluded = not_negatives(torch.tensor([7, 8, 7, 9]), torch.tensor([0, 0, 1, 2]))
    assert excluded.int().tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_draws_are_other_positions_with_the_same_target_and_reach_all_of_them(data):
    rows = pack_by_user(data.train, 10)
    same = SameTarget.build(rows)
    positions = same.positions_of(np.arange(len(rows)))
    assert np.array_equal(positions, np.flatnonzero(rows.targets != NO_TARGET))
    torch.manual_seed(0)
    reached = {position: set() for position in positions}
    for _ in range(200):
        for position, other in zip(positions, same.draw(positions), strict=True):
            reached[position].add(other)
    for position, others in reached.items():
        group = set(np.flatnonzero(rows.targets == rows.targets[position]))
        assert others <= ((group - {position}) or {position})
        if len(group) <= 8:
            assert others == ((group - {position}) or {position})


def test_a_target_that_occurs_once_is_its_own_partner():
    rows = Rows(np.array([0, 2, 4]), np.array([1, 2, 3, 4]), np.array([2, 9, 4, 2]))
    same = SameTarget.build(rows)
    assert same.draw(np.array([0, 1, 2, 3])).tolist() == [3, 1, 2, 0]


def test_buckets_hold_the_prefixes_that_end_at_the_positions(data):
    rows = pack_by_user(data.train, 10)
    same = SameTarget.build(rows)
    positions = same.positions_of(np.arange(len(rows)))[::3]
    seen = []
    for part, items, lengths in same.buckets(positions, padding=99):
        for index, row, length in zip(part, items.numpy(), lengths.numpy(), strict=True):
            start = rows.offsets[same.row_of[positions[index]]]
            assert row[:length].tolist() == rows.items[start : positions[index] + 1].tolist()
            assert (row[length:] == 99).all()
            seen.append(index)
    assert sorted(seen) == list(range(len(positions)))


@pytest.mark.parametrize("encoder", ["sasrec", "gru4rec", "caser", "lares"])
def test_packed_rows_give_the_loss_and_gradient_of_separate_samples(data, encoder, monkeypatch):
    """No dropout, and for LARES the repeatable initial state in place of the drawn one."""
    config = SequentialConfig(
        encoder=encoder, hidden_size=8, inner_dim=16, hidden_dropout=0.0, attention_dropout=0.0,
        trajectory_weight=0.0, step_weight=0.0, step_sampler="constant",
    )  # fmt: skip
    from latentrec.models.sequential import build_encoder

    torch.manual_seed(0)
    model = build_encoder(encoder, config.architecture(30, 10)).train()
    results = []
    for layout in (pack_by_user, one_row_per_sample):
        rows = layout(data.train, 10)
        if encoder == "lares":
            whole = model.prelude

            def prelude(items, whole=whole):
                model.items_seen = items
                return whole(items)

            monkeypatch.setattr(model, "prelude", prelude)
            monkeypatch.setattr(model, "draw_initial", lambda like: model.initial_of(model.items_seen))
        loss, _ = make_loss(config, model, rows)(np.arange(len(rows)))
        model.zero_grad()
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for packed, separate in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(packed, separate, rtol=1e-3, atol=1e-6)


def spt_loss(model, rows, **settings):
    given = {"temperature": 1.0, "similarity": "dot", "views": "separate", **settings}
    return SPTLoss(model, rows, SequentialConfig(encoder="lares", **given))


@pytest.mark.parametrize(("similarity", "views"), [("dot", "separate"), ("cosine", "shared")])
def test_the_loss_is_the_sum_of_its_parts_written_out(data, monkeypatch, similarity, views):
    """Every draw is recorded, so that the three forwards can be repeated prefix by prefix."""
    model = make_lares()
    rows = pack_by_user(data.train, 10)
    indices = np.arange(0, len(rows), 2)
    loss = spt_loss(
        model, rows, mean_steps=3, anchors="all", temperature=0.8, step_sampler="constant",
        similarity=similarity, views=views,
    )  # fmt: skip
    monkeypatch.setattr(model, "draw_initial", torch.ones_like)
    drawn = {}
    real_draw = SameTarget.draw

    def draw(self, positions):
        drawn["positions"], drawn["partners"] = positions, real_draw(self, positions)
        return drawn["partners"]

    monkeypatch.setattr(SameTarget, "draw", draw)
    monkeypatch.setattr(torch, "randint", lambda high, size: torch.tensor(1))
    value, parts = loss(indices)

    def states(positions, step):
        starts = rows.offsets[loss.same_target.row_of[positions]]
        prefixes = [rows.items[a : b + 1] for a, b in zip(starts, positions, strict=True)]
        items, lengths = pad_right(prefixes, 30, 10)
        hidden = model.prelude(items)
        return at_last_position(model.trajectory(hidden, step, torch.ones_like(hidden))[-1], lengths)

    positions, partners = drawn["positions"], drawn["partners"]
    targets = torch.from_numpy(rows.targets[positions])
    excluded = not_negatives(targets, torch.from_numpy(loss.same_target.row_of[positions]))
    a1, a2, s = states(positions, 3), states(partners, 3), states(positions, 2)
    cross_entropy = torch.nn.functional.cross_entropy(model.score(a1), targets)
    if similarity == "cosine":
        a1, a2, s = (state / state.norm(dim=-1, keepdim=True) for state in (a1, a2, s))
    expected = cross_entropy + 0.1 * alignment(a1, a2, 0.8, excluded) + 0.5 * alignment(a1, s, 0.8, excluded)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(parts) == {"cross_entropy", "steps", "trajectory_alignment", "step_alignment"}


@pytest.mark.parametrize(("views", "forwards"), [("separate", 2), ("shared", 1)])
def test_a_view_of_its_own_is_a_second_forward_of_the_batch(data, monkeypatch, views, forwards):
    model = make_lares()
    loss = spt_loss(model, pack_by_user(data.train, 10), mean_steps=2, trajectory_weight=0, views=views)
    real, read = model.prelude, []
    monkeypatch.setattr(model, "prelude", lambda items: read.append(items) or real(items))
    loss(np.arange(10))
    assert len(read) == forwards


def test_one_anchor_a_row_is_a_position_that_counts(data):
    model = make_lares()
    rows = pack_by_user(data.train, 10)
    loss = spt_loss(model, rows, mean_steps=2, anchors="row")
    torch.manual_seed(0)
    mask = torch.tensor([[False, True, True], [True, False, False], [True, True, True]])
    for _ in range(20):
        first, second, third = loss._anchors(mask).tolist()
        assert first in (0, 1)
        assert second == 2
        assert third in (3, 4, 5)


def test_one_step_has_no_step_level_term(data):
    rows = pack_by_user(data.train, 10)
    loss = spt_loss(make_lares(), rows, mean_steps=1, step_sampler="constant")
    _, parts = loss(np.arange(10))
    assert "step_alignment" not in parts
    assert "trajectory_alignment" in parts


def test_lares_trains_and_resumes_bit_for_bit_after_sigkill(tmp_path, monkeypatch):
    """A child process is killed between two checkpoints; the next attempt ends with the same fingerprint."""
    dataset = write_dataset(tmp_path / "data", n_users=30)
    config = {
        "encoder": "lares", "hidden_size": 8, "inner_dim": 16, "num_train_epochs": 10, "batch_size": 64,
        "patience": 10,
    }  # fmt: skip
    paths = {"dataset": dataset, "output": tmp_path / "m"}
    kill_after_first_checkpoint("train-sequential", {**config, **paths}, tmp_path / "c")
    assert not (tmp_path / "m").exists()
    steps = count_steps(monkeypatch)
    resumed = train_sequential(SequentialConfig(**config), **paths, checkpoint_root=str(tmp_path / "c"))
    left = len(steps)
    whole = train_sequential(SequentialConfig(**config), dataset=dataset, output=tmp_path / "whole")
    assert left < len(steps) - left
    assert resumed.fingerprint == whole.fingerprint


def test_the_benchmarks_reference_computes_the_same_loss(data, monkeypatch):
    """Same draws on both sides: what the benchmark compares is speed alone."""
    from benchmarks.lares_separate import SeparateForwards
    from latentrec.training.sequential.state import reseed

    model = make_lares()
    monkeypatch.setattr(model, "draw_initial", torch.ones_like)
    monkeypatch.setattr(SameTarget, "draw", lambda self, positions: positions)
    monkeypatch.setattr(SeparateForwards, "_partners", lambda self, indices: indices)
    rows = one_row_per_sample(data.train, 10)
    ours = spt_loss(model, rows, mean_steps=4, anchors="all", negatives="all")
    reference = SeparateForwards(model, rows, mean_steps=4)
    for seed in range(3):
        values = []
        for loss in (ours, reference):
            reseed(seed, 0)
            values.append(loss(np.arange(0, len(rows), 3))[0].item())
        assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_paper_profile_is_one_flag():
    config = SequentialConfig(encoder="lares", profile="paper")
    assert (config.packing, config.batch_size, config.max_length) == ("samples", 1024, 20)
    assert (config.temperature, config.similarity, config.negatives) == (1.0, "dot", "all")
    assert (config.anchors, config.views, config.step_view) == ("all", "separate", "any")
    assert (config.hidden_dropout, config.attention_dropout) == (0.5, 0.5)
    assert (config.mean_steps, config.trajectory_weight, config.step_weight) == (4, 0.1, 0.5)
    coded = SequentialConfig(encoder="lares", profile="paper", injection="linear", step_sampler="uniform")
    assert (coded.injection, coded.step_sampler) == ("linear_scalar", "uniform_to_double")
    assert SequentialConfig(encoder="lares", profile="paper", temperature=0.5).temperature == 0.5
    with refused("config.invalid", "profile", "paper", "lares", "sasrec"):
        SequentialConfig(encoder="sasrec", profile="paper")


def test_default_profile_keeps_the_step_view_before_the_last():
    config = SequentialConfig(encoder="lares")
    assert (config.step_view, config.packing, config.temperature) == ("earlier", "rows", 0.2)


def test_scalar_injection_has_one_weight_and_mixes_both():
    torch.manual_seed(0)
    inject = Injection("linear_scalar", 6)
    thought, hidden = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    assert [parameter.numel() for parameter in inject.parameters()] == [1]
    with torch.no_grad():
        inject.weight.fill_(1.3)
    share = torch.sigmoid(torch.tensor(1.3))
    torch.testing.assert_close(inject(thought, hidden), share * thought + (1 - share) * hidden)


def test_uniform_sampler_of_the_authors_reaches_twice_the_mean():
    torch.manual_seed(0)
    drawn = {sample_steps("uniform_to_double", 4) for _ in range(400)}
    assert drawn == set(range(1, 9))
    assert {sample_steps("uniform", 4) for _ in range(400)} == set(range(1, 8))
