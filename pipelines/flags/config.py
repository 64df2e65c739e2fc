"""--config: settings from a YAML file, with any number of named destinations; each fault has its line.

Top-level keys are the flags' names. Below `destinations` each name has a `kind` and that destination's flags
without their prefix. Values are taken as they are written and read as a flag's are: YAML's own ideas of what
`no`, `0x1F` and `1_000` are play no part.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from pipelines.flags import custom
from pipelines.flags.parameter import Parameter, did_you_mean, is_plain
from transforms.durable import PASSING
from transforms.secret import shown
from transforms.setting import BadSettings, Setting, worded
from transforms.write.contract import Destination

GS = "gs://"
DESTINATIONS = "destinations"
MAX_BYTES = 1_000_000
PATIENCE = 20.0  # seconds for Google's storage to be read from; the client's own are 120, without a word
Given: TypeAlias = dict[str, list[tuple[str, str]]]


@dataclass
class Own:
    """A destination under a name of its own: its class, and for each key its texts and where they stand."""

    name: str
    kind: type[Destination]
    path: str  # what to call the class
    source: str
    texts: Mapping[str, list[tuple[str, str]]]


@dataclass
class Config:
    """What a file says. given: as `command_line.Arrived` has it; open_file: what its lines are called in
    messages, where everyone on this machine can read it; passes: it could not be read, which a later start
    may do without anybody's doing."""

    given: Given = field(default_factory=dict)
    own: list[Own] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    open_file: str = ""
    passes: bool = False

    def texts(self) -> Iterator[str]:
        """Every value."""
        for sources in (*self.given.values(), *(each for own in self.own for each in own.texts.values())):
            for _, text in sources:
                yield text


def load(
    place: str,
    parameters: Mapping[str, Parameter],
    kinds: Iterable[type[Destination]],
    source: str = "--config",
    others: Callable[[], Mapping[str, Parameter]] = dict,
) -> Config:
    """The file at `place`, a path or a gs:// address; source: how it was given, for a message.

    others: parameters of our other programs, which may share the file; asked for when a key is not known.
    """
    try:
        raw = _google_object(place) if place.startswith(GS) else _file(place)
        text = raw.decode()
    except UnicodeDecodeError:
        return Config(faults=[f"{source}: {place} is not UTF-8"])
    except _Unreadable as why:
        return Config(faults=[f"{source}: {place} {why}"], passes=why.passes)
    name = place.rpartition("/")[2]
    config = _Reading(name, parameters, kinds, others).read(text)
    config.open_file = name if not place.startswith(GS) and _is_open(place) else ""
    return config


def destinations_of(config: Config) -> tuple[tuple[Destination, ...], list[str]]:
    """Those under names of their own, and what is wrong with the others."""
    found: list[Destination] = []
    faults: list[str] = []
    for own in config.own:
        made, more = _made(own)
        found += [] if made is None else [made]
        faults += more
    return tuple(found), faults


def _made(own: Own) -> tuple[Destination | None, list[str]]:
    known = custom.keys_of(own.kind, own.path)
    values: dict[str, object] = {}
    faults = [
        f"{own.source}: needs {key}"
        for key, each in known.items()
        if each.required and key not in own.texts and key != "name"
    ]
    for key, sources in own.texts.items():
        found = [known[key].attempt(source, text) for source, text in sources]
        faults += [fault for _, fault in found if fault]
        if read := [value for value, fault in found if not fault]:
            values[known[key].name] = sum(read[1:], read[0]) if known[key].repeatable else read[0]
    if faults:
        return None, faults
    keys = {each.name: key for key, each in known.items()}
    places = {each.name: own.texts[key][0][0] for key, each in known.items() if own.texts.get(key)}
    try:
        return custom.made_of(own.kind, own.path, own.name, known, values), []
    except BadSettings as error:
        return None, list(
            worded(
                error.faults,
                lambda field: keys.get(field, field),
                lambda field: places.get(field, f"{own.source}.{keys.get(field, field)}"),
            )
        )
    except ValueError as error:
        return None, [f"{own.source}: {error}"]


class _Unreadable(Exception):
    """Its text goes behind the file's name. passes: a later start may read it, without anybody's doing."""

    def __init__(self, why: str, passes: bool = False) -> None:
        super().__init__(why)
        self.passes = passes


def _file(place: str) -> bytes:
    try:
        with Path(place).expanduser().open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", "") or "is no usable path"
        raise _Unreadable(f"cannot be read: {why}", getattr(error, "errno", None) in PASSING) from None
    if len(raw) > MAX_BYTES:
        raise _Unreadable(f"has more than {MAX_BYTES:,} bytes")
    return raw


def _is_open(place: str) -> bool:
    return bool(Path(place).expanduser().stat().st_mode & stat.S_IROTH)


def _google_object(place: str) -> bytes:
    from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]  # half a second

    from transforms.write.google import storage_client

    bucket, _, name = place.removeprefix(GS).partition("/")
    patience = DEFAULT_RETRY.with_timeout(PATIENCE)
    try:
        blob = storage_client(project=None).bucket(bucket).blob(name)  # an object is read without one
        found = blob.download_as_bytes(end=MAX_BYTES, timeout=PATIENCE, retry=patience)
    except Exception as error:  # noqa: BLE001 - whatever Google's client, its transport or credentials raise
        why = f"cannot be read: {type(error).__name__}: {shown(str(error))}"
        raise _Unreadable(why, _google_passes(error)) from None
    if len(found) > MAX_BYTES:
        raise _Unreadable(f"has more than {MAX_BYTES:,} bytes")
    return bytes(found)


def _google_passes(error: Exception) -> bool:
    """Whether a network, or Google, was not there just now: nobody has to mend anything."""
    from google.api_core.exceptions import RetryError, ServerError, TooManyRequests
    from google.auth.exceptions import TransportError
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import SSLError, Timeout

    from transforms.write.google import is_passing

    if isinstance(error, SSLError):
        return False
    of_the_net = (RetryError, ServerError, TooManyRequests, NoConnection, Timeout)
    # On a machine of Google's, credentials that cannot be fetched are told with the network's error as cause.
    return (
        isinstance(error, (*of_the_net, ConnectionError, TimeoutError))
        or isinstance(error.__cause__, (*of_the_net, TransportError))
        or is_passing(error)
        or getattr(error, "errno", None) in PASSING
    )


class _Reading:
    """One file. name: what stands before each line's number."""

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Parameter],
        kinds: Iterable[type[Destination]],
        others: Callable[[], Mapping[str, Parameter]],
    ) -> None:
        self._name, self._parameters, self._others = name, parameters, others
        self._kinds = {kind.name: kind for kind in kinds}
        self._found = Config()

    def read(self, text: str) -> Config:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            # The name of an anchor, or a longer word, may be a secret that lost its quotes.
            why = re.sub(r"'[^']{5,}'", "…", error.problem or error.context or "")
            self._found.faults.append(f"{self._name}:{line}: is no YAML: {why}")
            return self._found
        except yaml.YAMLError:  # characters that YAML does not have; the text of it repeats them
            self._found.faults.append(f"{self._name}: is no YAML: it has characters that are not printable")
            return self._found
        for key, node in self._pairs(root, "the file"):
            if key == DESTINATIONS:
                for name, body in self._pairs(node, DESTINATIONS):
                    self._destination(name, body)
            else:
                self._setting(key, node)
        return self._found

    def _at(self, node: yaml.Node, what: str = "") -> str:
        return f"{self._name}:{node.start_mark.line + 1}{': ' if what else ''}{what}"

    def _fault(self, node: yaml.Node, what: str, why: str) -> None:
        self._found.faults.append(f"{self._at(node, what)}: {why}")

    def _pairs(self, node: yaml.Node | None, what: str) -> Iterator[tuple[str, yaml.Node]]:
        """Keys and values of a mapping; what is none, or has a key twice, is a fault."""
        if node is None:  # an empty file
            self._found.faults.append(f"{self._name}: is empty")
            return
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, what, "must be a mapping: NAME: VALUE, one a line")
            return
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                self._fault(key, what, "a key must be a plain word")
            elif key.value in seen:
                self._fault(key, self._shown(key.value), f"is given twice, first in line {seen[key.value]}")
            else:
                seen[key.value] = key.start_mark.line + 1
                yield key.value, value

    def _shown(self, key: str) -> str:
        """A key as a message may repeat it: a secret may stand where a key should."""
        return key if is_plain(key) else "a key"

    def _setting(self, key: str, node: yaml.Node) -> None:
        parameter = self._parameters.get(key)
        if parameter is None:
            if key not in self._others():
                known = {**self._others(), **self._parameters}
                self._fault(node, self._shown(key), f"is no setting; {self._hint(key, known)}")
        elif key == "config":
            self._fault(node, key, "cannot name another file")
        else:
            self._take(key, parameter, node, key)

    def _take(self, name: str, told: Setting, node: yaml.Node, what: str) -> None:
        if texts := self._texts(told, node, what):
            self._found.given[name] = texts

    def _texts(self, told: Setting, node: yaml.Node, what: str) -> list[tuple[str, str]]:
        """What was written, as flags would have it, with where it stands."""
        if isinstance(node, yaml.CollectionNode) and not node.value:
            self._fault(node, what, "has no value; leave the line out for the default")
            texts = []
        elif isinstance(node, yaml.MappingNode) and told.repeatable:
            pairs = list(self._pairs(node, what))
            texts = [(f"{key}={value.value}", value) for key, value in pairs if self._is_text(value, what)]
        elif isinstance(node, yaml.SequenceNode) and told.repeatable:
            texts = [(each.value, each) for each in node.value if self._is_text(each, what)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(told.default, tuple):
            parts = [each.value for each in node.value if self._is_text(each, what)]
            texts = [(",".join(parts), node)] if parts else []
        else:
            texts = [(node.value, node)] if self._is_text(node, what) else []
        return [(self._at(where, what), text) for text, where in texts]

    def _is_text(self, node: yaml.Node, what: str) -> bool:
        if not isinstance(node, yaml.ScalarNode):
            many = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
            self._fault(node, what, f"is {many}, and must be one value")
            return False
        if node.tag.startswith("!"):
            self._fault(node, what, "begins with !, which YAML takes for a tag: put it into quotes")
            return False
        if node.tag == "tag:yaml.org,2002:null" or not node.value.strip():
            self._fault(node, what, "has no value; leave the line out for the default")
            return False
        return True

    def _destination(self, name: str, node: yaml.Node) -> None:
        what = f"{DESTINATIONS}.{self._shown(name)}"
        body = dict(self._pairs(node, what))
        if not body:
            return
        kind = self._kind(name, body.pop("kind", None), node, what)
        if kind is None:
            return
        path, found = kind
        if found is self._kinds.get(name):  # the one that flags can ask for
            self._as_flags(name, body, what)
        elif name in self._kinds:
            self._fault(node, what, f"is the name of {name} itself; call it something else")
        elif not custom.NAME.fullmatch(name):
            self._fault(node, what, "must be lower-case letters, digits and _, beginning with a letter")
        else:
            self._under_its_own_name(name, path, found, body, node, what)

    def _kind(
        self, name: str, node: yaml.Node | None, body: yaml.Node, what: str
    ) -> tuple[str, type[Destination]] | None:
        """The class of a destination; without a `kind`, the one of its own name."""
        if node is None and name in self._kinds:
            return name, self._kinds[name]
        if node is None:
            self._fault(body, what, f"needs a kind: {', '.join(self._kinds)}, or module:Class")
            return None
        if not self._is_text(node, f"{what}.kind"):
            return None
        if node.value in self._kinds:
            return node.value, self._kinds[node.value]
        if ":" in node.value:
            try:
                return node.value, custom.class_called(node.value)
            except ValueError as error:
                self._fault(node, f"{what}.kind", str(error))
                return None
        hint = self._hint(node.value, self._kinds)
        self._fault(node, f"{what}.kind", f"is none of {', '.join(self._kinds)}, and no module:Class; {hint}")
        return None

    def _as_flags(self, name: str, body: Mapping[str, yaml.Node], what: str) -> None:
        of_it = (each for each in self._parameters.values() if each.group.destination == name)
        keys = {each.name.removeprefix(f"{name}_"): each for each in of_it}
        for key, node in body.items():
            if key in keys:
                self._take(keys[key].name, keys[key], node, f"{what}.{key}")
            else:
                self._fault(node, f"{what}.{self._shown(key)}", f"is no setting; {self._hint(key, keys)}")

    def _under_its_own_name(
        self,
        name: str,
        path: str,
        kind: type[Destination],
        body: Mapping[str, yaml.Node],
        node: yaml.Node,
        what: str,
    ) -> None:
        try:
            known = custom.keys_of(kind, path)
        except ValueError as error:
            self._fault(node, what, str(error))
            return
        texts: dict[str, list[tuple[str, str]]] = {}
        for key, value in body.items():
            if key in known and key != "name":
                texts[key] = self._texts(known[key], value, f"{what}.{key}")
            else:
                keys = [each for each in known if each != "name" and not known[each].shared]
                self._fault(value, f"{what}.{self._shown(key)}", f"is no setting; {self._hint(key, keys)}")
        self._found.own.append(Own(name, kind, path, self._at(node, what), texts))

    def _hint(self, key: str, known: Iterable[str]) -> str:
        known = list(known)
        if meant := did_you_mean(key, known):
            return f"did you mean {meant}?"
        return f"there are {', '.join(known)}" if len(known) <= 30 else "--help lists all"
