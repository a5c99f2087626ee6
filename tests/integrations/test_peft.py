"""PEFT: its base as a selector, what it does to flags and modules, and a reference policy without its adapter."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import frostline.torch as ft
from frostline.errors import LayerError, UnsupportedError
from frostline.integrations.peft import base, reference
from frostline.integrations.transformers import Freezing
from frostline.schedules import LinearProbe, Phase
from integrations.trained import bert, trainer
from only_torch.bits import bits, contents, moved

# PEFT asks a model of transformers by a name of its that is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = torch.arange(10).reshape(2, 5)
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def llama() -> Any:
    torch.default_generator.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=40, num_hidden_layers=1, attention_dropout=0.5, **sizes))


def lora(**changes: Any) -> LoraConfig:
    settings = {"target_modules": ["q_proj", "v_proj"], "r": 2, "init_lora_weights": False, "lora_dropout": 0.5}
    return LoraConfig(**{**settings, **changes})


def policy(**changes: Any) -> Any:
    return get_peft_model(llama(), lora(**changes))


def logits(model: Any) -> tuple[str, tuple[int, ...], bytes]:
    with torch.no_grad():
        return bits(model(IDS).logits)


def kinds(model: Any, optimizer: Any = None) -> set[str]:
    return {finding.kind for finding in ft.check(model, optimizer)}


def step(model: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(IDS).logits.square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("config", "added"),
    [
        (lora(), {f"{Q}.lora_A.default.weight", f"{Q}.lora_B.default.weight"}),
        (
            lora(modules_to_save=["lm_head"], use_dora=True, target_modules=["q_proj"]),
            {
                f"{Q}.lora_A.default.weight",
                f"{Q}.lora_B.default.weight",
                f"{Q}.lora_magnitude_vector.default.weight",
                "base_model.model.lm_head.modules_to_save.default.weight",
            },
        ),
        (IA3Config(target_modules=["q_proj"], feedforward_modules=[]), {f"{Q}.ia3_l.default"}),
    ],
    ids=["lora", "dora and a head", "ia3"],
)
def test_the_base_is_what_was_there_before(config: Any, added: set[str]) -> None:
    model = get_peft_model(llama(), config)
    names = {name for name, _ in model.named_parameters()}
    ft.freeze(model, base)
    assert ft.trainable(model).keys() == {name for name in names if "v_proj.lora" in name} | added
    assert ft.frozen(model).keys() == names - ft.trainable(model).keys()
    assert kinds(model) == set()


def test_the_base_is_a_selector_like_others() -> None:
    model = policy()
    assert repr(base) == "where('frostline.integrations.peft:is_base')"
    assert Phase([base]).frozen == ("where('frostline.integrations.peft:is_base')",)
    ft.freeze(model, base, "**.v_proj")
    assert ft.trainable(model).keys() == {f"{Q}.lora_A.default.weight", f"{Q}.lora_B.default.weight"}
    assert set(ft.select(llama(), base).paths) == {name for name, _ in llama().named_parameters()}


def test_nothing_of_the_base_moves_and_its_dropout_is_off() -> None:
    model = policy()
    before = contents(model)
    ft.freeze(model, base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model.train()
    with ft.guard(model):
        step(model, optimizer)
    assert moved(before, model) == set(ft.trainable(model))
    assert not model.get_submodule(f"{Q}.base_layer").training
    assert model.get_submodule(f"{Q}.lora_dropout.default").training


def test_adapters_that_are_switched_added_and_loaded_are_seen(tmp_path: Path) -> None:
    model = policy()
    ft.freeze(model, base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    ft.bind(optimizer, model)
    step(model, optimizer)
    optimizer.zero_grad()
    model.save_pretrained(tmp_path)
    model.load_adapter(tmp_path, "other")
    assert kinds(model, optimizer) == set()
    model.set_adapter("other")
    # The new adapter trains, and the optimizer has never had it.
    assert kinds(model, optimizer) == {"unowned", "idle-optimizer"}
    model.set_adapter("default")
    assert kinds(model, optimizer) == set()
    step(model, optimizer)


def test_an_adapter_that_is_frozen_and_switched_on_is_found() -> None:
    model = policy()
    model.add_adapter("other", lora())
    handle = ft.freeze(model, "**.lora_A.default", "**.lora_B.default")
    model.set_adapter("default")
    assert kinds(model) == {"thawed-by-hand", "held-but-trains"}
    model.train()
    assert kinds(model) == {"thawed-by-hand"}
    handle.undo()
    assert kinds(model) == set()
    assert len(ft.trainable(model)) == 4


def test_a_merged_model_has_what_was_frozen() -> None:
    model = policy()
    handle = ft.freeze(model, base)
    merged = model.merge_and_unload()
    assert ft.frozen(merged).keys() == {name for name, _ in llama().named_parameters()}
    assert kinds(merged) == {"nothing-trainable"}
    handle.undo()
    # They did not train before, by PEFT's own doing: constants, until they are meant.
    ft.thaw(merged, constants=True)
    assert kinds(merged) == set()
    assert len(ft.trainable(merged)) == 12


def test_a_reference_is_the_policy_without_its_adapter() -> None:
    model = policy(modules_to_save=["lm_head"]).train()
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    plain = logits(llama().eval())
    still = reference(model)
    assert logits(still) == plain
    assert logits(model) != plain
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert (list(still.parameters()), still.state_dict()) == ([], {})
    assert bits(still.generate(IDS, max_new_tokens=3, do_sample=False)) == bits(
        llama().eval().generate(IDS, max_new_tokens=3, do_sample=False)
    )


def test_a_reference_stays_what_it_is_whatever_the_policy_does() -> None:
    model, plain = policy(), logits(llama().eval())
    still = reference(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    step(model.train(), optimizer)
    assert logits(still) == plain
    with model.disable_adapter():
        assert logits(still) == plain
    model.add_adapter("wider", lora(target_modules=["q_proj", "k_proj"]))
    model.set_adapter("wider")
    assert logits(still) == plain
    model.base_model.disable_adapter_layers()
    model.base_model.enable_adapter_layers()
    assert logits(still) == plain
    assert logits(copy.deepcopy(still)) == plain
    assert logits(model.merge_and_unload().eval()) != plain


def test_a_reference_with_another_adapter() -> None:
    model = policy()
    model.add_adapter("start", lora())
    model.set_adapter("start")
    wanted = logits(model.eval())
    model.set_adapter("default")
    still = reference(model.train(), "start")
    assert logits(still) == wanted
    with model.disable_adapter():
        assert logits(still) == wanted
    assert logits(model.eval()) != wanted


def test_the_gradient_of_a_preference_loss_reaches_the_adapter_alone() -> None:
    model = policy().eval()
    still = reference(model)
    ratio = (model(IDS).logits - still(IDS).logits).square().mean()
    ratio.backward()
    assert ratio.item() > 0
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(ft.trainable(model))


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (
            lambda: reference(llama()),
            LayerError,
            "reference(policy) is of type LlamaForCausalLM, and has no adapters.\n"
            "Add it first: policy = get_peft_model(model, LoraConfig(...)).",
        ),
        (
            lambda: reference(policy(), "strat"),
            LayerError,
            "reference(policy, 'strat') has 1 adapter, and not this one: default.\n"
            "Add it first: policy = get_peft_model(model, LoraConfig(...)).",
        ),
        (
            lambda: reference(get_peft_model(llama(), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))),
            UnsupportedError,
            "reference(policy) has an adapter that is a prompt, which no layer can leave out.\n"
            "Hold what is below it: Frozen(policy.get_base_model()).",
        ),
    ],
    ids=["no adapter", "another name", "a prompt"],
)
def test_no_reference(make: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == text


def test_a_merged_policy_has_no_reference() -> None:
    model = policy()
    still = reference(model)
    model.merge_adapter()
    before = contents(model)
    with pytest.raises(UnsupportedError) as caught:
        logits(still)
    assert str(caught.value) == (
        "reference(policy) has an adapter that is merged into its base.\nUnmerge it first: policy.unmerge_adapter()."
    )
    assert contents(model) == before


def classifier() -> nn.Module:
    config = LoraConfig(target_modules=["query", "value"], r=2, task_type="SEQ_CLS", lora_dropout=0.1)
    torch.default_generator.manual_seed(1)
    return get_peft_model(bert(), config)


def test_a_trainer_goes_on_bitwise(tmp_path: Path) -> None:
    probe = LinearProbe(["**.modules_to_save.**"], steps=2)
    before = contents(classifier())
    whole = trainer(tmp_path, Freezing(base, schedule=probe, guard=True), model=classifier(), max_steps=5)
    whole.train()
    lost = {name for name in moved(before, whole.model) if "lora_" not in name and "modules_to_save" not in name}
    assert lost == set()
    for cut in range(1, 5):
        again = trainer(tmp_path / "again", Freezing(base, schedule=probe), model=classifier(), max_steps=5)
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{cut}"))
        assert contents(again.model) == contents(whole.model)
