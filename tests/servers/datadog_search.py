"""A practice Datadog that also takes pipelines and counts logs, as far as the pack's own searches need it.

Of log search it reads `source:`, `service:`, `type:` (a tag), `@attribute:value`, `@attribute:>=number` and
values in parentheses with OR. Of pipelines it does the grok parser that takes the whole message as JSON, and
attribute remappers. From Datadog's API reference; Datadog itself reads far more.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.http_server import Answer, Request

PIPELINES = "/api/v1/logs/config/pipelines"
VALIDATE = "/api/v1/monitor/validate"
AGGREGATE = "/api/v2/logs/analytics/aggregate"
TERM = re.compile(r"(@?[\w.]+):(\([^)]*\)|\S+)")
Attributes = Mapping[str, str]


class SearchingDatadog(PracticeDatadog):
    """pipelines: what is set up now; refused: names of monitors that it finds invalid."""

    def __init__(self) -> None:
        super().__init__()
        self.pipelines: dict[str, Any] = {}
        self.validated: list[str] = []
        self.refused: set[str] = set()

    def judge(self, request: Request) -> Answer:
        if request.path == VALIDATE:
            body = json.loads(request.body)
            self.validated.append(body["name"])
            bad = body["name"] in self.refused
            return Answer(400 if bad else 200, b'{"errors":["The value provided for query is invalid"]}')
        if request.path.startswith(PIPELINES):
            return self._pipeline(request)
        if request.path == AGGREGATE:
            return Answer(200, json.dumps(self._aggregate(json.loads(request.body))).encode())
        return super().judge(request)

    def _pipeline(self, request: Request) -> Answer:
        if request.method == "DELETE":
            del self.pipelines[request.path.rpartition("/")[2]]
            return Answer(200, b"")
        body = {**json.loads(request.body), "id": f"p{len(self.pipelines)}", "type": "pipeline"}
        self.pipelines[body["id"]] = body
        return Answer(200, json.dumps(body).encode())

    def _aggregate(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        facets = [one["facet"] for one in asked["group_by"]]
        groups: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for log in self.events:
            found = self.attributes(log)
            if matches(asked["filter"]["query"], found) and all(facet in found for facet in facets):
                groups[tuple(found[facet] for facet in facets)].add(found["@id"])
        buckets = [
            {"by": dict(zip(facets, group, strict=True)), "computes": {"c0": len(ids)}}
            for group, ids in groups.items()
        ]
        return {"data": {"buckets": buckets}, "meta": {"status": "done"}}

    def attributes(self, log: Any) -> Attributes:
        """What a log can be searched by, after the pipelines that take it."""
        tags = dict(tag.partition(":")[::2] for tag in log.ddtags.split(","))
        found = {**tags, "source": log.ddsource, "service": log.service, "@id": log.id}
        for pipeline in self.pipelines.values():
            if matches(pipeline["filter"]["query"], found):
                parser, *others = pipeline["processors"]
                root = re.fullmatch(r"\w+ %\{data:([\w.]+):json\}", parser["grok"]["match_rules"])
                assert root is not None, "only this rule is read here"
                for processor in others:
                    if processor["type"] == "attribute-remapper":
                        path = processor["sources"][0].removeprefix(f"{root[1]}.").split(".")
                        value = reach(json.loads(log.message), path)
                        if value is not None:
                            found[f"@{processor['target']}"] = (
                                value if isinstance(value, str) else shown(value)
                            )
        return found


def reach(value: Any, path: list[str]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def shown(value: Any) -> str:
    return json.dumps(value)


def matches(query: str, found: Attributes) -> bool:
    """Whether all of the query's terms hold."""
    left = TERM.sub("", query).strip()
    assert left == "", f"not read here: {left}"
    return all(holds(found.get(name), value) for name, value in TERM.findall(query))


def holds(has: str | None, wanted: str) -> bool:
    if has is None:
        return False
    if wanted.startswith(">="):
        return has.lstrip("-").isdigit() and int(has) >= int(wanted[2:])
    return has in wanted.strip("()").split(" OR ")
