"""The trainer of transformers: what is frozen, and runs that go on bitwise, with one callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

import frostline.torch as ft
from frostline import MovedError, Rule, layerwise
from frostline.errors import BindError
from frostline.integrations.transformers import Freezing
from frostline.schedules import LISA, LinearProbe, Phase, Plateau
from integrations.trained import LAYERS, SCHEDULES, bert, trainer
from only_torch.bits import contents, moved

PROBE = SCHEDULES["probe"]
HEAD = {"classifier.bias", "classifier.weight"}


class Note(TrainerCallback):
    """Notes what trains in each step."""

    def __init__(self) -> None:
        self.trained: list[set[str]] = []
        self.decays: list[dict[str, float]] = []

    def on_step_begin(self, *_: Any, model: Any, optimizer: Any, **__: Any) -> None:
        names = {id(p): name for name, p in model.named_parameters()}
        groups = optimizer.param_groups
        self.decays.append({names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]})
        self.trained.append({name for name, p in model.named_parameters() if p.requires_grad})


class At(TrainerCallback):
    """Does something after a step."""

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.act()


def stopped_and_gone_on(tmp_path: Path, cuts: range, make: Any, **settings: Any) -> Any:
    """A whole run, which each run that goes on from one of its checkpoints must equal; the weights after each step."""
    whole = trainer(tmp_path / "whole", make(), **settings)
    whole.train()
    for cut in cuts:
        again = trainer(tmp_path / "again", make(), **{**settings, "save_strategy": "no"})
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{cut}"))
        assert contents(again.model) == contents(whole.model), cut
    return whole


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_that_was_stopped_goes_on_bitwise(name: str, tmp_path: Path) -> None:
    stopped_and_gone_on(tmp_path, range(1, 6), lambda: Freezing(schedule=SCHEDULES[name]))


def test_without_the_callback_the_same_checkpoint_goes_elsewhere(tmp_path: Path) -> None:
    """The negative control: what the callback does matters at this cut."""
    whole = trainer(tmp_path, Freezing(schedule=PROBE))
    whole.train()
    again = trainer(tmp_path / "again", save_strategy="no")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert contents(again.model) != contents(whole.model)


def test_what_moves_is_what_the_phase_trains(tmp_path: Path) -> None:
    model = bert()
    before, note = contents(model), Note()
    run = trainer(tmp_path, Freezing(schedule=PROBE, guard=True), note, model=model, max_steps=3, save_strategy="no")
    run.train()
    assert moved(before, model) == HEAD
    assert note.trained == [HEAD] * 3


def test_selectors_stay_frozen_for_the_whole_run(tmp_path: Path) -> None:
    freezing = Freezing("**", "!classifier", "!bert.pooler", guard=True)
    whole = stopped_and_gone_on(tmp_path, range(2, 4), lambda: freezing)
    assert moved(contents(bert()), whole.model) == HEAD | {"bert.pooler.dense.bias", "bert.pooler.dense.weight"}
    assert freezing.driver is None


def test_selectors_and_a_schedule_go_together(tmp_path: Path) -> None:
    note, schedule = Note(), LinearProbe(["classifier"], steps=1)
    trainer(tmp_path, Freezing("bert.embeddings", *LAYERS, schedule=schedule), note, max_steps=2).train()
    assert note.trained == [HEAD, HEAD | {"bert.pooler.dense.bias", "bert.pooler.dense.weight"}]


def test_what_thaws_joins_the_group_that_the_trainer_put_it_in(tmp_path: Path) -> None:
    note = Note()
    trainer(tmp_path, Freezing(schedule=LinearProbe(["classifier"], steps=1)), note, max_steps=2).train()
    assert note.decays[0] == {"classifier.weight": 0.1, "classifier.bias": 0.0}
    layer = {name: decay for name, decay in note.decays[1].items() if name.startswith("bert.encoder.layer.0.output")}
    assert layer == {
        "bert.encoder.layer.0.output.dense.weight": 0.1,
        "bert.encoder.layer.0.output.dense.bias": 0.0,
        "bert.encoder.layer.0.output.LayerNorm.weight": 0.0,
        "bert.encoder.layer.0.output.LayerNorm.bias": 0.0,
    }


def test_what_the_trainer_never_had_joins_by_its_names(tmp_path: Path) -> None:
    model, note = bert(), Note()
    handle = ft.freeze(model, "bert.pooler")
    lisa = LISA(LAYERS, sampled=1, period=1, always=["classifier", "bert.pooler"])
    trainer(tmp_path, Freezing(schedule=lisa), note, At(1, handle.undo), model=model, max_steps=3).train()
    pooler = [{name: decay for name, decay in each.items() if "pooler" in name} for each in note.decays]
    there = {"bert.pooler.dense.weight": 0.1, "bert.pooler.dense.bias": 0.0}
    assert pooler == [{}, there, there]


def test_rules(tmp_path: Path) -> None:
    """Factors are lent in each step; an option that a group of the trainer has moves a parameter there."""
    freezing: list[Freezing] = []
    seen: list[dict[str, float]] = []
    rules = [*layerwise([*LAYERS, "classifier"], decay=0.5), Rule("classifier", weight_decay=0.0)]

    def make() -> Freezing:
        freezing.append(Freezing(schedule=LinearProbe(["classifier"], steps=2), rules=rules))
        return freezing[-1]

    whole = stopped_and_gone_on(tmp_path, range(1, 6, 2), make, lr_scheduler_type="constant", warmup_steps=0)
    note, again = Note(), make()
    rates = At(3, lambda: seen.append(again.driver.bindings[0].rates()))
    run = trainer(tmp_path, again, note, rates, lr_scheduler_type="constant", warmup_steps=0)
    run.train()
    assert contents(run.model) == contents(whole.model)
    assert note.decays[0] == {"classifier.weight": 0.0, "classifier.bias": 0.0}
    names = ["bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.1.output.dense.bias", "classifier.weight"]
    assert [seen[0][name] for name in names] == [0.0025, 0.005, 0.01]
    with pytest.raises(BindError, match="needs 2 more parameter groups, and a scheduler of this optimizer"):
        trainer(tmp_path, Freezing("bert", rules=[Rule("classifier", weight_decay=0.2)])).train()


def test_epochs_are_a_unit(tmp_path: Path) -> None:
    """Saved by steps, also in the middle of an epoch and in its last step."""
    note, settings = Note(), {"per_device_train_batch_size": 16, "max_steps": -1, "num_train_epochs": 3}
    probe = LinearProbe(["classifier"], steps=2)
    stopped_and_gone_on(tmp_path, range(1, 6), lambda: Freezing(schedule=probe, unit="epoch"), **settings)
    trainer(tmp_path, Freezing(schedule=probe, unit="epoch"), note, **settings).train()
    assert [len(each) for each in note.trained] == [2, 2, 2, 2, 41, 41]


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    note, settings = Note(), {"gradient_accumulation_steps": 2, "max_steps": 4}
    stopped_and_gone_on(tmp_path, range(2, 4), lambda: Freezing(schedule=PROBE), **settings)
    trainer(tmp_path, Freezing(schedule=PROBE), note, **settings).train()
    assert [len(each) for each in note.trained] == [2, 2, 2, 41]


def test_bfloat16(tmp_path: Path) -> None:
    stopped_and_gone_on(tmp_path, range(2, 5), lambda: Freezing(schedule=SCHEDULES["lisa"], guard=True), bf16=True)


@pytest.mark.parametrize("name", ["sgd", "adafactor", "adamw_torch_fused"])
def test_other_optimizers(name: str, tmp_path: Path) -> None:
    stopped_and_gone_on(tmp_path, range(2, 5, 2), lambda: Freezing(schedule=SCHEDULES["lisa"]), optim=name)


def test_a_frozen_layer_goes_on_checkpointing(tmp_path: Path) -> None:
    calls, ends = [], []
    for checkpointing in (False, True):
        model = bert()
        model.bert.encoder.layer[1].output.dense.register_forward_hook(lambda *_: calls.append(1))
        freezing = Freezing(*LAYERS, guard=True)
        settings = {"activation_checkpointing": checkpointing, "max_steps": 2, "save_strategy": "no"}
        trainer(tmp_path, freezing, model=model, **settings).train()
        ends.append(contents(model))
        calls.append(0)
    assert ends[0] == ends[1]
    # Each of the two steps calls the layer again during its backward.
    assert calls == [1, 1, 0, 1, 1, 1, 1, 0]


def test_the_best_weights_are_loaded_at_the_end(tmp_path: Path) -> None:
    settings = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "max_steps": 5}
    freezing = Freezing(schedule=PROBE, guard=True)
    run = trainer(tmp_path, freezing, **settings)
    run.train()
    best = trainer(tmp_path / "again", model=bert(), save_strategy="no")
    best._load_from_checkpoint(run.state.best_model_checkpoint)
    assert contents(run.model) == contents(best.model)


class Doubled(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().compute_loss(model, inputs, *args, **kwargs)


def test_a_loss_of_ones_own(tmp_path: Path) -> None:
    stopped_and_gone_on(tmp_path, range(2, 5), lambda: Freezing(schedule=PROBE), kind=Doubled)


def test_a_policy_decides_after_evaluations(tmp_path: Path) -> None:
    note = Note()
    policy = Plateau([Phase(["**", "!classifier"]), Phase()], patience=2, delta=1.0, watch="eval_loss")
    settings = {"eval_strategy": "steps", "eval_steps": 1, "logging_strategy": "steps", "logging_steps": 1}
    stopped_and_gone_on(tmp_path, range(1, 6), lambda: Freezing(schedule=policy), **settings)
    trainer(tmp_path, Freezing(schedule=policy), note, **settings).train()
    # The first evaluation sets the mark, and the second and the third are no better; the fourth step heeds them.
    assert [len(each) for each in note.trained] == [2, 2, 2, 2, 41, 41]


def test_trained_twice_and_after_an_interruption(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    note, freezing, stop = Note(), Freezing("bert.embeddings", schedule=PROBE), At(2, interrupt)
    run = trainer(tmp_path, freezing, note, stop, max_steps=4)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.remove_callback(stop)
    run.train()
    run.train()
    assert [len(each) for each in note.trained] == [2, 2, 2, 2, 2, 36, 2, 2, 2, 36]


def test_states_of_callbacks_may_be_restored(tmp_path: Path) -> None:
    again = {"restore_callback_states_from_checkpoint": True}
    stopped_and_gone_on(tmp_path, range(3, 5), lambda: Freezing(schedule=PROBE), **again)


def test_the_guard_sees_what_moves(tmp_path: Path) -> None:
    """The negative control."""
    model = bert()

    def move() -> None:
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight.add_(1)

    with pytest.raises(MovedError, match=r"word_embeddings\.weight"):
        trainer(tmp_path, Freezing(schedule=PROBE, guard=True), At(1, move), model=model).train()
    trainer(tmp_path, Freezing(schedule=PROBE), At(1, move), model=model).train()
