"""templates/metadata.json, from the parameters' declarations: what Dataflow's console asks for and checks.

python -m pipelines.flags.template > templates/metadata.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.cluster import dataflow
from pipelines.flags.parameter import Parameter
from pipelines.flags.settings import PARAMETERS
from transforms.readers import BYTE_UNITS
from transforms.secret import REFERENCE

# For whoever starts the job by hand; the image says which runner it is for.
LEFT_OUT = frozenset({"runner", "log_format"})
# By placeholder: the kind of input, and what fits it. Patterns are read by RE2 and by POSIX, so there is no
# \s, \w or \d in them.
KINDS = {
    "NUMBER": ("NUMBER", "[0-9]+"),
    "BYTES": ("TEXT", f"[0-9]+ ?({'|'.join(filter(None, BYTE_UNITS))})?"),
    "SECONDS": ("NUMBER", r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"),
    "URL": ("TEXT", "[Hh][Tt][Tt][Pp][Ss]?://[^ /?#@]+(/[^ ?#]*)?"),
    "SECRET": ("TEXT", REFERENCE),
    "PROJECT.DATASET.TABLE": ("BIGQUERY_TABLE", ""),
    "projects/PROJECT/topics/NAME": ("PUBSUB_TOPIC", ""),
    "projects/PROJECT/subscriptions/NAME": ("PUBSUB_SUBSCRIPTION", ""),
}
WORKERS = "Workers"
# Beam's own flags for which the launch of a template has no place of its own.
OF_BEAM = [
    {
        "name": "number_of_worker_harness_threads",
        "label": "Threads on each worker",
        "helpText": "Bundles that a worker processes at a time; most of them wait for an answer.",
        "isOptional": True,
        "paramType": "NUMBER",
        "regexes": ["^[0-9]+$"],
        "groupName": WORKERS,
        "defaultValue": str(dataflow.THREADS),
    },
    {
        "name": "sdk_container_image",
        "label": "Image of the workers",
        "helpText": "The template's own image unless you derive another from it.",
        "isOptional": True,
        "paramType": "TEXT",
        "regexes": ["^[^ ]+$"],
        "groupName": WORKERS,
    },
]


def metadata(parameters: Mapping[str, Parameter] = PARAMETERS) -> dict[str, Any]:
    """The whole file, as google.dataflow.v1beta3.TemplateMetadata has it in JSON."""
    return {
        "name": "Grantex events to BigQuery, S3, Datadog, Splunk, Kafka and Pub/Sub",
        "description": (
            "Reads the Grantex event feed, or what a relay published to Pub/Sub, and keeps every destination "
            "complete. The feed has no replay: what is sent while a worker moves is a gap, and on record."
        ),
        "streaming": True,
        # A batch must not change when it is tried again, which at-least-once mode does not promise.
        "supportsExactlyOnce": True,
        "supportsAtLeastOnce": False,
        "parameters": [*map(_parameter, _shown(parameters)), *OF_BEAM],
    }


def _shown(parameters: Mapping[str, Parameter]) -> Iterator[Parameter]:
    for name, parameter in parameters.items():
        first = parameters[parameter.group.first] if parameter.group.first else parameter
        if name not in LEFT_OUT and parameter.on_cluster == first.on_cluster == "used":
            yield parameter


def _parameter(parameter: Parameter) -> dict[str, Any]:
    kind, pattern = KINDS.get(parameter.placeholder, ("TEXT", ""))
    found: dict[str, Any] = {
        "name": parameter.name,
        "label": _label(parameter),
        "helpText": _help(parameter),
        "isOptional": parameter.name != "dead_letters",
        "paramType": kind,
    }
    if isinstance(parameter.default, bool):
        found["paramType"] = "BOOLEAN"
    elif parameter.choices and parameter.default is None:  # an ENUM has to have a default
        found["regexes"] = [f"^({'|'.join(parameter.choices)})$"]
    elif parameter.choices:
        found["paramType"] = "ENUM"
        found["enumOptions"] = [{"value": each} for each in parameter.choices]
    elif pattern := parameter.pattern or pattern:
        found["regexes"] = [f"^{pattern}$"]
    if not parameter.required and parameter.default not in ("", None, ()):
        found["defaultValue"] = _text(parameter.default)
    return found | _place(parameter)


def _label(parameter: Parameter) -> str:
    """The flag's name in words: "splunk_hec_token" as "Splunk hec token"."""
    return parameter.name.replace("_", " ").capitalize()


def _help(parameter: Parameter) -> str:
    text = parameter.help
    if parameter.placeholder == "SECRET":
        text += (
            " A reference, never the value itself: secret:projects/PROJECT/secrets/NAME, or aws-secret:NAME."
        )
    if parameter.repeatable:
        text += " Several: ^~^ONE~OTHER, with any sign that is in none of them for ~."
    if parameter.name == "feed_api_key":
        text += " Needed unless a Pub/Sub subscription is given."
    return text if not parameter.example else f"{text} For example {parameter.example}"


def _place(parameter: Parameter) -> dict[str, Any]:
    """A destination's other parameters are shown once its first one has a value."""
    if parameter.parent:
        name, *values = parameter.parent
        return {"parentName": name, "parentTriggerValues": values}
    first = parameter.group.first
    if first and first != parameter.name:
        return {"parentName": first, "parentTriggerValues": []}
    return {"groupName": parameter.group.title}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def as_text() -> str:
    """What the file holds."""
    return json.dumps(metadata(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_text())
