"""`make soak` in half a minute, and the slope test and the picture that an hour of it ends with."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.integration.job import World
from tests.integration.picture import MOST, Panel, svg
from tests.integration.soak import DELIVERS, STANDS_BY, WORST, Samples, growing, picture, soak
from tests.integration.trend import trend
from tests.servers import landing

TIMES = [5.0 * number for number in range(480)]  # forty minutes
SVG = "{http://www.w3.org/2000/svg}"


def noisy(per_hour: float = 0.0, level: float = 200.0, noise: float = 2.0) -> list[float]:
    dice = random.Random(3)
    return [level + per_hour * at / 3600 + dice.gauss(0.0, noise) for at in TIMES]


def saw_tooth() -> Iterator[float]:
    return (4.0 * (number % 100) / 100 for number in range(len(TIMES)))


@pytest.mark.parametrize(
    ("values", "grows"),
    [
        (noisy(), False),
        (noisy(per_hour=-40.0), False),
        (noisy(per_hour=3.0), False),  # less than may pass as level
        (noisy(per_hour=15.0), True),
        (noisy(per_hour=15.0, noise=90.0), False),  # too noisy to tell
        ([*noisy()[:470], *[500.0] * 10], False),  # a spike at the end
        (list(saw_tooth()), False),
        ([40.0 + at // 600 * 4 for at in TIMES], True),  # descriptors: four more every ten minutes
        ([40.0] * len(TIMES), False),
    ],
)
def test_growth_is_told_from_noise_spikes_and_saw_teeth(values: list[float], grows: bool) -> None:
    assert trend(TIMES, values, least=2.0).grows == grows


def test_a_slope_is_told_in_its_unit_an_hour() -> None:
    found = trend(TIMES, noisy(per_hour=15.0), least=2.0)
    assert found.per_hour == pytest.approx(15.0, abs=2.0)
    assert found.rise == pytest.approx(15.0 * TIMES[-1] / 3600, abs=1.5)


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="39 samples"):
        trend(TIMES[:39], noisy()[:39], least=2.0)


def test_growth_after_the_warm_up_is_named_and_growth_in_it_is_not() -> None:
    samples = Samples(Path(), TIMES[-1])
    for number, at in enumerate(TIMES):
        samples.add("memory", DELIVERS, at, 200.0 + min(at, 700.0) / 10)
        samples.add("memory", STANDS_BY, at, 150.0)
        samples.add("threads", DELIVERS, at, 30.0 + number // 40)
    assert list(growing(samples.trends())) == ["Threads (delivers)"]


def test_a_picture_keeps_its_peaks_and_its_bounds() -> None:
    points = [(float(at), 1.0) for at in range(20_000)]
    points[7_777] = (7_777.0, 5.5)
    drawn = ElementTree.fromstring(svg("A <b>", ["c & d"], [Panel("e", {"f": points})], [(10.0, 400.0)]))
    line = drawn.find(f".//{SVG}polyline")
    assert line is not None
    pairs = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert len(pairs) <= MOST
    assert max(x for x, _ in pairs) <= 940.0
    heights = sorted({y for _, y in pairs})
    assert len(heights) == 2
    assert heights[0] >= 0.0


@pytest.mark.timeout(300)
def test_a_short_soak_is_measured_and_accounted_for(around: World) -> None:
    landings = [landing.files(around.out), landing.splunk(around.splunk)]
    samples = Samples(around.state, 4.0, every=0.1)
    found = soak(around, landings, samples, 200.0, 5, pause=(0.5, 1.0), wait_for_proof=False)
    assert found.sound, found.table()
    for name, lines in samples.lines.items():
        assert set(lines) <= {DELIVERS, STANDS_BY, WORST}
        if name != "receipts":  # of which the first are written after some seconds
            assert all(points[-1][1] > 0 for points in lines.values()), name
    assert set(samples.lines["memory"]) == {DELIVERS, STANDS_BY}
    assert samples.away
    drawn = ElementTree.fromstring(picture(samples, found, "short"))
    assert len(drawn.findall(f".//{SVG}polyline")) == 9
    unfinished = picture(samples, None, "short")
    assert "it did not come to its end" in unfinished
