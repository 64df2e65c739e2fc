"""Destinations of one's own: what the flag makes of its text, what it refuses, and the README's example."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.flags import rules
from pipelines.flags.custom import load
from pipelines.flags.destinations import destinations
from pipelines.flags.settings import BadParameters, parse
from pipelines.practice.splunk import PracticeSplunk
from tests.integration.job import world
from transforms.batch import BatchPolicy
from transforms.secret import EnvSecret, LiteralSecret, Secret
from transforms.setting import shared
from transforms.write.contract import Destination
from transforms.write.splunk.destination import Splunk
from transforms.write.write_to import label

ROOT = Path(__file__).parents[3]
EXAMPLE = "tests.pipelines.example_destination:Audit"
HERE = f"{__name__}:Typed"
TOKEN = "audit-77c1-for-nobodys-eyes"
SEVEN = BatchPolicy(7, 700, 0.7)


@dataclass(frozen=True)
class Typed(Destination):
    """One field of each kind that text can become."""

    path: str
    count: int = 1
    ratio: float = 0.5
    loud: bool = False
    token: Secret | None = None
    hosts: list[str] = field(default_factory=list)
    policy: BatchPolicy = SEVEN


@dataclass(frozen=True)
class Named(Destination):
    """Has a field for its name."""

    name: str = ""  # type: ignore[misc]


@dataclass(frozen=True)
class Picky(Destination):
    """Refuses what it is given."""

    path: str

    def __post_init__(self) -> None:
        raise ValueError("nothing is good enough")


class Plain(Destination):
    """No dataclass."""


def test_text_becomes_what_the_fields_are_annotated_with() -> None:
    (made,) = load(
        f"{HERE}?name=audit_2&path=a%26b+c=d&count=3&ratio=1.5&loud=true&token=env:TOKEN&max_age=3"
    )
    assert isinstance(made, Typed)
    assert (made.path, made.count, made.ratio, made.loud) == ("a&b+c=d", 3, 1.5, True)
    assert made.token == EnvSecret("TOKEN")
    assert made.policy == BatchPolicy(7, 700, 3.0)
    assert made.name == "audit_2"


def test_its_name_survives_the_way_to_a_worker_and_is_its_label() -> None:
    (made,) = load(f"{HERE}?name=audit_2&path=x")
    (named,) = load(f"{__name__}:Named?name=own")
    assert pickle.loads(pickle.dumps(made)).name == "audit_2"
    assert (Typed.name, label(made)) == ("", "Audit2")
    assert (named.name, label(named)) == ("own", "Own")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("audit", "must be package.module:Class?name=NAME&key=value"),
        ("a-b:C?name=x", "must be package.module:Class?name=NAME&key=value"),
        ("no_such_package.audit:Audit?name=x", "there is no module no_such_package.audit"),
        (f"{__name__}:Missing?name=x", f"{__name__} has no Missing"),
        (f"{__name__}:Service?name=x", "must be a subclass of transforms.write.contract.Destination"),
        (f"{__name__}:Plain?name=x", "must be a dataclass"),
        (f"{HERE}?path=x", "needs ?name=NAME"),
        (f"{HERE}?name=../up&path=x", "needs ?name=NAME"),
        (f"{HERE}?name=x", "needs path: add path=VALUE behind the ?"),
        (f"{HERE}?name=x&path=y&colour=red", "has no colour; it has count, "),
        (f"{HERE}?name=x&path=y&path=z", "path is given twice"),
        (f"{HERE}?name=x&path", "each key a word followed by = and its value"),
        (f"{HERE}?name=x&path=y&count=hush-hush", "count: must be a whole number"),
        (f"{HERE}?name=x&path=y&ratio=hush-hush", "ratio: must be a number"),
        (f"{HERE}?name=x&path=y&loud=hush-hush", "loud: must be true or false"),
        (f"{HERE}?name=x&path=y&token=env:hush-hush", "token: is not of the form env:NAME"),
        (f"{HERE}?name=x&path=y&hosts=hush-hush", "hosts: cannot be given as text"),
        (f"{HERE}?name=x&path=y&max_events=0", "max_events: must be at least 1"),
        (f"{__name__}:Picky?name=x&path=hush-hush", "cannot be made: ValueError: nothing is good enough"),
        (f"{__name__}:Named?name=x&max_age=1", "has no field `policy`, so max_age cannot be set"),
    ],
)
def test_what_cannot_be_says_why_without_a_value(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        load(text)
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_library", "imports no_such_library, which is not installed"),
        ("1 / 0", "importing broken fails: ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_does_not_import_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=says):
        load("broken:Audit?name=x")
    sys.modules.pop("broken", None)


AUDIT = """
from dataclasses import dataclass
from transforms.setting import shared
from transforms.write.contract import Destination
from transforms.write.splunk.destination import Splunk

@dataclass(frozen=True)
class Audit(Destination):
    limit: int = 1
"""
# sys.path as an installed command has it: where the command lies, and not where it was started.
AS_INSTALLED = """
import sys
sys.path[0] = "/nowhere"
from pipelines.flags.custom import load
from pipelines.flags.destinations import destinations
print(load(sys.argv[1])[0].limit)
"""


@pytest.mark.slow
@pytest.mark.parametrize("under", ["", "mypackage"])
def test_a_class_is_looked_for_in_the_current_directory_by_an_installed_command(
    tmp_path: Path, under: str
) -> None:
    place = tmp_path / under
    place.mkdir(exist_ok=True)
    (place / "own_audit.py").write_text(AUDIT)
    module = f"{under}.own_audit" if under else "own_audit"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", AS_INSTALLED, f"{module}:Audit?name=a&limit=7"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_a_module_that_is_nowhere_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        load("no_such_package.audit:Audit?name=x")
    assert str(caught.value) == (
        f"there is no module no_such_package.audit, neither installed nor under {tmp_path}; start in the "
        "directory that has no_such_package, or install its package (pip install -e PATH)"
    )


def test_what_is_installed_goes_before_what_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    with pytest.raises(ValueError, match="json has no Audit"):
        load("json:Audit?name=x")
    assert sys.path[-1] == str(tmp_path)


# Built-in classes, and what classes say of their fields


def test_a_built_in_class_is_one_more_under_a_name_of_its_own() -> None:
    token = "token=env:TOKEN"
    (made,) = load(
        f"transforms.write.splunk.destination:Splunk?name=west&hec_url=https://w.test/&hec_{token}"
    )
    assert isinstance(made, Splunk)
    assert (made.name, made.url, made.token) == ("west", "https://w.test", EnvSecret("TOKEN"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("&external_id=x-42", "external_id: needs role_arn, the role that asks for it"),
        ("&region=Frankfurt", "region: must be a region's code"),
        ("&max_bytes=6GB", "max_bytes: must be from 1 to 5000000000 bytes"),
        ("&layout=deep", "layout: must be one of hive, flat"),
        ("&way_out=x", "way_out: cannot be given as text"),
    ],
)
def test_it_is_read_as_its_flags_are(options: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        load(f"transforms.write.s3.destination:S3?name=x&bucket=archive{options}")
    assert says in str(caught.value)


@dataclass(frozen=True)
class Following(Destination):
    """Follows two of the job's settings."""

    ca_file: str | None = shared("ca_file", None)
    packed: str = shared("http_compression", "gzip")

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.packed == "brotli":
            yield "packed", "cannot be that beside {ca_file}"


def test_what_all_destinations_share_reaches_ones_own() -> None:
    own = f"--custom_destination={__name__}:Following?name=mine"
    argv = ["--feed_api_key=env:KEY", "--http_compression=none", own]
    (made,) = destinations(parse(argv, {"KEY": "feed-key"}))
    assert isinstance(made, Following)
    assert (made.name, made.packed, made.ca_file) == ("mine", "none", None)
    (given,) = destinations(parse([*argv[:-1], f"{own}&packed=zstd"], {"KEY": "feed-key"}))
    assert isinstance(given, Following)
    assert given.packed == "zstd"


def test_a_class_may_have_rules_between_its_fields() -> None:
    with pytest.raises(ValueError, match="packed: cannot be that beside ca_file"):
        load(f"{__name__}:Following?name=mine&packed=brotli")


def faults(*argv: str) -> list[str]:
    with pytest.raises(BadParameters) as raised:
        parse(["--feed_api_key=env:KEY", *argv], {"KEY": "feed-key"})
    return raised.value.lines


def test_names_are_unique_and_not_those_of_the_built_in_destinations() -> None:
    flag = f"--custom_destination={HERE}?path=y&name="
    taken = "--custom_destination: the name {} is taken; give another, ?name=NAME"
    assert faults(f"{flag}audit", f"{flag}audit") == [taken.format("audit")]
    for name in ("splunk", "feed", "dead_letters"):
        assert faults(f"{flag}{name}") == [taken.format(name)]


def test_its_secrets_are_looked_up_at_the_start() -> None:
    assert faults(f"--custom_destination={HERE}?name=a&path=y&token=env:MISSING") == [
        "--custom_destination: env:MISSING: this environment variable is not set"
    ]


def test_secrets_may_live_in_variables_that_begin_like_settings() -> None:
    text = f"{HERE}?name=a&path=y&token=env:GRANTEX_AUDIT_TOKEN"
    environ = {"KEY": "feed-key", "GRANTEX_AUDIT_TOKEN": TOKEN}
    settings = parse(["--feed_api_key=env:KEY", f"--custom_destination={text}"], environ)
    assert [one.name for one in settings.custom_destination] == ["a"]
    assert list(rules.secrets_in(settings.custom_destination)) == [EnvSecret("GRANTEX_AUDIT_TOKEN")]


def test_a_literal_secret_is_warned_of_and_never_shown() -> None:
    argv = ["--feed_api_key=env:KEY", f"--custom_destination={HERE}?name=a&path=y&token={TOKEN}"]
    settings = parse(argv, {"KEY": "feed-key"})
    (made,) = settings.custom_destination
    assert isinstance(made, Typed)
    assert made.token == LiteralSecret(TOKEN)
    assert any("--custom_destination: a literal secret" in line for line in settings.warnings)
    assert TOKEN not in repr(settings)


# The example of docs/extend.md


def test_the_docs_show_the_example_as_it_is_run() -> None:
    section = (ROOT / "docs" / "extend.md").read_text().partition("## Your own destination")[2]
    block = section.partition("```python\n")[2].partition("```")[0]
    source = Path(__file__).parents[1].joinpath("example_destination.py").read_text()
    assert block == source, "put tests/pipelines/example_destination.py into docs/extend.md"
    assert len(source.splitlines()) < 30


class Service(ThreadingHTTPServer):
    """Takes events: 401 without the token, 400 for type "bad", 503 for the first request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.taken: Counter[bytes] = Counter()
        self.requests = 0
        self.lock = threading.Lock()

    def status(self, authorization: str, body: bytes) -> int:
        with self.lock:
            self.requests += 1
            if authorization != f"Bearer {TOKEN}":
                return 401
            if json.loads(body)["type"] == "bad":
                return 400
            if self.requests == 1:
                return 503
            self.taken[body] += 1
            return 200


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Service)
        self.send_response(self.server.status(self.headers["Authorization"], body))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is its own."""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.servers
def test_the_example_runs_in_the_job(tmp_path: Path, service: Service) -> None:
    with world(tmp_path, forks=True) as around:
        around.environment = {**around.environment, "AUDIT_TOKEN": TOKEN}
        url = f"http://127.0.0.1:{service.server_port}/events"
        flags = [
            f"--feed_url={around.feed.url}",
            "--feed_api_key=env:PRACTICE_FEED_KEY",
            f"--state_dir={around.state}",
            f"--custom_destination={EXAMPLE}?name=audit&url={url}&token=env:AUDIT_TOKEN",
        ]
        events = [b'{"id":"evt_%d","type":"%s"}' % (n, b"bad" if n == 5 else b"good") for n in range(20)]
        with around.start(flags) as job:
            job.wait_until(lambda: around.feed.open_streams, "a stream")
            around.feed.publish_many(events)
            job.wait_until(lambda: job.metric("grantex_events_received_total") == 20, "20 received")
            job.wait_until_settled("audit")
            assert job.metric("grantex_events_delivered_total", "audit") == 19
            assert job.drain() == 0
            assert TOKEN not in job.log
        assert service.taken == Counter(event for n, event in enumerate(events) if n != 5)
        letters = "".join(path.read_text() for path in around.dead_letters.rglob("*") if path.is_file())
        assert "answered 400" in letters
        assert "evt_5" in letters


@pytest.mark.servers
def test_two_of_a_kind_run_side_by_side(tmp_path: Path) -> None:
    with world(tmp_path, forks=True) as around, PracticeSplunk() as east, PracticeSplunk() as west:
        around.environment = {**around.environment, "EAST": east.token, "WEST": west.token}
        second = "transforms.write.splunk.destination:Splunk?name=west&index=main"
        flags = [
            f"--feed_url={around.feed.url}",
            "--feed_api_key=env:PRACTICE_FEED_KEY",
            f"--state_dir={around.state}",
            f"--splunk_hec_url={east.url}",
            "--splunk_hec_token=env:EAST",
            f"--custom_destination={second}&hec_url={west.url}&hec_token=env:WEST&max_age=0.1",
        ]
        events = [b'{"id":"evt_%d","type":"good"}' % n for n in range(20)]
        with around.start(flags) as job:
            job.wait_until(lambda: around.feed.open_streams, "a stream")
            around.feed.publish_many(events)
            job.wait_until(lambda: job.metric("grantex_events_received_total") == 20, "20 received")
            for name in ("splunk", "west"):
                job.wait_until_settled(name)
                assert job.metric("grantex_events_delivered_total", name) == 20
            assert job.drain() == 0
        assert len(east.events) == len(west.events) == 20


def test_a_field_may_be_called_as_its_class_calls_it() -> None:
    where = "transforms.write.splunk.destination:Splunk?name=west&"
    by_flag = load(f"{where}hec_url=https://west:8088&hec_token=env:TOKEN")
    by_field = load(f"{where}url=https://west:8088&token=env:TOKEN")
    assert by_flag == by_field
    with pytest.raises(ValueError, match="hec_url is given twice, once as url"):
        load(f"{where}hec_url=https://west:8088&url=https://east:8088&token=env:TOKEN")
