"""Photograph the report of a sample for the README: python tests/report/photograph.py.

Needs chromium, and Playwright from the test extra. Writes samples/report-light.png and -dark.png.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = "pmtud-blackhole-dr"
SIZE = {"width": 960, "height": 760}


def main() -> None:
    """Analyse the sample, open its report without network, photograph it light and dark."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = Path(folder) / "report.html"
        captures = sorted((ROOT / "samples" / SAMPLE).glob("*.pcap"))
        command = [sys.executable, "-m", "pcapdiag", "analyze", "--quiet", "--html", report]
        subprocess.run([*command, *captures], check=True)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for scheme, first in (("light", "header"), ("dark", ".finding figure")):
            page = browser.new_page(color_scheme=scheme, viewport=SIZE, reduced_motion="reduce")
            page.goto(report.as_uri())
            page.locator(first).first.evaluate("item => item.scrollIntoView()")
            target = ROOT / "samples" / f"report-{scheme}.png"
            page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    main()
