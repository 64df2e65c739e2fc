"""What BigQuery needs, tried when a person asks: the table and its columns, then an append of nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from transforms.preflight import Finding
from transforms.write.bigquery.insert_all import InsertAllWriter
from transforms.write.bigquery.rest import TABLE, look
from transforms.write.bigquery.storage_write import StorageWriter

if TYPE_CHECKING:
    from transforms.write.bigquery.destination import BigQuery


def check(settings: BigQuery) -> Iterator[Finding]:
    """Raises OSError when an authority cannot be read."""
    for found in look(settings):
        if not found.passed:
            yield found
            return
        if found.what != TABLE:
            made = (
                f"The table {settings.name_of_table} is not there: the job makes it with the first event, if "
                "these credentials may make tables. `grantex-beam provision bigquery` makes it now."
            )
            yield replace(found, what="the dataset", cause=made)
            return
        yield replace(found, note=f"{settings.name_of_table}, with the columns of {settings.schema}")
    writer: StorageWriter | InsertAllWriter
    writer = StorageWriter(settings) if settings.method == "storage_write" else InsertAllWriter(settings)
    with contextlib.closing(writer):
        yield from writer.check()
