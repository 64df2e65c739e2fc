"""Times as text against plain datetime arithmetic."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from hypothesis import strategies as st

from tests.fuzz.fuzzing import fuzzed
from transforms.write.created_at import date_and_hour, epoch_milliseconds, epoch_text, epoch_texts

TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d+)?(?:[Zz]|([+-])(\d\d):([0-5]\d))", re.ASCII
)
MAX_LENGTH = 40


def moment(text: str) -> tuple[datetime, str] | None:
    """The UTC second and the fraction (".123" or "") that RFC 3339 text names."""
    found = TIME.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if found is None:
        return None
    day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    leap = second == "60"
    try:
        local = datetime.strptime(f"{day} {hour}:{minute}:{'59' if leap else second}", "%Y-%m-%d %H:%M:%S")
        local += timedelta(seconds=leap)
        if sign:
            if int(hours) > 23:
                return None
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            local = local - offset if sign == "+" else local + offset
    except (ValueError, OverflowError):
        return None
    return local, fraction or ""


def seconds(text: str) -> bytes:
    """As `epoch_text` says it."""
    found = moment(text)
    if found is None or found[0] < datetime(1970, 1, 1):
        return b""
    since = found[0] - datetime(1970, 1, 1)
    return f"{since.days * 86_400 + since.seconds}{found[1][:10]}".encode()


@st.composite
def times(draw: st.DrawFn) -> str:
    """RFC 3339 and what is nearly so."""
    at = draw(st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1)) | st.datetimes())
    fraction = draw(
        st.sampled_from(["", ".1", ".123", ".123456", ".1234567891", ".", ".000", ".12345678912345"])
    )
    zone = draw(
        st.sampled_from(["Z", "z", "+00:00", "-23:59", "+14:00", "+24:00", "+1:00", "", "Z ", "+02:60"])
    )
    second = draw(st.sampled_from([f"{at.second:02d}"] * 3 + ["60", "61", f"{at.second}"]))
    day = f"{at.year:04d}-{at.month:02d}-{at.day:02d}{draw(st.sampled_from('TTTTt _'))}"
    return f"{day}{at.hour:02d}:{at.minute:02d}:{second}{fraction}{zone}"


ANY = st.one_of(times(), st.text(alphabet="0123456789-:.TZz+ ٣", max_size=45), st.text(max_size=10))


@fuzzed(text=ANY)
def test_a_time_alone(text: str) -> None:
    expected = seconds(text)
    assert epoch_text(text) == expected
    whole, _, fraction = expected.partition(b".")
    assert epoch_milliseconds(text) == (int(whole + (fraction + b"000")[:3]) if whole else None)
    found = moment(text)
    hour = None if found is None else (found[0].date().isoformat(), f"{found[0].hour:02d}")
    assert date_and_hour(text) == hour


@st.composite
def batches(draw: st.DrawFn) -> list[str]:
    """Many times of few seconds, as a busy feed has them, with odd ones among them."""
    base = draw(st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)))
    numbers = draw(st.lists(st.integers(0, 1999), min_size=30, max_size=45))
    seconds_of = [f"{base + timedelta(seconds=more):%Y-%m-%dT%H:%M:%S}" for more in (0, 1)]
    texts = [f"{seconds_of[number // 1000]}.{number % 1000:03d}Z" for number in numbers]
    for odd in draw(st.lists(ANY, max_size=3)):
        texts.insert(draw(st.integers(0, len(texts))), odd)
    return texts


@fuzzed(texts=batches())
def test_many_at_once_are_what_each_is_alone(texts: list[str]) -> None:
    assert epoch_texts(texts) == [seconds(text) for text in texts]
