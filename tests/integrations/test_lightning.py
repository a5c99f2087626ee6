"""The callback for Lightning, in its real trainer: stop and go at every step, and what people do with a trainer."""

from __future__ import annotations

import logging
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.tuner import Tuner
from torch import nn

import frostline.torch as ft
from frostline import Rule
from frostline.errors import BindError, MovedError, NoMatchError, ScheduleError, SelectorError, WrappedError
from frostline.integrations.lightning import Freezing
from frostline.schedules import LISA, LinearProbe, Phase, Plateau, ULMFiT
from only_torch.bits import contents, moved
from sources import SOURCES

EXAMPLE = Path(__file__).parents[2] / "examples" / "lightning_finetuning.py"
# Lightning asks for worker processes and a logger, and says where it runs.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path., callbacks"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

Optimizers = Callable[[nn.Module], Any]
SCHEDULES = {
    "probe": LinearProbe(["head"], steps=3),
    "gradual": ULMFiT(["body[0]", "body[1]", "body[2:]", "head"], period=2),
    "lisa": LISA(["body[0]", "body[1]", "body[2]"], sampled=1, period=2, always=["head"]),
}
BODY = {"body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "body.2.weight", "body.2.bias"}
NORM = {"body.3.weight", "body.3.bias", "body.3.running_mean", "body.3.running_var", "body.3.num_batches_tracked"}
HEAD = {"head.weight", "head.bias"}


def one_cycle(module: nn.Module) -> Any:
    """As the documentation of ``BackboneFinetuning`` wants it: what is frozen is left out."""
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.05, weight_decay=0.1)
    return in_steps(optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=20))


def two_groups(module: nn.Module) -> Any:
    body = [p for p in module.body.parameters() if p.requires_grad]  # type: ignore[union-attr, operator]
    groups = [{"params": module.head.parameters(), "lr": 0.1}, *([{"params": body, "lr": 0.01}] if body else [])]  # type: ignore[union-attr, operator]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=0.1)
    return in_steps(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20))


def in_steps(optimizer: torch.optim.Optimizer, scheduler: Any) -> Any:
    return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Net(LightningModule):
    """Its batch depends on the step alone, so that a resumed run meets the same ones."""

    def __init__(self, optimizers: Optimizers = one_cycle, lr: float = 0.05) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)
        self.optimizers_of, self.lr = optimizers, lr

    def loss(self) -> torch.Tensor:
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(self.trainer.fit_loop.total_batch_idx))
        loss: torch.Tensor = self.head(self.body(x)).square().mean()
        self.log("loss", loss)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss()

    def configure_optimizers(self) -> Any:
        return self.optimizers_of(self)

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.zeros(4, 1), batch_size=1)


class Noted(Callback):
    """Notes what moves in each step."""

    def __init__(self) -> None:
        self.steps: list[set[str]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.before = contents(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.steps.append(moved(self.before, pl_module))


def trainer(*callbacks: Callback, saves: Path | None = None, **options: Any) -> Trainer:
    if saves is not None:
        each_step = ModelCheckpoint(saves, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        callbacks = (*callbacks, each_step)
    given: dict[str, Any] = {"max_epochs": 2, "accelerator": "cpu", **options}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**given, **quiet, callbacks=list(callbacks), enable_checkpointing=saves is not None)


def checkpoints(folder: Path) -> list[Path]:
    return [folder / f"step={step}.ckpt" for step in range(1, 8)]


@pytest.mark.parametrize("optimizers", [one_cycle, two_groups])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_that_was_stopped_is_bitwise_the_one_that_was_not(
    name: str, optimizers: Optimizers, tmp_path: Path
) -> None:
    whole = Net(optimizers)
    trainer(Freezing(schedule=SCHEDULES[name], guard=True), saves=tmp_path).fit(whole)
    for checkpoint in checkpoints(tmp_path):
        resumed = Net(optimizers)
        trainer(Freezing(schedule=SCHEDULES[name], guard=True)).fit(resumed, ckpt_path=checkpoint)
        assert moved(contents(whole), resumed) == set(), checkpoint.name
        assert ft.plan(resumed) == ft.plan(whole)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_the_callback_the_rest_of_the_run_is_another_one(name: str, tmp_path: Path) -> None:
    """The negative control."""
    whole, resumed = Net(), Net()
    trainer(Freezing(schedule=SCHEDULES[name]), saves=tmp_path).fit(whole)
    trainer().fit(resumed, ckpt_path=tmp_path / "step=1.ckpt")
    assert moved(contents(whole), resumed) >= BODY


def test_each_step_moves_what_its_phase_says() -> None:
    noted = Noted()
    trainer(noted, Freezing("body[0]", schedule=SCHEDULES["gradual"], guard=True)).fit(Net())
    second, third = {"body.1.weight", "body.1.bias"}, {"body.2.weight", "body.2.bias"}
    assert noted.steps == [
        *[HEAD] * 2,
        *[HEAD | NORM | third] * 2,
        *[HEAD | NORM | third | second] * 4,  # body[0] stays frozen throughout
    ]


def test_groups_are_those_that_the_module_makes_of_all_that_thaws() -> None:
    freezing = Freezing(schedule=LinearProbe(["head"], steps=3))
    fitted = trainer(freezing)
    fitted.fit(Net(two_groups))
    (optimizer,) = fitted.optimizers
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 8]
    assert fitted.lr_scheduler_configs[0].scheduler.base_lrs == [0.1, 0.01]


def test_a_schedule_in_epochs_resumes_from_within_and_between_epochs(tmp_path: Path) -> None:
    def freezing() -> Freezing:
        return Freezing(schedule=ULMFiT(["body[0]", "body[1:]", "head"], period=1), unit="epoch")

    class Validated(Net):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", 1.0)

        def val_dataloader(self) -> Any:
            return self.train_dataloader()

    noted = Noted()
    after_validation = ModelCheckpoint(tmp_path, filename="validated-{step}", save_top_k=-1, monitor="val_loss")
    after_epoch = ModelCheckpoint(tmp_path, filename="epoch-{step}", save_top_k=-1, save_on_train_epoch_end=True)
    whole = Validated()
    options = {"num_sanity_val_steps": 0, "max_epochs": 3}
    trainer(noted, freezing(), after_validation, after_epoch, saves=tmp_path, **options).fit(whole)
    first = {"body.0.weight", "body.0.bias"}
    assert noted.steps == [*[HEAD] * 4, *[HEAD | NORM | BODY - first] * 4, *[HEAD | NORM | BODY] * 4]
    files = sorted(file.name for file in tmp_path.iterdir())
    assert len(files) == 18
    for name in files:
        resumed = Validated()
        trainer(freezing(), **options).fit(resumed, ckpt_path=tmp_path / name, weights_only=True)
        assert moved(contents(whole), resumed) == set(), name


def test_policies_get_the_loss_of_each_step_or_what_was_logged_in_the_epoch(tmp_path: Path) -> None:
    phases = [Phase(["**", "!head"], name="probe"), Phase(name="all")]
    noted, policy = Noted(), Plateau(phases, patience=2, delta=10.0)
    whole = Net()
    trainer(noted, Freezing(schedule=policy), saves=tmp_path).fit(whole)
    assert noted.steps == [*[HEAD] * 3, *[HEAD | NORM | BODY] * 5]
    for checkpoint in checkpoints(tmp_path):
        resumed = Net()
        trainer(Freezing(schedule=policy)).fit(resumed, ckpt_path=checkpoint)
        assert moved(contents(whole), resumed) == set(), checkpoint.name
    noted, policy = Noted(), Plateau(phases, patience=1, delta=10.0, watch="loss")
    trainer(noted, Freezing(schedule=policy, unit="epoch"), max_epochs=3).fit(Net())
    assert noted.steps == [*[HEAD] * 8, *[HEAD | NORM | BODY] * 4]


def test_a_policy_without_a_number_is_an_error() -> None:
    class Silent(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.automatic_optimization = False
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.loss())
            optimizer.step()

    module = Silent()
    module.automatic_optimization = False
    with pytest.raises(ScheduleError) as error:
        trainer(Freezing(schedule=Plateau([Phase(["**", "!head"]), Phase()], patience=2))).fit(module)
    assert str(error.value) == (
        "Freezing(schedule=policy) gets no number after step 1.\n"
        'Return the loss from training_step; with unit="epoch" log it there: self.log("loss", loss).'
    )


def test_accumulation_counts_steps_and_not_batches(tmp_path: Path) -> None:
    options = {"accumulate_grad_batches": 2, "max_epochs": 4}
    noted, whole = Noted(), Net()
    trainer(noted, Freezing(schedule=LinearProbe(["head"], steps=3)), saves=tmp_path, **options).fit(whole)
    nothing: set[str] = set()
    still_counting = {"body.3.running_mean", "body.3.running_var", "body.3.num_batches_tracked"}
    assert noted.steps == [*[nothing, HEAD] * 3, *[still_counting, HEAD | NORM | BODY] * 5]
    for checkpoint in checkpoints(tmp_path):
        resumed = Net()
        trainer(Freezing(schedule=LinearProbe(["head"], steps=3)), **options).fit(resumed, ckpt_path=checkpoint)
        assert moved(contents(whole), resumed) == set(), checkpoint.name


class Adversaries(LightningModule):
    """Two optimizers, and steps by hand, each in turn."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maker = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.critic = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for sign, optimizer in zip((1, -1), self.optimizers(), strict=True):  # type: ignore[arg-type]
            self.toggle_optimizer(optimizer)
            x = torch.randn(6, 4, generator=torch.Generator().manual_seed(self.global_step))
            optimizer.zero_grad()
            self.manual_backward(sign * self.critic(self.maker(x)).square().mean())
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        parts = (self.maker, self.critic)
        return [torch.optim.AdamW(part.parameters(), lr=0.05, weight_decay=0.1) for part in parts]

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.zeros(4, 1), batch_size=1)


def test_manual_optimization_with_two_optimizers(tmp_path: Path) -> None:
    schedule = ULMFiT(["maker[0]", "critic[0]", "critic[1]"], period=4)  # two steps a batch
    noted, whole = Noted(), Adversaries()
    freezing = Freezing(schedule=schedule, guard=True)
    trainer(noted, freezing, saves=tmp_path).fit(whole)
    second = {"maker.1.weight", "maker.1.bias", "critic.1.weight", "critic.1.bias"}
    third, first = {"critic.0.weight", "critic.0.bias"}, {"maker.0.weight", "maker.0.bias"}
    assert noted.steps == [*[second] * 2, *[second | third] * 2, *[second | third | first] * 4]
    assert [len(binding.names) for binding in freezing.driver.bindings] == [4, 4]
    saved = sorted(tmp_path.iterdir())
    assert len(saved) == 8
    for checkpoint in saved:
        resumed = Adversaries()
        trainer(Freezing(schedule=schedule)).fit(resumed, ckpt_path=checkpoint)
        assert moved(contents(whole), resumed) == set(), checkpoint.name


def test_the_rate_finder_looks_for_the_rate_of_the_first_phase_and_the_fit_starts_anew() -> None:
    def own_rate(module: Any) -> Any:
        return torch.optim.SGD(module.parameters(), lr=module.lr, momentum=0.9, weight_decay=0.1)

    class Watched(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append(sorted(ft.trainable(self)) == sorted(HEAD))
            return super().training_step(batch, batch_idx)

    seen: list[bool] = []
    module, plain = Watched(own_rate), Net(own_rate, lr=0.05)
    before = contents(module)
    fitted = trainer(Freezing(schedule=LinearProbe(["head"], steps=5), guard=True))
    Tuner(fitted).lr_find(module, num_training=6, update_attr=False)
    assert (seen, moved(before, module)) == ([True] * 6, set())
    fitted.fit(module)
    assert seen[6:] == [*[True] * 5, *[False] * 3]
    trainer(Freezing(schedule=LinearProbe(["head"], steps=5))).fit(plain)
    assert moved(contents(plain), module) == set()


def test_the_rate_finder_as_a_callback() -> None:
    def own_rate(module: Any) -> Any:
        return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=module.lr)

    module = Net(own_rate)
    finder = LearningRateFinder(num_training_steps=20)
    freezing = Freezing("body[0]", schedule=LinearProbe(["head"], steps=3), guard=True)
    fitted = trainer(freezing, finder, max_epochs=6)
    fitted.fit(module)
    assert finder.optimal_lr is not None
    assert [group["lr"] for group in fitted.optimizers[0].param_groups] == [finder.optimal_lr.suggestion()]
    assert (freezing.driver.steps, len(freezing.driver.bindings[0].names)) == (24, 8)


def test_rates_and_options_by_selector() -> None:
    def decayed(module: Any) -> Any:
        return torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1)

    def scheduled(module: Any) -> Any:
        optimizer = decayed(module)
        ft.bind(optimizer, module, rules=RULES)
        return in_steps(optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=4))

    RULES = [Rule("body", lr_scale=0.5), Rule("**.bias", weight_decay=0.0)]
    fitted = trainer(Freezing(schedule=LinearProbe(["head"], steps=3), rules=RULES))
    fitted.fit(Net(decayed))
    groups = fitted.optimizers[0].param_groups
    assert [(len(g["params"]), g["lr"], g["weight_decay"]) for g in groups if g["params"]] == [
        (1, 0.1, 0.1),
        (4, 0.05, 0.1),
        (4, 0.05, 0.0),
        (1, 0.1, 0.0),
    ]
    fitted = trainer(Freezing(schedule=LinearProbe(["head"], steps=3)))
    fitted.fit(Net(scheduled))
    assert [group["lr"] for group in fitted.optimizers[0].param_groups if group["params"]] == [0.1, 0.05, 0.05, 0.1]


def test_rules_after_a_scheduler_are_an_error_before_training() -> None:
    module = Net()
    before = contents(module)
    with pytest.raises(BindError, match="needs 1 more parameter groups, and a scheduler of this optimizer"):
        trainer(Freezing("body", rules=[Rule("head.bias", weight_decay=0.0)])).fit(module)
    assert moved(before, module) == set()


def test_several_fits_of_one_module_and_a_checkpoint_after_the_fit(tmp_path: Path) -> None:
    freezing, module = Freezing(schedule=SCHEDULES["lisa"]), Net()
    first = trainer(freezing, max_epochs=1)
    first.fit(module)
    first.save_checkpoint(tmp_path / "after.ckpt")
    whole, resumed = Net(), Net()
    trainer(Freezing(schedule=SCHEDULES["lisa"])).fit(whole)
    trainer(Freezing(schedule=SCHEDULES["lisa"])).fit(resumed, ckpt_path=tmp_path / "after.ckpt")
    assert moved(contents(whole), resumed) == set()
    # The same trainer goes on, as after `fit_loop.max_epochs` was raised; then another one begins anew.
    first.fit_loop.max_epochs = 2
    first.fit(module)
    assert freezing.driver.steps == 8
    other = Freezing("body")
    second = trainer(other)
    second.fit(module)
    assert (other.driver.steps, sorted(ft.trainable(module))) == (8, ["head.bias", "head.weight"])


def test_a_checkpoint_of_another_run_is_an_error(tmp_path: Path) -> None:
    trainer(Freezing("body[0]"), saves=tmp_path, max_epochs=1).fit(Net())
    with pytest.raises(ScheduleError) as error:
        trainer(Freezing("body[1]", unit="epoch")).fit(Net(), ckpt_path=tmp_path / "step=2.ckpt")
    assert str(error.value) == (
        "trainer.fit(ckpt_path=...) got the state of a run by step with 2 parameters frozen throughout, for a run by "
        "epoch with 2 parameters.\n"
        "These differ:\n"
        "  body.0.bias\n"
        "  body.0.weight\n"
        "  body.1.bias\n"
        "  body.1.weight\n"
        "Resume with the same selectors and unit, or start a new run from the weights of the checkpoint."
    )


@pytest.mark.parametrize(
    "freezing", [Freezing("bodi"), Freezing("body", schedule=LinearProbe(["haed"], steps=2))], ids=["selector", "phase"]
)
def test_a_typo_is_an_error_before_anything_has_changed(freezing: Freezing) -> None:
    module = Net()
    with pytest.raises(NoMatchError, match=r"'(bodi|haed)' matches none of the 10 parameters\.\nClosest paths:"):
        trainer(freezing).fit(module)
    assert (len(ft.trainable(module)), {inner.training for inner in module.modules()}) == (10, {True})


@pytest.fixture
def _alone() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_alone")
def test_in_ddp_a_set_that_stays_trains_and_a_change_is_refused_before_training() -> None:
    def options() -> dict[str, Any]:
        return {"strategy": DDPStrategy(process_group_backend="gloo"), "devices": 1}

    module, other = Net(), Net()
    before = contents(module)
    trainer(Freezing("body", guard=True), **options()).fit(module)
    assert moved(before, module) == HEAD
    with pytest.raises(WrappedError, match="wrapped in DistributedDataParallel"):
        trainer(Freezing(schedule=LinearProbe(["head"], steps=3)), **options()).fit(other)
    assert moved(before, other) == set()


def test_validating_a_checkpoint_after_the_fit_changes_nothing(tmp_path: Path) -> None:
    class Validated(Net):
        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

        def val_dataloader(self) -> Any:
            return self.train_dataloader()

    module = Validated()
    fitted = trainer(Freezing(schedule=LinearProbe(["head"], steps=3)), saves=tmp_path)
    fitted.fit(module)
    fitted.validate(module, ckpt_path=tmp_path / "step=2.ckpt", verbose=False)
    assert len(ft.trainable(module)) == 10


def test_the_example_runs() -> None:
    assert runpy.run_path(str(EXAMPLE))["main"]() == {"trainable after two epochs": 10, "resumed bitwise": True}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            lambda: Freezing(),
            "Freezing() has neither selectors nor a schedule.\n"
            'Write Freezing("**", "!head"), or Freezing(schedule=LinearProbe(["head"], steps=500)).',
        ),
        (
            lambda: Freezing(LinearProbe(["head"], steps=3)),  # type: ignore[arg-type]
            "Freezing(LinearProbe(head=('head',), steps=3)) has a schedule for a selector.\n"
            'Write Freezing(schedule=LinearProbe(["head"], steps=500)).',
        ),
        (
            lambda: Freezing(schedule="probe"),  # type: ignore[arg-type]
            "Freezing(schedule='probe') is neither a schedule nor a policy.\n"
            'Write Freezing(schedule=LinearProbe(["head"], steps=500)).',
        ),
        (
            lambda: Freezing("body", unit="epochs"),  # type: ignore[arg-type]
            "Freezing(unit='epochs') is not one of the 2 possible values.\n"
            "Possible values:\n"
            "  'step'\n"
            "  'epoch'\n"
            "Write Freezing(..., unit='epoch').",
        ),
    ],
    ids=["nothing", "schedule by position", "no schedule", "no unit"],
)
def test_an_argument_that_is_wrong(made: Callable[[], Freezing], expected: str) -> None:
    with pytest.raises((ScheduleError, SelectorError)) as error:
        made()
    assert str(error.value) == expected


def test_nothing_left_to_train_is_an_error_before_anything_has_changed() -> None:
    module = Net()
    with pytest.raises(SelectorError) as error:
        trainer(Freezing("**")).fit(module)
    assert str(error.value) == (
        "Freezing('**') freezes all 10 parameters, and leaves nothing to train.\n"
        'Take something back: Freezing("**", "!head").'
    )
    assert (len(ft.trainable(module)), {inner.training for inner in module.modules()}) == (10, {True})


def test_the_guard_finds_what_another_callback_moves() -> None:
    class Meddling(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
            pl_module.body[0].weight.data.mul_(1.5)

    with pytest.raises(MovedError, match=r"body\.0\.weight"):
        trainer(Freezing("body", guard=True), Meddling()).fit(Net())


def test_the_older_name_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback is one of the package that is there, and a trainer of either takes it."""
    import pytorch_lightning

    class Older(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.head(self.body(torch.ones(3, 4))).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)

        train_dataloader = Net.train_dataloader

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    ours = runpy.run_path(str(SOURCES / "integrations" / "lightning.py"))["Freezing"]
    assert issubclass(ours, pytorch_lightning.Callback)
    for kind in (ours, Freezing):
        module = Older()
        before = contents(module)
        options: Any = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        freezing = kind(schedule=LinearProbe(["head"], steps=3))
        pytorch_lightning.Trainer(max_epochs=1, logger=False, callbacks=[freezing], **options).fit(module)
        assert moved(before, module) == {"head.weight", "head.bias", "body.weight", "body.bias"}
