"""Twenty clients for ten minutes on a LatentR³ model: no error, memory that does not grow."""

from __future__ import annotations

import os

import numpy as np
import pytest

SECONDS = float(os.environ.get("LATENTREC_SOAK_SECONDS") or 600)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_clients_for_ten_minutes(tmp_path, monkeypatch):
    from benchmarks.serving import CLIENTS, drive, make_model, register, scoring_server
    from tests.fixtures.slow_figures import record_figure

    for name in ("LATENTREC_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    model_dir, catalogue = make_model(tmp_path / "model")
    tracking_uri = register(model_dir, tmp_path)
    rng = np.random.default_rng(2)
    histories = [list(rng.choice(catalogue.item_keys, size=rng.integers(1, 11))) for _ in range(1000)]
    with scoring_server("models:/bench@champion", tracking_uri, tmp_path) as (port, pid):
        load = drive(port, histories, SECONDS, pid)
    settled = [memory for second, memory in load.memory_mb if 0.2 * SECONDS < second < 0.4 * SECONDS]
    final = [memory for second, memory in load.memory_mb if second > 0.8 * SECONDS]
    growth = float(np.median(final) - np.median(settled))
    record_figure(
        "serving soak",
        f"{CLIENTS} clients, {load.seconds:.0f} s: {len(load.milliseconds):,} requests, "
        f"{load.per_second:.1f}/s, p50 {load.percentile(50):.0f} ms, p99 {load.percentile(99):.0f} ms, "
        f"{len(load.errors)} errors, memory {np.median(final):.0f} MB ({growth:+.1f} MB since a third)",
    )
    assert load.errors == []
    assert growth < max(30.0, 0.03 * float(np.median(settled)))


def test_a_load_counts_what_the_clients_saw():
    from benchmarks.serving import Load

    load = Load(milliseconds=[float(i) for i in range(1, 101)], seconds=4.0)
    assert load.per_second == 25.0
    assert load.percentile(50) == pytest.approx(50.5)
    assert load.percentile(99) > 99
