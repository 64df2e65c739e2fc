"""Renders the packs: `python -m pipelines.packs [DIRECTORY]` writes templates/packs, docs/packs.md
and docs/runbook.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from pipelines.packs.render import rendered

ROOT = Path(__file__).parents[2]


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write them, and remove what a former definition left in templates/packs."""
    packs = root / "templates" / "packs"
    for path in sorted(packs.rglob("*")):
        if path.is_file() and str(path.relative_to(root)) not in files:
            path.unlink()
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """0, or 2 for an unknown argument."""
    if len(arguments) > 1 or any(one.startswith("-") for one in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        files = rendered()
    except ImportError as error:
        print(
            f"The Grafana dashboard needs `make test`'s requirements and Python 3.11: {error}",
            file=sys.stderr,
        )
        return 1
    write(Path(arguments[0]) if arguments else ROOT, files)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
