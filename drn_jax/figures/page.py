"""All figures on one HTML page that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape

from drn_jax.figures.charts import Chart
from drn_jax.report import curves, html

_CSS = """
.figure { overflow-x: auto; }
.figure svg { display: block; max-width: 100%; min-width: 44rem; height: auto; }
.figure text { font-family: inherit !important; }
.caption { max-width: 50rem; margin: 0.9rem 0 0; color: var(--quiet); font-size: 0.9375rem; }
.caption b { color: var(--ink); font-weight: 600; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; margin: 1.5rem 0 0; padding: 0; }
nav li { list-style: none; }
nav a { color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
"""


def render(charts: Sequence[Chart], facts: Mapping[str, str], command: str) -> str:
    """The page; the same text for the same figures."""
    links = "".join(
        f'<li><a href="#{chart.name}">{escape(chart.title)}</a></li>' for chart in charts
    )
    sections = "".join(_section(chart) for chart in charts)
    made = html.section("facts", "How this was made", html.facts(facts, command))
    return html.document(
        "Figures of the papers, computed",
        "Dilated Residual Networks (DRN; Yu, Koltun, Funkhouser 2017) and Multi-Scale Context "
        "Aggregation by Dilated Convolutions (Context; Yu, Koltun 2016): their figures, computed "
        "from the stage tables, published numbers, checkpoints and images named at the end.",
        f'<nav aria-label="Figures"><ul>{links}</ul></nav>',
        sections + made,
        _CSS,
    )


def _section(chart: Chart) -> str:
    drawn = curves.element(chart.document, chart.name, f"{chart.title}. {chart.caption}")
    caption = f'<p class="caption"><b>{escape(chart.source)}.</b> {escape(chart.caption)}</p>'
    body = f'<div class="figure" tabindex="0" role="region" aria-labelledby="{chart.name}">'
    return html.section(chart.name, escape(chart.title), f"{body}{drawn}</div>{caption}")
