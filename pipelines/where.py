"""where: says of event ids when they were received, and at each destination what became of them and where."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from pipelines import exit_codes
from pipelines.flags.manual import program_help
from pipelines.flags.parameter import Group, Parameter, declared
from pipelines.flags.settings import BadParameters, Program, Settings, parse
from pipelines.local.where_json import answer, in_words
from transforms.feed.journal import JournalDamaged, JournalError, JournalUnavailable
from transforms.feed.journal.receipts import Found, Receipts
from transforms.setting import setting

ABOUT = """
Says of each event when it was received and on which connection, and for each destination whether it is
delivered (when, and where it lies), pending (the last error), a dead letter (its cause) or filtered.
Of one that was not received, into which gap of the feed it fell; of one from before --receipt_retention or
beyond --receipt_max_bytes, that nobody knows any more. Reads the journal of --state_dir, also while the
job runs; of a job on a cluster, what that wrote to --receipts: it does not know when events were received,
and all from the day of the oldest id on is read. "-" reads ids from the input, one a line. Exit code 0:
answered; 1: the journal cannot be read now; 2: wrong parameters.
"""


@dataclass(frozen=True, kw_only=True)
class WhereParameters:
    group: ClassVar[Group] = Group("Where")

    json: bool = setting("One JSON object a line.", False)


OWN: dict[str, Parameter] = {each.name: each for each in declared(WhereParameters)}


def help_text() -> str:
    """For `--help`."""
    usage = "where --state_dir=DIRECTORY|--receipts=PLACE [--json=true] EVENT_ID ..."
    return program_help(usage, ABOUT, PROGRAM.parameters())


PROGRAM = Program(
    "where", OWN, frozenset({"state_dir", "receipts"}), ", which only reads: see --help", help_text
)


def main(argv: Sequence[str] | None = None) -> int:
    """Answer for the ids among the arguments (the process's own by default); returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    ids = [each for each in arguments if each == "-" or not each.startswith("-")]
    try:
        settings = parse([each for each in arguments if each not in ids], os.environ, PROGRAM)
        if not ids:
            raise BadParameters(["no event id: give one or more behind the flags, or - to read them"])
        given = (line.strip() for line in sys.stdin) if ids == ["-"] else ids
        with _finder(settings) as find:
            for found in find(each for each in given if each):
                lines = [json.dumps(answer(found))] if settings["json"] else in_words(found)
                print(*lines, sep="\n")
    except BadParameters as error:
        return exit_codes.refuse(error.lines, error.code)
    except JournalError as error:
        return exit_codes.refuse([f"--state_dir: {error}"])
    except (JournalDamaged, JournalUnavailable) as error:
        print(error, file=sys.stderr)
        return exit_codes.FAILED
    return exit_codes.DRAINED


@contextlib.contextmanager
def _finder(settings: Settings) -> Iterator[Callable[[Iterable[str]], Iterable[Found]]]:
    """What finds ids: in a cluster's receipts, or in the journal."""
    if settings.receipts:
        from pipelines.cluster.receipts import find  # here, because Beam takes two seconds to import

        yield partial(find, settings.receipts)
        return
    with contextlib.closing(Receipts(settings.state_dir)) as receipts:
        yield receipts.find


if __name__ == "__main__":
    sys.exit(main())
