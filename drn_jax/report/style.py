"""The looks of the report page: system fonts, tabular numbers, light and dark."""

CSS = """
:root {
  color-scheme: light dark;
  --ground: #fdfdfc; --ink: #1d2125; --quiet: #5d666f; --line: #dfe2e5; --card: #f5f6f6;
  --bar: #bfd7ea; --accent: #2468a2; --right: #23744a; --wrong: #b3372b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #15181b; --ink: #e3e6e8; --quiet: #98a2ab; --line: #30363b; --card: #1d2125;
    --bar: #2b4d68; --accent: #7fb8e6; --right: #6cc497; --wrong: #f08a7d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%;
}
main { max-width: 72rem; margin: 0 auto; padding: clamp(1.25rem, 4vw, 3.5rem); }
h1 {
  margin: 0; font-size: clamp(1.6rem, 4vw, 2.25rem); line-height: 1.2; letter-spacing: -0.015em;
  text-wrap: balance; overflow-wrap: anywhere;
}
.summary { margin: 0.75rem 0 0; max-width: 44rem; font-size: 1.15rem; color: var(--quiet); }
section { margin-top: 3rem; }
h2 {
  margin: 0 0 1.1rem; padding-bottom: 0.4rem; border-bottom: 1px solid var(--line);
  font-size: 1.1rem; line-height: 1.3;
}
.scores { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-end; margin: 2rem 0 0; }
.scores div { display: flex; flex-direction: column-reverse; }
.scores dt { color: var(--quiet); font-size: 0.875rem; }
.scores dd {
  margin: 0; font-size: 1.6rem; line-height: 1.2; letter-spacing: -0.01em; white-space: nowrap;
}
.scores .headline dd {
  color: var(--accent); font-size: clamp(2.6rem, 7vw, 3.5rem); font-weight: 600;
  letter-spacing: -0.03em; line-height: 1.1;
}
.scores .unit { margin-left: 0.15em; font-size: 0.6em; font-weight: 400; color: var(--quiet); }
.curves {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr));
  gap: 1.5rem;
}
.curves svg { display: block; width: 100%; max-width: 34rem; height: auto; }
.curves text { font-family: inherit !important; }
.scroll { overflow: auto; }
.long { max-height: 35.2rem; border: solid var(--line); border-width: 0 0 1px; }
table { border-collapse: collapse; }
.classes { width: 100%; font-size: 0.9375rem; }
.classes th, .classes td {
  padding: 0.3rem 0.75rem; border-bottom: 1px solid var(--line); text-align: right;
  font-weight: 400; white-space: nowrap;
}
.classes th:first-child {
  min-width: 9.5rem; text-align: left; white-space: normal; overflow-wrap: break-word;
}
.classes thead th {
  position: sticky; top: 0; background: var(--ground); color: var(--quiet); font-size: 0.8125rem;
  box-shadow: inset 0 -1px var(--line);
}
.classes tbody tr:hover { background: var(--card); }
.classes .share { width: 32%; }
.notes { margin: 1rem 0 0; padding-left: 1.2rem; max-width: 50rem; color: var(--quiet); }
.bar { display: flex; align-items: center; justify-content: flex-end; gap: 0.75rem; }
.bar i { flex: 1; min-width: 2.5rem; height: 0.7rem; background: var(--card); border-radius: 2px; }
.bar i::before {
  content: ""; display: block; width: var(--part); height: 100%; background: var(--bar);
  border-right: 2px solid var(--accent); border-radius: 2px 0 0 2px;
}
.bar span { min-width: 3.4rem; }
.none { color: var(--quiet); }
.swatch {
  display: inline-block; width: 0.85em; height: 0.85em; margin-right: 0.55em; border-radius: 2px;
  background: var(--color); box-shadow: inset 0 0 0 1px rgb(128 128 128 / 45%);
  vertical-align: -0.06em;
}
.key {
  display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 0 0 1.1rem; padding: 0;
  list-style: none; color: var(--quiet); font-size: 0.875rem;
}
.heat { display: inline-flex; align-items: center; gap: 0.5rem; margin-left: 0.35rem; }
.heat i { width: 8rem; height: 0.7rem; border-radius: 2px; background: var(--ramp); }
.panels {
  display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--card-width)), 1fr));
}
.panels figure {
  margin: 0; padding: 0.75rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px;
}
.images {
  display: grid; gap: 0.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--image-width)), 1fr));
}
.images img { display: block; width: 100%; height: auto; border-radius: 2px; }
.images .small { image-rendering: pixelated; }
.images span { display: block; margin-top: 0.2rem; color: var(--quiet); font-size: 0.8125rem; }
figcaption { margin-bottom: 0.55rem; font-size: 0.9375rem; line-height: 1.4; }
.verdict { float: right; margin-left: 0.75rem; font-size: 0.8125rem; font-weight: 600; }
.right { color: var(--right); }
.wrong { color: var(--wrong); }
.facts { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; margin: 0; }
.facts dt, .facts dd { margin: 0; padding: 0.35rem 0; border-bottom: 1px solid var(--line); }
.facts dt { padding-right: 2rem; color: var(--quiet); }
.facts dd { overflow-wrap: anywhere; }
pre {
  margin: 1.25rem 0 0; padding: 0.85rem 1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 0.875rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
@media (max-width: 34rem) {
  section { margin-top: 2.25rem; }
  .scores { gap: 0.9rem 2rem; }
  .scores .headline { width: 100%; }
  .classes { font-size: 0.875rem; }
  .classes th, .classes td { padding: 0.3rem 0 0.3rem 0.6rem; }
  .classes th:first-child { min-width: 6.5rem; padding-left: 0; }
  .classes .share { width: auto; }
  .bar { flex-direction: column-reverse; align-items: stretch; gap: 0.1rem; }
  .bar i { flex: none; height: 0.3rem; }
  .facts { grid-template-columns: 1fr; }
  .facts dt { padding-bottom: 0; border: 0; font-size: 0.8125rem; }
  .facts dd { padding-top: 0; }
}
@media print {
  .long { max-height: none; border: 0; }
  figure, tr { break-inside: avoid; }
}
"""
