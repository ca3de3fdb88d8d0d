"""Our metrics against ir-measures (trec_eval's figures) on random runs, to 1e-9."""

import ir_measures
import numpy as np
import pytest

from latentrec.metrics import hit_rate_at_k, mrr_at_k, ndcg_at_k, rank_of_target


@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(0)
    ranked = np.array([rng.permutation(60)[:20] for _ in range(300)])
    targets = rng.integers(0, 60, 300)
    run = [
        ir_measures.ScoredDoc(f"q{row}", f"d{item}", 100.0 - place)
        for row, items in enumerate(ranked)
        for place, item in enumerate(items)
    ]
    qrels = [ir_measures.Qrel(f"q{row}", f"d{target}", 1) for row, target in enumerate(targets)]
    return ranked, targets, qrels, run


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (hit_rate_at_k, lambda k: ir_measures.Success @ k),
        (ndcg_at_k, lambda k: ir_measures.nDCG @ k),
        (mrr_at_k, lambda k: ir_measures.RR @ k),
    ],
)
def test_every_sample_has_the_value_of_the_independent_library(runs, ours, theirs, k):
    ranked, targets, qrels, run = runs
    values = ours(rank_of_target(ranked, targets), k)
    found = {metric.query_id: metric.value for metric in ir_measures.iter_calc([theirs(k)], qrels, run)}
    assert len(found) == 300
    for row, value in enumerate(values):
        assert value == pytest.approx(found[f"q{row}"], abs=1e-9)
