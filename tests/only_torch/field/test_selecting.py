"""F37 to F50: freezing something else than was meant, or nothing at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import NoMatchError, UnsupportedError, of_type, regex
from frostline.errors import CountError, SelectorError, TiedError
from only_torch.bits import contents, moved
from only_torch.field.evidence import below, train


def _named(**children: nn.Module) -> nn.Module:
    model = nn.Module()
    for name, child in children.items():
        model.add_module(name, child)
    return model


def _language_model(layers: int = 3) -> nn.Module:
    blocks = nn.ModuleList(_named(q_proj=nn.Linear(2, 2), mlp=nn.Linear(2, 2)) for _ in range(layers))
    return _named(model=_named(language_model=_named(layers=blocks)), head=nn.Linear(2, 2))


def test_f37_a_wrong_prefix_is_an_error_with_the_right_one() -> None:
    """ms-swift#7226: model.layers.1 where it is model.language_model.layers: 7615M trainable, no message."""
    model = _language_model()
    with pytest.raises(NoMatchError) as caught:
        ft.freeze(model, "model.layers[1]")
    assert caught.value.selector == "'model.layers[1]'"
    assert "model.language_model.layers" in caught.value.closest[0]
    assert ft.plan(model).frozen == set()
    by_prefix = [p for name, p in model.named_parameters() if name.startswith("model.layers.1")]
    assert by_prefix == []


def test_f37_a_misspelt_prefix_beside_a_right_one_is_an_error() -> None:
    """ms-swift#7226: modle.language_model.layers.2 in a list of which other entries match."""
    model = _language_model()
    with pytest.raises(NoMatchError) as caught:
        ft.freeze(model, "model.language_model.layers[1]", "modle.language_model.layers[2]")
    assert caught.value.selector == "'modle.language_model.layers[2]'"
    assert ft.plan(model).frozen == set()


@pytest.mark.parametrize("wrong", ["**.foobar", "heed", "!heed", regex(r".*\.heed\..*"), of_type(nn.Conv2d)])
def test_f38_each_entry_must_match_by_itself(wrong: object) -> None:
    """peft#1959: target_modules=['q_proj', 'foobar'] and modules_to_save=['heed'] pass without a warning."""
    model = _language_model()
    with pytest.raises(NoMatchError):
        ft.freeze(model, "**.q_proj", wrong)
    assert ft.plan(model).frozen == set()
    ft.freeze(model, "**.q_proj", expect=6)


def test_f38_each_leaf_of_an_expression_must_match_too() -> None:
    """peft#3693: a partial mismatch is silent, because only all entries together are looked at."""
    model = _language_model()
    with pytest.raises(NoMatchError) as caught:
        ft.freeze(model, regex(r".*\.q_proj\..*") | of_type(nn.Conv2d))
    assert caught.value.selector == "of_type(Conv2d)"


def test_f39_a_pattern_of_nothing_does_not_freeze_or_train_all() -> None:
    """axolotl#1464: the pattern of the trainable part matches nothing, "all parameters are frozen", it runs on."""
    model = _language_model()
    with pytest.raises(NoMatchError):
        ft.freeze(model, "**", "!lm_head")
    assert ft.plan(model).frozen == set()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("lm_head"))
    assert [finding.kind for finding in ft.check(model)] == ["nothing-trainable"]


def test_f40_an_expected_count_catches_names_that_an_upgrade_changed() -> None:
    """ms-swift#6079: 589M trainable where 50M were expected, after an upgrade moved the modules."""
    old, new = _language_model(), _named(model=_named(language_model=_named(layers=nn.ModuleList())))
    new.model.language_model.layers.extend(nn.Linear(2, 2) for _ in range(2))
    ft.freeze(old, "model.language_model.layers", expect=12)
    with pytest.raises(CountError) as caught:
        ft.freeze(new, "model.language_model.layers", expect=12)
    assert (caught.value.expected, caught.value.found) == (12, 4)
    assert ft.plan(new).frozen == set()


def test_f40_a_plan_of_the_old_names_does_not_pass_in_silence() -> None:
    """Megatron-Bridge PR#4220: a level of names is gone, and frozen parameters are trained."""
    old = _language_model()
    ft.freeze(old, "model")
    new = _named(language_model=old.model.language_model, head=nn.Linear(2, 2))
    with pytest.raises(ValueError, match="12 missing, 12 unknown"):
        ft.follow(new, ft.plan(old))


@pytest.mark.parametrize("number", [0, 10])
def test_f41_a_number_is_no_selector(number: int) -> None:
    """mmdetection#7144: frozen_stages=0 freezes the stem; yolov5#12159: the documentation is off by one."""
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(12)))
    with pytest.raises(SelectorError):
        ft.freeze(model, number)
    assert ft.plan(model).frozen == set()


def test_f41_depths_are_slices_as_in_python() -> None:
    """yolov5#6038: freeze=10 means which ten? A slice says it, and one of nothing is an error."""
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(12)))
    ft.freeze(model, "[:10]", expect=20)
    assert set(ft.trainable(model)) == {"10.weight", "10.bias", "11.weight", "11.bias"}
    with pytest.raises(NoMatchError):
        ft.freeze(model, "[:0]")


def test_f42_layer_1_is_not_layer_10() -> None:
    """finetuning-scheduler: re.match of layer1 takes layer10 and layer11 too."""
    model = _named(**{f"layer{number}": nn.Linear(1, 1) for number in range(12)})
    one = {"layer1.weight", "layer1.bias"}
    assert {n for n, _ in model.named_parameters() if n.startswith("layer1")} > one
    for selector in ("layer1", "layer1.*", regex(r"layer1\..*")):
        with ft.freeze(model, selector) as handle:
            assert handle.plan.frozen == one
    with pytest.raises(NoMatchError):
        ft.freeze(model, regex("layer1"))


class Tokens(nn.Module):
    """A module with children and parameters of its own, as vision transformers are."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(4))
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x + self.cls_token, x, x)[0]


def test_f43_parameters_of_modules_that_have_children() -> None:
    """WeatherGenerator#861, timm, composer: a walk over leaf modules misses cls_token and in_proj_weight."""
    model = _named(trunk=Tokens(), head=nn.Linear(4, 2))
    for module in model.trunk.modules():
        if not list(module.children()):
            module.requires_grad_(False)
    missed = {"trunk.cls_token", "trunk.attention.in_proj_weight", "trunk.attention.in_proj_bias"}
    assert set(ft.trainable(model)) == missed | {"head.weight", "head.bias"}
    ft.freeze(model, "trunk", expect=5)
    assert set(ft.trainable(model)) == {"head.weight", "head.bias"}
    assert set(ft.trainable(nn.Sequential(ft.Frozen(Tokens())))) == set()


def test_f43_a_parameter_of_the_model_itself() -> None:
    """timm up to 1.0.20: freeze(vit) leaves parameters of the model itself trainable."""
    model = Tokens()
    ft.freeze(model, "cls_token")
    assert set(ft.frozen(model)) == {"cls_token"}
    ft.freeze(model)
    assert set(ft.trainable(model)) == set()


def test_f44_flags_that_do_nothing_are_found() -> None:
    """OpenNMT-py#192: module.requires_grad = False, weight.data.requires_grad and p.require_grad do nothing."""
    model = _named(trunk=nn.Linear(2, 2), head=nn.Linear(2, 2))
    model.trunk.requires_grad = False
    model.trunk.weight.data.requires_grad = False
    model.head.bias.require_grad = False
    assert len(ft.trainable(model)) == 4
    assert [(f.kind, f.paths) for f in ft.check(model)] == [
        ("plain-attribute", ("trunk",)),
        ("plain-attribute", ("head.bias",)),
    ]


def _tied() -> nn.Module:
    model = _named(embed=nn.Embedding(3, 2), body=nn.Linear(2, 2), head=nn.Linear(2, 3, bias=False))
    model.head.weight = model.embed.weight
    return model


def test_f45_all_but_the_tied_head_is_a_contradiction() -> None:
    """transformers#11903: GPT-2 with all frozen but lm_head, which is the embedding."""
    model = _tied()
    with pytest.raises(TiedError) as caught:
        ft.freeze(model, "**", "!head")
    assert caught.value.names == ("embed.weight", "head.weight")
    assert ft.plan(model).frozen == set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(name.startswith("head"))
    assert model.embed.weight.requires_grad


def test_f45_both_names_taken_back_together() -> None:
    """peft#2864: a selection of a tied pair must cover both names."""
    model = _tied()
    ft.freeze(model, "**", "!head", "!embed")
    assert set(ft.trainable(model)) == {"embed.weight"}
    assert model.head.weight is model.embed.weight


@pytest.mark.parametrize("name", ["head", "head.weight", "head.*", "embed.weight"])
def test_f46_every_name_of_a_tied_tensor_names_it(name: str) -> None:
    """named_parameters() lists a tied tensor once, so that the pattern head* matches nothing."""
    model = _tied()
    assert [n for n, _ in model.named_parameters() if n.startswith("head")] == []
    ft.freeze(model, name, expect=1)
    assert set(ft.frozen(model)) == {"embed.weight"}


@pytest.mark.parametrize("name", ["first", "second", "second.weight"])
def test_f46_every_name_of_a_shared_module_names_it(name: str) -> None:
    """The same for a module that is registered twice: named_modules() lists it once, too."""
    layer = nn.Linear(2, 2, bias=False)
    model = _named(first=layer, second=layer, head=nn.Linear(2, 2))
    assert [path for path, _ in model.named_modules() if path.startswith("second")] == []
    ft.freeze(model, name, expect=1)
    assert set(ft.trainable(model)) == {"head.weight", "head.bias"}
    with pytest.raises(TiedError):
        ft.freeze(model, "**", "!second")


def test_f47_one_layer_of_two_that_share_a_weight() -> None:
    """LBANN PR#268: throw if of two layers with one weight only one is frozen; per use it can be."""
    model = _tied()
    with pytest.raises(TiedError):
        ft.freeze(model, "embed", "body", "!head")
    words = torch.tensor([0, 2])
    model.head(ft.frozen_call(model.embed, words)).sum().backward()
    through_head = model.embed.weight.grad.clone()
    model.zero_grad()
    model.head(model.embed(words)).sum().backward()
    assert not torch.equal(through_head, model.embed.weight.grad)
    assert through_head.count_nonzero() == 6


def test_f48_rows_are_refused_and_never_the_whole_tensor() -> None:
    """accelerate#2202: some rows by a hook that masks gradients, which decay moves all the same."""
    model = _named(embed=nn.Embedding(5, 2))
    with pytest.raises(UnsupportedError):
        ft.freeze(model, "embed.weight[:3]")
    assert model.embed.weight.requires_grad

    mask = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0])[:, None]
    model.embed.weight.register_hook(lambda gradient: gradient * mask)
    before = model.embed.weight.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    model.embed(torch.arange(5)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.embed.weight[:3], before[:3])


def test_f49_nothing_trainable_is_found() -> None:
    """DeepSpeed#4776: only a renamed adapter was to train, and nothing does."""
    model = _named(base=nn.Linear(2, 2))
    ft.freeze(model)
    optimizer = torch.optim.AdamW(model.parameters())
    assert [f.kind for f in ft.check(model, optimizer)] == ["nothing-trainable", "idle-optimizer"]
    model.add_module("adapter", nn.Linear(2, 2))
    assert [f.kind for f in ft.check(model, optimizer)] == ["held-but-trains", "unowned", "idle-optimizer"]


def _quantised() -> nn.Module:
    model = _named(base=nn.Linear(2, 2), head=nn.Linear(2, 2))
    model.base.register_parameter("codes", nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False))
    return model


def test_f50_integer_parameters_are_left_alone() -> None:
    """transformers#37720: a sweep of requires_grad=True fails on 4-bit and index parameters."""
    model = _quantised()
    with pytest.raises(RuntimeError, match="can require gradients"):
        model.requires_grad_(True)
    ft.freeze(model, "base", expect=3)
    ft.thaw(model)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(ft.trainable(model))
    assert "base.codes" not in ft.trainable(model)
    assert "base.codes" in ft.plan(model).frozen


def test_f50_a_frozen_layer_with_integer_parameters_is_held_and_used() -> None:
    """bitsandbytes#1232: int8 weights inside a frozen part, in place and per use."""
    model = _quantised()
    model.norm = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.norm[1].register_parameter("codes", nn.Parameter(torch.ones(1, dtype=torch.int8), requires_grad=False))
    model.forward = lambda x: model.head(model.norm(model.base(x)))
    ft.freeze(model, "norm", "base")
    before = contents(model)
    train(model, torch.ones(3, 2))
    assert moved(before, model) == below(model, "head")
    use = ft.Frozen(model.base)
    assert set(use.state_dict()) == {"weight", "bias", "codes"}
    assert torch.equal(use(torch.ones(1, 2)), model.base(torch.ones(1, 2)))
