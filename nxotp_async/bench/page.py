"""A report as a self-contained HTML page: no network, no script."""

from collections.abc import Iterable
from html import escape
from typing import Final

import attrs

from ..look import STYLE
from .charts import latency_chart, outcome_chart, timeline_chart
from .figures import Figure, caveats, described, figures
from .report import BenchmarkReport

__all__ = ["html_page"]

_STYLE: Final = f"""{STYLE}
body {{ margin: 0 auto; max-width: 960px; padding: 32px 24px 64px; }}
h1 {{ font-size: 24px; margin: 0 0 4px; }} h2 {{ font-size: 17px; margin: 40px 0 12px; }}
svg {{ display: block; height: auto; max-width: 100%; width: 100%; }}
.warnings {{ background: var(--warn-ground); border-radius: 10px; color: var(--warn); margin: 20px 0; }}
.warnings p {{ padding: 6px 16px; }}
.tiles {{ display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); margin: 24px 0; }}
.tiles div {{ background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }}
.tiles span {{ color: var(--soft); display: block; font-size: 13px; }}
.tiles b {{ font-size: 20px; font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }}
.tiles small {{ color: var(--soft); font-size: 14px; }}
.wide {{ overflow-x: auto; }} .wide svg {{ min-width: 560px; }}
td + td {{ font-variant-numeric: tabular-nums; overflow-wrap: anywhere; padding-left: 16px; text-align: right; }}
"""
_TILES: Final = ("latency p50", "latency p99", "latency p99.9", "latency max", "throughput")


def html_page(report: BenchmarkReport) -> str:
    """Return the page, which can be opened from a disk or attached to a mail."""
    shown = figures(report)
    warnings = "".join(f"<p>{escape(text)}</p>" for text in caveats(report))
    if warnings:
        warnings = f'<div class="warnings">{warnings}</div>'
    tiles = "".join(_tile(figure) for figure in shown if figure.name in _TILES)
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
{_wide("Latency by percentile", latency_chart(report))}
<h2>Over time</h2>
{_wide("Over time", timeline_chart(report))}
<h2>Outcomes</h2>
{_wide("Outcomes", outcome_chart(report))}"""


def _tile(figure: Figure) -> str:
    number = figure.text.removesuffix(figure.unit)
    return f"<div><span>{escape(figure.name)}</span><b>{escape(number)}</b><small>{escape(figure.unit)}</small></div>"


def _wide(name: str, chart: str) -> str:
    # On a phone it is scrolled, also with the keyboard.
    return f'<div class="wide" tabindex="0" role="group" aria-label="{name}">{chart}</div>'


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in rows)
    return f"<table>\n{cells}</table>"
