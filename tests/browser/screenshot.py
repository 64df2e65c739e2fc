"""Takes the README's picture of the page that runs at an address:

`python -m tests.browser.screenshot http://127.0.0.1:8787/ docs/status-page.png [--scheme dark] [--width 375]`
"""

from __future__ import annotations

import argparse

from tests.browser.chromium import chromium, opened

RATE_SHOWN_AFTER = 6_000  # ms


def main() -> None:
    """Look for some seconds, so that the rates are there, then take the picture of the whole page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("file")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--width", type=int, default=1100)
    arguments = parser.parse_args()
    size = (arguments.width, 400)
    with chromium() as browser, opened(browser, arguments.url, size, arguments.scheme) as seen:
        seen.page.wait_for_timeout(RATE_SHOWN_AFTER)
        seen.page.screenshot(path=arguments.file, full_page=True)


if __name__ == "__main__":
    main()
