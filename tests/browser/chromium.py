"""A real headless Chromium (Debian's package), and what a page did in it."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tests.servers.process import may_start, unavailable

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Without these Chromium looks for its maker's hosts; the sandbox cannot be had as root.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = (1100, 900)
PHONE = (375, 800)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips the test (fails it under CI) when there is none."""
    may_start("chromium")
    program = shutil.which("chromium")
    if program is None:
        unavailable("chromium is not installed (Debian: apt install chromium)")
    if importlib.util.find_spec("playwright") is None:
        unavailable("Playwright is not installed (make installs it for the tests)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Seen:
    """A page, the addresses it asked for, and what it complained of."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def wait_for(self, script: str, timeout: float = 30.0) -> None:
        """Wait until a JavaScript expression is true. (Playwright's own waiting evaluates inside the page,
        which the page's Content-Security-Policy forbids.)"""
        until = time.monotonic() + timeout
        while not self.page.evaluate(script):
            assert time.monotonic() < until, f"not within {timeout:.0f} s: {script}; it shows:\n{self.text()}"
            self.page.wait_for_timeout(50)

    def number(self, table: str, name: str, column: str) -> int:
        """A cell's number."""
        script = f"""() => {{
            const rows = [...document.querySelectorAll('#{table} tbody')];
            const row = rows.find((row) => row.querySelector('.name').textContent === '{name}');
            const cell = row.querySelector('[data-label="{column}"]');
            return (cell.querySelector('.value') ?? cell).textContent;
        }}"""
        return int(str(self.page.evaluate(script)).replace(",", ""))

    def text(self) -> str:
        """All that can be read on it."""
        return self.page.inner_text("body")


@contextlib.contextmanager
def opened(
    browser: Browser,
    url: str,
    size: tuple[int, int] = DESKTOP,
    scheme: Literal["light", "dark"] = "light",
    motion: Literal["no-preference", "reduce"] = "no-preference",
    at: float | None = None,
    scale: float = 1,
) -> Iterator[Seen]:
    """`url` in a window of its own, once it shows a first look; at: what time it is there (epoch seconds)."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        reduced_motion=motion,
        device_scale_factor=scale,
        timezone_id="UTC" if at is not None else None,
    )
    seen = Seen(context.new_page())
    if at is not None:
        seen.page.clock.set_fixed_time(at)
    seen.page.on("request", lambda request: seen.asked.append(request.url))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("console", lambda message: seen.complaints.append(message.text))
    seen.page.goto(url)
    seen.wait_for("!document.getElementById('main').hidden")
    yield seen
    context.close()
