"""Programs of other people's that judge our files: Helm and actionlint, each built once from source."""

from __future__ import annotations

from pathlib import Path

from tests.servers.process import go_program

BUILD_SECONDS = 1200.0  # Helm: three minutes of two idle cores


def helm() -> Path:
    """Skips the test, or fails it under CI, when it cannot be had."""
    return go_program("helm", "helm.sh/helm/v3/cmd/helm", "3.22.0", BUILD_SECONDS)


def actionlint() -> Path:
    """As `helm`."""
    return go_program("actionlint", "github.com/rhysd/actionlint/cmd/actionlint", "1.7.12", BUILD_SECONDS)
