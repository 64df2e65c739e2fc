"""Asks a real Splunk what each search of the pack finds: `make verify-splunk URL=https://host:8089 TOKEN=…`.

It makes an index, a HEC token and (where the app is not installed) the lookup, sends the cases' events as
the job does, runs every search, compares, and removes what it made. TOKEN is an authentication token of a
user who may do that. On a Splunk that matters to somebody, use a test instance.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from splunklib import client
from splunklib.results import JSONResultsReader

from pipelines.packs import splunk
from pipelines.packs.detection import Detection
from pipelines.packs.detections import CATALOGUE
from tests.pipelines.packs.cases import Cases, Row, batches, text
from transforms.secret import LiteralSecret
from transforms.way_out import USUAL, WayOut
from transforms.write.splunk.destination import Splunk

NAME = "grantex_verify"
BATCH = 500
INDEXING_SECONDS = 180.0
TIMES = {"hour", "first_at", "_time"}


@dataclass
class Verification:
    """One run against one Splunk. wait: seconds between looks at what is indexed."""

    service: Any
    hec_url: str
    cases: Cases
    way_out: WayOut = USUAL
    wait: float = 2.0
    say: Callable[[str], None] = print

    def run(self) -> int:
        """0 when every search finds what it must; else the number of those that do not."""
        index = f"{NAME}_{int(self.cases.now)}"
        with self._made(index) as token:
            self._send(index, token)
            self._await_indexing(index)
            self._found(splunk.expanded(splunk.OWNERS_SEARCH, index), "0")
            wrong = [one.name for one in CATALOGUE if one.splunk and not self._finds(one, index)]
        self.say(f"{len(wrong)} of the searches do not find what they must: {', '.join(wrong) or 'none'}")
        return len(wrong)

    @contextlib.contextmanager
    def _made(self, index: str) -> Iterator[str]:
        """An index with a HEC token, for as long as the block lasts; the token's value."""
        with contextlib.ExitStack() as stack:
            self.service.indexes.create(index)
            stack.callback(self.service.indexes.delete, index)
            made = self.service.inputs.create(index, "http", index=index, indexes=index, useACK=0)
            stack.callback(self.service.inputs.delete, index, "http")
            if splunk.OWNERS not in self.service.kvstore:
                stack.enter_context(self._lookup())
            yield made["token"]

    @contextlib.contextmanager
    def _lookup(self) -> Iterator[None]:
        """The app's lookup, where the app is not."""
        fields = {name: "number" if name == "seen_at" else "string" for name in splunk.OWNERS_FIELDS}
        self.service.kvstore.create(splunk.OWNERS, fields=fields)
        try:
            path = "data/transforms/lookups"
            self.service.post(path, name=splunk.OWNERS, **splunk.TRANSFORMS[splunk.OWNERS])
            try:
                yield
            finally:
                self.service.delete(f"{path}/{splunk.OWNERS}")
        finally:
            self.service.kvstore.delete(splunk.OWNERS)

    def _send(self, index: str, token: str) -> None:
        writer = Splunk(self.hec_url, LiteralSecret(token), index=index, way_out=self.way_out).open()
        events = self.cases.events()
        for batch in batches(events, BATCH):
            outcome = writer.write(batch)
            if outcome is not None:
                raise RuntimeError(f"HEC did not take the events: {outcome.cause}")
        writer.close()
        self.say(f"sent {len(events)} events to index {index}")

    def _await_indexing(self, index: str) -> None:
        wanted = len(self.cases.events())
        until = time.monotonic() + INDEXING_SECONDS
        while True:
            (row,) = self._found(f'index="{index}" | stats count', "0")
            if int(row["count"]) >= wanted:
                return
            if time.monotonic() > until:
                raise RuntimeError(
                    f"only {row['count']} of {wanted} events can be searched after three minutes"
                )
            time.sleep(self.wait)

    def _finds(self, one: Detection, index: str) -> bool:
        search = one.splunk
        assert search is not None
        rows = self._found(splunk.expanded(splunk.spl(one), index), search.earliest)
        columns, wanted = expected(self.cases, one.name)
        found = sorted((tuple(value(name, row.get(name)) for name in columns) for row in rows), key=str)
        right = found == sorted(wanted, key=str)
        self.say(f"{'ok   ' if right else 'WRONG'} {one.name}: {len(found)} rows")
        if not right:
            self.say(f"      columns {columns}\n      wanted  {wanted}\n      found   {found}")
        return right

    def _found(self, search: str, earliest: str) -> Sequence[Mapping[str, Any]]:
        """The rows of a search over events since `earliest`."""
        answer = self.service.jobs.oneshot(
            f"search {search}", output_mode="json", earliest_time=earliest, latest_time="now", count=0
        )
        return [row for row in JSONResultsReader(answer) if isinstance(row, dict)]


def expected(cases: Cases, name: str) -> tuple[Sequence[str], list[Row]]:
    """What a search must find: what the SQL must, but for two things that Splunk does elsewhere."""
    columns, rows = cases.expected()[name]
    if name == "budget_nearing":  # that a mark is not new is for the alert's throttle to know
        rows = [*rows, ("g_handed", 50, "ag_second", cases.at(cases.back(2)))]
    if name == "completeness_by_day":  # days begin where the user is
        return ("repeats",), sorted({(row[2],) for row in rows if row[2]})
    return columns, rows


def value(column: str, found: Any) -> Any:
    """As the cases have it: Splunk makes text of everything, and seconds of times."""
    if found in (None, ""):
        return None
    if column in TIMES and re.fullmatch(r"\d+(\.\d+)?", found):
        return text(float(found))
    return int(found) if isinstance(found, str) and re.fullmatch(r"\d+", found) else found


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when all is found, 1 when something is not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--url", default=os.environ.get("URL"), help="management port, https://host:8089")
    parser.add_argument("--ca_file", help="authority that signed HEC's certificate")
    parser.add_argument("--hec_url", default="", help="default: https://<the same host>:8088")
    given = parser.parse_args(arguments)
    token = os.environ.get("TOKEN")  # not a flag: `ps` shows those
    if not given.url or not token:
        parser.error("needs URL=https://host:8089 and TOKEN=… (make verify-splunk URL=… TOKEN=…)")
    parts = urlsplit(given.url)
    service = client.connect(
        host=parts.hostname,
        port=parts.port or 8089,
        scheme=parts.scheme,
        splunkToken=token,
        autologin=True,
    )
    hec_url = given.hec_url or f"https://{parts.hostname}:8088"
    wrong = Verification(service, hec_url, Cases(time.time()), WayOut(ca_file=given.ca_file)).run()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
