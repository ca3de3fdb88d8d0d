"""Sampled softmax against the softmax over all items, and exact figures from chunks of items."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from latentrec.catalog import Catalogue
from latentrec.data import Dataset
from latentrec.models import read_model
from latentrec.models.sequential import SASRec, SequentialRecommender
from latentrec.training.sequential import item_softmax
from latentrec.training.sequential.item_softmax import AllScores, ItemSoftmax, expected_counts
from latentrec.training.sequential.rows import Rows
from latentrec.training.sequential.rpt import train_rpt
from latentrec.training.sequential.rpt_config import ESTIMATORS, RPTConfig
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.train import train_sequential
from tests.fixtures.sequential_data import write_dataset

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
N_ITEMS = 40
COUNTS = np.random.default_rng(0).geometric(0.1, N_ITEMS) - 1


@pytest.fixture
def toy():
    """An encoder whose items score differently, states and targets."""
    torch.manual_seed(1)
    model = SASRec(n_items=N_ITEMS, hidden_size=8, inner_dim=8, max_length=4)
    with torch.no_grad():
        model.item_embedding.weight.normal_(std=0.4)
    return model, torch.randn(6, 8), torch.tensor([0, 3, 3, 17, 39, 8])


def gradient_of(model, softmax, states, targets):
    model.zero_grad()
    (-softmax.of(model, states).log_likelihood(targets).mean()).backward()
    return model.item_embedding.weight.grad.clone()


@pytest.mark.parametrize("draws", [1, 7, 20, 39])
@pytest.mark.parametrize("sampling", ["popularity", "uniform"])
def test_items_are_drawn_as_often_as_expected(draws, sampling):
    softmax = ItemSoftmax(COUNTS, draws, sampling)
    weights = np.ones(N_ITEMS) if sampling == "uniform" else (COUNTS + 1.0) ** 0.75
    expected = expected_counts(weights, draws)
    assert expected.sum() == pytest.approx(draws)
    assert expected.max() <= 1.0
    below = expected < 1.0
    assert np.ptp(expected[below] / weights[below]) < 1e-12
    torch.manual_seed(0)
    rounds, seen = 3000, np.zeros(N_ITEMS)
    for _ in range(rounds):
        softmax.draw(CPU)
        seen += np.bincount(softmax._drawn[0].numpy(), minlength=N_ITEMS)
    assert seen.sum() == rounds * draws
    error = np.sqrt(np.maximum(expected, 1e-3) / rounds)
    assert (np.abs(seen / rounds - expected) < 5 * error).all()
    assert (seen[~below] == rounds).all(), "certain items come once a step"


@pytest.mark.parametrize("scoring", ["dot", "cosine"])
@pytest.mark.parametrize("sampling", ["popularity", "uniform"])
def test_all_items_as_negatives_are_the_full_softmax(toy, sampling, scoring):
    model, states, targets = toy
    model.scoring = scoring
    softmax = ItemSoftmax(COUNTS, N_ITEMS, sampling)
    softmax.draw(CPU)
    full = ItemSoftmax()
    value = softmax.of(model, states).log_likelihood(targets)
    torch.testing.assert_close(value, full.of(model, states).log_likelihood(targets), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        gradient_of(model, softmax, states, targets), gradient_of(model, full, states, targets),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    torch.testing.assert_close(
        softmax.of(model, states).entropy(), full.of(model, states).entropy(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("sampling", ["popularity", "uniform"])
def test_the_estimated_sum_is_unbiased_and_the_gradient_comes_closer_with_more_draws(toy, sampling):
    model, states, targets = toy
    with torch.no_grad():
        own = model.score_pairs(states, targets[:, None])[:, 0]
        whole = torch.exp(model.score(states)).sum(dim=1)
    exact = gradient_of(model, ItemSoftmax(), states, targets)
    errors = []
    for draws in (4, 32):
        softmax, sums, gradients = ItemSoftmax(COUNTS, draws, sampling), [], []
        torch.manual_seed(0)
        for _ in range(500):
            softmax.draw(CPU)
            with torch.no_grad():
                sums.append(torch.exp(own - softmax.of(model, states).log_likelihood(targets)))
            gradients.append(gradient_of(model, softmax, states, targets))
        estimates = torch.stack(sums)
        error = estimates.std(dim=0) / len(sums) ** 0.5
        assert ((estimates.mean(dim=0) - whole).abs() < 4 * error + 1e-4).all()
        errors.append(float((torch.stack(gradients).mean(dim=0) - exact).norm() / exact.norm()))
    print(f"{sampling}: bias of the gradient {errors[0]:.3f} with 4 draws, {errors[1]:.3f} with 32")
    assert errors[1] < 0.1
    assert errors[1] < errors[0] / 3


def test_without_the_correction_popular_items_would_count_too_often(toy):
    """The same draws, with all corrections taken away, miss the sum."""
    model, states, targets = toy
    softmax = ItemSoftmax(COUNTS, 20, "popularity")
    torch.manual_seed(0)
    softmax.draw(CPU)
    corrected = softmax.of(model, states).log_likelihood(targets)
    softmax._drawn = (softmax._drawn[0], torch.zeros(20))
    assert (softmax.of(model, states).log_likelihood(targets) - corrected).min() > 0.05


@pytest.mark.parametrize("scoring", ["dot", "cosine"])
@pytest.mark.parametrize("k", [3, 60])
def test_ranks_and_best_items_from_chunks_are_exact(toy, scoring, k, monkeypatch):
    model, states, targets = toy
    model.scoring = scoring
    monkeypatch.setattr(item_softmax, "ITEMS_PER_CHUNK", 7)
    scores, full = ItemSoftmax(COUNTS, 5).of(model, states), AllScores(model.score(states))
    assert scores.ranks(targets).tolist() == full.ranks(targets).tolist()
    gradients = []
    for one in (scores, full):
        model.zero_grad()
        own, best = one.best_others(targets, k)
        (own.sum() - (best * torch.linspace(0, 1, best.shape[1])).sum()).backward()
        gradients.append((own.detach(), best.detach(), model.item_embedding.weight.grad.clone()))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_million_items_are_sampled_unless_told_otherwise(caplog):
    plain = SequentialConfig()
    assert plain.negatives_drawn(999_999) == 0
    assert plain.negatives_drawn(1_000_000) == 8192
    assert SequentialConfig(num_negatives=0).negatives_drawn(2_000_000) == 0
    assert SequentialConfig(num_negatives=100).negatives_drawn(1000) == 100
    assert SequentialConfig(num_negatives=100).negatives_drawn(100) == 0
    rows = Rows(np.array([0, 1]), np.array([0]), np.array([1]))
    with caplog.at_level(logging.INFO):
        assert not ItemSoftmax.over(10, rows, 0, "popularity").sampled
        assert not caplog.records
        assert ItemSoftmax.over(1_200_000, rows, 8192, "popularity").sampled
    assert "1,200,000 items" in caplog.text
    assert "8,192" in caplog.text
    assert "num_negatives" in caplog.text


def test_sampled_training_learns_and_repeats_itself(tmp_path):
    dataset = write_dataset(tmp_path / "data")
    config = SequentialConfig(
        hidden_size=16, inner_dim=32, num_train_epochs=12, batch_size=64, learning_rate=3e-3, num_negatives=10
    )
    prints = [
        train_sequential(config, dataset=dataset, output=tmp_path / name).fingerprint  # type: ignore[union-attr]
        for name in "ab"
    ]
    assert prints[0] == prints[1]
    catalogue, test = Catalogue.from_dataset(Dataset(dataset)), Dataset(dataset).split("test")
    model = SequentialRecommender.load(tmp_path / "a", catalogue)
    hits = np.mean(model.rank(test.histories(), 3).item_ids == test.targets[:, None]) * 3
    assert hits > 0.4
    whole = model.rank(test.histories(), 5)
    model.users_per_chunk = 1
    one_by_one = model.rank(test.histories(), 5)
    assert np.array_equal(one_by_one.item_ids, whole.item_ids)
    np.testing.assert_allclose(one_by_one.scores, whole.scores, rtol=1e-5)


STEP = """
import json, resource, sys
import numpy as np, torch
from latentrec.models.sequential import LARES, SASRec
from latentrec.training.sequential.item_softmax import ItemSoftmax
from latentrec.training.sequential.rows import Rows
from latentrec.training.sequential.rpt_config import RPTConfig
from latentrec.training.sequential.rpt_objective import RPTLoss
from latentrec.training.sequential.rpt import train_rpt
from latentrec.training.sequential.rpt_config import ESTIMATORS, RPTConfig
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.train import item_softmax, make_loss

kind, n_items = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
lengths = np.full(64, 8)
items = np.random.default_rng(0).integers(0, n_items, 64 * 9)
rows = Rows(np.arange(65) * 8, items[: 64 * 8], np.append(items[1 : 64 * 8], 0))
shape = {"n_items": n_items, "hidden_size": 4, "inner_dim": 8, "max_length": 8}
config = SequentialConfig(encoder="sasrec" if kind == "sasrec" else "lares")
encoder = (SASRec if kind == "sasrec" else LARES)(**shape)
optimizer = torch.optim.Adam(encoder.parameters())
if kind == "rpt":
    softmax = item_softmax(config, encoder, rows)
    given = {"mean_steps": 2, "step_sampler": "constant", "softmax": softmax}
    loss = RPTLoss(encoder, None, rows, RPTConfig(num_generations=1), **given)
else:
    loss = make_loss(config, encoder, rows)
assert (loss.softmax if kind != "sasrec" else item_softmax(config, encoder, rows)).sampled
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
value, _ = loss(np.arange(64))
value.backward()
optimizer.step()
print(json.dumps([value.item(), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))
"""


@pytest.mark.parametrize("kind", ["sasrec", "lares", pytest.param("rpt", marks=pytest.mark.slow)])
def test_one_step_over_a_million_and_a_half_items_stays_small(kind):
    """512 targets: the scores alone of all items would be 2.9 GiB."""
    done = subprocess.run(
        [sys.executable, "-c", STEP, kind, "1500000"], cwd=ROOT, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    value, added = json.loads(done.stdout)
    print(f"{kind}: loss {value:.3f}, {added:.0f} MiB more")
    assert np.isfinite(value)
    assert added < 700


RANK = """
import json, resource
import numpy as np, torch
from latentrec.catalog import Catalogue
from latentrec.models import read_model
from latentrec.models.sequential import SASRec, SequentialRecommender

n_items, n_users = 1_500_000, 200
torch.set_num_threads(1)
keys = [str(item) for item in range(n_items)]
catalogue = Catalogue.from_items(keys, keys, np.ones(n_items, np.int64))
encoder = SASRec(n_items=n_items, hidden_size=4, inner_dim=8, max_length=8)
recommender = SequentialRecommender(encoder, catalogue)
histories = list(np.random.default_rng(0).integers(0, n_items, (n_users, 8)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ranking = recommender.rank(histories, 10)
added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
with torch.no_grad():
    states = encoder.last_states(torch.tensor(np.array(histories[:20])), torch.full((20,), 8))
    exact = encoder.score(states).topk(10, dim=1).indices.numpy()
print(json.dumps([added, np.array_equal(exact, ranking.item_ids[:20])]))
"""


@pytest.mark.slow
def test_users_are_ranked_over_a_million_and_a_half_items_in_bounded_memory():
    """200 users: the scores of all at once would be 1.1 GiB."""
    done = subprocess.run([sys.executable, "-c", RANK], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    added, same = json.loads(done.stdout)
    print(f"{added:.0f} MiB more")
    assert same
    assert added < 300


def test_lares_trains_and_post_trains_on_drawn_items_by_every_estimator(tmp_path):
    """RPT takes the softmax of the model's own pre-training."""
    dataset = write_dataset(tmp_path / "data", n_users=40)
    spt = SequentialConfig(
        encoder="lares", hidden_size=8, inner_dim=16, num_train_epochs=4, batch_size=64, num_negatives=12
    )
    train_sequential(spt, dataset=dataset, output=tmp_path / "spt")
    before = read_model(tmp_path / "spt")[0].metrics["ndcg_at_10"]
    assert before > 0.2  # by chance 0.15
    for estimator in ESTIMATORS:
        config = RPTConfig(
            estimator=estimator, num_train_epochs=1, batch_size=100, filter_top=12, num_generations=2, k=3
        )
        train_rpt(config, dataset=dataset, model=tmp_path / "spt", output=tmp_path / estimator)
        info, _ = read_model(tmp_path / estimator)
        assert info.metrics["ndcg_at_10"] >= before
        assert 0 < info.metrics["samples_within_reach"] < 1
