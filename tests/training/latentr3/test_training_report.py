"""What a training leaves behind of how it went, and the two reports that are made of it."""

import html
import json
import re
import shutil

import pytest

from latentrec.core.charts import line_chart
from latentrec.models import read_curve, read_model
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.train import train_sequential
from latentrec.training.training_report import MOST_POINTS, MOST_ROWS, training_report


@pytest.fixture(scope="module")
def encoder(dataset, tmp_path_factory):
    output = tmp_path_factory.mktemp("sasrec") / "model"
    config = SequentialConfig(encoder="sasrec", num_train_epochs=2, hidden_size=8)
    train_sequential(config, dataset=dataset, output=output)
    return output


def test_the_curve_holds_losses_and_every_evaluation_in_order(stage_1):
    stage_1 = stage_1[0]
    curve, (_, manifest) = read_curve(stage_1), read_model(stage_1)
    steps = [entry["step"] for entry in curve]
    assert steps == sorted(steps)
    assert steps[-1] == manifest.counts["steps"]
    assert sum("loss" in entry for entry in curve) > 1
    measured = [
        {name.removeprefix("valid/"): value for name, value in entry.items()}
        for entry in curve
        if "valid/loss" in entry
    ]
    assert measured == manifest.extra["evaluations"]


def test_the_curve_enters_no_fingerprint(tmp_path):
    """Two trainings that end with equal weights are one model."""
    from latentrec.storage import ArtifactWriter

    prints = []
    for text in ("[]", "[1]"):
        with ArtifactWriter(tmp_path / text, "model", {}) as writer:
            (writer.path / "training_curve.json").write_text(text)
        prints.append(writer.manifest.fingerprint)
    assert prints[0] == prints[1]


@pytest.mark.parametrize(
    ("kind", "charts"),
    [("stage_1", ["Loss"]), ("stage_2", []), ("encoder", ["Loss", "Ranking on validation"])],
)
def test_the_page_needs_nothing_and_shows_the_curves_of_the_training(request, kind, charts):
    made = request.getfixturevalue(kind)
    directory = made[0] if isinstance(made, tuple) else made
    info, _ = read_model(directory)
    page = training_report(directory)
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|url\(|@import", page)
    for title in charts:
        assert f'aria-label="{title}"' in page
    for name, value in info.metrics.items():
        assert f"<td>{name}</td>" in page, value


def rows_of(page: str) -> list[list[str]]:
    """The cells of every row of every table."""
    return [
        [
            html.unescape(re.sub(r"<[^>]+>", "", cell)).strip()
            for cell in re.findall(r"<t[dh].*?</t[dh]>", row, re.S)
        ]
        for row in re.findall(r"<tr>.*?</tr>", page, re.S)
    ]


def test_the_tables_have_the_figures_of_the_model_and_of_each_evaluation(encoder):
    info, manifest = read_model(encoder)
    page = training_report(encoder)
    rows = rows_of(page)
    assert "sasrec, next-item training" in page
    assert ["ndcg_at_10", f"{info.metrics['ndcg_at_10']:.4f}"] in rows
    assert f'<span class="soft">parameters</span><b>{manifest.counts["parameters"]:,}</b>' in page
    assert [row[0] for row in rows if len(row) > 2] == ["step", "1", "2"]


def test_a_model_without_training_has_a_report_of_its_figures(dataset, tmp_path):
    train_sequential(SequentialConfig(encoder="popularity"), dataset=dataset, output=tmp_path / "p")
    page = training_report(tmp_path / "p")
    assert "<title>Training: popularity</title>" in page
    assert any(row[0] == "ndcg_at_10" and row[1].startswith("0.") for row in rows_of(page))
    assert "<svg" not in page


def test_a_long_training_makes_a_small_page(encoder, tmp_path):
    shutil.copytree(encoder, tmp_path / "long")
    curve = [{"step": float(step), "loss": 1 / step, "valid/loss": 2 / step} for step in range(1, 50_001)]
    (tmp_path / "long" / "training_curve.json").write_text(json.dumps(curve))
    page = training_report(tmp_path / "long")
    assert len(page) < 200_000
    assert MOST_POINTS == 400
    rows = rows_of(page)
    evaluations = rows[rows.index(["step", "loss"]) + 1 :][:MOST_ROWS]
    assert evaluations[-1] == ["50,000", "4e-05"]
    assert all(re.fullmatch(r"[\d,]+", row[0]) for row in evaluations)


def test_what_notes_and_settings_say_is_text(encoder, tmp_path):
    shutil.copytree(encoder, tmp_path / "hostile")
    path = tmp_path / "hostile" / "model.json"
    described = json.loads(path.read_text())
    described["notes"] = ["<script>alert(1)</script> [x](javascript:alert(1))"]
    path.write_text(json.dumps(described))
    page = training_report(tmp_path / "hostile")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_loss_above_one_decides_its_own_axis():
    lines = {"training": ([1.0, 2.0], [9.5, 9.0])}
    assert re.search(r">0<", line_chart("t", lines))
    assert not re.search(r">0<", line_chart("t", lines, holds=None))
