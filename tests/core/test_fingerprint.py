"""Fingerprints, held as literals: a release that computes others could not check what an earlier one wrote."""

import json

import pytest

from frostline._core.fingerprint import Fingerprint, TensorDifference, digest, fingerprint
from frostline.errors import FileFormatError

ENTRIES = [("body.weight", "float32", (2, 1), bytes(range(8))), ("scale", "bfloat16", (), b"\x80\x3f")]
PRINT = fingerprint(ENTRIES)
TEXT = """\
{
  "digests": {
    "body.weight": "50bc2cb305a684c4797288d35b01e002",
    "scale": "908fff072c46fa61b6b417594583c4a5"
  },
  "format": "frostline.fingerprint",
  "total": "ab8f3e54c096a9792cdc7377adb81401",
  "version": 1
}
"""


def test_digests_never_change_silently() -> None:
    assert digest([]) == "99aa06d3014798d86001c324468d497f"
    assert digest([b"frostline"]) == "d3213343e8af8dc8a325f44f47b8d17f"


def test_the_text_of_a_fingerprint_never_changes_silently() -> None:
    assert PRINT.to_json() == TEXT
    assert Fingerprint.from_json(TEXT) == PRINT


@pytest.mark.parametrize("buffer", [bytearray(b"frostline"), memoryview(b"frostline"), memoryview(b"-frostline")[1:]])
def test_any_buffer_is_read_without_a_copy_in_between(buffer: bytearray | memoryview) -> None:
    assert digest([buffer]) == digest([b"frostline"]) == digest([b"fro", b"", b"stline"])


def test_an_array_is_read_as_its_bytes() -> None:
    assert digest([memoryview(b"\x01\x00\x02\x00").cast("H")]) == digest([b"\x01\x00\x02\x00"])


@pytest.mark.parametrize(
    "entry",
    [
        ("body.weight", "float32", (2, 1), bytes([1, *range(1, 8)])),
        ("body.weight", "float32", (1, 2), bytes(range(8))),
        ("body.weight", "int32", (2, 1), bytes(range(8))),
    ],
    ids=["one bit", "shape", "dtype"],
)
def test_what_differs_is_named(entry: tuple[str, str, tuple[int, ...], bytes]) -> None:
    other = fingerprint([entry, ENTRIES[1]])
    assert PRINT.diff(other) == TensorDifference(differ=("body.weight",), missing=(), extra=())
    assert PRINT.total != other.total


def test_what_is_missing_and_extra_is_named() -> None:
    other = fingerprint([("scale", *ENTRIES[1][1:]), ("bias", *ENTRIES[0][1:])])
    assert PRINT.diff(other) == TensorDifference(differ=(), missing=("body.weight",), extra=("bias",))
    assert other.diff(PRINT) == TensorDifference(differ=(), missing=("bias",), extra=("body.weight",))
    assert PRINT.diff(other)
    assert not PRINT.diff(fingerprint(reversed(ENTRIES)))


def test_paths_that_run_together_are_told_apart() -> None:
    """The twin of the total: without lengths these two would hash the same text."""
    one = Fingerprint((("a", "0"), ("b", "1")))
    other = Fingerprint((("a 0\nb", "1"),))
    assert one.total != other.total


def test_an_edit_of_nothing_is_still_a_fingerprint() -> None:
    """The twin of the hostile texts: it is the edit that makes them so."""
    assert Fingerprint.from_json(edited()) == PRINT


def edited(**fields: object) -> str:
    return json.dumps(json.loads(TEXT) | fields)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        edited(version=2),
        edited(digests=[]),
        edited(digests={"a": 1}),
        edited(digests={"scale": "0"}),
        edited(total="0"),
        edited(x=1),
    ],
)
def test_a_hostile_text_is_no_fingerprint(text: str) -> None:
    with pytest.raises(FileFormatError):
        Fingerprint.from_json(text)


def test_a_path_comes_once() -> None:
    with pytest.raises(FileFormatError):
        fingerprint([ENTRIES[0], ENTRIES[0]])
