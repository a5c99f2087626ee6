"""How the demo speaks of PyTorch."""

from __future__ import annotations

from frostline.demo.words import Words

WORDS = Words(
    framework="PyTorch",
    command="frostline demo",
    report="ft.report(network, optimizer)",
    guard="ft.guard(network)",
    arrays="tensors",
    statistics="buffers",
    temptation="{looks} calls of train()",
    by_hand="trunk.requires_grad_(False)",
    models="m0 = Sequential(l1, l2, l3)\nm1 = Sequential(l1, ft.Frozen(l2), l3)",
    kept="distinct storages that a step keeps",
    line="ft.FeatureCache(folder, ft.frostline(network, images))",
)
