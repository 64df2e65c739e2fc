"""The practice Splunk's management port, asked by the real splunk-sdk, and what it makes used over HEC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from splunklib import binding, client

from pipelines.practice.splunk import PracticeSplunk
from tests.servers.splunk_management import PASSWORD, USER, PracticeSplunkManagement
from tests.transforms.write.encodings import batch
from transforms.secret import LiteralSecret
from transforms.write.splunk.destination import Splunk


@pytest.fixture
def hec() -> Iterator[PracticeSplunk]:
    with PracticeSplunk() as running:
        yield running


@pytest.fixture
def management(hec: PracticeSplunk) -> Iterator[PracticeSplunkManagement]:
    with PracticeSplunkManagement(hec) as running:
        yield running


@pytest.fixture
def service(management: PracticeSplunkManagement) -> Any:
    return connected(management, username=USER, password=PASSWORD)


def connected(management: PracticeSplunkManagement, **credentials: Any) -> Any:
    parts = urlsplit(management.url)
    return client.connect(host=parts.hostname, port=parts.port, scheme=parts.scheme, **credentials)


# Signing in


def test_a_user_signs_in_and_sees_the_version(service: Any) -> None:
    assert service.splunk_version == (9, 3, 0)


def test_a_wrong_password_is_refused(management: PracticeSplunkManagement) -> None:
    with pytest.raises(binding.AuthenticationError):
        connected(management, username=USER, password="wrong")


def test_an_authentication_token_and_basic_authentication_need_no_signing_in(
    management: PracticeSplunkManagement,
) -> None:
    assert connected(management, splunkToken=management.bearer).splunk_version == (9, 3, 0)
    assert connected(management, username=USER, password=PASSWORD, basic=True).splunk_version == (9, 3, 0)
    assert not any(request.path.endswith("login") for request in management.requests)


@pytest.mark.parametrize("credentials", [{"splunkToken": "wrong"}, {"token": "wrong"}])
def test_a_wrong_token_is_refused(management: PracticeSplunkManagement, credentials: dict[str, str]) -> None:
    with pytest.raises((binding.AuthenticationError, binding.HTTPError)):
        _ = connected(management, autologin=False, **credentials).splunk_version


def test_without_a_credential_nothing_is_shown(management: PracticeSplunkManagement) -> None:
    with httpx.Client(trust_env=False) as plain:
        assert plain.get(f"{management.url}/services/data/indexes").status_code == 401


# Indexes


def test_indexes_are_listed_made_and_removed(hec: PracticeSplunk, service: Any) -> None:
    assert [index.name for index in service.indexes] == ["main"]
    assert "grantex" not in service.indexes
    made = service.indexes.create("grantex", maxTotalDataSizeMB=1000)
    assert (made.name, made["maxTotalDataSizeMB"], made["disabled"]) == ("grantex", "1000", "0")
    assert "grantex" in service.indexes
    assert hec.indexes == {"main", "grantex"}
    service.indexes.delete("grantex")
    assert hec.indexes == {"main"}
    with pytest.raises(KeyError):
        service.indexes["grantex"]


def test_more_indexes_than_are_listed_at_once(service: Any) -> None:
    for number in range(40):
        service.indexes.create(f"i{number:02d}")
    assert len(service.indexes.list()) == 41
    assert len(list(service.indexes.iter(pagesize=7))) == 41
    assert [index.name for index in service.indexes.list(count=2, offset=1)] == ["i01", "i02"]


@pytest.mark.parametrize(("name", "status"), [("main", 409), ("Upper", 400)])
def test_an_index_that_cannot_be_made(service: Any, name: str, status: int) -> None:
    with pytest.raises(binding.HTTPError) as raised:
        service.indexes.create(name)
    assert raised.value.status == status
    assert name in str(raised.value)


# HEC tokens


def test_a_token_that_is_made_is_good_for_hec(hec: PracticeSplunk, service: Any) -> None:
    service.indexes.create("grantex")
    made = service.inputs.create("beam", "http", index="grantex", indexes="grantex,main", useACK=1)
    assert (made["index"], made["indexes"], made["useACK"]) == ("grantex", ["grantex", "main"], "1")
    writer = Splunk(hec.url, LiteralSecret(made["token"]), index="grantex", acknowledge=True).open()
    assert writer.write(batch(2)) is None
    writer.close()
    assert [event.index for event in hec.events] == ["grantex"] * 2


def test_a_token_is_turned_off_and_removed(hec: PracticeSplunk, service: Any) -> None:
    made = service.inputs.create("beam", "http")
    writer = Splunk(hec.url, LiteralSecret(made["token"])).open()
    made.disable()
    outcome = writer.write(batch(1))
    assert outcome is not None
    assert "Token disabled" in outcome.cause
    made.enable()
    assert writer.write(batch(1)) is None
    service.inputs.delete("beam", "http")
    outcome = writer.write(batch(1))
    assert outcome is not None
    assert "Invalid token" in outcome.cause


def test_tokens_are_listed_and_found(service: Any) -> None:
    service.inputs.create("beam", "http")
    assert [token.name for token in service.inputs.list("http")] == ["http://grantex", "http://beam"]
    assert ("beam", "http") in service.inputs
    assert ("other", "http") not in service.inputs
    assert service.inputs["beam", "http"].update(useACK=1).refresh()["useACK"] == "1"


def test_a_token_for_an_index_that_does_not_exist(service: Any) -> None:
    with pytest.raises(binding.HTTPError, match="Unknown index nowhere"):
        service.inputs.create("beam", "http", index="nowhere")


# Saved searches


def test_saved_searches_are_made_changed_and_removed(service: Any) -> None:
    search = 'index=main sourcetype=_json | dedup event_id | where "a"<"b"'
    made = service.saved_searches.create("Grantex: revoked", search, description="é & <x>")
    assert (made["search"], made["description"]) == (search, "é & <x>")
    assert made.update(cron_schedule="*/5 * * * *", is_scheduled=1).refresh()["is_scheduled"] == "1"
    assert [one.name for one in service.saved_searches] == ["Grantex: revoked"]
    assert "Grantex: revoked" in service.saved_searches
    service.saved_searches.delete("Grantex: revoked")
    assert "Grantex: revoked" not in service.saved_searches


def test_a_saved_search_needs_a_search(service: Any) -> None:
    with pytest.raises(binding.HTTPError, match="search"):
        service.saved_searches.create("empty", " ")
    assert len(service.saved_searches) == 0


def test_faults_of_practice_servers_work_here_too(management: PracticeSplunkManagement, service: Any) -> None:
    management.answer(503, path="/data/indexes/")
    with pytest.raises(binding.HTTPError):
        service.indexes.list()
    assert len(service.indexes.list()) == 1
