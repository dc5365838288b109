"""A report as a self-contained HTML page: no network, no script."""

from collections.abc import Iterable
from html import escape
from typing import Final

import attrs

from .charts import latency_chart, outcome_chart, timeline_chart
from .figures import caveats, described, figures
from .report import BenchmarkReport

__all__ = ["html_page"]

_STYLE: Final = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2024; --soft: #60646c; --line: #d9dce0; --card: #f6f7f8;
  --warn: #fff4d6; --warn-line: #e2a336; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181b; --ink: #eceef0; --soft: #9ba1a6; --line: #3a3f42;
  --card: #1f2225; --warn: #33290f; --warn-line: #b98a2e; } }
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 900px; padding: 24px; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 17px; margin: 32px 0 8px; } p { margin: 4px 0; }
.soft { color: var(--soft); } svg { display: block; height: auto; max-width: 100%; width: 100%; }
.warnings { background: var(--warn); border-left: 4px solid var(--warn-line); margin: 16px 0; padding: 8px 16px; }
.tiles { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); margin: 20px 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 8px 10px; }
.tiles span { color: var(--soft); display: block; font-size: 13px; } .tiles b { white-space: nowrap; }
table { border-collapse: collapse; width: 100%; } td { border-bottom: 1px solid var(--line); padding: 4px 0; }
td + td { font-variant-numeric: tabular-nums; text-align: right; }
"""
_TILES: Final = ("latency p50", "latency p99", "latency p99.9", "latency max", "throughput")


def html_page(report: BenchmarkReport) -> str:
    """Return the page, which can be opened from a disk or attached to a mail."""
    shown = figures(report)
    warnings = "".join(f"<p>{escape(text)}</p>" for text in caveats(report))
    if warnings:
        warnings = f'<div class="warnings">{warnings}</div>'
    tiles = "".join(
        f"<div><span>{escape(figure.name)}</span><b>{escape(figure.text)}</b></div>"
        for figure in shown
        if figure.name in _TILES
    )
    machine = attrs.asdict(report.machine)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>nxotp bench, {report.started:%Y-%m-%d %H:%M} UTC</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Load benchmark</h1>
<p>{escape(described(report))}</p>
<p class="soft">{report.started:%Y-%m-%d %H:%M:%S} UTC, {report.seconds:,.1f} s measured</p>
{warnings}
<div class="tiles">{tiles}</div>
{_charts(report)}
<h2>All figures</h2>
{_table((figure.name, figure.text) for figure in shown)}
<p class="soft">Latencies are those of all messages with an outcome, accepted or not. The CPU time is that of the whole
sending process, including the benchmark.</p>
<h2>Where it ran</h2>
{_table((name.replace("_", " "), str(value)) for name, value in machine.items())}
</body>
</html>
"""


def _charts(report: BenchmarkReport) -> str:
    if not report.completed:
        return ""
    return f"""<h2>Latency by percentile</h2>
{latency_chart(report)}
<h2>Over time</h2>
{timeline_chart(report)}
<h2>Outcomes</h2>
{outcome_chart(report)}"""


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in rows)
    return f"<table>\n{cells}</table>"
