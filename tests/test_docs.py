"""Every Python block of the README and of docs/ runs, in order, one namespace for each file."""

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

from only_jax.programs import longest_constant, recorded

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_page(text: str, name: str) -> int:
    """Run the blocks of one page and return how many there were; the first that fails raises."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        above = text.count("\n", 0, block.start(1))
        if block[1].lstrip().startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(block[1], namespace, name, name, above)
            said: list[str] = []
            results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append, clear_globs=False)
            if results.failed:
                raise AssertionError("".join(said))
            namespace.update(test.globs)
        else:
            # Padded, so that a traceback shows the line of the page.
            exec(compile("\n" * above + block[1], name, "exec"), namespace)
    return len(blocks)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, programs = page.read_text(encoding="utf-8"), recorded(monkeypatch)
    assert run_page(text, page.name) == text.count("```python")
    # Frozen weights are arguments of compiled code: no array is a constant in it.
    assert [program for program in programs if longest_constant(program) > 20 or len(program) > 10_000] == []
    assert len(programs) >= text.count("@jax.jit")


def test_a_broken_block_is_seen_with_its_line() -> None:
    page = "# Title\n\n```python\nx = 1\n```\n\ntext\n\n```python\ny = x + 1\nassert y == 3\n```\n"
    with pytest.raises(AssertionError) as caught:
        run_page(page, "page.md")
    assert caught.traceback[-1].lineno + 1 == 11


def test_a_wrong_output_is_seen() -> None:
    page = "```python\nx = 1\n```\n\n```python\n>>> x + 1\n3\n```\n"
    with pytest.raises(AssertionError, match=r"line 6, in page.md\n(.|\n)*Expected:\n    3\nGot:\n    2\n"):
        run_page(page, "page.md")


def test_names_of_one_block_are_there_in_the_next() -> None:
    page = "```python\n>>> x = 1\n```\n\n```python\nassert x == 1\n```\n"
    assert run_page(page, "page.md") == 2
