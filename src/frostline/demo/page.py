"""The page of the demo: one file, with nothing to fetch and nothing to run."""

from __future__ import annotations

import io
from html import escape

from rich.console import Console, RenderableType

from frostline.demo.outcome import Outcome
from frostline.demo.picture import INK, picture
from frostline.demo.sections import sections, setup, summary

TITLE = "Learning 5 to 9 while the trunk that knows 0 to 4 stays frozen"
# The browser's own colors, light or dark as its reader has set them.
STYLE = """
:root { color-scheme: light dark; }
body { max-width: 56rem; margin: 0 auto; padding: 2rem 1rem 4rem; font: 17px/1.6 system-ui, sans-serif; }
h1, h2 { line-height: 1.25; text-wrap: balance; }
h2 { margin-top: 2.5rem; font-size: 1.2rem; }
.lead { font-size: 1.1rem; }
figure { margin: 2rem 0; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 44rem; height: auto; }
svg text { font-family: system-ui, sans-serif !important; }
pre { overflow-x: auto; font: 0.85rem/1.4 ui-monospace, Consolas, "DejaVu Sans Mono", monospace; }
footer { margin-top: 3rem; border-top: 1px solid; padding-top: 1rem; font-size: 0.9rem; }
"""


def page(outcome: Outcome) -> str:
    """The page as HTML."""
    svg = picture(outcome, ".svg").decode().replace(INK, "currentColor")
    label = 'role="img" aria-label="Ten digits, learning curves, and what a step costs"'
    parts = [
        f'<h1>{TITLE}</h1>\n<p class="lead">{escape(summary(outcome))}</p>',
        f"<figure><svg {label} {svg.partition('<svg')[2]}</figure>",
    ]
    for section in sections(outcome):
        parts.append(f"<h2>{escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<p>{escape(section.text)}</p>")
        if section.shown is not None:
            parts.append(f"<pre>{_exported(section.shown)}</pre>")
    parts.append(f"<h2>The experiment</h2><p>{escape(setup(outcome.settings, outcome.framework))}</p>")
    command = f"frostline demo --framework {outcome.framework.package} --html"
    parts.append(f"<footer><code>{command}</code> writes this page, each time the same but for the times.</footer>")
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>frostline: {TITLE}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    )
    return head + "\n".join(parts) + "\n</body>\n</html>\n"


def _exported(shown: RenderableType) -> str:
    console = Console(file=io.StringIO(), record=True, width=80, force_terminal=True, color_system="truecolor")
    console.print(shown)
    return console.export_html(inline_styles=True, code_format="{code}")
