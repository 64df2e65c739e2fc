"""`from transforms import ...`: every public transform by name, and nothing loaded before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest

import transforms
from tests.integration.test_printed_pipeline import printed

ROOT = Path(__file__).parents[2]


def test_the_public_transforms_are_there_by_name() -> None:
    from transforms import (
        FeedSettings,
        ReadFromGrantex,
        WriteToBigQuery,
        WriteToDatadog,
        WriteToFiles,
        WriteToKafka,
        WriteToPubSub,
        WriteToS3,
        WriteToSplunk,
    )
    from transforms.secret import EnvSecret

    key = EnvSecret("KEY")
    made: list[beam.PTransform] = [
        ReadFromGrantex(FeedSettings("https://feed.test", key)),
        WriteToBigQuery("p-r-o.d.t"),
        WriteToDatadog(key),
        WriteToFiles("out"),
        WriteToKafka("kafka:9092"),
        WriteToPubSub("projects/my-project/topics/events"),
        WriteToS3("archive"),
        WriteToSplunk("https://splunk:8088", key),
    ]
    assert [each.label for each in made] == [
        "ReadFromGrantex",
        "WriteToBigQuery",
        "WriteToDatadog",
        "WriteToFiles",
        "WriteToKafka",
        "WriteToPubSub",
        "WriteToS3",
        "WriteToSplunk",
    ]


def test_every_public_name_can_be_had_and_no_other() -> None:
    for name in transforms.__all__:
        assert getattr(transforms, name) is getattr(transforms, name)
        assert name in dir(transforms)
    with pytest.raises(AttributeError, match="WriteToNowhere"):
        _ = transforms.WriteToNowhere
    with pytest.raises(ImportError):
        from transforms import WriteToNowhere  # type: ignore[attr-defined]  # noqa: F401


def test_the_pipeline_of_the_docs_can_be_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    built: list[beam.Pipeline] = []
    monkeypatch.setattr(beam.Pipeline, "__exit__", lambda pipeline, *_: built.append(pipeline))
    exec(printed(), {})
    made = built[0].to_runner_api().components.transforms.values()
    assert {"ReadFromGrantex", "WriteToS3"} <= {each.unique_name for each in made}


@pytest.mark.slow
def test_an_event_costs_neither_beam_nor_a_vendors_library() -> None:
    program = (
        "import sys, transforms.event; "
        "print(*{'apache_beam', 'boto3', 'grpc', 'httpx', 'confluent_kafka'} & sys.modules.keys())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == ""
