"""One style for every report: what it names is used, and a chart that stands alone is drawn wide."""

import itertools
import re
from pathlib import Path

import pytest

from latentrec.core.charts import column_chart

ROOT = Path(__file__).resolve().parents[2] / "latentrec"


def test_every_class_of_the_style_is_one_that_a_page_has():
    style = (ROOT / "core/templates/style.css").read_text(encoding="utf-8")
    selectors = re.sub(r"\{[^{}]*\}", "{", re.sub(r"/\*.*?\*/", "", style, flags=re.S))
    named = set(re.findall(r"\.([a-z]+)\b", selectors))
    pages = list(ROOT.rglob("templates/*.html"))
    sources = [*pages, ROOT / "core/charts.py", *ROOT.rglob("*report*.py"), ROOT / "data/data_checks.py"]
    words = {
        word
        for path in sources
        if path.exists()
        for word in re.findall(r"[a-z]+", path.read_text(encoding="utf-8"))
    }
    assert named
    assert {name for name in named if name not in words} == set()


def test_a_chart_that_stands_alone_is_wide_and_its_marks_stand_above_the_columns():
    series = [("a", "#0072B2", [3.0, 5.0, 4.0])]
    chart = column_chart("t", ["x", "y", "z"], series, marks=[(1, "valid from"), (2, "test from")], wide=True)
    assert 'class="plot wide"' in chart
    assert 'class="plot"' in column_chart("t", ["x", "y", "z"], series)
    columns = [
        float(y) for y in re.findall(r'L [\d.]+ ([\d.]+) L [\d.]+ [\d.]+ z " style="fill: #0072b2', chart)
    ]
    texts = [float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>(?:valid|test) from', chart)]
    assert (len(columns), len(texts)) == (3, 2)
    assert max(texts) < min(columns)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("columns", [20, 45, 63, 72])
def test_labels_of_columns_stand_apart(wide, columns):
    labels = [f"2018-{1 + month % 12:02d}-01" for month in range(columns)]
    chart = column_chart("t", labels, [("a", "#000", [1.0] * columns)], wide=wide)
    places = [float(x) for x in re.findall(r'text-anchor: middle[^>]* x="([\d.]+)"[^>]*>2018-', chart)]
    assert len(places) >= 3
    letters_of_chromium = 83  # ten letters of 13 px in DejaVu Sans, the widest of the usual fonts
    assert min(after - before for before, after in itertools.pairwise(places)) > letters_of_chromium + 8
