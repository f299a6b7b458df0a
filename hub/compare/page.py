"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from hub.compare import formatting, table
from hub.compare.result import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hub.compare.result import Comparison, Row

STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: light-dark(#a40000, #ff9a8f); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, tbody th { text-align: left; }
tbody th, dd, pre { font-weight: normal; overflow-wrap: anywhere; }
img { width: 100%; height: auto; background: #fff; border-radius: 4px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; }
pre { white-space: pre-wrap; font-size: .85rem; }
.failed, .error { color: var(--bad); }
p.note { font-size: .9rem; }
""".strip()
NOTE = (
    "The loss is that on held-out text after training, in nats a token. Tokens per second are "
    "the median over the steps after the first few. State is every tensor in the optimizer's state "
    "dict. Peak memory is parameters, gradients, state and activations at the highest point of "
    "training. This is one training each, with one seed: small differences mean nothing."
)


def html(comparison: Comparison, picture: bytes) -> str:
    """Return the page, with the PNG in it."""
    image = base64.b64encode(picture).decode()
    title = "Optimizers compared: " + escape(
        ", ".join(row.contender.name for row in comparison.rows)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{STYLE}
</style>
</head>
<body>
<h1>{title}</h1>
<div class="wide">
{_table(comparison.rows)}
</div>
<p class="note">{escape(NOTE)}</p>
<h2>Training loss</h2>
<img src="data:image/png;base64,{image}" alt="Training loss over steps and over time">
<h2>How it was run</h2>
{_pairs(formatting.setup(comparison))}
{"".join(_details(row) for row in comparison.rows)}
</body>
</html>
"""


def _table(rows: Iterable[Row]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in table.HEADINGS)
    body = "\n".join(_table_row(row) for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _table_row(row: Row) -> str:
    label, *others = (escape(cell) for cell in table.cells(row))
    data = "".join(f"<td>{cell}</td>" for cell in others)
    failed = ' class="failed"' if row.status is Status.FAILED else ""
    return f'<tr{failed}><th scope="row">{label}</th>{data}</tr>'


def _pairs(pairs: dict[str, str]) -> str:
    items = "\n".join(
        f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in pairs.items()
    )
    return f"<dl>\n{items}\n</dl>"


def _details(row: Row) -> str:
    """Write one optimizer's resolved arguments, error and warnings, and its traceback folded."""
    parts = [f"<h2>{escape(row.contender.label)}</h2>"]
    if row.arguments:
        parts.append(_pairs({name: repr(value) for name, value in row.arguments.items()}))
    if row.error:
        parts.append(f'<pre class="error">{escape(row.error)}</pre>')
    if row.details:
        text = escape(row.details)
        parts.append(f"<details><summary>details</summary><pre>{text}</pre></details>")
    parts += [f"<pre>warning: {escape(warning)}</pre>" for warning in row.warnings]
    return "\n".join(parts) + "\n"
