"""Tiny models and data for the trainers of transformers, and a run of each."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from frostline.schedules import LISA, LinearProbe, Schedule, ULMFiT

# A trainer collects garbage when it begins, and need not walk through all that was imported.
gc.freeze()

LAYERS = ["bert.encoder.layer[0]", "bert.encoder.layer[1]"]
SCHEDULES: dict[str, Schedule] = {
    "probe": LinearProbe(["classifier"], steps=3),
    "gradual": ULMFiT(["bert.embeddings", *LAYERS, "bert.pooler", "classifier"], period=1),
    "lisa": LISA(LAYERS, sampled=1, period=2, always=["classifier"]),
}


class Rows(Dataset[dict[str, Any]]):
    """Sentences of numbers, the same in each process."""

    def __init__(self, count: int = 32) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        source = torch.Generator().manual_seed(index)
        return {"input_ids": torch.randint(0, 50, (8,), generator=source), "labels": index % 2}


def bert(*, dropout: float = 0.1) -> nn.Module:
    torch.default_generator.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config)


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    """A run of 6 steps, saved at each."""
    settings: dict[str, Any] = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "save_steps": 1,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "warmup_steps": 2,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
    }
    return TrainingArguments(str(folder), **{**settings, **changes})


def trainer(folder: Path, *callbacks: Any, model: nn.Module | None = None, kind: Any = Trainer, **changes: Any) -> Any:
    model = bert() if model is None else model
    return kind(model, arguments(folder, **changes), train_dataset=Rows(), eval_dataset=Rows(8), callbacks=[*callbacks])
