"""What timm does with frozen parts, in a process of its own; it prints what it finds as JSON.

timm needs torchvision, of which the build on PyPI does not fit every build of PyTorch. So both are in a folder of their
own, and the two operators that torchvision asks for when it is imported are declared here.
"""

from __future__ import annotations

import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(sys.prefix) / "vision"))
sys.path.append(str(Path(__file__).parents[1]))
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from timm.models import VisionTransformer, resume_checkpoint  # noqa: E402
from timm.models.resnet import BasicBlock, ResNet  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import CosineLRScheduler  # noqa: E402
from timm.utils import ModelEmaV3  # noqa: E402

import frostline.torch as ft  # noqa: E402
from frostline.schedules import LISA, LinearProbe, ULMFiT  # noqa: E402
from only_torch.bits import contents, moved  # noqa: E402

SCHEDULES = {
    "probe": LinearProbe(["head"], steps=3),
    "gradual": ULMFiT(["blocks[0]", "blocks[1]", "blocks[2]", "head"], period=2, rest="train"),
    "lisa": LISA(["blocks[0]", "blocks[1]", "blocks[2]"], sampled=1, period=2, always=["head"]),
}


def vit() -> Any:
    torch.manual_seed(0)
    return VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=3, num_heads=2, num_classes=2)


def optimizer_of(model: Any) -> Any:
    return create_optimizer_v2(model, opt="adamw", lr=0.1, weight_decay=0.05, layer_decay=0.5)


def group_of_each(optimizer: Any, model: Any) -> dict[str, tuple[float, float]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def groups_of_what_thaws_later() -> dict[str, Any]:
    """The optimizer is made while most is frozen; in the end it is as if it had been made before."""
    model, plain = vit(), vit()
    handle = ft.freeze(model, "**", "!head")
    optimizer = optimizer_of(model)
    ft.bind(optimizer, model, groups=lambda model: optimizer_of(model).param_groups)
    rates = CosineLRScheduler(optimizer, t_initial=4)
    probe = group_of_each(optimizer, model)
    handle.undo()
    rates.step(2)
    now = group_of_each(optimizer, model)
    found = sorted({(group["lr_scale"], group["lr"]) for group in optimizer.param_groups})
    return {
        "probe": probe,
        "as if made before": now == group_of_each(optimizer_of(plain), plain),
        "rates at half": found,
    }


def a_scheduler_that_comes_first() -> str:
    model = vit()
    ft.freeze(model, "**", "!head")
    optimizer = optimizer_of(model)
    CosineLRScheduler(optimizer, t_initial=4)
    try:
        ft.bind(optimizer, model, groups=lambda model: optimizer_of(model).param_groups)
    except ValueError as error:
        return str(error)
    return "taken"


def trained(schedule: Any, file: Path, *, stop: int | None = None, binds_first: bool = True) -> tuple[Any, Any]:
    """A loop as that of timm's script: rates by step, an average, a checkpoint, and a run that goes on from it."""
    model = vit()
    optimizer = optimizer_of(model)
    driver, average = ft.Driver(schedule, model, optimizer), ModelEmaV3(model, decay=0.5)
    rates = CosineLRScheduler(optimizer, t_initial=8, t_in_epochs=False)
    for step in range(8):
        if step == stop:
            torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 0}, file)
            place, averaged = json.dumps(driver.state_dict()), average.state_dict()
            model = vit()
            optimizer = optimizer_of(model)
            if binds_first:
                driver = ft.Driver(schedule, model, optimizer)
            resume_checkpoint(model, str(file), optimizer=optimizer, log_info=False)
            if not binds_first:
                driver = ft.Driver(schedule, model, optimizer)
            driver.load_state_dict(json.loads(place))
            average = ModelEmaV3(model, decay=0.5)
            average.load_state_dict(averaged)
            rates = CosineLRScheduler(optimizer, t_initial=8, t_in_epochs=False)
            rates.step_update(step)
        x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model.train()(x).square().mean().backward()
        optimizer.step()
        driver.step()
        average.update(model, step=step)
        rates.step_update(step + 1)
    return model, average.module


def resumes() -> dict[str, list[str]]:
    """For each schedule, the stops after which something is not bitwise what it is without a stop."""
    wrong: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, schedule in SCHEDULES.items():
            whole = trained(schedule, Path(folder) / "none")
            for stop in range(1, 8):
                again = trained(schedule, Path(folder) / f"{stop}.pth", stop=stop, binds_first=stop % 2 == 0)
                differ = [moved(contents(one), other) for one, other in zip(whole, again, strict=True)]
                wrong.setdefault(name, []).extend([f"{stop}: {sorted(differ[0])}"] if any(differ) else [])
    return wrong


def wrapped() -> list[list[str]]:
    """Two steps each with a frozen part and without, by timm's optimizer around another one."""
    model = vit()
    optimizer = create_optimizer_v2(model, opt="lookahead_adamw", lr=0.1, weight_decay=0.05)
    for group in optimizer.param_groups:
        group["lookahead_k"] = 1
    ft.bind(optimizer, model)
    handle, before, tops = ft.freeze(model, "**", "!head"), contents(model), []
    for step in range(4):
        if step == 2:
            tops.append(sorted(moved(before, model)))
            handle.undo()
        optimizer.zero_grad()
        model(torch.ones(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    return [*tops, sorted({path.split(".")[0] for path in moved(before, model)})]


def averages() -> dict[str, list[str]]:
    """What of a frozen part moves in an average of it; then it thaws, and is averaged, too."""
    found = {}
    forms: dict[str, dict[str, Any]] = {
        "foreach": {},
        "one by one": {"foreach": False},
        "without buffers": {"exclude_buffers": True},
        "warm": {"use_warmup": True},
    }
    for name, form in forms.items():
        torch.manual_seed(0)
        model = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=2, channels=(4, 4, 4, 4))
        handle = ft.freeze(model, "**", "!layer4", "!fc")
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
        average = ModelEmaV3(model, decay=0.9, **form)
        before, tops = contents(average.module), []
        for step in range(6):
            if step == 3:
                tops.append(sorted({path.split(".")[0] for path in moved(before, average.module)}))
                handle.undo()
            optimizer.zero_grad()
            model.train()(torch.randn(2, 3, 16, 16)).square().mean().backward()
            optimizer.step()
            average.update(model, step=step)
        tops.append(sorted({path.split(".")[0] for path in moved(before, average.module)}))
        found[name] = tops
    return found


if __name__ == "__main__":
    example = Path(__file__).parents[2] / "examples" / "timm_finetuning.py"
    facts = {
        "groups": groups_of_what_thaws_later(),
        "scheduler first": a_scheduler_that_comes_first(),
        "resumes": resumes(),
        "wrapped": wrapped(),
        "averages": averages(),
        "example": runpy.run_path(str(example))["main"](),
    }
    sys.stdout.write(json.dumps(facts))
