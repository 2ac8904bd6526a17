"""What a run shows: curves, tables and pictures, as one page.

`pictures`  images of masks, boxes and score maps
`curves`    loss, scores and learning rate as SVG
`html`      the page
`style`     its looks

Of these only `curves` and the heat maps need matplotlib, which they import when they are called.
"""

from drn_jax.report.html import ClassRow, Panel, Report, Table, write

__all__ = ["ClassRow", "Panel", "Report", "Table", "write"]
