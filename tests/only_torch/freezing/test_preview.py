"""`select` shows what selectors would take, and `blocks` lists the parts of a model by depth."""

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import NoMatchError, schedules


class BasicBlock(nn.Module):
    def __init__(self, wide: int, out: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(wide, out, 3, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, bias=False), nn.BatchNorm2d(out)
        self.downsample = None if wide == out else nn.Sequential(nn.Conv2d(wide, out, 1), nn.BatchNorm2d(out))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 2, 7), nn.BatchNorm2d(2), nn.ReLU()
        self.layer1 = nn.Sequential(BasicBlock(2, 2), BasicBlock(2, 2))
        self.layer2 = nn.Sequential(BasicBlock(2, 4), BasicBlock(4, 4))
        self.fc = nn.Linear(4, 2)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attn, self.mlp = nn.LayerNorm(4), nn.MultiheadAttention(4, 2), nn.Sequential(nn.Linear(4, 4))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.patch_embed, self.pos_drop = nn.Conv2d(3, 4, 2), nn.Dropout()
        self.blocks = nn.Sequential(*(Layer() for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 2)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer() for _ in range(11))


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.encoder, self.pooler = nn.Embedding(9, 4), Encoder(), nn.Linear(4, 4)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bert, self.classifier = Bert(), nn.Linear(4, 2)


class TiedLanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {"wte": nn.Embedding(9, 4), "wpe": nn.Embedding(5, 4), "h": nn.ModuleList([Layer(), Layer()])}
        )
        self.lm_head = nn.Linear(4, 9, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight


RESNET = ["{conv1,bn1}", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc"]
MODELS = [
    (ResNet, RESNET),
    (VisionTransformer, ["{cls_token,patch_embed}", "blocks.0", "blocks.1", "blocks.2", "norm", "head"]),
    (Classifier, ["bert.embeddings", *(f"bert.encoder.layer.{n}" for n in range(11)), "bert.pooler", "classifier"]),
    (TiedLanguageModel, ["transformer.{wte,wpe}", "transformer.h.0", "transformer.h.1"]),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten()), ["0", "2"]),
]


@pytest.mark.parametrize(("make", "expected"), MODELS, ids=["resnet", "vit", "bert", "gpt2", "list"])
def test_blocks_are_these_and_hold_each_parameter_once(make: type[nn.Module], expected: list[str]) -> None:
    model = make()
    assert ft.blocks(model) == expected
    found = [path for block in expected for path in ft.select(model, block).paths]
    assert sorted(found) == sorted(path for path, _ in model.named_parameters())


def test_freezing_all_but_the_last_two_blocks() -> None:
    model = ResNet()
    ft.freeze(model, *ft.blocks(model)[:-2])
    assert {path.partition(".")[0] for path in ft.trainable(model)} == {"layer2", "fc"}
    assert {path[:8] for path in ft.trainable(model)} == {"layer2.1", "fc.weigh", "fc.bias"}


def test_blocks_do_not_depend_on_what_is_frozen() -> None:
    model = ResNet()
    ft.freeze(model, "conv1", "layer1[0]", "layer2")
    assert ft.blocks(model) == RESNET


def test_schedules_take_the_blocks() -> None:
    model = ResNet()
    schedule = schedules.ULMFiT(ft.blocks(model), period=1)
    ft.Driver(schedule, model, torch.optim.SGD(model.parameters(), 0.1))
    assert ft.trainable(model).keys() == {"fc.weight", "fc.bias"}


def test_select_changes_nothing_and_takes_what_freeze_takes() -> None:
    model = ResNet()
    handle = ft.freeze(model, "fc")
    before = {name: (p.requires_grad, p._version) for name, p in model.named_parameters()}, ft.plan(model)
    found = ft.select(model, model.layer1, "!**.bias", "bn1")
    assert ({name: (p.requires_grad, p._version) for name, p in model.named_parameters()}, ft.plan(model)) == before
    handle.undo()
    ft.freeze(model, model.layer1, "!**.bias", "bn1")
    assert set(found.paths) == ft.frozen(model).keys()


def test_select_raises_what_freeze_raises() -> None:
    with pytest.raises(NoMatchError):
        ft.select(ResNet(), "layer3")
