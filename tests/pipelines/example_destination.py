"""Posts each event by itself to a service of ours, at least once."""

from dataclasses import dataclass

import httpx

from transforms.event import Batch
from transforms.secret import Secret
from transforms.write.contract import Destination, Outcome, Writer


@dataclass(frozen=True)
class Audit(Destination):
    url: str
    token: Secret

    def open(self) -> Writer:
        return AuditWriter(self.url, self.token.read())


class AuditWriter(Writer):
    def __init__(self, url: str, token: str) -> None:
        self.url, self.http = url, httpx.Client(headers={"Authorization": f"Bearer {token}"})

    def write(self, batch: Batch) -> Outcome:
        answers = [self.http.post(self.url, content=event.raw).status_code for event in batch.events]
        bad = {i: "answered 400" for i, status in enumerate(answers) if status == 400}
        later = [i for i, status in enumerate(answers) if status not in (200, 400)]
        return Outcome(bad, later, cause=f"our service answered {max(answers)}")
