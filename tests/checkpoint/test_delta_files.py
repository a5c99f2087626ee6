"""What a delta holds; and that a damaged or a hostile one is an error, always, and never half a delta."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoint.deltas import BASE, PLAN, document, read, signed, small, source, with_document, write
from cli.made_files import floats, mutated, safetensors_bytes, with_length
from frostline import FrostlineError, Plan
from frostline._core.fingerprint import fingerprint
from frostline.checkpoint.delta import TensorSource
from frostline.checkpoint.delta_file import DeltaFile
from frostline.checkpoint.safetensors_file import SafetensorsFile
from frostline.checkpoint.stored import StoredTensor
from frostline.errors import DeltaError, FileFormatError

OTHER_VALUES = {
    "tensors": {
        "head.weight": source("float32", (3, 1), floats(1, 2, 4)),
        "head.bias": source("bfloat16", (1,), b"\x81?"),
    }
}
FIX = "Save it again, save_delta(file, model), or take an older one."


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(Path("run.safetensors"), small())


class TestWhatItHolds:
    def test_the_bytes_are_these(self, file: Path) -> None:
        """Held as a literal: other versions and other libraries read it, too."""
        content = file.read_bytes()
        size = int.from_bytes(content[:8], "little")
        assert content[8 + size :] == floats(1, 2, 3) + b"\x80?"
        header = json.loads(content[8 : 8 + size])
        assert header.pop("__metadata__").keys() == {"frostline"}
        assert header == {
            "head.weight": {"dtype": "F32", "shape": [3, 1], "data_offsets": [0, 12]},
            "head.bias": {"dtype": "BF16", "shape": [1], "data_offsets": [12, 14]},
        }
        assert document(file) == {
            "format": "frostline.delta",
            "version": 1,
            "aliases": {},
            "base": {"body.weight": "8af4abb6b9d4ee14ae8b7c63888a4972"},
            "bytes": {},
            "digest": "e074cb85d9bfcf1507b0108b2d3cf3fa",
            "optimizer": None,
            "plan": {
                "format": "frostline.plan",
                "frozen": ["body.weight"],
                "trainable": ["head.bias", "head.weight"],
                "version": 1,
            },
            "schedule": {"step": 7},
            "tensors": {
                "head.bias": "e31efb39aed80b34c6ef2c8f6ba09e21",
                "head.weight": "72d13bd98c50d2e41e1727bb89981c93",
            },
            "weak": [],
        }

    def test_the_data_begins_at_a_multiple_of_eight(self, file: Path) -> None:
        assert int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0

    def test_it_is_read_as_it_was_written(self, file: Path) -> None:
        said, tensors, data = read(file)
        assert (said.plan, said.base, said.schedule, said.optimizer) == (PLAN, BASE, {"step": 7}, None)
        assert {path: str(tensor) for path, tensor in tensors.items()} == {
            "head.bias": "bfloat16[1]",
            "head.weight": "float32[3, 1]",
        }
        assert data == {"head.bias": b"\x80?", "head.weight": floats(1, 2, 3)}

    def test_the_same_state_gives_the_same_bytes_in_any_order(self, file: Path) -> None:
        delta = small()
        backwards = small(tensors=dict(reversed(delta.tensors.items())))
        assert write(Path("again.safetensors"), backwards).read_bytes() == file.read_bytes()

    def test_what_the_format_has_no_word_for_is_stored_as_bytes(self, file: Path) -> None:
        write(file, small(tensors={"z": source("complex128", (1,), bytes(range(16)))}))
        assert str(SafetensorsFile(file).tensors["z"]) == "uint8[16]"
        found = DeltaFile(file)
        assert str(found.tensors["z"]) == "complex128[1]"
        assert found.contents(["z"]) == {"z": bytearray(range(16))}

    def test_tensors_that_the_plan_does_not_speak_of(self, file: Path) -> None:
        """Statistics, say: parameters in a pytree, and no parameters in PyTorch."""
        narrow = Plan(frozenset(), frozenset({"head.weight"}))
        found = DeltaFile(write(file, small(plan=narrow)))
        assert found.plan_for("load", PLAN.paths) == PLAN
        assert found.plan_for("load", narrow.paths) == narrow
        assert DeltaFile(write(file, small())).plan_for("load", narrow.paths) == narrow

    def test_empty_and_nothing(self, file: Path) -> None:
        write(file, small(tensors={"e": source("float32", (0, 3), b"")}))
        assert DeltaFile(file).contents(["e"]) == {"e": bytearray()}
        write(file, small(tensors={}))
        assert DeltaFile(file).tensors == {}

    def test_no_tensor_is_asked_for_twice_or_held(self, file: Path) -> None:
        opened: list[str] = []

        def watched(name: str) -> Any:
            def give() -> Any:
                opened.append(name)
                return source("uint8", (1,), name.encode()).opened()

            return TensorSource("uint8", (1,), 1, give)

        write(file, small(tensors={name: watched(name) for name in "abc"}))
        assert opened == ["a", "b", "c"]


class TestDamage:
    def test_every_truncation_is_an_error(self, file: Path) -> None:
        content = file.read_bytes()
        for length in range(len(content)):
            Path("bad.safetensors").write_bytes(content[:length])
            with pytest.raises(FrostlineError):
                read(Path("bad.safetensors"))

    def test_every_byte_that_is_added_is_an_error(self, file: Path) -> None:
        content = file.read_bytes()
        for end in (b"\0", b" ", b"{}", content):
            Path("bad.safetensors").write_bytes(content + end)
            with pytest.raises(FileFormatError):
                read(Path("bad.safetensors"))

    def test_a_flipped_bit_in_every_byte(self, file: Path) -> None:
        self.flip(file, lambda at: [1 << at % 8])

    @pytest.mark.slow
    def test_every_flipped_bit(self, file: Path) -> None:
        self.flip(file, lambda at: [1 << bit for bit in range(8)])

    def flip(self, file: Path, masks: Callable[[int], list[int]]) -> None:
        good, content = read(file), file.read_bytes()
        same = 0
        for at in range(len(content)):
            for mask in masks(at):
                changed = bytearray(content)
                changed[at] ^= mask
                Path("bad.safetensors").write_bytes(changed)
                try:
                    assert read(Path("bad.safetensors")) == good, (at, mask)
                    same += 1
                except FrostlineError:
                    pass
        # No flip goes unseen: nothing in the file can be otherwise.
        assert same == 0

    def test_random_damage(self, file: Path) -> None:
        good, content = read(file), file.read_bytes()
        refused = 0
        for seed in range(600):
            Path("bad.safetensors").write_bytes(mutated(content, random.Random(seed)))
            try:
                assert read(Path("bad.safetensors")) == good, seed
            except FrostlineError:
                refused += 1
        assert refused > 560

    def test_a_digest_of_the_document_alone_does_not_make_the_tensors_sound(self, file: Path) -> None:
        fields = document(file)
        fields["tensors"]["head.bias"] = "0" * 32
        file.write_bytes(with_document(file, signed(fields)))
        with pytest.raises(FileFormatError) as caught:
            read(file)
        assert str(caught.value).split("\n") == [
            "'run.safetensors' cannot be read: 1 of its 2 tensors are not what was saved: head.bias.",
            FIX,
        ]

    @pytest.mark.parametrize("changes", [OTHER_VALUES, {"tensors": {"a": source("uint8", (1,), b"x")}}])
    def test_a_file_that_is_replaced_while_it_is_read(self, file: Path, changes: dict[str, Any]) -> None:
        found = DeltaFile(file)
        write(file, small(schedule={"step": 8}, **changes))
        with pytest.raises(FileFormatError) as caught:
            found.contents(["head.weight"])
        assert str(caught.value).split("\n") == [
            "'run.safetensors' cannot be read: it was replaced while it was read.",
            "Read it again: the new file is complete.",
        ]

    def test_a_file_that_is_gone_while_it_is_read(self, file: Path) -> None:
        found = DeltaFile(file)
        file.unlink()
        with pytest.raises(FileFormatError, match="no such file or directory"):
            found.contents(["head.weight"])


def _changed(**changes: Any) -> Callable[[Path], bytes]:
    """A file whose document says something else, and has the digest for it."""
    return lambda file: with_document(file, signed({**document(file), **changes}))


def _text(text: str) -> Callable[[Path], bytes]:
    return lambda file: with_document(file, text)


def _plain(header: bytes) -> Callable[[Path], bytes]:
    return lambda file: with_length(header)


ENTRY = b'{"dtype":"U8","shape":[2],"data_offsets":[0,2]}'
SAYS = "its metadata is wrong: "
DIGEST = "72d13bd98c50d2e41e1727bb89981c93"
HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "no delta": (lambda _: safetensors_bytes({"a": ("U8", [1], b"x")}), "it is not a delta: none of the 0 keys"),
    "a pickle": (lambda _: b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}", "header too large"),
    "a huge header": (lambda _: b"\xff\xff\xff\xff\x00\x00\x00\x00{}", "header too large"),
    "a header that lies about its size": (lambda file: b"\x10" + file.read_bytes()[1:], "invalid JSON in header"),
    "too much metadata": (_plain(b'{"__metadata__":{"a":"' + b"x" * 50_000 + b'"}}'), "it is not a delta"),
    "metadata that are not texts": (_plain(b'{"__metadata__":{"frostline":1}}'), "invalid type: integer"),
    "two documents": (_plain(b'{"__metadata__":{"frostline":"{}","frostline":"{}"}}'), "names 'frostline' twice"),
    "a tensor twice": (lambda _: with_length(b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}") + b"12", "names 'a' twice"),
    "overlapping tensors": (
        lambda _: with_length(b'{"a":' + ENTRY + b',"b":' + ENTRY + b"}") + b"12",
        "invalid offset for tensor",
    ),
    "a name that climbs": (lambda _: safetensors_bytes({"../../a": ("U8", [1], b"x")}), "has an empty part"),
    "a name that paints": (lambda _: safetensors_bytes({"\x1b[2J": ("U8", [1], b"x")}), "has unprintable characters"),
    "no JSON": (_text("{"), SAYS + "it is not JSON"),
    "empty": (_text(""), SAYS + "it is not JSON"),
    "a list": (_text("[]"), SAYS + "it is a list, not an object"),
    "deep": (_text("[" * 100_000), SAYS + "it is nested too deeply"),
    "deep inside": (
        lambda file: with_document(
            file, json.dumps(document(file)).replace('{"step": 7}', "[" * 90_000 + "]" * 90_000)
        ),
        SAYS + "it is nested too deeply",
    ),
    "not a number": (
        lambda file: with_document(file, json.dumps({**document(file), "schedule": float("nan")})),
        SAYS + "Out of range float values",
    ),
    "infinity": (
        lambda file: with_document(file, json.dumps({**document(file), "schedule": float("-inf")})),
        SAYS + "Out of range float values",
    ),
    "a number of 9000 digits": (
        lambda file: with_document(file, json.dumps(document(file)).replace('{"step": 7}', "7" * 9000)),
        SAYS + "Exceeds the limit",
    ),
    "a key twice": (_text('{"format": 1, "format": 2}'), SAYS + "a key comes twice in one object"),
    "another kind": (_changed(format="frostline.plan"), SAYS + "its format is 'frostline.plan'"),
    "another version": (_changed(version=2), SAYS + "its version is 2, and this is version 1"),
    "a version that is a truth": (_changed(version=True), SAYS + "its version is True"),
    "more than there should be": (_changed(code="rm"), SAYS + "it has ['code'] too much"),
    "another digest": (
        lambda file: with_document(file, json.dumps({**document(file), "digest": "0"})),
        SAYS + "its digest is '0', but its content gives ",
    ),
    "a plan that is none": (_changed(plan=[]), SAYS + "This is not a plan: it is a list"),
    "a plan with both": (
        _changed(plan={"format": "frostline.plan", "version": 1, "frozen": ["a"], "trainable": ["a"]}),
        SAYS + "'a' is both frozen and trainable",
    ),
    "a base that is none": (_changed(base=["a"]), SAYS + "'base' is not an object"),
    "a base of numbers": (_changed(base={"a": 1}), SAYS + "'base' has values that are not strings"),
    "a base that paints": (_changed(base={"\x1b[2J": DIGEST}), SAYS + "'\\x1b[2J' has unprintable characters"),
    "digests that are none": (_changed(tensors=7), SAYS + "'tensors' is not an object"),
    "a digest missing": (_changed(tensors={"head.bias": DIGEST}), SAYS + "1 tensors lack a digest or are missing"),
    "a tensor that is not there": (
        lambda file: _changed(tensors={**document(file)["tensors"], "x": DIGEST})(file),
        SAYS + "1 tensors lack a digest or are missing, 'x' for example",
    ),
    "bytes that are none": (_changed(bytes={"head.weight": ["complex128", [1]]}), SAYS + "'head.weight' is not stored"),
    "bytes of nothing": (_changed(bytes={"x": ["complex128", [1]]}), SAYS + "'x' is not stored as bytes"),
    "bytes without a shape": (_changed(bytes={"x": ["complex128"]}), SAYS + "'bytes' has a value that is not"),
    "bytes of a negative shape": (
        _changed(bytes={"x": ["complex128", [-1]]}),
        SAYS + "'bytes' has a value that is not",
    ),
    "bytes of a true shape": (_changed(bytes={"x": ["complex128", [True]]}), SAYS + "'bytes' has a value that is not"),
    "weak that is none": (_changed(weak=[1]), SAYS + "'weak' is not a list of paths"),
    "aliases that are none": (_changed(aliases={"a": "b"}), SAYS + "'aliases' is not a list of paths"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file(file: Path, name: str) -> None:
    make, problem = HOSTILE[name]
    Path("bad.safetensors").write_bytes(make(file))
    with pytest.raises(FileFormatError) as caught:
        read(Path("bad.safetensors"))
    first, *rest = str(caught.value).split("\n")
    assert problem in first
    assert first.startswith("'bad.safetensors' cannot be read: ")
    assert 0 < len(rest) < 3
    assert len(first) < 300


def test_what_is_no_file(file: Path) -> None:
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    Path("link").symlink_to(file)
    os.mkfifo("pipe")
    for name, problem in {
        "folder": "it is a folder, not a file",
        "pipe": "it is a pipe or a device, not a file",
        "/dev/zero": "it is a pipe or a device, not a file",
        "loop": "too many levels of symbolic links",
        "absent": "no such file or directory",
        "absent/a": "no such file or directory",
        "run.safetensors/a": "not a directory",
    }.items():
        with pytest.raises(FileFormatError) as caught:
            DeltaFile(name)
        assert caught.value.problem == problem
    assert read(Path("link")) == read(file)


def _expected(path: str, dtype: str, *shape: int) -> dict[str, StoredTensor]:
    return {path: StoredTensor(path, shape, dtype, 12)}


SAME_MODEL = "Build the model as it was when the delta was saved, then load: load_delta(file, model)."
MISFITS: list[tuple[str, Callable[[DeltaFile], object], list[str]]] = [
    (
        "another plan",
        lambda found: found.plan_for("load_delta('a', model)", frozenset({"body.weight", "tail.weight"})),
        [
            "load_delta('a', model) holds a delta of another model: 1 of its 2 paths are missing, 0 are unknown.",
            "  missing: tail.weight",
            SAME_MODEL,
        ],
    ),
    (
        "other tensors",
        lambda found: found.check_tensors(
            "load_delta('a', model)",
            _expected("tail", "float32", 3) | _expected("head.weight", "float32", 1, 3),
            found.own,
        ),
        [
            "load_delta('a', model) holds a delta that does not fit: 1 of 2 tensors are missing, 1 are unknown, "
            "1 have another shape or dtype.",
            "  head.weight: float32[3, 1] in the file, float32[1, 3] in the model",
            "  missing: tail",
            "  unknown: head.bias",
            SAME_MODEL,
        ],
    ),
    (
        "another base",
        lambda found: found.check_base(
            "load_delta('a', model)",
            fingerprint([("body.weight", "float32", (2,), floats(1, 3)), ("more", "uint8", (1,), b"x")]),
            "Fix it.",
        ),
        [
            "load_delta('a', model) holds a delta that was made on another base: 1 of 1 frozen tensors differ, "
            "0 are unknown, 1 are missing.",
            "  differs: body.weight",
            "  missing: more",
            "Fix it.",
        ],
    ),
]


@pytest.mark.parametrize(("act", "lines"), [row[1:] for row in MISFITS], ids=[row[0] for row in MISFITS])
def test_the_whole_text_of_what_does_not_fit(file: Path, act: Callable[[DeltaFile], object], lines: list[str]) -> None:
    with pytest.raises(DeltaError) as caught:
        act(DeltaFile(file))
    assert str(caught.value).split("\n") == lines


UNWRITABLE: list[tuple[str, dict[str, Any], str, list[str]]] = [
    (
        "names",
        {"tensors": {"": source("uint8", (), b"x"), "a..b": source("uint8", (), b"x")}},
        "new",
        [
            "save_delta(file, model) has 2 of 3 names that a file cannot have:",
            "  '' is empty",
            "  'a..b' has an empty part",
            "Rename them, or give a bare array a name: {'weight': array}.",
        ],
    ),
    (
        "a name of the format",
        {"tensors": {"__metadata__": source("uint8", (), b"x")}},
        "new",
        [
            "save_delta(file, model) has 1 of 2 names that a file cannot have:",
            "  '__metadata__' is reserved by the format",
            "Rename them, or give a bare array a name: {'weight': array}.",
        ],
    ),
    (
        "a schedule that is not JSON",
        {"schedule": {"when": {1, 2}}},
        "new",
        [
            "save_delta(file, model) cannot write schedule=dict as JSON: object of type set is not JSON serializable.",
            "Pass strings, numbers, and lists and dicts of them: schedule=schedule.to_dict().",
        ],
    ),
    (
        "a schedule that is not a number",
        {"schedule": float("nan")},
        "new",
        [
            "save_delta(file, model) cannot write schedule=float as JSON: out of range float values are not JSON "
            "compliant.",
            "Pass strings, numbers, and lists and dicts of them: schedule=schedule.to_dict().",
        ],
    ),
    (
        "a folder that is not there",
        {},
        "absent/new",
        [
            "save_delta(file, model) cannot write the file: no such file or directory.",
            "Check the folder and the room on the disk: ls -ld absent; df -h absent",
        ],
    ),
    (
        "a folder in the place",
        {},
        "folder",
        [
            "save_delta(file, model) cannot write the file: it is a folder.",
            "Check the folder and the room on the disk: ls -ld .; df -h .",
        ],
    ),
]


@pytest.mark.parametrize(("changes", "name", "lines"), [row[1:] for row in UNWRITABLE], ids=[r[0] for r in UNWRITABLE])
def test_the_whole_text_of_what_cannot_be_written(file: Path, changes: Any, name: str, lines: list[str]) -> None:
    Path("folder").mkdir()
    before = sorted(os.listdir())
    with pytest.raises(DeltaError) as caught:
        write(Path(name), small(**changes))
    assert str(caught.value).split("\n") == lines
    assert sorted(os.listdir()) == before


def test_a_schedule_that_nests_without_end(file: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    content = file.read_bytes()
    for schedule in (endless, deep):
        with pytest.raises(DeltaError):
            write(file, small(schedule=schedule))
    assert file.read_bytes() == content


def test_a_header_that_no_reader_would_take(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frostline.checkpoint.delta.MOST_BYTES", 500)
    content = file.read_bytes()
    with pytest.raises(
        DeltaError, match=r"would need a header of .* bytes, and readers of safetensors accept at most 500"
    ):
        write(file, small())
    assert file.read_bytes() == content
