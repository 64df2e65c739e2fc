"""Takes the README's picture of the page that runs at an address:

`python -m tests.browser.screenshot http://127.0.0.1:8787/ docs/status-page.png --level trouble [--width 375]`
"""

from __future__ import annotations

import argparse

from tests.browser.chromium import chromium, opened

RATE_SHOWN_AFTER = 6_000  # ms
PATIENCE = 120.0  # seconds; the demo's trouble comes every minute
MOMENT = 4_000  # ms, in which something gathers behind what is down


def main() -> None:
    """Look for some seconds, so that the rates are there, then take the picture of the whole page as soon as
    its verdict is the wanted one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("file")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--level", choices=("good", "watch", "trouble"), default="good")
    parser.add_argument("--width", type=int, default=1100)
    arguments = parser.parse_args()
    size = (arguments.width, 400)
    with chromium() as browser, opened(browser, arguments.url, size, arguments.scheme) as seen:
        seen.page.wait_for_timeout(RATE_SHOWN_AFTER)
        seen.wait_for(f"document.getElementById('verdict').dataset.level === '{arguments.level}'", PATIENCE)
        seen.page.wait_for_timeout(MOMENT)
        seen.page.screenshot(path=arguments.file, full_page=True)


if __name__ == "__main__":
    main()
