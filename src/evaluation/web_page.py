"""Pieces of a page that needs neither a network nor a script: one style for light and dark screens and for paper.

Titles and cells are HTML already; `escaped` makes it of text that comes from a file.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #22262b; --muted: #667079; --line: #dfe2e4;
  --accent: #1f6f8b; --second: #b5562c; --soft: #eef4f6; --warn: #fdf3e1; --warn-ink: #6b4a08;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15191d; --card: #1c2227; --ink: #e4e7ea; --muted: #98a2ab; --line: #343c43;
    --accent: #66b8d4; --second: #e39a72; --soft: #203038; --warn: #3a2f18; --warn-ink: #f0d59a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .8rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: .4rem 0 0; }
p { margin: .6rem 0; }
.lead { color: var(--muted); margin: 0 0 1.4rem; overflow-wrap: anywhere; }
.note, small { color: var(--muted); }
.note { font-size: .88rem; max-width: 46rem; }
small { font-size: .82em; white-space: nowrap; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.warning { background: var(--warn); color: var(--warn-ink); padding: .6rem .9rem; border-radius: .4rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.6rem, 1fr)); gap: .7rem; margin-bottom: 1rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .8rem; }
.tile span, .tile small, .tile b { display: block; }
.tile span { font-size: .8rem; color: var(--muted); }
.tile b { font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; }
.scroll { overflow-x: auto; margin: .8rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 24rem; }
th, td { text-align: right; padding: .38rem .8rem; border-bottom: 1px solid var(--line); vertical-align: baseline; }
th:first-child { text-align: left; padding-left: .2rem; }
thead th { color: var(--muted); font-weight: 500; font-size: .82rem; border-bottom-width: 2px; }
tbody th { font-weight: 500; white-space: nowrap; }
td { white-space: nowrap; }
td small { display: block; }
details td, details tbody th { white-space: normal; text-align: left; overflow-wrap: anywhere; }
.marked th, .marked td { background: var(--soft); font-weight: 600; }
.bar { display: inline-block; width: 6rem; height: .55rem; background: var(--line);
  border-radius: .3rem; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--second); }
figure { margin: .8rem 0; }
svg { display: block; max-width: 100%; height: auto; }
svg text { font-family: inherit !important; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: .9rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; }
.card p { margin: .2rem 0 0; font-size: .86rem; overflow-wrap: anywhere; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--accent); }
@media print {
  :root { --paper: #ffffff; --card: #ffffff; --ink: #000000; --muted: #444444; --line: #cccccc; }
  h2 { break-after: avoid; } figure, .card, tr { break-inside: avoid; }
}
"""


def document(title: str, body: str, css: str = "") -> str:
    """The whole page."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{CSS}{css}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def table(
    header: Iterable[str], rows: Iterable[Sequence[str]], total: Sequence[str] = (), marked: int | None = None
) -> str:
    """A table; the first cell of a row is its name, total a last row, marked the number of one that stands out."""

    def line(cells: Sequence[str], how: str = "") -> str:
        return f"<tr{how}><th scope='row'>{cells[0]}</th>{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>"

    head = "".join(f"<th scope='col'>{title}</th>" for title in header)
    body = "".join(line(row, " class=marked" * (number == marked)) for number, row in enumerate(rows))
    foot = f"<tfoot>{line(total)}</tfoot>" if total else ""
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table></div>"


def tiles(contents: Iterable[tuple[object, ...]]) -> str:
    """(title, value) or (title, value, what is small below it) of each tile."""
    cells = [
        f"<div class='tile'><span>{title}</span><b>{value}</b>" + "".join(f"<small>{text}</small>" for text in below)
        for title, value, *below in contents
    ]
    return f"<div class='tiles'>{''.join(f'{cell}</div>' for cell in cells)}</div>"


def section(title: str, *parts: str) -> str:
    """Nothing where all parts are empty."""
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>\n" if any(parts) else ""


def warnings(texts: Iterable[object]) -> str:
    return "".join(f"<p class='warning'>{escaped(text)}</p>" for text in texts)


def details(title: str, content: str) -> str:
    """What opens with a click."""
    return f"<details><summary>{title}</summary>{content}</details>"


def escaped(value: object) -> str:
    return html.escape(str(value))
