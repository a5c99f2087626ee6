"""Lightning: a new head first, then block by block; the run stops in the middle of it and goes on, bit for bit."""

import tempfile
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import frostline.torch as ft
from frostline.integrations.lightning import Freezing
from frostline.schedules import ULMFiT


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh()) for _ in range(3)]
        self.backbone, self.head = nn.Sequential(*blocks), nn.Linear(8, 2)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05, weight_decay=0.1)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)}


def classifier() -> Classifier:
    seed_everything(0, verbose=False)
    return Classifier()


def trainer(epochs: int) -> Trainer:
    # Each epoch thaws one more block, from the head down, at a lower rate.
    callback = Freezing(schedule=ULMFiT(ft.blocks(classifier()), period=1), unit="epoch", guard=True)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(max_epochs=epochs, callbacks=[callback], logger=False, accelerator="cpu", **quiet)


def main() -> dict[str, object]:
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    batches = DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), batch_size=16)
    whole, stopped, resumed = classifier(), classifier(), classifier()
    trainer(4).fit(whole, batches)
    with tempfile.TemporaryDirectory() as folder:
        short = trainer(2)
        short.fit(stopped, batches)
        short.save_checkpoint(Path(folder) / "half.ckpt")
        trainer(4).fit(resumed, batches, ckpt_path=Path(folder) / "half.ckpt")
    same = [torch.equal(*pair) for pair in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)]
    found = {"trainable after two epochs": len(ft.trainable(stopped)), "resumed bitwise": all(same)}
    print(found)
    return found


if __name__ == "__main__":
    main()
