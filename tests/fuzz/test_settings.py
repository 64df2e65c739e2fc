"""Whatever is given as flags and in the environment: settings, or lines for a person without a secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import strategies as st

from pipelines.flags.parameter import Parameter
from pipelines.flags.settings import PARAMETERS, BadParameters, Settings, parse
from tests.fuzz.fuzzing import fuzzed

MARK = "Zx81NotForAnyone"
SECRETS = [each for each in PARAMETERS.values() if each.secret]
# As people write values: right ones, nearly right ones, those of another flag, and odd bytes.
TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "0",
            "-1",
            "1",
            "1.5",
            "1e3",
            "1_000",
            "٣",
            "nan",
            "inf",
            "1e400",
            "true",
            "True",
            "yes",
            "64 MiB",
            "10GB",
            "1 KiB ",
            "5 s",
            "1h",
            "none",
            "a,b",
            ",",
            "a,,b",
            "=",
            "x=y",
            "x=",
            "\ud800",
            "http://127.0.0.1:8088",
            "https://user:pass@h.example",
            "http://[::1",
            "https://h:99999",
            "ftp://h",
            "file:/nowhere",
            "env:",
            "env:NOT_SET",
            "secret:x",
            "aws-secret:",
            "p.d.t",
            "p.d",
            "../..",
            "a b",
            "splunk",
            "s3://bucket",
            "grant.*",
            "line\nbreak",
            "tab\t",
            "é…😀",
            "%s",
            "{name}",
            "x" * 3000,
        ]
    ),
    st.sampled_from([each.example for each in PARAMETERS.values() if each.example]),
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
)
GIVEN = st.dictionaries(st.sampled_from(sorted(PARAMETERS)), TEXTS, max_size=6)


def outcome(argv: Sequence[str], environ: Mapping[str, str]) -> Settings | list[str]:
    try:
        return parse(argv, environ)
    except BadParameters as bad:
        lines = bad.lines
    assert lines
    assert all(line == line.strip() and "\n" not in line for line in lines), lines
    return lines


def without_source(line: str, parameter: Parameter) -> str:
    return line.replace(parameter.variable, parameter.flag)


def in_an_environment(given: Mapping[str, str]) -> bool:
    """No variable can hold a zero byte or half a character; an empty one counts as given."""
    return all("\0" not in text and text.isprintable() for text in given.values())


def check_a_flag_and_its_variable_say_the_same(given: dict[str, str]) -> None:
    if not in_an_environment(given):
        return
    by_flag = outcome([f"--{name}={text}" for name, text in given.items()], {})
    by_variable = outcome([], {PARAMETERS[name].variable: text for name, text in given.items()})
    if isinstance(by_flag, Settings):
        assert isinstance(by_variable, Settings)
        assert [by_flag[name] for name in PARAMETERS] == [by_variable[name] for name in PARAMETERS]
        return
    assert isinstance(by_variable, list)
    for name in sorted(given, key=len, reverse=True):  # one's name may begin another's
        by_variable = [without_source(line, PARAMETERS[name]) for line in by_variable]
    assert sorted(by_flag) == sorted(by_variable)


def shown(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    found = outcome(argv, environ)
    return repr(found) if isinstance(found, Settings) else "\n".join(found)


def check_no_secret_is_repeated(name: str, before: str, after: str, others: dict[str, str]) -> None:
    flags = [f"--{other}={text}" for other, text in others.items() if other != name]
    assert MARK not in shown([f"--{name}={before}{MARK}{after}", *flags], {})


test_a_flag_and_its_variable_say_the_same = fuzzed(given=GIVEN)(check_a_flag_and_its_variable_say_the_same)
test_no_secret_is_repeated = fuzzed(
    name=st.sampled_from(sorted(each.name for each in SECRETS)),
    before=st.sampled_from(["", "env:", "file:", "Bearer ", "secret:", "'", "-"]),
    after=st.sampled_from(["", "\n", " ", "é", "\0", '"', "=x"]) | st.text(max_size=5),
    others=GIVEN,
)(check_no_secret_is_repeated)


@pytest.mark.parametrize("name", sorted(each.name for each in SECRETS))
def test_no_secret_is_repeated_from_a_slip(name: str) -> None:
    for argv in ([f"--{name} {MARK}"], [f"--{name}", MARK, MARK], [f"--{name}{MARK}=x"], [f"--{name}", MARK]):
        assert MARK not in shown(argv, {PARAMETERS[name].variable: MARK})


@pytest.mark.parametrize("parameter", PARAMETERS.values(), ids=lambda each: str(each.name))
def test_a_default_in_words_is_read_as_the_default(parameter: Parameter) -> None:
    if not parameter.default_in_words or parameter.default_text:
        return
    value: Any = parameter.value(parameter.default_in_words)
    assert value == (parameter.default if not parameter.repeatable else tuple(parameter.default))
