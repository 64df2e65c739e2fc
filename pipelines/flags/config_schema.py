"""The JSON Schema of --config's file, for editors: docs/config.schema.json.

python -m pipelines.flags.config_schema > docs/config.schema.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from pipelines.flags import custom
from pipelines.flags.config import DESTINATIONS
from pipelines.flags.destinations import KINDS
from transforms.setting import Setting

DRAFT = "https://json-schema.org/draft/2020-12/schema"
LINE: Mapping[str, Any] = {"type": ["string", "number", "boolean"]}


def of_setting(told: Setting) -> dict[str, Any]:
    """One setting: what it means, and what an editor can check of it without reading the value."""
    found: dict[str, Any] = {"description": told.help}
    if told.default_in_words:
        found["description"] += f" Default: {told.default_in_words}."
    if told.choices == ("true", "false"):
        found["type"] = "boolean"
    elif told.choices:
        found["enum"] = list(told.choices)
    elif told.repeatable:
        found["anyOf"] = [LINE, {"type": "array", "items": LINE}, {"type": "object"}]
    elif isinstance(told.default, tuple):
        found["anyOf"] = [LINE, {"type": "array", "items": LINE}]
    else:
        found |= LINE
    return found


def schema() -> dict[str, Any]:
    """The whole file."""
    from pipelines.flags.settings import PARAMETERS  # it imports the file's reader

    general = {
        name: of_setting(each)
        for name, each in PARAMETERS.items()
        if name not in ("config", "custom_destination")
    }
    return {
        "$schema": DRAFT,
        "title": "grantex-beam --config",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **general,
            DESTINATIONS: {
                "description": "Named destinations, of any kind and number.",
                "type": "object",
                "propertyNames": {"pattern": f"^{custom.NAME.pattern}$"},
                "additionalProperties": _any_destination(),
            },
        },
    }


def _any_destination() -> dict[str, Any]:
    """By its kind; a class of one's own has settings that are not known here."""
    return {
        "type": "object",
        "properties": {"kind": {"type": "string"}},
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind.name}}, "required": ["kind"]},
                "then": {
                    "properties": {"kind": True, **_of_kind(custom.keys_of(kind, kind.name))},
                    "additionalProperties": False,
                },
            }
            for kind in KINDS
        ],
    }


def _of_kind(known: Mapping[str, Setting]) -> dict[str, Any]:
    return {
        key: of_setting(each)
        for key, each in known.items()
        if each.declared and not each.shared and key != "name"
    }


def text(found: Mapping[str, Any]) -> str:
    """As it is committed."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text(schema()))
