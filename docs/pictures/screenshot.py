"""A picture of a page: ``python docs/pictures/screenshot.py REPORT.html docs/pictures/report.png``.

Needs the packages of ``docker/requirements/browser.txt`` and a Chromium (``build/venvs/browser/bin/python``).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

WIDTH, HEIGHT, COLORS = 1280, 1000, 128


def screenshot(page: str, output: Path) -> None:
    """The first screen of a page or file at desktop size, as a PNG of few colors (below 300 KB)."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(page if "://" in page else Path(page).resolve().as_uri())
        tab.screenshot(path=output)
        browser.close()
    with Image.open(output) as image:
        image.convert("RGB").quantize(COLORS).save(output, optimize=True)


if __name__ == "__main__":
    screenshot(sys.argv[1], Path(sys.argv[2]))
