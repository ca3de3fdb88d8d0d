"""The demo in Chromium: type, click, read. Champion, SASRec and the previous champion stand side by side."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from latentrec.registry.registration import register_model
from tests.fixtures.shop import decision, write_evaluation
from tests.fixtures.tiny_latentr3 import make_latentr3
from tests.fixtures.tiny_rating_model import TITLES, make_rating_model

playwright = pytest.importorskip("playwright.sync_api", reason="make test-browser has it")
ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = {"width": 390, "height": 844}
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian: apt-get install chromium)"),
]


@contextmanager
def demo(model: str, folder: Path) -> Iterator[str]:
    """Serve the page as `make demo` does; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "examples.demo", "--model", model, "--port", str(port)]
    with (folder / "demo.log").open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=dict(os.environ))
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
        while True:
            assert server.poll() is None, (folder / "demo.log").read_text()
            assert time.monotonic() < deadline, (folder / "demo.log").read_text()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def opened(address: str):
    """A page at desktop size; what it asks of other hosts and what its console complains of is collected."""
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 950})
        page.set_default_timeout(60_000)
        page.complaints = []
        page.on("console", lambda said: page.complaints.append(said.text) if ours(said) else None)
        page.on("request", lambda asked: page.complaints.append(asked.url) if outside(asked.url) else None)
        page.goto(address)
        try:
            yield page
        finally:
            browser.close()


def ours(said) -> bool:
    """An error of the page's; not that the machine's own network changed meanwhile (containers coming up)."""
    return said.type == "error" and "ERR_NETWORK_CHANGED" not in said.text


def outside(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))


def add_to_history(page, text: str) -> str:
    """Type into the search, click the first title found, wait for it in the history; the title."""
    query = page.locator("#query textarea, #query input").first
    query.fill("")
    query.press_sequentially(text, delay=40)
    entry = page.locator("#found label", has_text=re.compile(text, re.IGNORECASE)).first
    title = entry.inner_text().strip()
    entry.click()
    page.locator("#history label", has_text=title).first.wait_for()
    return title


@pytest.fixture
def two_champions(tracked, shop, tmp_path, monkeypatch):
    """A LatentR³ model that was promoted twice, each time beside the SASRec of its run."""
    model = make_latentr3(tmp_path / "model", shop.dataset)
    for number, expected in (("run-1", None), ("run-2", "1")):
        monkeypatch.setenv("LATENTREC_RUN_ID", number)
        gate = dataclasses.replace(decision(), expected_champion=expected)
        evaluation = write_evaluation(tmp_path / number, model, gate)
        found = register_model(
            model_dir=model,
            evaluation_dir=evaluation,
            name="latentr3",
            dataset_dir=shop.dataset,
            assistant_dir=shop.sasrec,
        )
        assert found.promoted, found.event.reason


@pytest.mark.timeout(900)
def test_search_click_and_read_three_models_side_by_side(two_champions, tmp_path):
    with demo("models:/latentr3@champion", tmp_path) as address, opened(address) as page:
        first = add_to_history(page, "B0003")
        add_to_history(page, "B0004")
        page.locator(".answer li").first.wait_for()
        cards = page.locator(".answer")
        assert cards.locator("h3").all_inner_texts() == ["champion", "SASRec", "previous champion"]
        details = cards.locator("> .soft").all_inner_texts()
        assert "models:/latentr3/2" in details[0]
        assert "models:/latentr3/1" in details[2]
        assert all(re.search(r"· \d+ ms", text) for text in details), "latency of each answer"
        for card in cards.all():
            items = card.locator("li").all_inner_texts()
            assert len(items) == 10
            assert not any(first in item.split("near")[0] for item in items), "what is owned is left out"
            assert all("near Title B0" in item for item in items), "why: nearest items of the history"
            assert all(re.search(r"-?\d+\.\d{3}", item) for item in items), "a score for each item"
        page.locator("details summary").first.click()
        shares = page.locator("details[open] .share").all_inner_texts()
        assert sum(
            int(percent) for share in shares for percent in re.findall(r"(\d+)%", share)[:1]
        ) == pytest.approx(100, abs=3)
        assert any("Title B0003" in share for share in shares)
        boxes = [card.bounding_box() for card in cards.all()]
        assert len({round(box["y"]) for box in boxes}) == 1, "side by side on a desktop"
        page.set_viewport_size(PHONE)
        page.wait_for_timeout(500)
        boxes = [card.bounding_box() for card in cards.all()]
        assert len({round(box["x"]) for box in boxes}) == 1, "below each other on a phone"
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        keep_picture(page, "demo")
        page.get_by_role("button", name="Clear").click()
        page.locator("#answers", has_text="Search a title and click it").wait_for()
        assert page.complaints == []


@pytest.mark.timeout(900)
def test_a_rating_model_shows_its_rating_and_reasoning(tracked, tmp_path):
    model = make_rating_model(tmp_path / "model")
    gate = decision(metric="negative_mae", challenger=-0.6)
    register_model(
        model_dir=model, evaluation_dir=write_evaluation(tmp_path / "run-1", model, gate), name="reczero"
    )
    with demo("models:/reczero@champion", tmp_path) as address, opened(address) as page:
        add_to_history(page, TITLES[0])
        page.locator("#target input").click()
        page.get_by_role("option", name=TITLES[3]).click()
        page.locator(".answer .rating").first.wait_for()
        cards = page.locator(".answer")
        assert cards.locator("h3").all_inner_texts() == ["champion", "user mean"]
        assert re.fullmatch(r"[1-5]\.\d\d ★", cards.nth(0).locator(".rating").inner_text())
        assert cards.nth(0).locator("blockquote").inner_text().strip(), "the model's reasoning"
        assert cards.nth(1).locator(".rating").inner_text() == "5.00 ★"
        keep_picture(page, "demo-rating")
        assert page.complaints == []


def keep_picture(page, name: str) -> None:
    """For people, where they ask for it: LATENTREC_PICTURES names a folder."""
    folder = os.environ.get("LATENTREC_PICTURES")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}-phone.png", full_page=True)
        page.set_viewport_size({"width": 1280, "height": 950})
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
