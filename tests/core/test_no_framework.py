"""The core is imported where no framework is."""

import subprocess
import sys

import pytest

BLOCKED = ("torch", "jax", "flax", "numpy", "equinox", "optax")
CORE = """
import importlib, pkgutil
import frostline, frostline._core
for module in pkgutil.walk_packages(frostline._core.__path__, "frostline._core."):
    importlib.import_module(module.name)
print(frostline.glob("a"))
"""


def run_without_frameworks(program: str) -> subprocess.CompletedProcess[str]:
    block = f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", block + program], capture_output=True, text=True, check=False)


def test_the_core_needs_no_framework() -> None:
    done = run_without_frameworks(CORE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "glob('a')\n", "")


@pytest.mark.parametrize("name", BLOCKED)
def test_an_import_of_a_framework_would_be_seen(name: str) -> None:
    """The twin of the test above, for each framework: the probe fails where it should."""
    done = run_without_frameworks(f"import {name}\n")
    assert done.returncode == 1
    assert f"import of {name} halted; None in sys.modules" in done.stderr
