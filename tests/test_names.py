"""A public name that does not exist: what it is called here (L12)."""

import pytest

import frostline
import frostline.jax as fj
import frostline.torch as ft

FRONT_ENDS = "The verbs are in the front ends: import frostline.torch as ft, or import frostline.jax as fj."


@pytest.mark.parametrize(
    ("module", "name", "text"),
    [
        (ft, "unfreeze", "module 'frostline.torch' has no attribute 'unfreeze'. It is called 'thaw' here."),
        (fj, "lock", "module 'frostline.jax' has no attribute 'lock'. It is called 'freeze' here."),
        (fj, "partition", "module 'frostline.jax' has no attribute 'partition'. It is called 'split' here."),
        (ft, "freez", "module 'frostline.torch' has no attribute 'freez'. There is: 'freeze'."),
        (frostline, "freeze", f"module 'frostline' has no attribute 'freeze'. {FRONT_ENDS}"),
        (frostline, "unfreeze", f"module 'frostline' has no attribute 'unfreeze'. {FRONT_ENDS}"),
        (frostline, "Rules", "module 'frostline' has no attribute 'Rules'. There is: 'Rule'."),
        (frostline, "numpy", "module 'frostline' has no attribute 'numpy'."),
    ],
)
def test_the_whole_text(module: object, name: str, text: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(module, name)
    assert str(caught.value) == text
    assert not hasattr(module, name)
