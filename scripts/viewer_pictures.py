r"""Take a picture of the viewer for the documentation.

Needs Chromium and Playwright. Those of docs/images, after `scripts/demo` and, for the second, after
`pathology tile` and `pathology explain` of OpenSlide's CMU-1-Small-Region.svs with its two runs::

    python scripts/viewer_pictures.py --slides demo/slides --results demo/explained \
        --slide test_000 --out docs/images/viewer_demo.jpg
    python scripts/viewer_pictures.py --slides CMU-1-Small-Region.svs --results explained/ \
        --slide CMU-1-Small-Region --panes 2 --size 1440x1100 \
        --region "1150,900 1450,800 1600,1150 1550,1700 1250,1900 1080,1500" \
        --out docs/images/viewer_region.jpg
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

OPEN = """([name, panes]) => {
  const app = document.body.viewer;
  const slide = app.library.slides.find((each) => each.name === name);
  app.openSlide(slide.id);
  const shown = app.store.get().panes;
  app.store.set({panes: shown.slice(shown.length - panes)});
  return slide.id;
}"""
DRAW = """([slide, polygons, name]) => {
  const app = document.body.viewer;
  app.store.set({regions: [{id: "r1", name, kind: "lasso", polygons, slide}], selected: "r1"});
}"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", required=True)
    parser.add_argument("--results", required=True, nargs="+")
    parser.add_argument("--slide", required=True, help="by name")
    parser.add_argument("--out", required=True, type=Path, help="a JPEG file")
    parser.add_argument("--panes", type=int, default=3, help="the last of those that open")
    parser.add_argument("--panel", default="ledger")
    parser.add_argument("--region", help='points in level-0 pixels, "x,y x,y x,y"')
    parser.add_argument("--size", default="1440x860", help="of the window in pixels")
    given = parser.parse_args()
    command = [
        sys.executable, "-m", "pathology.cli", "view", "--slides", given.slides, "--results",
        *given.results, "--port", "0", "--no-browser",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = next(line.strip() for line in server.stdout or () if "http://" in line)
            width, height = map(int, given.size.split("x"))
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"),
                    args=["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])],
                )
                page = browser.new_page(viewport={"width": width, "height": height})
                page.goto(address)
                picture(page, given)
                browser.close()
        finally:
            server.terminate()


def picture(page: Page, given: argparse.Namespace) -> None:
    """Open the slide, wait until all of it is there, and write the picture."""
    page.wait_for_function("() => document.body.viewer?.library")
    slide = page.evaluate(OPEN, [given.slide, given.panes])
    if given.region:
        points = [[float(n) for n in point.split(",")] for point in given.region.split()]
        page.wait_for_timeout(1500)  # regions kept of an earlier visit come first
        page.evaluate(DRAW, [slide, [[points]], "region 1"])
    page.evaluate("(panel) => document.body.viewer.store.set({panel})", given.panel)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=given.out, type="jpeg", quality=85)


if __name__ == "__main__":
    main()
