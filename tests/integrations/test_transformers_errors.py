"""What a new user of the callback for transformers may get wrong: an error before training, and a model as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import Rule
from frostline.errors import BindError, NoMatchError, ScheduleError, SelectorError
from frostline.integrations.transformers import Freezing
from frostline.schedules import LinearProbe, Phase, Plateau
from integrations.trained import bert, trainer

PROBE = LinearProbe(["classifier"], steps=3)


def as_it_was(model: nn.Module) -> bool:
    """Whether all trains, no module is held, and no claim stands."""
    plain = all(p.requires_grad for p in model.parameters()) and not ft.plan(model).frozen
    return plain and not any("_frostline" in name for module in model.modules() for name in vars(module))


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (
            lambda: Freezing(),
            SelectorError,
            "Freezing() has neither selectors nor a schedule.\n"
            'Write Freezing("**", "!classifier"), or Freezing(schedule=LinearProbe(["classifier"], steps=500)).',
        ),
        (
            lambda: Freezing(schedule="probe"),  # type: ignore[arg-type]
            ScheduleError,
            "Freezing(schedule='probe') is neither a schedule nor a policy.\n"
            'Write Freezing(schedule=LinearProbe(["classifier"], steps=500)).',
        ),
        (
            lambda: Freezing(schedule=PROBE, unit="epochs"),  # type: ignore[arg-type]
            ScheduleError,
            "Freezing(unit='epochs') is not one of the 2 possible values.\nPossible values:\n  'step'\n  'epoch'\n"
            "Write Freezing(..., unit='epoch').",
        ),
    ],
    ids=["nothing", "no schedule", "no unit"],
)
def test_what_is_wrong_without_a_model(make: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("freezing", "changes", "kind", "text"),
    [
        (
            Freezing("bert.encodr"),
            {},
            NoMatchError,
            "'bert.encodr' matches none of the 41 parameters.\nClosest paths:\n  bert.encoder\n  bert.encoder.layer\n"
            "  bert.encoder.layer.1\nFix the pattern, or pass allow_empty=True if matching nothing is what you want.",
        ),
        (
            Freezing("bert.embeddings", schedule=LinearProbe(["clasifier"], steps=3)),
            {},
            NoMatchError,
            "'clasifier' matches none of the 41 parameters.\nClosest paths:\n  classifier\n  classifier.bias\n"
            "  classifier.weight\nFix the pattern, or pass allow_empty=True if matching nothing is what you want.",
        ),
        (
            Freezing(schedule=Plateau([Phase(["bert"]), Phase()], patience=2)),
            {},
            ScheduleError,
            "Freezing(schedule=Plateau(phases=(Phase(frozen=('bert',)), Phase()), patience=2)) decides after each "
            'evaluation, and the trainer makes none.\nWrite TrainingArguments(..., eval_strategy="epoch").',
        ),
    ],
    ids=["selector", "schedule", "policy"],
)
def test_what_does_not_fit_is_an_error_when_the_trainer_is_made(
    freezing: Freezing, changes: dict[str, Any], kind: type[Exception], text: str, tmp_path: Path
) -> None:
    model = bert()
    with pytest.raises(kind) as caught:
        trainer(tmp_path, freezing, model=model, **changes)
    assert str(caught.value) == text
    assert as_it_was(model)
    # A callback that is added later meets the model when training begins.
    run = trainer(tmp_path, model=model, **changes)
    run.add_callback(freezing)
    with pytest.raises(kind):
        run.train()
    assert as_it_was(model)


def test_nothing_left_to_train(tmp_path: Path) -> None:
    model = bert()
    with pytest.raises(SelectorError) as caught:
        trainer(tmp_path, Freezing("bert", "classifier"), model=model).train()
    assert str(caught.value) == (
        "Freezing('bert', 'classifier') freezes all 41 parameters, and leaves nothing to train.\n"
        'Take something back: Freezing("**", "!classifier").'
    )
    assert as_it_was(model)


def test_another_optimizer_with_groups_of_its_own(tmp_path: Path) -> None:
    """What is frozen for good needs no group; what a schedule may thaw does."""

    def made(freezing: Freezing) -> tuple[nn.Module, Any]:
        model = bert()
        run = trainer(tmp_path, freezing, model=model)
        head, pooler = model.classifier.parameters(), model.bert.pooler.parameters()
        run.optimizer = torch.optim.SGD([{"params": [*head]}, {"params": [*pooler], "lr": 1e-4}], lr=1e-2)
        return model, run

    made(Freezing("bert.embeddings", "bert.encoder"))[1].train()
    model, run = made(Freezing(schedule=PROBE))
    with pytest.raises(BindError) as caught:
        run.train()
    assert str(caught.value) == (
        "bind(optimizer, model) finds 37 of 41 parameters in none of the 2 groups of the optimizer, which differ in "
        "lr:\n  bert.embeddings.word_embeddings.weight\n  bert.embeddings.position_embeddings.weight\n"
        "  bert.embeddings.token_type_embeddings.weight\n  bert.embeddings.LayerNorm.weight\n"
        "  bert.embeddings.LayerNorm.bias\n  ... and 32 more\nSay what they get when they thaw: "
        "bind(..., rules=[Rule('bert.embeddings.word_embeddings.weight', lr=0.01)]), or groups=function, or leave "
        'them out by selectors: bind(optimizer, model, "head").'
    )
    assert as_it_was(model)
    model, run = made(Freezing(schedule=PROBE, rules=[Rule("bert", lr=1e-4)]))
    run.train()
    assert [len(group["params"]) for group in run.optimizer.param_groups] == [2, 39]


def test_another_past_is_an_error(tmp_path: Path) -> None:
    trainer(tmp_path, Freezing(schedule=PROBE), max_steps=3).train()
    longer = trainer(tmp_path / "longer", Freezing(schedule=LinearProbe(["classifier"], steps=4)))
    longer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    model = bert()
    edited = trainer(tmp_path, Freezing(schedule=LinearProbe(["classifier"], steps=1)), model=model)
    with pytest.raises(ScheduleError) as caught:
        edited.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert str(caught.value) == (
        "driver.load_state_dict(state) got the state of another LinearProbe: it differs in 1 field.\n"
        "  steps: saved 3, here 1\n"
        "  at step 1: saved Phase(frozen=('**', '!classifier'), name='probe'), here Phase(name='fine-tune')\n"
        "Load what driver.state_dict() gave, into a driver with the same schedule."
    )
    assert as_it_was(model)
    for freezing, text in (
        (
            Freezing("bert.pooler", schedule=PROBE),
            "by step with 0 parameters frozen throughout, for a run by step with 2",
        ),
        (
            Freezing(schedule=PROBE, unit="epoch"),
            "by step with 0 parameters frozen throughout, for a run by epoch with 0",
        ),
    ):
        other = trainer(tmp_path, freezing, model=model)
        with pytest.raises(ScheduleError, match=text) as caught:
            other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
        assert str(caught.value).startswith("trainer.train(resume_from_checkpoint=...) got the state of a run ")
        assert as_it_was(model)
