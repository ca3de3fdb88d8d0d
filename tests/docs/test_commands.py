"""Commands and links of the README and the tutorials: every target, variable, flag and file exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/tutorials").glob("*.md"))]
BLOCK = re.compile(r"```(?:bash)?\n(.*?)```", re.DOTALL)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def commands(page: Path) -> list[str]:
    lines = [line for block in BLOCK.findall(page.read_text(encoding="utf-8")) for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.startswith(("make ", "latentrec "))]


ALL = sorted({command for page in PAGES for command in commands(page)})


@pytest.mark.parametrize("command", [one for one in ALL if one.startswith("make ")])
def test_documented_make_target_and_variables_exist(command):
    words = shlex.split(command)[1:]
    targets = [word for word in words if "=" not in word]
    phony = set(re.search(r"\.PHONY: ((?:.*\\\n)*.*)", MAKEFILE)[1].replace("\\\n", " ").split())
    assert targets
    assert set(targets) <= phony
    for word in words:
        if "=" in word:
            assert re.search(rf"\b{word.split('=')[0]}\b", MAKEFILE), f"{word}: make does not know it"


def test_make_help_lists_every_target():
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    phony = set(re.search(r"\.PHONY: ((?:.*\\\n)*.*)", MAKEFILE)[1].replace("\\\n", " ").split())
    assert listed == phony


@pytest.mark.docs
@pytest.mark.parametrize("command", [one for one in ALL if one.startswith("latentrec ")])
def test_documented_flags_exist(command):
    step, *words = shlex.split(command)[1:]
    done = subprocess.run(
        [Path(sys.executable).with_name("latentrec"), step, "--help"]
        if Path(sys.executable).with_name("latentrec").exists()
        else [sys.executable, "-m", "latentrec", step, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"(?<!\S){re.escape(word)}\b", done.stdout), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    for link in links:
        if not link.startswith(("http", "#", "mailto:")):
            assert (page.parent / link.split("#")[0]).exists(), link


def test_readme_fits_two_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 115
    assert (ROOT / "docs/pictures/report.png").stat().st_size < 300_000


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_picture_is_of_todays_pipeline(theme):
    from docs.pictures.pipeline import draw

    assert (ROOT / f"docs/pictures/pipeline-{theme}.svg").read_text(encoding="utf-8") == draw(
        "latentr3", theme
    )
