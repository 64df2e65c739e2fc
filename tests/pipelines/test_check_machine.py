"""What `check` finds on this machine: directories, their lock and room, ports, secrets. It leaves nothing."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pipelines import check_machine
from pipelines.flags.settings import Settings, parse
from tests.servers.process import free_port
from transforms.feed.journal import Journal
from transforms.feed.journal.space import DirectoryLock, refuse_network
from transforms.preflight import Finding
from transforms.way_out import USUAL

ENVIRON = {"FEED_KEY": "gx-for-nobody", "HEC": "hec-for-nobody", "KAFKA_PASSWORD": "pw-for-nobody"}


def settings(tmp_path: Path, *more: str, key: str = "env:FEED_KEY", port: int = 0) -> Settings:
    given = {
        "state_dir": tmp_path / "state",
        "files_dir": tmp_path / "out",
        "feed_api_key": key,
        "status_port": port or free_port(),
    }
    return parse([*(f"--{name}={value}" for name, value in given.items()), *more], ENVIRON)


def found(settings: Settings) -> Mapping[str, Finding]:
    return {each.what: each for each in check_machine.check_machine(settings)}


def test_what_is_well_passes_and_nothing_is_left(tmp_path: Path) -> None:
    findings = found(settings(tmp_path))
    assert [each for each in findings.values() if not each.passed] == []
    assert "is made when the job starts" in findings["--state_dir"].note
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_a_job_has_is_in_use_and_its_ports_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    lock = DirectoryLock(tmp_path / "state")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        findings = found(settings(tmp_path, port=port))
        assert findings["the lock on it"].passed
        assert "in use by another grantex-beam (process " in findings["the lock on it"].note
        assert "--status_port" not in findings
        lock.release()
        findings = found(settings(tmp_path, port=port))
    assert findings["the lock on it"].note == "free"
    assert findings["--status_port"].passed is False
    assert f"127.0.0.1:{port} cannot be listened on" in findings["--status_port"].cause
    DirectoryLock(tmp_path / "state").release()  # which `check` has not kept


def test_a_journal_of_another_feed_does_not_pass(tmp_path: Path) -> None:
    made = settings(tmp_path)
    for feed, failed in ((made.feed_url, False), ("https://feed.example.com", True)):
        directory = tmp_path / str(failed) / "state"
        Journal(directory, feed_url=feed).close()
        findings = found(made.changed(state_dir=directory))
        assert ("the journal in it" in findings) is failed
    assert "of another feed, https://feed.example.com" in findings["the journal in it"].cause


def test_a_network_file_system_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"filer:/export {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(check_machine, "refuse_network", lambda path: refuse_network(path, mounts))
    failed = [each for each in check_machine.check_machine(settings(tmp_path)) if each.passed is False]
    assert ["nfs4" in each.cause for each in failed] == [True]


def test_a_directory_that_cannot_be_written_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests' user may be root, who may write everywhere."""

    def full(*_: object, **__: object) -> Iterator[object]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    state = found(settings(tmp_path))["--state_dir"]
    assert state.passed is False
    assert "cannot be written (No space left on device)" in state.cause


@pytest.mark.parametrize(
    ("free", "passed", "said"),
    [(1 << 34, True, ""), (3 << 30, True, "--journal_max_bytes=10 GiB"), (1 << 20, False, "make room")],
)
def test_too_little_room_fails_and_less_than_the_journal_may_take_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, passed: bool, said: str
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(total=1 << 40, free=free)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    room = found(settings(tmp_path))["room for the journal"]
    assert room.passed is passed
    assert said in room.cause
    assert bool(room.cause) is bool(said)


def test_each_secret_by_reference_is_read_once_wherever_it_stands(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("pw-for-nobody\n")
    made = settings(
        tmp_path,
        "--kafka_bootstrap_servers=127.0.0.1:1",
        f"--kafka_config=sasl.password=file:{password}",
        "--custom_destination=transforms.write.splunk.destination:Splunk?name=west&hec_url=http://127.0.0.1:1"
        "&hec_token=env:HEC",
    )
    secrets = check_machine.secrets_of(made)
    assert {name: str(each) for name, each in secrets.items()} == {
        "--feed_api_key": "env:FEED_KEY",
        "--kafka_config": f"file:{password}",
        "west's token": "env:HEC",
    }
    password.unlink()
    (gone,) = check_machine.check_secret(secrets["--kafka_config"], USUAL)
    assert gone.passed is False
    assert "the file cannot be read" in gone.cause


def test_a_secret_that_was_given_as_it_is_needs_no_look(tmp_path: Path) -> None:
    assert "--feed_api_key" not in check_machine.secrets_of(settings(tmp_path, key="gx-literal"))
