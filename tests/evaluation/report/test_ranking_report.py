"""The report as its readers meet it: complete, self-contained, inert, and readable on a phone."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from latentrec.evaluation import Champion, EvaluateConfig, evaluate

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
MEASURE = """<script>
const plots = [...document.querySelectorAll('svg.plot')];
const boxes = plots.map(plot => plot.getBoundingClientRect());
const texts = plots.flatMap(plot => [...plot.querySelectorAll('text')]);
parent.postMessage(JSON.stringify({
  width: innerWidth,
  page: document.documentElement.scrollWidth,
  plots: plots.length,
  cut: [...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length,
  inside: boxes.every(box => box.width > 200 && box.height > 60 && box.right <= innerWidth),
  drawn: plots.map(plot => plot.querySelectorAll('path,use').length),
  smallest: Math.min(...texts.map(text => text.getBoundingClientRect().height)),
  body: parseFloat(getComputedStyle(document.body).fontSize)}), '*');
</script>"""
# A browser window cannot be narrower than 500; a frame in it can.
FRAME = """<!doctype html><body><script>
addEventListener('message', event => {
  document.body.insertAdjacentHTML('beforeend', '<pre id="measured">' + event.data + '</pre>');
});
</script><iframe src="report.html" style="width:WIDTHpx;height:900px;border:0"></iframe>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from latentrec.data import Dataset
    from latentrec.decoding import recommender_loader as loading
    from tests.evaluation.shop import load_oracle, write_dataset, write_model

    folder = tmp_path_factory.mktemp("report")
    dataset = write_dataset(folder / "dataset")
    fingerprint = Dataset(dataset).fingerprint
    loading.LOADERS["oracle"] = load_oracle
    try:
        models = {
            name: write_model(
                folder / name,
                skill=skill,
                dataset_fingerprint=fingerprint,
                notes=["placeholder, see hr_at_10"],
            )
            for name, skill in (("sasrec", 0.5), ("backbone", 0.45), ("latentr3-stage-2", 0.6))
        }
        held = write_model(folder / "held", skill=0.3, dataset_fingerprint=fingerprint)
        evaluate(
            EvaluateConfig(n_resamples=200, cost_samples=4),
            dataset=dataset,
            models=models,
            output=folder / "evaluation",
            champion=Champion(held, "latentr3 v3", "3"),
        )
    finally:
        del loading.LOADERS["oracle"]
    return folder / "evaluation"


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_verdict_stands_before_the_table_and_names_the_challenger(report):
    page = (report / "report.html").read_text()
    assert "Promote latentr3-stage-2" in page
    assert page.index('id="verdict"') < page.index('id="results"')


def test_reader_is_told_when_another_model_beats_the_challenger(report, tmp_path, oracle_system):
    from latentrec.data import Dataset
    from tests.evaluation.shop import write_model

    dataset = report.parent / "dataset"
    fingerprint = Dataset(dataset).fingerprint
    models = {
        name: write_model(tmp_path / name, skill=skill, dataset_fingerprint=fingerprint)
        for name, skill in (("sasrec", 0.9), ("latentr3-stage-2", 0.4))
    }
    config = EvaluateConfig(n_resamples=200, cost_samples=0)
    evaluate(config, dataset=dataset, models=models, output=tmp_path / "e")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "e" / name).read_text()
        assert re.search(r"In the same evaluation sasrec \(\+0\.\d+\) stood above latentr3-stage-2", text)
    assert "stood above" not in (report / "report.html").read_text()


def test_page_needs_nothing_from_outside(report):
    tags = Tags((report / "report.html").read_text()).found
    assert not [tag for tag, _ in tags if tag in ("script", "iframe", "object", "embed")]
    for tag, attributes in tags:
        for name in ("src", "href"):
            assert not attributes.get(name) or attributes[name].startswith(("data:", "#")), tag
    assert "url(" not in (report / "report.html").read_text()
    assert "@import" not in (report / "report.html").read_text()


def test_markup_in_titles_is_shown_and_not_obeyed(report):
    page = (report / "report.html").read_text()
    assert "Item 15 &lt;b&gt;&amp;amp; &#34;co&#34;&lt;/b&gt;" in page
    assert "<b>&amp;" not in page
    text = (report / "report.md").read_text()
    assert "Item 15 &lt;b&gt;&amp;amp; " in text
    assert "<b>" not in text


def test_ten_users_with_history_truth_and_a_list_of_each_model(report):
    page = (report / "report.html").read_text()
    assert page.count("<details") == 10
    assert page.count('<div class="lists">') == 10
    assert len(re.findall(r"<h3>latentr3 v3</h3>", page)) == 10


def test_markdown_twin_tells_the_same_figures(report):
    text = (report / "report.md").read_text()
    page = (report / "report.html").read_text()
    table = json.loads((report / "metrics.json").read_text())
    for metrics in table.values():
        shown = f"{metrics['ndcg_at_10']['value']:.4f}"
        assert shown in text
        assert shown in page
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) >= 6
    for block in tables:
        rows = block.strip().split("\n")
        assert re.fullmatch(r"\|(---\|)+", rows[1].replace(" ", ""))
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the report in")
@pytest.mark.parametrize("width", [1280, 390])
def test_report_opens_in_a_browser_without_errors_and_fits_the_screen(report, tmp_path, width):
    page = (report / "report.html").read_text().replace("</main>", "</main>" + MEASURE)
    (tmp_path / "report.html").write_text(page)
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1400,1000",
            "--virtual-time-budget=5000",
            "--dump-dom",
            f"file://{tmp_path / 'frame.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    measured = json.loads(re.search(r'<pre id="measured">({.*?)</pre>', done.stdout).group(1))
    assert measured["width"] == width
    assert measured["page"] <= width
    assert measured["plots"] >= 9
    assert measured["inside"]
    assert width < 1280 or not measured["cut"], "a table is cut off on a wide screen"
    assert min(measured["drawn"]) >= 4
    assert measured["smallest"] >= 11
    assert measured["body"] >= 16


def test_no_sentence_of_the_markdown_acts_as_emphasis(report):
    """Kubeflow's page reads the middle of ``hr_at_10`` as emphasis."""
    text = (report / "report.md").read_text()
    assert "see hr\\_at\\_10" in text
    assert not re.search(r"(?<!\\)_", text)
