"""How a report looks: drawings as SVG text, so that it needs no scripts and no plotting library.

Colours come from the style sheet, by class; whoever has the page read aloud hears the titles.
"""

import html
import math
import re

import numpy as np

MINUS, TIMES, DASH, ELLIPSIS, INFINITY = "\u2212", "\u00d7", "\u2013", "\u2026", "\u221e"
MAX_COLUMNS = 96

# Characters that neither HTML nor XML may hold, not even escaped.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(text):
    """Return any value as text that is safe inside elements and quoted attributes."""
    return html.escape(_FORBIDDEN.sub("\ufffd", str(text)))


def number(value, spec=".4g"):
    """Return a number as text for people: a true minus, and words for what is not finite."""
    if value is None or math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return INFINITY if value > 0 else MINUS + INFINITY
    text = format(value, spec)
    return text.replace("-", MINUS)


def shortened(text, length):
    """Return `text` with its middle left out if it is longer than `length` characters."""
    text, half = str(text), length // 2
    return text if len(text) <= length else text[: length - half - 1] + ELLIPSIS + text[-half:]


def svg(title, size, parts, kind, style=""):
    """Return a drawing of `size` (width, height) that has a title."""
    return (
        f'<svg class="{kind}" role="img" viewBox="0 0 {size[0]:g} {size[1]:g}"{style}>'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def bar(share, title, kind="q8"):
    """Return a bar that is filled by `share`, 0 to 1, from the left."""
    share = min(max(share, 0.0), 1.0) if math.isfinite(share) else float(share > 0)
    return (
        '<svg class="bar" role="img" viewBox="0 0 100 8" preserveAspectRatio="none">'
        f'<title>{escape(title)}</title><rect class="track" width="100" height="8"/>'
        f'<rect class="{kind}" width="{100 * share:.4g}" height="8"/></svg>'
    )


class Bins:
    """A histogram, trimmed of empty ends.

    Parameters
    ----------
    histogram : Histogram
        Or whatever has `counts`, `first_edge`, `bin_width`, and the exact `low` and `high`.
    """

    def __init__(self, histogram):
        counts = np.asarray(histogram.counts, np.int64)
        filled = np.flatnonzero(counts)
        first, last = (filled[0], filled[-1] + 1) if filled.size else (0, 0)
        self.counts = counts[first:last]
        steps = np.arange(first, last + 1, dtype=np.float64)
        self.edges = histogram.first_edge + histogram.bin_width * steps
        self.ends = float(histogram.low), float(histogram.high)
        self.total = int(self.counts.sum())

    def clipped(self, span):
        """Return how many values lie beyond `span`, (low, high), by more than half a step.

        What lies closer rounds to the end's own code. Counted are whole bins.
        """
        half_step = (span[1] - span[0]) / 510
        beyond = self.edges[1:] <= span[0] - half_step
        beyond |= self.edges[:-1] >= span[1] + half_step
        return int(self.counts[beyond].sum())

    def columns(self):
        """Return (counts, edges) of at most `MAX_COLUMNS` columns, each a sum of neighbours."""
        step = -(-len(self.counts) // MAX_COLUMNS)
        starts = np.arange(0, max(1, len(self.counts) - step // 2), step)  # no thin last column
        return np.add.reduceat(self.counts, starts), self.edges[[*starts, -1]]


_WIDTH, _HEIGHT = 340, 172
_LEFT, _RIGHT, _TOP, _BASE = 34, 328, 8, 146


def histogram(bins, span, title):
    """Draw a histogram with logarithmic heights, and the range that 8 bits cover.

    Parameters
    ----------
    bins : Bins
        Not empty.
    span : (low, high) or None
        The range that codes cover: a band, with its ends labelled; what lies outside is marked.
    title : str
    """
    counts, edges = bins.columns()
    left, right = float(edges[0]), float(edges[-1])
    if span is not None:
        left, right = min(left, span[0]), max(right, span[1])
    margin = 0.02 * (right - left)
    left, right = left - margin, right + margin

    def x(value):
        return _LEFT + (_RIGHT - _LEFT) * (value - left) / (right - left)

    def y(count):
        full = math.log10(1 + counts.max())
        return _BASE - (_BASE - _TOP - 6) * math.log10(1 + count) / full

    parts = []
    if span is not None:
        low, high = x(span[0]), x(span[1])
        parts.append(
            f'<rect class="band" x="{low:.1f}" y="{_TOP}" width="{max(high - low, 1):.1f}" '
            f'height="{_BASE - _TOP}"/>'
        )
    top = int(math.log10(counts.max()))
    for power in range(0, top + 1, max(1, -(-top // 3))):
        height = y(10**power)
        parts.append(
            f'<path class="rule" d="M{_LEFT} {height:.1f}H{_RIGHT}"/>'
            f'<text x="{_LEFT - 5}" y="{height + 3:.1f}" text-anchor="end">{_power(power)}</text>'
        )
    inside = (-math.inf, math.inf)
    if span is not None and bins.clipped(span):
        inside = span
        for piece in ((-math.inf, span[0]), (span[1], math.inf)):
            parts.append(_steps(counts, edges, piece, x, y, "lost"))
    parts.append(_steps(counts, edges, inside, x, y, "q8"))
    parts.append(f'<path class="axis" d="M{_LEFT} {_BASE}H{_RIGHT}"/>')
    if span is not None:
        for value in span:
            parts.append(f'<path class="limit" d="M{x(value):.1f} {_TOP}V{_BASE + 5}"/>')
    parts += _value_labels(span, bins.ends, x)
    return svg(title, (_WIDTH, _HEIGHT), parts, "histogram")


def _power(power):
    """Return a power of ten in few letters."""
    unit, zeros = divmod(power, 3)
    return f"1{'0' * zeros}{('', 'k', 'M', 'G', 'T', 'P', 'E')[unit]}"


def _steps(counts, edges, piece, x, y, kind):
    """Draw the outline of the columns within `piece`, a (low, high) of values."""
    outline = []
    for count, start, stop in zip(counts, edges[:-1], edges[1:], strict=True):
        start, stop = max(start, piece[0]), min(stop, piece[1])
        if start >= stop:
            continue
        first, last = x(start), max(x(stop), x(start) + 0.8)
        if not outline:
            outline.append(f"M{first:.1f} {_BASE}")
        outline.append(f"V{y(count):.1f}H{last:.1f}")
    return f'<path class="{kind}" d="{"".join(outline)}V{_BASE}Z"/>' if outline else ""


def _value_labels(span, ends, x):
    """Label the ends of the range, then whatever else has room: the data's own ends, and zero."""
    wanted = []
    if span is not None:
        if x(span[1]) - x(span[0]) < 50:
            both = f"{number(span[0])} {ELLIPSIS} {number(span[1])}"
            wanted.append(((x(span[0]) + x(span[1])) / 2, both, "end"))
        else:
            wanted += [(x(value), number(value), "end") for value in span]
    wanted += [(x(value), number(value), "") for value in (*ends, 0.0)]
    taken = []
    for place, text, kind in wanted:
        half = 3.2 * len(text) + 2
        middle = min(max(place, half), _WIDTH - half)
        free = all(abs(middle - m) >= half + h for m, h in taken)
        if free and _LEFT <= place <= _RIGHT:
            taken.append((middle, half))
            style = f' class="{kind}"' if kind else ""
            yield (
                f'<text{style} x="{middle:.1f}" y="{_BASE + 17}" text-anchor="middle">{text}</text>'
            )


def heat_map(counts, names, rows, columns, title):
    """Draw a square grid of counts: the diagonal in one colour, the rest in another.

    Parameters
    ----------
    counts : (N, N) array of int
    names : sequence of N str
    rows, columns : str
        What the axes are.
    title : str
    """
    n = len(counts)
    is_fine = n > 12
    digits = len(str(counts.max()))
    cell = max(26, 6.5 * digits + 5) if is_fine else max(40, 8 * digits + 8)
    labels = [shortened(name, 16) for name in names]
    turn = -45 if max(len(label) for label in labels) > 3 else 0
    room = 12 + 6.4 * max(len(label) for label in labels)
    left, top = 24 + room, 28 + (0.75 * room if turn else 14)
    size = n * cell
    width, height = left + max(size + 0.7 * room, 140), top + max(size + 6, 140)
    lines = "".join(
        f"M{left + i * cell:.1f} {top:.1f}v{size}M{left:.1f} {top + i * cell:.1f}h{size}"
        for i in range(n + 1)
    )
    parts = [f'<path class="grid" d="{lines}"/>']
    on, off = counts.diagonal().max(), (counts - np.diag(counts.diagonal())).max()
    for i, label in enumerate(labels):
        middle = (i + 0.5) * cell
        across = f"translate({left + middle + (2 if turn else 0):.1f} {top - 8:.1f})"
        parts.append(
            f'<text x="{left - 8:.1f}" y="{top + middle + 4:.1f}" text-anchor="end">'
            f"{escape(label)}</text>"
            f'<text transform="{across} rotate({turn})" text-anchor='
            f'"{"start" if turn else "middle"}">'
            f"{escape(label)}</text>"
        )
    for i, j in np.argwhere(counts):
        share = math.sqrt(counts[i, j] / (on if i == j else off))
        kind, strength = ("q8", 0.9 * share) if i == j else ("lost", 0.25 + 0.6 * share)
        px, py = left + j * cell, top + i * cell
        text = "strong" if strength > 0.7 else "weak"
        parts.append(
            f"<g><title>{escape(f'{rows}: {names[i]}; {columns}: {names[j]}')}: {counts[i, j]:,}"
            f'</title><rect class="{kind}" x="{px + 1:.1f}" y="{py + 1:.1f}" width="{cell - 2}" '
            f'height="{cell - 2}" fill-opacity="{strength:.2f}"/><text class="{text}" '
            f'x="{px + cell / 2:.1f}" y="{py + cell / 2 + 4:.1f}" text-anchor="middle">'
            f"{counts[i, j]}</text></g>"
        )
    parts.append(
        f'<text class="name" transform="translate(14 {top:.1f}) rotate(-90)" text-anchor="end">'
        f'{escape(rows)}</text><text class="name" x="{left:.1f}" y="14">{escape(columns)}</text>'
    )
    kind = "map fine" if is_fine else "map"
    limits = f' style="min-width:{0.85 * width:.0f}px;max-width:{1.2 * width:.0f}px"'
    return svg(title, (math.ceil(width), math.ceil(height)), parts, kind, limits)


# Every rule is below .qcy-report, so that a notebook that shows a report keeps its own looks.
STYLE = """
.qcy-report{--paper:#fff;--card:#f6f7f9;--ink:#1b2027;--soft:#5b6573;--line:#dde1e7;
--float:#98a2b0;--q8:#0e7490;--lost:#c2410c;--tint:#fdf1ea;--band:rgba(14,116,144,.13);
color-scheme:light;background:var(--paper);color:var(--ink);box-sizing:border-box;
max-width:78rem;margin:0 auto;padding:2.5rem clamp(1rem,4vw,3rem);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Liberation Sans",Arial,
sans-serif;font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%}
body:has(>.qcy-report){margin:0;background:#fff}
@media screen and (prefers-color-scheme:dark){
.qcy-report{--paper:#14181d;--card:#1d232a;--ink:#e6e9ed;--soft:#9aa5b1;--line:#333c46;
--float:#7c8896;--q8:#4fb8d3;--lost:#f2894f;--tint:#33241b;--band:rgba(79,184,211,.16);
color-scheme:dark}
body:has(>.qcy-report){background:#14181d}}
.qcy-report *{box-sizing:border-box}
.qcy-report h1{font-size:clamp(1.5rem,4vw,2.15rem);line-height:1.2;font-weight:650;
letter-spacing:-.015em;margin:0 0 .8rem;text-wrap:balance}
.qcy-report h2{font-size:1.3rem;line-height:1.3;font-weight:650;margin:3rem 0 .4rem;
text-wrap:balance}
.qcy-report p{max-width:46rem;margin:.4rem 0 .9rem;color:inherit}
.qcy-report .lead{font-size:1.12rem}
.qcy-report .key,.qcy-report .note,.qcy-report figcaption small,.qcy-report footer{
color:var(--soft);font-size:.86rem}
.qcy-report .key span{display:inline-block;margin-right:1.2em}
.qcy-report .key span::before{content:"";display:inline-block;width:.8em;height:.8em;
border-radius:2px;margin-right:.45em;vertical-align:-.05em;background:var(--q8)}
.qcy-report .key .float::before{background:var(--float)}
.qcy-report .key .lost::before{background:var(--lost)}
.qcy-report .key .band::before{background:var(--band);border:1px solid var(--q8)}
.qcy-report code{font:.93em ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;
background:none;color:inherit;padding:0;overflow-wrap:anywhere;unicode-bidi:isolate}
.qcy-report svg{display:block;font-family:inherit}
.qcy-report svg text{fill:var(--soft);font-size:10.5px}
.qcy-report .q8{fill:var(--q8)}
.qcy-report .float{fill:var(--float)}
.qcy-report .lost{fill:var(--lost)}
.qcy-report .bar{width:100%;height:.5rem;border-radius:2px}
.qcy-report .track{fill:var(--line)}
.qcy-report .tiles{display:flex;flex-wrap:wrap;gap:1rem;margin-top:1.4rem}
.qcy-report .tile{flex:1 1 17rem;background:var(--card);border-radius:10px;padding:1rem 1.2rem}
.qcy-report .four .tile{flex-basis:max(40%,17rem)}
.qcy-report .tile h2{font-size:.92rem;font-weight:600;color:var(--soft);margin:0}
.qcy-report .tile p{margin:.5rem 0 0}
.qcy-report .tile .big{font-size:1.9rem;line-height:1.2;font-weight:650;letter-spacing:-.01em;
margin:.15rem 0 .6rem}
.qcy-report .big small{font-size:.95rem;font-weight:400;letter-spacing:0;color:var(--soft)}
.qcy-report table{border-collapse:collapse;border:0;margin:0;font-size:.9rem;color:inherit}
.qcy-report tr,.qcy-report tbody tr:nth-child(odd){background:none}
.qcy-report th,.qcy-report td{text-align:left;padding:0;vertical-align:middle;border:0}
.qcy-report .tile table{width:100%}
.qcy-report .tile th{font-weight:400;width:3.2rem}
.qcy-report .tile td:last-child{text-align:right;white-space:nowrap;padding-left:.8rem;width:1%}
.qcy-report .scroll{overflow-x:auto}
.qcy-report .scroll:focus-visible{outline:2px solid var(--q8);outline-offset:2px}
.qcy-report .data{width:100%}
.qcy-report .data th,.qcy-report .data td{padding:.42rem .55rem;border-bottom:1px solid var(--line);
text-align:right}
.qcy-report .data thead th{font-weight:600;color:var(--soft);font-size:.84rem;vertical-align:bottom;
white-space:nowrap}
.qcy-report .data tbody th{font-weight:600;min-width:8rem;max-width:15rem;position:sticky;left:0;
background:var(--paper)}
.qcy-report .data th:first-child,.qcy-report .data td:first-child{padding-left:.5rem}
.qcy-report .data th:nth-child(-n+4),.qcy-report .data td:nth-child(-n+4){text-align:left}
.qcy-report .data td:nth-child(2){min-width:6rem;max-width:16rem;color:var(--soft)}
.qcy-report .data .shape,.qcy-report .data td:nth-child(n+5){white-space:nowrap}
.qcy-report .data tbody .weak th,.qcy-report .data tbody .weak td{background:var(--tint)}
.qcy-report .tag{font-size:.76rem;font-weight:600;color:var(--lost);white-space:nowrap;
border:1px solid;border-radius:99px;padding:.02rem .45rem;margin-left:.25rem}
.qcy-report .data th:nth-child(8){text-align:left;padding-left:1.6rem}
.qcy-report .sqnr span{display:inline-block;min-width:2.6rem}
.qcy-report .sqnr .bar{display:inline-block;width:5rem;margin-left:.5rem;vertical-align:.05rem}
.qcy-report .legend{display:grid;gap:.6rem 2rem;margin:1.2rem 0 0;font-size:.88rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr))}
.qcy-report dt{font-weight:600}
.qcy-report dd{margin:0;color:var(--soft)}
.qcy-report .figures{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}
.qcy-report figure{margin:0;padding:.8rem 1rem .7rem;border:1px solid var(--line);
border-radius:10px;min-width:0}
.qcy-report figcaption{margin-bottom:.4rem}
.qcy-report figcaption code{font-weight:600}
.qcy-report figure .note{margin:.2rem 0 0}
.qcy-report .note strong{color:var(--ink)}
.qcy-report .empty{color:var(--soft);font-style:italic}
.qcy-report .histogram{width:100%;height:auto}
.qcy-report .band{fill:var(--band)}
.qcy-report .rule{stroke:var(--line);fill:none;stroke-width:.7}
.qcy-report .axis{stroke:var(--soft);fill:none}
.qcy-report .limit{stroke:var(--q8);fill:none;stroke-width:1.4}
.qcy-report svg text.end{fill:var(--q8);font-weight:700}
.qcy-report .answers{display:flex;flex-wrap:wrap;gap:1.5rem 3rem;align-items:flex-start}
.qcy-report .answers>.scroll{flex:1 1 30rem;min-width:0;max-width:44rem}
.qcy-report .answers>.scroll:has(.fine){flex-basis:100%;max-width:none}
.qcy-report .answers>table{flex:1 1 18rem;width:auto;max-width:30rem}
.qcy-report .answers td:nth-child(2){color:inherit;min-width:0}
.qcy-report .answers .data td:nth-child(n+3),.qcy-report .answers .data th:nth-child(n+3){
text-align:right}
.qcy-report .answers .data td:nth-child(-n+2){overflow-wrap:anywhere}
.qcy-report caption{text-align:left;font-weight:600;padding:.5rem}
.qcy-report .map{width:100%;height:auto}
.qcy-report .map text{font-size:12px}
.qcy-report .map text.name{font-weight:600}
.qcy-report .map text.weak{fill:var(--ink)}
.qcy-report .map text.strong{fill:var(--paper);font-weight:600}
.qcy-report .fine text{font-size:10px}
.qcy-report .grid{stroke:var(--line);fill:none;stroke-width:.7}
.qcy-report footer{margin-top:3rem;border-top:1px solid var(--line);padding-top:1rem}
.qcy-report footer h2{font-size:1rem;margin:0 0 .4rem;color:var(--ink)}
.qcy-report footer th{font-weight:600;padding:.1rem 1.4rem .1rem 0;vertical-align:top}
.qcy-report footer td{overflow-wrap:anywhere}
@media print{
.qcy-report{padding:0;font-size:12px;max-width:none;print-color-adjust:exact;
-webkit-print-color-adjust:exact}
.qcy-report .scroll{overflow:visible}
.qcy-report .map{min-width:0!important}
.qcy-report .figures{grid-template-columns:repeat(3,1fr)}
.qcy-report .data th,.qcy-report .data td{padding:.25rem .4rem}
.qcy-report :is(figure,.tile,tr,.answers,.legend div,footer){break-inside:avoid}
.qcy-report h2{break-after:avoid}}
"""
