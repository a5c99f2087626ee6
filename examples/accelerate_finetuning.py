"""Accelerate: a loop with accumulated batches; the run stops in the middle of it and goes on, bit for bit."""

import sys
import tempfile

import torch
from accelerate import Accelerator
from torch import nn

import frostline.torch as ft
from frostline.schedules import LISA


def network() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh()) for _ in range(3)]
    return nn.Sequential(*blocks, nn.Linear(8, 2))


class Run:
    def __init__(self) -> None:
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        # Every two steps one of the first three blocks is drawn, and trains with the head.
        schedule = LISA(["[0]", "[1]", "[2]"], sampled=1, period=2, always=["[3]"])
        self.driver = ft.Driver(schedule, self.model, self.optimizer)
        self.accelerator.register_for_checkpointing(self.driver)

    def train(self, start: int, stop: int) -> None:
        for number in range(start, stop):
            inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(number))
            with self.accelerator.accumulate(self.model):
                loss = nn.functional.cross_entropy(self.model(inputs), (inputs.sum(1) > 0).long())
                self.accelerator.backward(loss)
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.driver.step()


def main() -> dict[str, object]:
    whole, stopped, resumed = Run(), Run(), Run()
    whole.train(0, 20)
    with tempfile.TemporaryDirectory() as folder:
        stopped.train(0, 10)
        stopped.accelerator.save_state(folder)
        resumed.accelerator.load_state(folder)
    resumed.train(10, 20)
    pairs = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    found = {"steps": resumed.driver.steps, "resumed bitwise": all(torch.equal(*pair) for pair in pairs)}
    sys.stdout.write(f"{found}\n")
    return found


if __name__ == "__main__":
    main()
