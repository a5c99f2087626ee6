"""Each demo needs its own framework and no other."""

import subprocess
import sys

import pytest

OTHERS = {"torch": ("jax", "jaxlib", "optax"), "jax": ("torch",)}
OWN = {"torch": "torch", "jax": "jax"}


# An entry of None in sys.modules would be taken for a package by those that look there for one.
BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in {packages!r}:
            raise ModuleNotFoundError("blocked", name=name)

sys.meta_path.insert(0, Blocker())
"""
PERFORM = """
from importlib import import_module

from frostline.demo.experiment import perform
from frostline.demo.outcome import Settings

tiny = Settings(runs=1, epochs=1, labelled=4, tested_after=(1,), batch=8)
outcome = perform(import_module("frostline.demo.in_" + {name!r}).FRAMEWORK, tiny, lambda: None)
print(outcome.framework.name, len(outcome.watched), len(outcome.moved))
"""


def in_a_process_without(packages: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    blocked = BLOCK.format(packages=packages)
    return subprocess.run([sys.executable, "-c", blocked + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("name", "said"), [("torch", "PyTorch 18 9\n"), ("jax", "JAX 12 12\n")])
def test_a_demo_works_where_the_other_framework_is_not_installed(name: str, said: str) -> None:
    result = in_a_process_without(OTHERS[name], PERFORM.format(name=name))
    assert (result.stderr, result.stdout) == ("", said)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_demo_whose_framework_is_missing_says_how_to_install_it(name: str) -> None:
    """The negative control, too: the block blocks."""
    code = f"sys.argv = ['frostline', 'demo', '--framework', {name!r}]\nfrom frostline.cli import main; main()"
    result = in_a_process_without((OWN[name],), code)
    assert (result.returncode, result.stdout, result.stderr) == (
        2,
        "",
        f"The demo needs {name}, which is not installed.\nInstall it:\n  pip install 'frostline[{name},demo,plot]'\n",
    )
