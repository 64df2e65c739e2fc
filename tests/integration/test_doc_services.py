"""Commands of the docs for services that are at hand here: a real Kafka, and moto's S3."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.doc_commands import ROOT, aws_service, commands, kebab, snippets
from tests.servers.kafka import KafkaServer
from tests.servers.moto import Moto, client, no_questions


def of_page(name: str, tool: str) -> list[list[str]]:
    """The commands of a destination's page that begin so."""
    page = f"docs/destinations/{name}.md"
    return [words for each in snippets(page) for words in commands(each) if words[0] == tool]


def test_kafka_takes_the_topic_of_its_page(broker: KafkaServer) -> None:
    (words,) = of_page("kafka", "kafka-topics.sh")
    given = [words[place + 1] for place, word in enumerate(words) if word == "--config"]
    assert given
    settings = dict(each.replace(".", "_").split("=") for each in given)
    broker.create_topic("as-documented", **settings)
    broker.delete_topic("as-documented")


def test_s3_takes_the_commands_of_its_page(moto_server: Moto) -> None:
    done = []
    with no_questions(moto_server.url):
        s3 = client(moto_server.url, "s3")
        for _, service, command, *rest in of_page("s3", "aws"):
            assert service == "s3api"
            operation, given = asked(command, rest)
            getattr(s3, operation)(**given)
            done.append(operation)
        assert s3.get_bucket_lifecycle_configuration(Bucket="my-archive")["Rules"]
        lock = s3.get_object_lock_configuration(Bucket="my-archive")["ObjectLockConfiguration"]
        s3.delete_bucket(Bucket="my-archive")
    assert lock["Rule"]["DefaultRetention"]["Mode"] == "COMPLIANCE"
    assert "put_public_access_block" in done


def asked(command: str, words: list[str]) -> tuple[str, dict[str, Any]]:
    """A command of AWS as boto3 is asked: JSON of files, and NAME=value,NAME=value."""
    model = aws_service("s3")
    operation = next(each for each in model.operation_names if kebab(each) == command)
    members = {kebab(each): each for each in model.operation_model(operation).input_shape.members}
    given: dict[str, Any] = {}
    for place, word in enumerate(words):
        if word.startswith("--") and (name := members.get(word[2:])):
            following = words[place + 1] if place + 1 < len(words) else "--"
            given[name] = True if following.startswith("--") else value(following)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).lower(), given


def value(text: str) -> Any:
    if text.startswith("file://"):
        return json.loads((ROOT / text.removeprefix("file://")).read_text(encoding="utf-8"))
    if "=" in text:
        pairs = (each.split("=") for each in text.split(","))
        return {name: {"true": True, "false": False}.get(each, each) for name, each in pairs}
    return text
