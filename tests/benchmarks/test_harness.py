"""Benchmarks' files: the contract's fields, ratios that say who is better, and a page from the JSON alone."""

import json

import pytest

from benchmarks import harness


@pytest.fixture(autouse=True)
def own_files(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS_JSON", tmp_path / "results.json")
    monkeypatch.setattr(harness, "RESULTS_MD", tmp_path / "RESULTS.md")


def test_entry_has_the_fields_of_the_contract(tmp_path):
    harness.record("decode_vs_authors", 0.5, 5.0, "s", 3, {"users": 16})
    entry = json.loads((tmp_path / "results.json").read_text())["decode_vs_authors"]
    assert {"ours", "reference", "ratio", "unit", "repeats", "device", "sizes"} <= set(entry)
    assert entry["ratio"] == pytest.approx(10)


def test_ratio_is_above_one_when_ours_is_better_either_way():
    assert harness.record("time", 1.0, 2.0, "s", 1, {})["ratio"] == 2
    assert harness.record("rate", 4.0, 2.0, "users/s", 1, {}, lower_is_better=False)["ratio"] == 2


def test_later_measurement_replaces_the_earlier_and_keeps_the_others(tmp_path):
    harness.record("a", 1.0, 2.0, "s", 1, {})
    harness.record("b", 1.0, 3.0, "s", 1, {})
    harness.record("a", 1.0, 5.0, "s", 1, {})
    results = json.loads((tmp_path / "results.json").read_text())
    assert {name: entry["ratio"] for name, entry in results.items()} == {"a": 5, "b": 3}
    page = (tmp_path / "RESULTS.md").read_text()
    assert "| `a` | 1 | 5 | s | **5.00** | 1 |" in page


def test_sides_are_measured_in_turns():
    order = []
    sides = {"ours": lambda: order.append("ours"), "reference": lambda: order.append("reference")}
    measured = harness.in_turns(sides, 2, warm_up=1)
    assert order == ["ours", "reference"] * 3
    assert all(len(values) == 2 for values in measured.values())
