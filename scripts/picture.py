"""python -m scripts.picture [STUDY]: the first screen of a study's report as docs/report.png, for the README."""

from __future__ import annotations

import shutil
import sys

from playwright.sync_api import sync_playwright

from harness.paths import RESULTS, ROOT

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
]


def main() -> int:
    """Take the picture; return the exit code."""
    study = (sys.argv[1:] or ["demo"])[0]
    page_file = RESULTS / study / "report" / "index.html"
    browser_file = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if not page_file.exists() or browser_file is None:
        print(
            f"needs {page_file} (python -m harness study={study}) and a Chromium or Chrome on the PATH.",
            file=sys.stderr,
        )
        return 2
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_file, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(page_file.as_uri())
        page.screenshot(path=ROOT / "docs" / "report.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
