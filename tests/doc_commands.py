"""Commands and snippets of the documentation, taken out of the pages and judged without a cloud.

Our own are read by the program itself, as it would when it is started; AWS's by the service models that boto3
has; those of other tools by what is known of them here, a line each.
"""

from __future__ import annotations

import functools
import importlib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHELL = ("", "sh")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_HERE = re.compile(r"(^.*) <<'(\w+)'\n.*?^\2$", re.M | re.S)  # a document within a shell's text
_ASSIGNED = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Snippet:
    """A fenced block. where: its page and line, for a message."""

    where: str
    language: str
    text: str


def snippets(page: str) -> Iterator[Snippet]:
    """Every fenced block of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Snippet(f"{page}:{line}", found[1], found[2])


def commands(snippet: Snippet) -> Iterator[list[str]]:
    """The commands of a shell block as words; what comes after a `|`, `&&` or `;` is one of its own."""
    if snippet.language not in SHELL or is_picture(snippet.text):
        return
    text = _HERE.sub(r"\1", re.sub(r"\\\n\s*", " ", snippet.text))
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word and set(word) <= set("|&;"):
                yield from [words] if (words := _bare(words)) else []
                words = []
            else:
                words.append(word)


def _bare(words: list[str]) -> list[str]:
    """Without what the shell takes for itself: assignments before it, keywords, where its output goes."""
    while words and (_ASSIGNED.match(words[0]) or words[0] in ("do", "done", "exec", "sudo")):
        words = words[1:]
    if words[:1] == ["for"]:
        return []
    kept = []
    for word in words:
        if word in (">", ">>", "<"):
            break
        kept.append(word)
    return kept


def is_picture(text: str) -> bool:
    return any(sign in text for sign in "│▼►")


def faults(words: list[str]) -> list[str]:
    """What is wrong with a command."""
    found = [f"{each} is not there" for each in _paths(words) if not (ROOT / each).exists()]
    tool = words[0]
    if tool in ("grantex-beam", "python", "python3"):
        return found + _of_ours(words)
    if tool == "make":
        return found + _of_make(words)
    if tool == "aws":
        return found + _of_aws(words)
    if tool.startswith(("templates/", "--", "./", "/")):
        return found
    if tool not in TOOLS:
        return [*found, f"nothing is known here of {tool}"]
    return found + _of_others(tool, words)


def _paths(words: list[str]) -> Iterator[str]:
    """Files of this tree that it names."""
    for word in words:
        for name in re.findall(r"(?:^|[=@/ ])((?:templates|docs|tests|pipelines)/[\w./-]+)", word):
            if "file://" in word or not word.startswith(("http", "gs:", "s3:")):
                yield name


# Ours


def _of_ours(words: list[str]) -> list[str]:
    from pipelines.flags.settings import PARAMETERS, BadParameters, parse
    from pipelines.programs import PROGRAMS

    if words[0] != "grantex-beam":
        if words[1:2] == ["-c"] or words[1:3] in (["-m", "venv"], ["-m", "pip"]):
            return []
        if words[1:2] != ["-m"]:
            return ["is no command of ours"]
        module = words[2]
        if importlib.util.find_spec(module) is None:
            return [f"there is no {module}"]
        if not module.startswith("pipelines.") or module.split(".")[1] not in PROGRAMS:
            return []
        words = ["grantex-beam", *module.split(".")[1:], *words[3:]]
    rest = words[1:]
    name = rest.pop(0) if rest and not rest[0].startswith(("-", "…")) else "stream"
    if name not in PROGRAMS:
        return [f"there is no program {name}"]
    part = rest.pop(0) if name == "provision" and rest and not rest[0].startswith("-") else ""
    try:
        program = program_of(name, part)
    except ImportError:
        return [f"there is no {name} {part}"]
    flags = [each for each in rest if each.startswith("--")]
    known = program.parameters().keys() | {"help", "version"}
    by_name = any(each.startswith("--config=") for each in flags) or "…" in " ".join(words)
    if by_name or {"--help", "--version"} & set(rest):
        given = {each[2:].partition("=")[0] for each in flags}
        known |= PARAMETERS.keys() if program.lenient else set()
        return [f"--{each} is no flag of {name}" for each in given - known]
    environ = dict.fromkeys(re.findall(r"env:(\w+)", " ".join(words)), "0123456789abcdef" * 2)
    try:
        parse(flags, environ, program)
    except BadParameters as error:
        return [each for each in error.lines if not _is_of_this_machine(each)]
    return []


def _is_of_this_machine(fault: str) -> bool:
    """A file that is on a reader's machine and not here."""
    return bool(re.search(r"(cannot be read|no such file|does not exist|cannot be opened)", fault, re.I))


def program_of(name: str, part: str = "") -> Any:
    """The parameters of a program, or of a part of `provision`. Raises ImportError."""
    from pipelines.flags.settings import JOB

    module = importlib.import_module(f"pipelines.{name}")
    if part:
        module = importlib.import_module(f"pipelines.{name}.{part}")
    return getattr(module, "PROGRAM", None) or getattr(getattr(module, "flags", None), "PROGRAM", JOB)


def _of_make(words: list[str]) -> list[str]:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    return [f"make has no {each}" for each in words[1:] if "=" not in each and each not in targets]


# Other tools


def _of_aws(words: list[str]) -> list[str]:
    """By the models of boto3, which the command line of AWS is made of as well."""
    service, command, *rest = words[1:]
    model = aws_service({"s3api": "s3"}.get(service, service))
    names = {kebab(each): each for each in model.operation_names}
    if command not in names:
        return [f"aws {service} has no {command}"]
    members = model.operation_model(names[command]).input_shape.members
    known = {kebab(each) for each in members} | {f"no-{kebab(each)}" for each in members} | AWS_EVERYWHERE
    given = [each[2:].partition("=")[0] for each in rest if each.startswith("--")]
    return [f"aws {service} {command} has no --{each}" for each in given if each not in known]


@functools.cache
def aws_service(name: str) -> Any:
    """What boto3 knows of a service of AWS."""
    import botocore.session

    return botocore.session.get_session().get_service_model(name)


AWS_EVERYWHERE = {"region", "profile", "endpoint-url", "output", "query"}


def kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def _of_others(tool: str, words: list[str]) -> list[str]:
    """By the longest beginning that is known, and its flags."""
    known = TOOLS[tool]
    if known is None:
        return []
    for length in range(len(words), 0, -1):
        if (flags := known.get(" ".join(words[1:length]))) is not None:
            given = [each.partition("=")[0] for each in words[length:] if re.match(r"--?[a-zA-Z]", each)]
            return [f"{tool} {' '.join(words[1:length])}: {each}?" for each in given if each not in flags]
    return [f"nothing is known here of {' '.join(words[:4])}"]


_BINDING = "--member --role --project"
# By tool: None for those of every machine; else the flags (of its reference) by what comes before them.
TOOLS: Mapping[str, Mapping[str, frozenset[str]] | None] = {
    **dict.fromkeys(
        re.findall(
            r"\S+",
            "cat cd chmod cp curl echo export find git head install jq ln ls mkdir mv openssl printf sed set "
            "sleep sqlite3 tail tar tee test umask . zcat",
        )
    ),
    **{
        tool: {before: frozenset(flags.split()) for before, flags in commands.items()}
        for tool, commands in {
            "gcloud": {
                "storage buckets create": "--location --uniform-bucket-level-access --project "
                "--public-access-prevention --default-storage-class",
                "storage buckets update": "--lifecycle-file --retention-period",
                "storage buckets add-iam-policy-binding": _BINDING,
                "iam service-accounts create": "--project --display-name",
                "kms keys add-iam-policy-binding": f"{_BINDING} --keyring --location",
                "pubsub topics create": "--project --message-retention-duration",
                "pubsub topics add-iam-policy-binding": _BINDING,
                "pubsub subscriptions create": "--project --topic --expiration-period --ack-deadline "
                "--message-retention-duration --retain-acked-messages",
                "pubsub subscriptions seek": "--time --project",
                "dataflow jobs drain": "--region --project",
            },
            "bq": {"": "--location --project_id --dataset --description", "query": "--use_legacy_sql"},
            "systemctl": dict.fromkeys(
                ("restart", "status", "start", "stop", "enable", "daemon-reload", "kill"), "--now"
            ),
            "kubectl": {
                "apply": "-f -k",
                "get": "-n",
                "rollout status": "",
                "rollout restart": "",
                "rollout undo": "",
                "logs": "-f",
                "create secret generic": "--from-literal --from-file -n",
            },
            "helm": {
                "install": "-f --set --values",
                "upgrade": "-f --set --install",
                "template": "-f --set",
                "lint": "",
            },
            "docker": {"build": "-f -t", "run": "--read-only --tmpfs -v -p --stop-timeout --env-file"},
            "kafka-topics.sh": {
                "": "--bootstrap-server --create --topic --partitions --replication-factor --config"
            },
            "kafka-acls.sh": {"": "--bootstrap-server --add --allow-principal --operation --topic --cluster"},
            "journalctl": {"": "-u -f --since -o"},
            "pip": {"install": "--require-hashes --no-deps --no-build-isolation -r -q --editable"},
        }.items()
    },
}
