"""Documents and files of schedules and policies."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from frostline import FrostlineError
from frostline.errors import FileFormatError, ScheduleError
from frostline.schedules import (
    LISA,
    BAdam,
    FreezeOut,
    HiFT,
    LinearProbe,
    Phase,
    Phases,
    Plateau,
    Policy,
    Schedule,
    Span,
)
from schedules.examples import POLICIES, SCHEDULES

JSON = """\
{
  "always": [
    "embed",
    "head"
  ],
  "blocks": [
    "a",
    "b"
  ],
  "format": "frostline.schedule",
  "period": 20,
  "sampled": 1,
  "schedule": "LISA",
  "seed": 3,
  "version": 1
}
"""
TOML = r"""format = "frostline.schedule"
version = 1
schedule = "Phases"

[[spans]]
start = 0
stop = 10
frozen = [
    "**",
    "!head['a\\b\"']",
]
name = "a\nb\u007fé"
rates = [
    [
        "head",
        0.5,
    ],
    [
        "**",
        1e-05,
    ],
]

[[spans]]
start = 10
frozen = []
"""
BY_HAND = """
format = "frostline.schedule"  # written by hand
version = 1
schedule = "BAdam"
blocks = [
    "embed",
    'layers[0]',
]
period = 1_000
"""


def test_a_schedule_as_json() -> None:
    schedule = LISA(["a", "b"], sampled=1, period=20, always=["embed", "head"], seed=3)
    assert schedule.to_json() == JSON
    assert Schedule.from_json(JSON) == schedule


def test_a_schedule_as_toml() -> None:
    phase = Phase(["**", "!head['a\\b\"']"], name="a\nb\x7fé", rates=[("head", 0.5), ("**", 1e-5)])
    schedule = Phases([Span(0, 10, phase), Span(10, None, Phase())])
    assert schedule.to_toml() == TOML
    assert Schedule.from_toml(TOML) == schedule


def test_fields_with_a_default_may_be_left_out() -> None:
    assert Schedule.from_toml(BY_HAND) == BAdam(["embed", "layers[0]"], period=1000, order="random", always=(), seed=0)


def test_a_file_written_by_hand_needs_no_format_and_no_version() -> None:
    text = 'schedule = "BAdam"\nblocks = ["embed", "head"]\nperiod = 1000\n'
    assert Schedule.from_toml(text) == BAdam(["embed", "head"], period=1000)
    text = 'policy = "Plateau"\npatience = 2\nmode = "max"\n[[phases]]\nfrozen = ["body"]\n[[phases]]\nfrozen = []\n'
    assert Policy.from_toml(text) == Plateau([Phase(["body"]), Phase()], patience=2, mode="max")


@pytest.mark.parametrize("line", ['format = "frostline.schedule"', "version = 1"])
def test_one_of_format_and_version_is_not_enough(line: str) -> None:
    with pytest.raises(ScheduleError, match=r"cannot read a schedule: its (version|format) is None"):
        Schedule.from_toml(f'{line}\nschedule = "BAdam"\nblocks = ["embed"]\nperiod = 1000\n')


def test_booleans_and_whole_numbers_keep_their_type() -> None:
    schedule = FreezeOut(["a"], steps=5, t0=1, scaled=False)
    assert "scaled = false\n" in schedule.to_toml()
    assert "t0 = 1.0\n" in schedule.to_toml()
    assert "cycles" not in HiFT(["a"]).to_toml()
    assert "cycles = 4\n" in HiFT(["a"], cycles=4).to_toml()


def test_the_printed_source_leaves_out_defaults() -> None:
    assert repr(BAdam(["a"], period=5, seed=2)) == "BAdam(blocks=('a',), period=5, seed=2)"
    assert repr(Phase()) == "Phase()"


def test_values_are_equal_if_their_fields_are() -> None:
    assert BAdam(["a"], period=5) == BAdam(("a",), 5, "random")
    assert len({BAdam(["a"], period=5), BAdam(("a",), 5)}) == 1
    assert BAdam(["a"], period=5) != BAdam(["a"], period=6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_schedule_is_saved_and_loaded(name: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"schedule{suffix}"
    SCHEDULES[name].save(file)
    assert Schedule.load(file) == SCHEDULES[name]
    assert type(SCHEDULES[name]).load(file) == SCHEDULES[name]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    POLICIES[name].save(file)
    assert Policy.load(file) == POLICIES[name]


def test_the_error_for_an_invalid_schedule_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "schedule.toml"
    file.write_text(BY_HAND.replace("1_000", "0"))
    with pytest.raises(FrostlineError) as raised:
        Schedule.load(file)
    assert str(raised.value) == (
        f"'{file}': BAdam(period=0) is 0, and must be a whole number of at least 1.\nWrite BAdam(..., period=1)."
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes("é".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe.json")
    texts = {}
    for name in ("missing.toml", "folder.toml", "pipe.json", "latin.toml", "schedule.yaml"):
        with pytest.raises(FileFormatError) as raised:
            Schedule.load(tmp_path / name)
        texts[name] = str(raised.value).replace(str(tmp_path), "DIR").splitlines()
    assert texts == {
        "missing.toml": [
            "'DIR/missing.toml' cannot be read: no such file or directory.",
            "Check the name and the permissions: ls -l FILE",
        ],
        "folder.toml": ["'DIR/folder.toml' cannot be read: it is a folder, not a file.", "Give a file: ls DIR"],
        "pipe.json": ["'DIR/pipe.json' cannot be read: it is a pipe or a device, not a file.", "Give a file: ls DIR"],
        "latin.toml": ["'DIR/latin.toml' cannot be read: it is not UTF-8 text.", "Save it again as UTF-8."],
        "schedule.yaml": [
            "'DIR/schedule.yaml' cannot be read: its name ends in '.yaml', and a schedule is a .toml or a .json file.",
            "Name it 'DIR/schedule.toml'.",
        ],
    }


HOSTILE = [
    "[" * 100_000,
    '{"a": ' * 100_000,
    "a = " + "[" * 100_000,
    "\x00",
    "null",
    "[]",
    "{}",
    "a.b = 1\na = 2",
    '{"format": "frostline.schedule", "version": 1}',
    '{"format": "frostline.schedule", "version": 1, "schedule": ["LISA"]}',
    '{"format": "frostline.schedule", "version": 1, "schedule": "Schedule"}',
    '{"format": "frostline.schedule", "version": 1, "schedule": "Phases", "spans": [[]]}',
    '{"format": "frostline.schedule", "version": 1, "schedule": "Phases", "spans": {}}',
    '{"format": "frostline.schedule", "version": 1, "schedule": "Phases", "spans": [{"start": 0, "frozen": 1}]}',
    '{"format": "frostline.schedule", "version": 1, "schedule": "Phases", "spans": [{"start": [], "frozen": []}]}',
    '{"format": "frostline.schedule", "version": 1, "schedule": "BAdam", "blocks": ["a"], "period": 1.0}',
    '{"format": "frostline.schedule", "version": 1, "schedule": "BAdam", "blocks": [{}], "period": 1}',
    '{"format": "frostline.schedule", "version": 1, "schedule": "BAdam", "blocks": {"a": 1}, "period": 1}',
    '{"format": "frostline.schedule", "version": 1, "schedule": "ULMFiT", "blocks": ["a"], "period": 1, "decay": NaN}',
    '{"format": "frostline.schedule", "version": 1, "schedule": "FreezeOut", "blocks": ["a"], "steps": 1, "scaled": 1}',
    'format = "frostline.schedule"\nversion = 1\nschedule = "BAdam"\nblocks = ["a"]\nperiod = 2020-01-01',
    'format = "frostline.schedule"\nversion = 1\nschedule = "FreezeOut"\nblocks = ["a"]\nsteps = 1\nt0 = inf',
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_raises_an_error_of_frostline(text: str) -> None:
    for read in (Schedule.from_json, Schedule.from_toml, Policy.from_json, Policy.from_toml):
        with pytest.raises(FrostlineError):
            read(text)


def test_a_class_reads_only_its_own_kind() -> None:
    with pytest.raises(FrostlineError, match=r"cannot read a policy: its format is 'frostline.schedule'"):
        Policy.from_json(JSON)
    with pytest.raises(FrostlineError, match="finds no schedule with the name 'LISA'"):
        BAdam.from_json(JSON)


def test_a_policy_is_saved_with_its_phases() -> None:
    policy = Plateau([Phase(["a"], name="x"), Phase(rates=[("a", 0.5)])], patience=2)
    assert Policy.from_toml(policy.to_toml()) == policy


@dataclass(frozen=True, repr=False)
class Twofold(Schedule):
    """A schedule that a user defines."""

    first: str
    second: str = "b"

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.first, self.second)

    def _at(self, step: int) -> Phase:
        return Phase([self.parts[step % 2]])

    def _boundary(self, step: int) -> int | None:
        return step + 1


def test_a_user_defined_schedule_is_read_by_its_name() -> None:
    assert Schedule.from_toml(Twofold("a").to_toml()) == Twofold("a")
    assert [phase.frozen for _, phase in Twofold("a").changes(3)] == [("a",), ("b",), ("a",)]
    assert Twofold("a", "a").at(7) == Phase(["a"])


def test_a_schedule_is_read_by_its_own_class() -> None:
    assert LinearProbe.from_dict(LinearProbe(["head"], 5).to_dict()) == LinearProbe(["head"], 5)
