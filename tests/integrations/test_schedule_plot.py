"""The picture of a schedule."""

import pytest

from frostline import UnsupportedError
from frostline.integrations.schedule_plot import picture
from frostline.schedules import Chart, LinearProbe

CHART = Chart.of(LinearProbe(["head"], steps=10), steps=20)


@pytest.mark.parametrize(("suffix", "begins"), [(".PNG", b"\x89PNG\r\n\x1a\n"), (".pdf", b"%PDF-"), (".svg", b"<?xml")])
def test_it_is_what_its_suffix_says_and_the_same_bytes_each_time(suffix: str, begins: bytes) -> None:
    assert picture(CHART, suffix).startswith(begins)
    assert picture(CHART, suffix) == picture(CHART, suffix)


def test_another_suffix() -> None:
    with pytest.raises(UnsupportedError) as caught:
        picture(CHART, ".gif")
    assert str(caught.value).splitlines() == [
        "picture(chart, '.gif') needs one of these 3 suffixes: .pdf, .png, .svg.",
        "Name the file schedule.png.",
    ]
