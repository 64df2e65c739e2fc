"""Takes the docs' pictures of the page, of made-up jobs: `make screenshots`.

`python -m tests.browser.screenshot --to=DIRECTORY --scenes=all` takes one of each scene, to look at.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from pipelines.local.status import StatusServer
from tests.browser.chromium import chromium, opened
from tests.browser.scenes import SCENES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = "needing_you"
SIZES = {"": (1100, 400), "-phone": (375, 400)}  # as high as the page is
SCHEMES: dict[str, Literal["light", "dark"]] = {"": "light", "-dark": "dark"}
MOST = 2_600  # pixels high: on a phone that is as far as the destinations
SCALE = 1.5  # readable on a screen with small pixels


def take(browser: Browser, scene: str, directory: Path, name: str, shapes: Sequence[tuple[str, str]]) -> None:
    """One picture for each pair of a size and a scheme."""
    snapshot, history = SCENES[scene]()
    server = StatusServer("127.0.0.1", 0, lambda: snapshot, history=history)
    try:
        for size, scheme in shapes:
            path = directory / f"{name}{size}{scheme}.png"
            url = f"http://127.0.0.1:{server.port}/"
            with opened(browser, url, SIZES[size], SCHEMES[scheme], "reduce", snapshot.at, SCALE) as seen:
                seen.wait_for("past !== null")
                whole = int(seen.page.evaluate("document.documentElement.scrollHeight"))
                seen.page.set_viewport_size({"width": SIZES[size][0], "height": min(whole, MOST)})
                seen.page.screenshot(path=path)
            squeeze(path)
            print(f"{path} {path.stat().st_size / 1000:.0f} kB")
    finally:
        server.close()


def squeeze(path: Path) -> None:
    """With the few colours that such a page has."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def main() -> None:
    """Pictures of one scene in all shapes, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=DOCS)
    parser.add_argument("--scenes", choices=("shown", "all", *SCENES), default="shown")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    shapes = list(product(SIZES, SCHEMES))
    with chromium() as browser:
        if arguments.scenes == "shown":
            take(browser, SHOWN, arguments.to, "status-page", shapes)
            return
        for scene in SCENES if arguments.scenes == "all" else (arguments.scenes,):
            take(browser, scene, arguments.to, scene, shapes)


if __name__ == "__main__":
    main()
