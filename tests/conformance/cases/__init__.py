"""Every destination of the suite, one line each."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from tests.conformance.case import Case, Place
from tests.conformance.cases import bigquery, custom, datadog, files, gcs, kafka, pubsub, s3, splunk

CASES: Mapping[str, Callable[[Place], AbstractContextManager[Case]]] = {
    "files": files.case,
    "s3": s3.case,
    "gcs": gcs.case,
    "bigquery_storage_write": bigquery.storage_write,
    "bigquery_insert_all": bigquery.insert_all,
    "kafka": kafka.case,
    "pubsub": pubsub.case,
    "splunk": splunk.case,
    "datadog": datadog.case,
    "custom": custom.case,
}

# Which of the real servers (tests/servers/shared.py) a case starts when it runs: those of one share a worker.
SERVERS: Mapping[str, str] = {
    "s3": "seaweedfs",
    "bigquery_storage_write": "emulator",
    "bigquery_insert_all": "emulator",
    "kafka": "broker",
}
