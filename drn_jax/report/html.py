"""The report of a run as one HTML file that needs nothing else: no network, no other file.

It reads as: title, result in one sentence, scores, tables, curves, classes, pictures, how it was
made.
All text is escaped; only `Report.curves` is taken as the markup it is.
"""

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from numbers import Integral

from drn_jax import places
from drn_jax.report import pictures
from drn_jax.report.style import CSS

LONG_TABLE = 40
"""A table of more classes than this scrolls within the page."""

_DASH = '<span class="none" aria-label="none">\N{EN DASH}</span>'
_PIXELATED = 128  # images up to this width are shown larger, as blocks
_SHOWN = (128, 300)  # the least and the most pixels of the page that one image asks for


@dataclass(frozen=True)
class ClassRow:
    """What is known of one class."""

    name: str
    color: tuple[int, int, int] | None
    """RGB of its swatch, 0 to 255."""
    values: Mapping[str, float | None]
    """Integers are counts, floats are fractions in [0, 1]; None or NaN: the class is absent."""


@dataclass(frozen=True)
class Panel:
    """One example in pictures."""

    caption: str
    correct: bool | None
    """Whether the prediction is right; None: there is no such verdict."""
    images: Sequence[tuple[str, pictures.Pixels]]
    """(label, uint8 [H, W, 3]) from left to right."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    """The first column is text, the others are figures."""
    notes: Sequence[str] = ()
    """Sentences below the table."""


@dataclass(frozen=True)
class Report:
    """All that the page shows; what is empty is left out."""

    title: str
    summary: str
    """The result in one sentence."""
    scores: Mapping[str, float]
    """The first is the headline. A name that ends in "loss" is a number, others are in [0, 1]."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """How it was made: model, parameters, data set, device, versions, checkpoint step..."""
    command: str = ""
    """What to type to make it again."""
    tables: Sequence[Table] = ()
    curves: str = ""
    """Trusted markup, from `curves.svg` or `curves.lines`."""
    curves_title: str = "Training"
    """What the curves are of."""
    per_class: Sequence[ClassRow] = ()
    panels: Sequence[Panel] = ()
    heat: str = ""
    """What the heat maps among the pictures show on their scale of 0 to 1; "": there are none."""


def write(path: str | os.PathLike[str], report: Report) -> None:
    """Writes the page, whole or not at all: `path` is replaced once all of it is written."""
    places.write(path, render(report).encode())


def render(report: Report) -> str:
    """The page as text; the same text for the same report."""
    sections = (
        *(
            section(f"table{i}", escape(t.title), _text_table(t))
            for i, t in enumerate(report.tables)
        ),
        section("curves", report.curves_title, f'<div class="curves">{report.curves}</div>')
        if report.curves
        else "",
        section("classes", "Per class", _table(report.per_class)) if report.per_class else "",
        section("pictures", "Pictures", _key(report) + _cards(report.panels))
        if report.panels
        else "",
        section("facts", "How this was made", facts(report.facts, report.command))
        if report.facts or report.command
        else "",
    )
    body = _scores(report.scores), "".join(sections)
    return document(report.title, report.summary, *body)


def document(title: str, summary: str, head: str, body: str, css: str = "") -> str:
    """A page in the house's looks that needs nothing else. `head` and `body` are trusted markup:
    what ends the header, and the sections; `css` adds to the looks."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{CSS}{css}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p class="summary">{escape(summary)}</p>
{head}
</header>
{body}</main>
</body>
</html>
"""


def section(name: str, title: str, body: str) -> str:
    """A section of a page under a heading; title and body are trusted markup."""
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{body}\n</section>\n'


def _scores(scores: Mapping[str, float]) -> str:
    parts = []
    for name, value in scores.items():
        if not math.isfinite(value):
            shown = _DASH
        elif name.lower().endswith("loss"):
            shown = f"{value:.4f}"
        else:
            shown = f'{100 * value:.2f}<span class="unit">%</span>'
        first = ' class="headline"' if not parts else ""
        parts.append(f"<div{first}><dt>{escape(name)}</dt><dd>{shown}</dd></div>")
    return f'<dl class="scores">{"".join(parts)}</dl>' if parts else ""


def _text_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>\n"
        for first, *rest in table.rows
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    drawn = (
        f'<div class="scroll"><table class="classes"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>"
        if table.rows
        else ""
    )
    return drawn + (f'<ul class="notes">{notes}</ul>' if notes else "")


def _table(rows: Sequence[ClassRow]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    shares = {name for name in columns if any(_is_share(row.values.get(name)) for row in rows)}
    head = "".join(
        f'<th scope="col"{" class=share" if name in shares else ""}>{escape(name)}</th>'
        for name in columns
    )
    body = "".join(
        f'<tr><th scope="row">{_swatch(row.color)}{escape(row.name)}</th>'
        + "".join(f"<td>{_cell(row.values.get(name), name in shares)}</td>" for name in columns)
        + "</tr>\n"
        for row in rows
    )
    long = " long" if len(rows) > LONG_TABLE else ""
    return (
        f'<div class="scroll{long}" tabindex="0" role="region" aria-labelledby="classes">'
        f'<table class="classes"><thead><tr><th scope="col">class</th>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def _is_share(value: float | None) -> bool:
    return value is not None and not isinstance(value, Integral) and 0 <= value <= 1


def _cell(value: float | None, share: bool) -> str:
    if value is None or not math.isfinite(value):
        return _DASH
    if not share:
        return f"{value:,.0f}"
    percent = f"{100 * value:.2f}"
    bar = f'<i style="--part:{percent}%"></i>'
    return f'<div class="bar">{bar}<span>{percent}&thinsp;%</span></div>'


def _swatch(color: tuple[int, int, int] | None) -> str:
    return f'<span class="swatch" style="--color:{_rgb(color)}"></span>' if color else ""


def _rgb(color: Sequence[int]) -> str:
    return "#" + bytes(int(channel) for channel in color).hex()


def _key(report: Report) -> str:
    """What the colours of the pictures mean."""
    entries = [
        f"<li>{_swatch(row.color)}{escape(row.name)}</li>"
        for row in report.per_class
        if row.color is not None
    ]
    if report.heat:
        ramp = ",".join(_rgb(color.tolist()) for color in pictures.heat_colors(9))
        entries.append(
            f'<li>{escape(report.heat)}: <span class="heat">0 '
            f'<i style="--ramp:linear-gradient(90deg,{ramp})"></i> 1</span></li>'
        )
    return f'<ul class="key">{"".join(entries)}</ul>\n' if entries else ""


def _cards(panels: Sequence[Panel]) -> str:
    least, most = _SHOWN
    widest = max((image.shape[1] for p in panels for _, image in p.images), default=least)
    width = min(max(widest, least), most)
    count = max(len(panel.images) for panel in panels)
    cards = "\n".join(_card(panel) for panel in panels)
    narrow = width if count < 2 else width * 2 // 3
    return (
        f'<div class="panels" style="--card-width:{count * (width + 8) + 18}px;'
        f'--image-width:{narrow}px">\n{cards}\n</div>'
    )


def _card(panel: Panel) -> str:
    verdict = ""
    if panel.correct is not None:
        kind, text = ("right", "✓ correct") if panel.correct else ("wrong", "✗ wrong")
        verdict = f'<span class="verdict {kind}">{text}</span>'
    images = "".join(_image(panel.caption, label, image) for label, image in panel.images)
    return (
        f"<figure><figcaption>{verdict}{escape(panel.caption)}</figcaption>"
        f'<div class="images">{images}</div></figure>'
    )


def _image(caption: str, label: str, image: pictures.Pixels) -> str:
    data = base64.b64encode(pictures.png(image)).decode()
    height, width = image.shape[:2]
    small = ' class="small"' if width <= _PIXELATED else ""
    alt = escape(": ".join(part for part in (label, caption) if part))
    return (
        f'<div><img{small} width="{width}" height="{height}" alt="{alt}" '
        f'src="data:image/png;base64,{data}"><span>{escape(label)}</span></div>'
    )


def facts(known: Mapping[str, str], command: str) -> str:
    """How a page was made, and what to type to make it again."""
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>\n" for name, text in known.items()
    )
    listed = f'<dl class="facts">\n{rows}</dl>' if rows else ""
    if not command:
        return listed
    return f'{listed}<pre tabindex="0"><code>{escape(command)}</code></pre>'
