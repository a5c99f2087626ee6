"""PEFT: a policy learns from preferences, against a reference that shares its weights and has no adapter."""

import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import frostline.torch as ft
from frostline.integrations.peft import base, reference


def language_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=20, num_key_value_heads=2, **sizes))


def likelihood(model: nn.Module, words: torch.Tensor) -> torch.Tensor:
    """The logarithm of the probability of each sentence."""
    each = model(words[:, :-1]).logits.log_softmax(-1)
    return each.gather(-1, words[:, 1:, None]).sum((1, 2))


def main() -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        policy = get_peft_model(language_model(), LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.1))
    ft.freeze(policy, base)  # the weights of the base do not move, and its dropout is off
    before = reference(policy)
    chosen, rejected = torch.randint(0, 10, (16, 6)), torch.randint(10, 20, (16, 6))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.02, weight_decay=0.1)
    losses = []
    with ft.guard(policy) as watching:
        for _ in range(20):
            won = likelihood(policy, chosen) - likelihood(before, chosen)
            lost = likelihood(policy, rejected) - likelihood(before, rejected)
            loss = -nn.functional.logsigmoid(won - lost).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    with torch.no_grad():
        same = torch.equal(before(chosen).logits, language_model().eval()(chosen).logits)
    found = {"loss": (losses[0], losses[-1]), "still": len(watching.paths), "reference is the base, bitwise": same}
    sys.stdout.write(f"{found}\n")
    return found


if __name__ == "__main__":
    main()
