"""Destinations of one's own: their one parameter."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines import custom
from pipelines.parameters import Group, pairs
from transforms.write.contract import Destination

GROUP = Group("Your own destinations", destination="custom", first="custom_destination")


@dataclass(frozen=True, kw_only=True)
class CustomParameters:
    custom_destination: tuple[Destination, ...] = pairs(
        GROUP,
        "A destination of your own: module, class, its name here and its settings.",
        read=custom.load,
        placeholder="MODULE:CLASS?name=NAME&KEY=VALUE",
        example="mypackage.audit:Audit?name=audit&url=https://audit.example.com",
    )
