"""F1 to F14: parts that are called frozen and move all the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import frostline.torch as ft
from only_torch.bits import contents, moved
from only_torch.field.evidence import below, train

STATISTICS = {"backbone.1.running_mean", "backbone.1.running_var", "backbone.1.num_batches_tracked"}


def _batch() -> torch.Tensor:
    return torch.randn(6, 4) * 3 + 1


def _net(*inner: nn.Module) -> nn.Module:
    model = nn.Sequential()
    model.add_module("backbone", nn.Sequential(nn.Linear(4, 4), *inner))
    model.add_module("head", nn.Linear(4, 2))
    return model


def _norm_net() -> nn.Module:
    return _net(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Tanh())


def _by_hand(model: nn.Module) -> None:
    model.get_submodule("backbone").requires_grad_(False)


def test_f01_running_statistics_stand_still() -> None:
    """pytorch#86590: a "frozen feature extractor" whose batch-norm statistics drift."""
    model = _norm_net()
    before = contents(model)
    ft.freeze(model, "backbone")
    train(model, _batch())
    assert moved(before, model) == {"head.weight", "head.bias"}


def test_f01_by_hand_the_statistics_drift() -> None:
    """pytorch#86590: requires_grad=False says nothing about buffers."""
    model = _norm_net()
    before = contents(model)
    _by_hand(model)
    train(model, _batch())
    assert moved(before, model) == {"head.weight", "head.bias"} | STATISTICS


def test_f01_a_frozen_use_keeps_the_statistics_too() -> None:
    """pytorch#86590, per use: neither the use nor the layer behind it drifts."""
    model = _norm_net()
    layer = model.backbone
    model.backbone = ft.Frozen(layer)
    before, before_layer = contents(model), contents(layer)
    train(model, _batch())
    assert moved(before, model) == {"head.weight", "head.bias"}
    assert moved(before_layer, layer) == set()


def test_f02_eval_is_not_undone_by_the_parent() -> None:
    """pytorch#66073: .eval() on a frozen part is undone by the next train() of its parent."""
    model = _norm_net()
    _by_hand(model)
    model.backbone.eval()
    model.train()
    assert model.backbone.training
    ft.freeze(model, "backbone")
    for _ in range(3):
        model.train()
    assert [path for path, module in model.named_modules() if module.training] == ["", "head"]


def test_f02_the_mode_asked_for_comes_back_with_the_thaw() -> None:
    """Lightning#20986: a part that was left in evaluation mode is trained in it without a word."""
    model = _norm_net()
    handle = ft.freeze(model, "backbone")
    model.eval()
    model.train()
    handle.undo()
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("when", ["before", "while frozen"])
def test_f02_a_module_in_evaluation_mode_comes_back_in_it(when: str) -> None:
    """Lightning#18951: each module's own mode has to be remembered, not one for all."""
    model = _norm_net()
    if when == "before":
        model.backbone[1].eval()
    handle = ft.freeze(model, "backbone")
    if when == "while frozen":
        model.backbone[1].eval()
    handle.undo()
    assert [path for path, module in model.named_modules() if not module.training] == ["backbone.1"]


def test_f03_a_trainer_that_calls_train_in_every_step() -> None:
    """transformers#24479: Trainer.training_step calls model.train(), so frozen norms move."""
    model = _norm_net()
    _by_hand(model)
    model.backbone.eval()
    before = contents(model)
    train(model, _batch())
    assert moved(before, model) == {"head.weight", "head.bias"} | STATISTICS

    ft.freeze(model, "backbone")
    before = contents(model)
    train(model, _batch())
    assert moved(before, model) == {"head.weight", "head.bias"}


def test_f04_dropout_is_off_in_a_frozen_part() -> None:
    """chemprop PR#665: dropout stays active in a frozen encoder, so its output is random."""
    model, x = _net(nn.Dropout(0.5)).train(), _batch()
    _by_hand(model)
    assert not torch.equal(model.backbone(x), model.backbone(x))
    ft.freeze(model, "backbone")
    model.train()
    assert torch.equal(model.backbone(x), model.backbone(x))
    assert torch.equal(model.backbone(x), model.backbone[0](x))


def test_f04_stochastic_depth_is_off_in_a_frozen_part() -> None:
    """Lightning#2824: anything random that looks at self.training, not only nn.Dropout."""

    class StochasticDepth(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.randn(()) if self.training else x

    model, x = _net(StochasticDepth()), _batch()
    assert not torch.equal(model.backbone(x), model.backbone(x))
    ft.freeze(model, "backbone")
    model.train()
    assert torch.equal(model.backbone(x), model.backbone[0](x))


def test_f05_track_running_stats_is_never_touched() -> None:
    """Lightning#15062: freezing by track_running_stats=False normalises by the batch instead."""
    x = _batch()
    model = _norm_net()
    train(model, x)
    expected = model.eval().backbone(x)

    handle = ft.freeze(model, "backbone")
    model.train()
    assert model.backbone[1].track_running_stats is True
    assert torch.equal(model.backbone(x), expected)
    handle.undo()

    model.backbone[1].track_running_stats = False
    model.backbone[2].eval()
    assert not torch.equal(model.backbone(x), expected)


def test_f06_the_norms_of_a_frozen_backbone_stay_frozen_in_every_phase() -> None:
    """Lightning#13902: BackboneFinetuning(train_bn=False) is ignored in the frozen phase."""
    model = _norm_net()
    handle = ft.freeze(model, "backbone")
    for phase in range(3):
        before = contents(model)
        train(model, _batch())
        assert moved(before, model) == {"head.weight", "head.bias"}, phase
        handle.undo()
        handle = ft.freeze(model, "backbone")
    assert not model.backbone[1].weight.requires_grad

    handle.undo()
    model.backbone[0].requires_grad_(False)  # what freeze(train_bn=True) does
    before = contents(model)
    train(model, _batch())
    assert moved(before, model) >= STATISTICS | {"backbone.1.weight", "backbone.1.bias"}


def test_f07_thawing_one_part_leaves_the_norms_of_another_alone() -> None:
    """finetuning-scheduler#5: its handling of norms thawed 129 parameters where 23 were asked for."""
    model = _norm_net()
    ft.freeze(model)
    ft.thaw(model, "head", expect=2)
    assert set(ft.trainable(model)) == {"head.weight", "head.bias"}
    before = contents(model)
    train(model, _batch())
    assert moved(before, model) == {"head.weight", "head.bias"}


def test_f08_a_frozen_batch_norm_is_in_inference_mode() -> None:
    """keras#9522: trainable=False froze gamma and beta, and the batch went on to set the statistics."""
    x = _batch()
    norm = nn.BatchNorm1d(4)
    norm(x)
    expected = norm.eval()(x)
    norm.train().requires_grad_(False)
    assert not torch.equal(norm(x), expected)
    expected = norm.eval()(x)
    norm.train()
    ft.freeze(norm)
    norm.train()
    assert torch.equal(norm(x), expected)


@pytest.mark.parametrize("kind", [nn.InstanceNorm1d, nn.BatchNorm1d], ids=["instance", "batch"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_f09_instance_norm_is_frozen_like_batch_norm(kind: type[nn.Module], affine: bool) -> None:
    """segmentation_models PR#1220: InstanceNorm is not a _BatchNorm, so freezers by type miss it."""
    x = torch.randn(3, 4, 5) + 2
    norm = kind(4, affine=affine, track_running_stats=True)
    model = nn.Sequential(nn.Conv1d(4, 4, 1), norm)
    before = contents(model)
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    model(x)
    assert moved(before, model) == ({"1.running_mean", "1.running_var"} if kind is nn.InstanceNorm1d else set())

    ft.freeze(model)
    before = contents(model)
    model.train()(x)
    assert moved(before, model) == set()


def test_f11_freezing_keeps_every_class_every_key_and_every_parameter() -> None:
    """pytorch#66073: FrozenBatchNorm2d drops num_batches_tracked and the old parameters."""
    model = _norm_net()
    names = list(model.state_dict())
    kinds, text = [type(module) for module in model.modules()], repr(model)
    objects = [id(thing) for thing in (*model.modules(), *model.parameters(), *model.buffers())]
    handle = ft.freeze(model, "backbone")
    assert list(model.state_dict()) == names
    assert all(isinstance(module, kind) for module, kind in zip(model.modules(), kinds, strict=True))
    assert repr(model) == text
    assert [id(thing) for thing in (*model.modules(), *model.parameters(), *model.buffers())] == objects
    handle.undo()
    assert [type(module) for module in model.modules()] == kinds
    assert "backbone.1.num_batches_tracked" in names


def test_f12_conversion_to_sync_batch_norm_is_noticed_and_undone_by_name() -> None:
    """mmengine#1624: converting the norms of a frozen model makes modules that are not held."""
    model = _norm_net()
    ft.freeze(model, "backbone")
    plan = ft.plan(model)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model).train()
    assert model.backbone[1].training
    assert [(f.kind, f.paths) for f in ft.check(model)] == [
        ("moving-statistics", ("backbone.1",)),
        ("moved-claims", ("backbone.1.weight", "backbone.1.bias")),
    ]
    ft.follow(model, plan)
    model.train()
    assert not model.backbone[1].training
    assert ft.check(model) == []
    assert ft.plan(model) == plan


def test_f13_an_average_of_the_trainable_part_is_kept_by_name() -> None:
    """pytorch_ema#13: averages that are stored by position mismatch as soon as the trainable set changes."""
    model = _norm_net()
    handle = ft.freeze(model, "backbone")
    average = {path: p.detach().clone() for path, p in ft.trainable(model).items()}
    by_position = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    handle.undo()
    first = next(p for p in model.parameters() if p.requires_grad)
    assert by_position[0].shape != first.shape
    now = ft.trainable(model)
    assert all(average[path].shape == now[path].shape for path in average)
    assert set(average) == {"head.weight", "head.bias"}


def test_f13_an_averaged_model_keeps_the_frozen_part_as_it_is() -> None:
    """timm#102: averaging a model with a frozen part must not blend the frozen part."""
    model = _norm_net()
    ft.freeze(model, "backbone")
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    for _ in range(3):
        model.train()(_batch()).sum().backward()
        optimizer.step()
        average.update_parameters(model)
    ours, theirs = contents(model), contents(average.module)
    assert {n for n in ours if ours[n] == theirs[n]} == below(model, "backbone")


def test_f14_a_frozen_lstm_passes_the_gradient_and_drops_nothing() -> None:
    """pytorch#8582: an LSTM in eval mode cannot be differentiated by cuDNN; here, its CPU half."""
    x = torch.randn(5, 2, 4, requires_grad=True)
    lstm = nn.LSTM(4, 4, num_layers=2, dropout=0.5)
    assert not torch.equal(lstm(x)[0], lstm(x)[0])
    ft.freeze(lstm)
    lstm.train()
    first, second = lstm(x)[0], lstm(x)[0]
    assert torch.equal(first, second)
    first.sum().backward()
    assert x.grad is not None
    assert x.grad.count_nonzero() == 40
    assert [p.grad for p in lstm.parameters()] == [None] * 8
    assert (lstm.dropout, lstm.training) == (0.5, False)
