"""transformers: a new head first, then layer by layer; the run stops in the middle of it and goes on, bit for bit."""

import sys
import tempfile

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

import frostline.torch as ft
from frostline.integrations.transformers import Freezing
from frostline.schedules import ULMFiT


class Sentences(Dataset):
    """Words below 25 are of one kind, and most words of a sentence say which label it has."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, object]:
        words = torch.randint(0, 50, (9,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": words, "labels": int((words < 25).sum() > 4)}


def classifier() -> BertForSequenceClassification:
    set_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(vocab_size=50, **sizes))


def trainer(folder: str, epochs: int) -> Trainer:
    # Each epoch thaws one more block, from the head down, at a lower rate.
    callback = Freezing(schedule=ULMFiT(ft.blocks(classifier()), period=1), unit="epoch", guard=True)
    quiet = {"report_to": [], "disable_tqdm": True, "logging_strategy": "no", "use_cpu": True}
    run = {"num_train_epochs": epochs, "save_strategy": "epoch", "learning_rate": 1e-2, "weight_decay": 0.1}
    arguments = TrainingArguments(folder, lr_scheduler_type="constant", **run, **quiet)
    return Trainer(classifier(), arguments, train_dataset=Sentences(), callbacks=[callback])


def main() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole = trainer(one, 4)
        whole.train()
        stopped = trainer(other, 2)
        stopped.train()
        resumed = trainer(other, 4)
        resumed.train(resume_from_checkpoint=True)
    pairs = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    same = all(torch.equal(*pair) for pair in pairs)
    found = {"trainable after two epochs": len(ft.trainable(stopped.model)), "resumed bitwise": same}
    sys.stdout.write(f"{found}\n")
    return found


if __name__ == "__main__":
    main()
