"""How the demo speaks of JAX."""

from __future__ import annotations

from frostline.demo.words import Words

WORDS = Words(
    framework="JAX",
    command="frostline demo --framework jax",
    report="fj.report(network, state)",
    guard="fj.guard(tree)",
    arrays="arrays",
    statistics="running statistics",
    temptation="as many forward passes in training mode",
    by_hand="jax.lax.stop_gradient(trunk)",
    models="m0 = (l1, l2, l3)\nm1 = (l1, fj.Frozen(l2), l3)",
    kept="distinct arrays that jax.vjp of a step keeps; a compiled one may compute some again instead",
    line="fj.FeatureCache(folder, fj.frostline(scores, network, images))",
)
