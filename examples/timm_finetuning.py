"""timm: a model thaws block by block with layer-decayed rates, an average follows, and the frozen part never moves."""

import torch
from timm.models import VisionTransformer
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3

import frostline.torch as ft
from frostline.schedules import Phase, Phases, Span


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    return create_optimizer_v2(model, opt="adamw", lr=0.01, weight_decay=0.05, layer_decay=0.75)


def main() -> dict[str, object]:
    torch.manual_seed(0)
    images = torch.randn(64, 3, 16, 16)
    labels = (images.mean((1, 2, 3)) > 0).long()
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=4, num_heads=2, num_classes=2)

    # The embedding stays frozen. timm leaves what is frozen out of its groups; `groups` says where it would be.
    ft.freeze(model, ft.blocks(model)[0])
    optimizer = adamw(model)
    binding = ft.bind(optimizer, model, groups=lambda model: adamw(model).param_groups)

    later = Phase(ft.blocks(model)[:3], name="half")
    schedule = Phases([Span(0, 8, Phase(["**", "!head"], name="probe")), Span(8, 16, later), Span(16, None, Phase())])
    driver = ft.Driver(schedule, model, binding)
    rates = CosineLRScheduler(optimizer, t_initial=24, t_in_epochs=False)  # after the binding: it notes the groups
    average = ModelEmaV3(model, decay=0.9)

    trained = []
    with ft.guard(model.patch_embed):
        for step in range(24):
            batch = torch.arange(16) + 16 * (step % 4)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model.train()(images[batch]), labels[batch]).backward()
            optimizer.step()
            trained.append(sum(rate > 0 for rate in binding.rates().values()))
            driver.step()
            average.update(model, step=step)
            rates.step_update(step + 1)

    found = {"trained": trained[::8], "average": torch.equal(average.module.pos_embed, model.pos_embed)}
    print(found)
    return found


if __name__ == "__main__":
    main()
