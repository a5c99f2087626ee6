"""What a cache says of itself: as text and back, and nothing else is taken for it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.made_stores import LAYER, MADE, manifest
from frostline.errors import CacheError
from frostline.features.boundary import Boundary
from frostline.features.columns import Column
from frostline.features.manifest import Manifest
from frostline.features.precision import PRECISIONS
from frostline.features.structure import count, is_structure, joined, leaves_of, structure_of

TEXT = """{
  "fingerprint": "0123456789abcdef0123456789abcdef",
  "format": "frostline.feature_cache",
  "precision": "int8",
  "preprocessing": "crop",
  "rest": [
    [
      "rest.0",
      "int64",
      []
    ]
  ],
  "samples": 10,
  "structure": [
    "tuple",
    "int"
  ],
  "values": [
    [
      "layer3",
      "float32",
      [
        5
      ],
      "int8"
    ]
  ],
  "version": 1,
  "views": 3
}
"""


def test_the_text() -> None:
    made = manifest(precision="int8", preprocessing="crop", views=3)
    assert made.to_json() == TEXT
    assert Manifest.from_json(TEXT) == made


@pytest.mark.parametrize(("precision", "row"), [("exact", 52), ("float32", 52), ("bfloat16", 42), ("int8", 45)])
def test_bytes_of_a_row(precision: str, row: int) -> None:
    """The layer, 8 of the label, 16 and 8 of digests; int8 has 8 for each sample's range."""
    made = manifest(precision=precision, views=2)
    assert (made.row, made.rows, made.total) == (row, 20, 20 * row)
    assert manifest(views=2).with_precision(precision) == made


def test_only_floats_are_made_smaller() -> None:
    values = [Boundary("a", (3,), dtype, 0) for dtype in ("float64", "float16", "bool", "int64", "int8", "bfloat16")]
    stored = {
        p: [value.stored for value in Manifest.of(MADE, values, samples=1, precision=p).values] for p in PRECISIONS
    }
    assert stored == {
        "exact": ["float64", "float16", "bool", "int64", "int8", "bfloat16"],
        "float32": ["float32", "float16", "bool", "int64", "int8", "bfloat16"],
        "bfloat16": ["bfloat16", "float16", "bool", "int64", "int8", "bfloat16"],
        "int8": ["int8", "int8", "bool", "int64", "int8", "int8"],
    }
    assert [value.is_scaled for value in Manifest.of(MADE, values, samples=1, precision="int8").values] == [
        *(True, True, False, False, False, True)
    ]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"version": 2}, "its version is 2, and this is version 1"),
        ({"more": 1}, r"it has \['more'\] too much"),
        ({"samples": True}, "its samples or views are not a number"),
        ({"views": 0}, "its samples or views are not a number"),
        ({"fingerprint": None}, "its fingerprint, precision or preprocessing is not a string"),
        ({"preprocessing": "\x1b[2J"}, "its fingerprint or preprocessing has unprintable characters"),
        ({"values": [["\x07", "float32", [1], "int8"]]}, "is not a value"),
        ({"precision": "int4"}, "its precision is 'int4'"),
        ({"values": {}}, "its values or its rest are not a list"),
        ({"values": [["a", "float32", [-1], "int8"]]}, r"\[-1\] is not a shape"),
        ({"values": [["a", "float31", [1], "int8"]]}, "is not a value"),
        ({"rest": [["a", "float32"]]}, "is not a column"),
        ({"rest": []}, "its structure has 1 leaves for 0 columns"),
        ({"structure": ["set", "int"]}, "is not a structure"),
    ],
)
def test_what_is_no_manifest(changed: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Manifest.from_json(json.dumps({**json.loads(TEXT), **changed}))


def test_a_dtype_that_is_none() -> None:
    with pytest.raises(CacheError) as caught:
        manifest(precision="int4")
    assert str(caught.value) == "\n".join(
        [
            "dtype='int4' is not one of the 4 precisions:",
            '  "exact": the computed bits',
            '  "float32": wider numbers are rounded',
            '  "bfloat16": 2 bytes a number, 8 significant bits',
            '  "int8": 1 byte a number, 256 steps between the minimum and the maximum of a sample',
            'Write dtype="bfloat16", or leave it out.',
        ]
    )


def test_a_name_that_cannot_be_printed() -> None:
    with pytest.raises(CacheError) as caught:
        manifest(preprocessing="crop\n")
    assert str(caught.value) == "\n".join(
        [
            "preprocessing='crop\\n' has unprintable characters.",
            'Use a plain name: "resize224-v2".',
        ]
    )


def test_a_name_that_is_no_text() -> None:
    with pytest.raises(CacheError) as caught:
        manifest(preprocessing=5)
    assert str(caught.value) == 'preprocessing=5 is not a string.\nUse a plain name: "resize224-v2".'


def test_a_value_that_no_column_holds() -> None:
    with pytest.raises(CacheError) as caught:
        Manifest.of(MADE, [Boundary("fft", (3,), "complex128", 48)], samples=1)
    assert str(caught.value) == "\n".join(
        [
            "A value of dtype complex128 cannot be stored. The 16 possible dtypes are:",
            "  bool, uint8, int8, float8_e4m3fn, float8_e5m2, uint16, int16, float16, bfloat16, uint32, int32, "
            "float32, uint64, int64, float64, complex64",
            "Cast it to one of them.",
        ]
    )


def test_columns_have_distinct_names() -> None:
    made = Manifest.of(
        MADE, [LAYER, LAYER], samples=1, precision="int8", rest=(Column("rest.0", "bool", (2,)),), structure="array"
    )
    assert [column.name for column in made.columns] == [
        *("value.0", "step.0", "least.0", "value.1", "step.1", "least.1", "rest.0", "source", "digest")
    ]
    assert made.given == ("value.0", "step.0", "least.0", "value.1", "step.1", "least.1", "rest.0")


class Number:
    """An array of one number, of any kind."""

    def __init__(self, value: object) -> None:
        self.value = value

    def item(self) -> object:
        return self.value


SAMPLES = st.recursive(
    st.integers() | st.booleans() | st.floats(allow_nan=False) | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(SAMPLES)
def test_a_sample_is_its_leaves_in_its_structure(sample: object) -> None:
    structure = structure_of(sample)
    leaves = leaves_of(sample, structure)
    arrays = [leaf if isinstance(leaf, bytes) else Number(leaf) for leaf in leaves]
    assert joined(iter(arrays), structure) == sample
    assert (count(structure), is_structure(structure)) == (len(leaves), True)
    assert json.loads(json.dumps(structure)) == structure


def test_another_structure() -> None:
    with pytest.raises(ValueError, match=r"its structure is \['tuple', 'int'\], not \['tuple', 'float'\]"):
        leaves_of((1,), structure_of((1.0,)))
