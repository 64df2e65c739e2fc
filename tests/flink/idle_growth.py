"""`make idle-growth`: how much the state of a job on Flink grows while the feed sends nothing.

Each pause of a source stays in the state of Beam's Flink runner (before apache/beam#39191, 12 KB each).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.flink.world import world
from tests.servers import flink, own_network
from tests.servers.flink import wait_for


def measure(minutes: int, place: Path) -> None:
    """Print the size of the last checkpoint at the end of each minute."""
    with world(place) as around:
        job = around.start()
        wait_for(lambda: around.flink.checkpoints(job) > 1, "no checkpoint", 120.0)
        first = before = _size(around.flink, job)
        print(f"{first / 1e3:.0f} KB at the start", flush=True)
        for minute in range(1, minutes + 1):
            time.sleep(60.0)
            now = _size(around.flink, job)
            print(f"minute {minute}: {now / 1e3:.0f} KB, {(now - before) / 1e3:+.0f} KB", flush=True)
            before = now
        daily = (before - first) / minutes * 60 * 24
        print(f"{daily / 1e6:.0f} MB a day, with the connections of one job")
        around.flink.cancel(job)


def _size(cluster: flink.Flink, job: str) -> int:
    return int(cluster.ask(f"/jobs/{job}/checkpoints")["latest"]["completed"]["state_size"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--inside", action="store_true", help="already in a network of its own")
    arguments = parser.parse_args()
    if not arguments.inside:
        flink.install()
        module = [sys.executable, "-m", "tests.flink.idle_growth", *sys.argv[1:], "--inside"]
        sys.exit(subprocess.run([*own_network.namespace(), *module]).returncode)
    own_network.bring_loopback_up()
    with tempfile.TemporaryDirectory() as place:
        measure(arguments.minutes, Path(place))


if __name__ == "__main__":
    main()
