"""A comparison as one self-contained HTML file: interactive curves, tables, pictures and videos."""

import base64
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from analysis.comparison.figure import GREY, axis_label, caption, colour, span
from analysis.comparison.measure import FEW, Comparison, Curve
from analysis.comparison.notes import Note
from analysis.comparison.scores_csv import Published
from analysis.comparison.tables import Table, format_number
from analysis.statistics import Floats, run_profile
from harness.files import read_regular

WIDTH, HEIGHT = 640, 360  # of a chart, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 12, 54  # margins around the plot
PICTURE_LIMIT, VIDEO_LIMIT = 400_000, 2_000_000  # bytes of a file that is embedded
Bounds = tuple[float, float, float, float]  # left, right, low and high of the data in a plot


def html_page(
    title: str,
    comparison: Comparison,
    tables: Iterable[Table],
    found: Sequence[Note],
    published: Sequence[Published],
    commands: Iterable[str],
) -> str:
    """The HTML of the page."""
    legend = "".join(
        f'<li><span style="background:{colour(i)}"></span>{escape(group.label)} (n={len(group.all_runs)})</li>'
        for i, group in enumerate(comparison.groups)
    ) + "".join(
        f'<li><span style="background:{GREY}"></span>{escape(curve.label)}: published, another protocol</li>'
        for curve in published
    )
    charts = "".join(
        f"<section><h2>{escape(task)}</h2>{_curves(comparison, task, published)}{_points(comparison, task)}"
        f"{_profile(comparison, task)}</section>"
        for task in comparison.tasks
    )
    warnings = "".join(f"<li>{escape(note.text)}</li>" for note in found)
    template = Template(Path(__file__).with_name("page.html").read_text())
    return template.substitute(
        title=escape(title),
        warnings=f"<section><h2>Read this first</h2><ol class=notes>{warnings}</ol></section>" if warnings else "",
        legend=legend,
        caption=escape(caption(comparison)),
        charts=charts,
        tables="".join(map(_table, tables)),
        media=_media(comparison),
        commands=escape("\n".join(commands)),
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = "".join(
        f"<tr><td>{_breakable(row[0])}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in table.rows
    )
    about = f"<p>{escape(table.caption)}</p>" if table.caption else ""
    body = f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{about}"
    return f"<section><h2>{escape(table.title)}</h2>{body}</section>"


def _breakable(text: str) -> str:
    """Escaped text whose lines may break within names."""
    return re.sub(r"([_=+/]|\.(?=\D))", r"\1<wbr>", escape(text))


# --- charts ---


def _curves(comparison: Comparison, task: str, published: Sequence[Published]) -> str:
    curves = [(cell.group, cell.curve) for cell in comparison.of_task(task) if cell.curve]
    if not curves:
        return "<p>No curve: nothing was logged.</p>"
    others = list(published) if comparison.x == "steps" else []
    right = max(float(curve.x[-1]) for _, curve in curves)
    heights = [curve.runs for _, curve in curves] + [_until(right, other.steps, other.score)[1] for other in others]
    low, high = span(np.concatenate([np.ravel(values) for values in heights]))
    bounds = (0.0, right or 1.0, low, high)
    shapes = [_axes(bounds, axis_label(comparison))]
    for other in others:
        shapes += _published(other, bounds)
    data = []
    for group, curve in curves:
        shade = colour(comparison.groups.index(group))
        shapes += _group(curve, bounds, shade)
        data.append({"label": group.label, "colour": shade, "x": _short(curve.x), "y": _short(curve.mean)})
    content = json.dumps({"bounds": bounds, "groups": data, "plot": [LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM]})
    attribute = escape(content, quote=True)
    return (
        f'<figure class=chart data-curves="{attribute}"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="learning curves">{"".join(shapes)}<line class=cursor y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="-9" '
        f'x2="-9"/></svg><figcaption class=values>&nbsp;</figcaption></figure>'
    )


def _group(curve: Curve, bounds: Bounds, colour: str) -> list[str]:
    if len(curve.runs) >= FEW:
        shapes = [_band(curve.x, curve.low, curve.high, bounds, colour)]
    else:
        shapes = [_line(curve.x, line, bounds, colour, 0.8, ' opacity="0.6"') for line in curve.runs]
    return [*shapes, _line(curve.x, curve.mean, bounds, colour, 2.5)]


def _published(curve: Published, bounds: Bounds) -> list[str]:
    x, y = _until(bounds[1], curve.steps, curve.score)
    shapes = [_line(x, y, bounds, GREY, 1.5, ' stroke-dasharray="5 4"')]
    if curve.low is not None and curve.high is not None:
        low, high = (_until(bounds[1], curve.steps, edge)[1] for edge in (curve.low, curve.high))
        shapes.append(_band(x, low, high, bounds, GREY))
    return shapes


def _until(right: float, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The part of a curve up to `right`."""
    if right >= x[-1]:
        return x, y
    inside = x < right
    return np.append(x[inside], right), np.append(y[inside], np.interp(right, x, y))


def _points(comparison: Comparison, task: str) -> str:
    """A chart of the final evaluation of every seed, with tooltips."""
    cells = [cell for cell in comparison.of_task(task) if cell.values("final")]
    if not cells:
        return "<p>No final evaluation.</p>"
    low, high = span([value for cell in cells for value in cell.values("final")])
    bounds = (0.0, float(len(cells)), low, high)
    shapes = [_axes(bounds, "final evaluation of each seed, and the mean", ticks=False)]
    for k, cell in enumerate(cells):
        shade, scored = colour(comparison.groups.index(cell.group)), [o for o in cell.outcomes if o.final is not None]
        mean = cell.estimate("final")
        for j, o in enumerate(scored):
            x, y = _at(k + 0.5 + 0.3 * ((j + 0.5) / len(scored) - 0.5), o.final or 0.0, bounds)
            said = escape(f"{cell.group.label}, seed {o.run.seed}: {format_number(o.final)}")
            shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{shade}"><title>{said}</title></circle>')
        if mean:
            xs = np.array([k + 0.2, k + 0.8])
            shapes.append(_line(xs, np.full(2, mean.value), bounds, shade, 3))
            if mean.low is not None and mean.high is not None and mean.n >= FEW:
                shapes.append(_line(np.full(2, k + 0.5), np.array([mean.low, mean.high]), bounds, shade, 1.5))
    return _chart(shapes)


def _profile(comparison: Comparison, task: str) -> str:
    """A chart of the share of seeds whose final evaluation is above each score."""
    scores = [(cell.group, values) for cell in comparison.of_task(task) if (values := cell.values("final"))]
    if not scores:
        return ""
    left, right = span([value for _, values in scores for value in values])
    bounds, thresholds = (left, right, 0.0, 1.0), np.linspace(left, right, 200)
    shapes = [_axes(bounds, "share of seeds above a final score")]
    for group, values in scores:
        shade = colour(comparison.groups.index(group))
        shapes.append(_line(thresholds, run_profile([values], thresholds), bounds, shade, 2.5))
    return _chart(shapes)


def _chart(shapes: Iterable[str]) -> str:
    return f'<figure class=chart><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(shapes)}</svg></figure>'


def _axes(bounds: Bounds, label: str, ticks: bool = True) -> str:
    left, right, low, high = bounds
    shapes = []
    for value in MaxNLocator(5).tick_values(low, high):
        if low <= value <= high:
            y = _at(left, value, bounds)[1]
            shapes.append(f'<line class=grid x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            shapes.append(f'<text x="{LEFT - 6}" y="{y + 5:.1f}" text-anchor="end">{value:g}</text>')
    along = MaxNLocator(5).tick_values(left, right) if ticks else []
    for value in along:
        if left <= value <= right:
            x, text = _at(value, low, bounds)[0], f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
            anchor = "end" if x > WIDTH - 40 else "middle"
            shapes.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="{anchor}">{text}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    return "".join(shapes) + f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(label)}</text>'


def _line(x: Any, y: Any, bounds: Bounds, colour: str, width: float, more: str = "") -> str:
    points = _path(x, y, bounds)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"{more}/>'


def _band(x: Floats, low: Floats, high: Floats, bounds: Bounds, colour: str) -> str:
    edge = _path(np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]), bounds)
    return f'<polygon points="{edge}" fill="{colour}" opacity="0.18"/>'


def _path(x: Any, y: Any, bounds: Bounds) -> str:
    return " ".join("{:.1f},{:.1f}".format(*_at(a, b, bounds)) for a, b in zip(x, y, strict=True))


def _at(x: float, y: float, bounds: Bounds) -> tuple[float, float]:
    """The position in the chart of a point of the data."""
    left, right, low, high = bounds
    across, up = (x - left) / (right - left), (y - low) / (high - low)
    return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _short(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


# --- pictures and videos ---


def _media(comparison: Comparison) -> str:
    """Video and latest pictures of each auxiliary task, for the first seed of each group."""
    shown = []
    for group in comparison.groups:
        for run in group.all_runs[:1]:
            folder = Path(run.name)
            parts = [_embed(folder / "game.mp4", VIDEO_LIMIT, "<video controls muted loop playsinline src={}></video>")]
            for task in run.tasks:
                image = f'<img src={{}} alt="{escape(task)}">'
                parts += [_embed(path, PICTURE_LIMIT, image) for path in _pictures(folder / "pictures", task)[-1:]]
            if any(parts):
                name = f"{group.label}, {run.task}, seed {run.seed}"
                shown.append(f"<figure><figcaption>{escape(name)}</figcaption>{''.join(parts)}</figure>")
    return f"<section><h2>Videos and pictures</h2><div class=media>{''.join(shown)}</div></section>" if shown else ""


def _pictures(folder: Path, task: str) -> list[Path]:
    """The pictures `<task>-<step>.png` of an auxiliary task, ordered by step."""
    name = re.compile(rf"{re.escape(task)}-(\d+)\.png")
    found = [(int(match[1]), path) for path in folder.glob("*") if (match := name.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _embed(path: Path, limit: int, form: str) -> str:
    """An HTML element with the content of a file; empty if the file is missing or too large."""
    kinds = {".mp4": "video/mp4", ".png": "image/png"}
    try:
        content = base64.b64encode(read_regular(path, limit)).decode()
    except (OSError, ValueError):
        return ""
    return form.replace("{}", f'"data:{kinds[path.suffix]};base64,{content}"', 1)
