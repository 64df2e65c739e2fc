"""Options of Beam's runner for Flink, made known to Beam: it would warn of each as "unparseable"."""

from __future__ import annotations

import argparse

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cluster import flink


class FlinkSubmissionOptions(PipelineOptions):  # type: ignore[misc]
    """It is known from this module's import on, which only a job for Flink does."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        flink.declare(parser)
