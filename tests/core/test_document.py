"""Documents as TOML: what is written is read again, and safe to print."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline._core import document

plain = st.one_of(st.text(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
names = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
tables = st.lists(st.dictionaries(names, values, max_size=3), min_size=1, max_size=3)


@given(st.dictionaries(names, values | tables, max_size=4))
def test_what_is_written_is_read(data: dict[str, object]) -> None:
    found = document.parse_toml(document.write_toml(data))
    assert found == data
    # 1 == 1.0 == True, and they are not the same.
    assert repr(sorted(found.items(), key=lambda item: item[0])) == repr(sorted(data.items(), key=lambda item: item[0]))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a = 1", "it is a bytes, not a text"),
        ("a = 1\na = 2", "it is not TOML"),
        ("a = " + "[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_text_that_is_not_toml_is_refused(text: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        document.parse_toml(text)


def test_control_letters_are_escaped() -> None:
    letters = '\x00\x07\t\n\r\x1f\x7f"\\é'
    text = document.write_toml({"a": letters})
    assert tomllib.loads(text) == {"a": letters}
    assert text == 'a = "\\u0000\\u0007\t\\n\\r\\u001f\\u007f\\"\\\\é"\n'
