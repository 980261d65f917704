"""A comparison as a page that a person can read who has never seen quantization.

One HTML file with everything inside it: no scripts, no fonts, nothing fetched.
"""

import math
import os
import uuid
from pathlib import Path

import numpy as np

from qcy.nn import _svg
from qcy.nn._svg import DASH, MINUS, STYLE, TIMES, escape, number, shortened
from qcy.nn.compare import times_more

MAX_GRID = 24
MAX_PAIRS = {True: 10, False: 20}  # pairs of classes that are listed: with a grid, without one
MAX_WEAK = 3


def write(report, path, histograms=None, class_names=None, about=None):
    """Write a report as one self-contained HTML page: whole, or not at all.

    Parameters
    ----------
    report : Report
    path : str or path-like
    histograms : mapping of str to Histogram, optional
        By layer name, what its output held during calibration. A (Histogram, QuantizationParams)
        pair says the range of codes too; without params it is the layer's own, and for names that
        are no layer's, such as the model's input, there is none.
    class_names : sequence of str, optional
        Default: the numbers of the classes.
    about : mapping, optional
        What made the report (version, machine, date): a table at the foot of the page.

    Raises
    ------
    OSError
        If the file cannot be written; what was at `path` is still there.
    """
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<title>qcy: float against 8-bit</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{_content(report, histograms, class_names, about)}\n</body>\n</html>\n"
    )
    path = Path(path)
    temporary = path.parent / f".{uuid.uuid4().hex}.html"
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def body(report, histograms=None, class_names=None, about=None):
    """Return a report as a fragment of HTML, with its style, as notebooks show it.

    Parameters
    ----------
    report, histograms, class_names, about
        As `write` takes them.

    Returns
    -------
    str
    """
    return f"<style>{STYLE}</style>\n{_content(report, histograms, class_names, about)}"


def _content(report, histograms, class_names, about):
    confusion = np.asarray(report.confusion, np.int64)
    n_named = 0 if class_names is None else len(class_names)
    names = [str(class_names[i] if i < n_named else i) for i in range(len(confusion))]
    sections = (
        _headline(report), _layers(report.layers), _times(report.profile),
        _activations(report.layers, histograms or {}), _confusion(confusion, names),
        _about(about or {}),
    )
    return f'<article class="qcy-report">\n{"".join(sections)}</article>'


# The numbers that matter


def _headline(report):
    size, how_small = times_more(report.float_bytes / report.quantized_bytes, "smaller", "larger")
    size += TIMES
    claims = [
        f"The 8-bit model gives the same answer as the float model for "
        f"<strong>{report.agreement:.2%}</strong> of {report.n_samples:,} samples",
        f"is <strong>{size} {how_small}</strong>",
    ]
    tiles = [_accuracy(report), _agreement(report)]
    tiles.append(_tile("Size", size, how_small, {
        "float": (report.float_bytes, f"{report.float_bytes:,} bytes"),
        "q8": (report.quantized_bytes, f"{report.quantized_bytes:,} bytes"),
    }))
    for batch, times in report.latency.items():
        speed, how_fast = times_more(times["speedup"], "faster", "slower")
        speed += TIMES
        tiles.append(_tile(f"Speed, {_samples(batch)} at a time", speed, how_fast, {
            kind: (times[key], f"{_milliseconds(times[key])} ms")
            for kind, key in (("float", "float"), ("q8", "quantized"))
        }))
        claims.append(f"<strong>{speed} {how_fast}</strong> with {_samples(batch)} at a time")
    last = f" and {claims.pop()}"
    return (
        "<header>\n<h1>From float to 8 bits: what it cost, what it gained</h1>\n"
        f'<p class="lead">{", ".join(claims)}{last}.</p>\n'
        f'<p class="key">{_key("float", "float: 32 bits per number")} '
        f"{_key('q8', '8-bit: the quantized model')}</p>\n</header>\n"
        f'<section class="tiles{"" if len(tiles) % 4 else " four"}">\n{"".join(tiles)}</section>\n'
    )


def _accuracy(report):
    if report.float_accuracy is None or report.quantized_accuracy is None:
        return (
            '<div class="tile"><h2>Accuracy</h2><p class="big">unknown</p>'
            '<p class="note">No labels were given, so nobody can say which answers are right. '
            "Agreement says how often both models answer alike.</p></div>\n"
        )
    difference = report.quantized_accuracy - report.float_accuracy
    points = number(100 * difference, "+.2f")
    count = round(difference * report.n_samples)
    return _tile("Accuracy", f"{report.quantized_accuracy:.2%}", "right answers", {
        "float": (report.float_accuracy, f"{report.float_accuracy:.2%}"),
        "q8": (report.quantized_accuracy, f"{report.quantized_accuracy:.2%}"),
    }, f"Difference {points} points: {number(count, '+,d') if count else 'no'} "
       f"{'sample' if abs(count) == 1 else 'samples'}.", most=1.0)


def _agreement(report):
    differing = report.n_samples - round(report.agreement * report.n_samples)
    title = f"{report.agreement:.2%} of the answers are the same"
    return (
        f'<div class="tile"><h2>Agreement</h2><p class="big">{report.agreement:.2%} '
        f"<small>same answers</small></p>{_svg.bar(report.agreement, title)}"
        f'<p class="note">{differing:,} of {_samples(report.n_samples)} answered '
        "differently, right or wrong.</p></div>\n"
    )


def _tile(heading, big, unit, pair, note="", most=None):
    """Return a tile: a large number, and what float and 8-bit have, as bars."""
    most = max(value for value, _ in pair.values()) if most is None else most
    rows = "".join(
        f'<tr><th scope="row">{label}</th>'
        f"<td>{_svg.bar(value / most if most else 0.0, f'{label}: {text}', kind)}</td>"
        f"<td>{text}</td></tr>"
        for (kind, (value, text)), label in zip(pair.items(), ("float", "8-bit"), strict=True)
    )
    note = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<div class="tile"><h2>{heading}</h2><p class="big">{big} <small>{unit}</small></p>'
        f"<table>{rows}</table>{note}</div>\n"
    )


def _milliseconds(seconds):
    return number(1e3 * seconds, ".3f" if seconds < 0.1 else ",.1f")


def _samples(n):
    return f"{int(n):,} {'sample' if int(n) == 1 else 'samples'}"


def _key(kind, text):
    return f'<span class="{kind}">{text}</span>'


# Layer by layer


def _layers(layers):
    if not layers:
        return ""
    weak = _weakest(layers)
    noise = [r.sqnr_db for r in layers if math.isfinite(r.sqnr_db)]
    full = max([40.0, *noise])
    heads = (
        "layer", "also does", "kind", "output", "bits", "scale", "zero point", "SQNR, dB",
        "cosine", "max error",
    )
    rows = "".join(_layer(r, r.name in weak, full) for r in layers)
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return (
        "<section>\n<h2>Layer by layer: where precision goes</h2>\n"
        "<p>Each row compares one layer's output in both models, over all samples. Rounding noise "
        "adds up along the way, so later layers carry that of earlier ones. "
        f"{('', 'The weakest is marked.', 'The weakest are marked.')[min(len(weak), 2)]}</p>\n"
        '<div class="scroll" role="region" aria-label="Layers" tabindex="0">\n<table class="data">'
        f"<thead><tr>{cells}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
        '<dl class="legend">'
        "<div><dt>scale, zero point</dt><dd>A code <i>q</i> from 0 to 255 (int8: "
        f"{MINUS}128 to 127) stands for the real number scale {TIMES} (<i>q</i> {MINUS} zero "
        "point). The scale is the size of one step.</dd></div>"
        "<div><dt>SQNR</dt><dd>Signal to quantization noise, in decibels; higher is better. "
        "At 20 dB the error is a tenth as large as the signal, at 40 dB a hundredth; 6 dB are "
        "one bit.</dd></div>"
        "<div><dt>cosine</dt><dd>How far both outputs point the same way; 1 is exactly.</dd></div>"
        "<div><dt>max error</dt><dd>The largest difference of any one number, in the layer's own "
        "units.</dd></div></dl>\n</section>\n"
    )


def _weakest(layers):
    """Return the names of the few layers with the lowest SQNR, of those that have any noise."""
    noisy = [r for r in layers if r.sqnr_db != math.inf]
    noisy.sort(key=lambda r: -math.inf if math.isnan(r.sqnr_db) else r.sqnr_db)
    return {r.name for r in noisy[: min(MAX_WEAK, len(layers) // 2)]}


def _layer(layer, is_weak, full):
    others = [name for name in layer.covers if name != layer.name]
    short = ", ".join(shortened(name, 24) for name in others)
    exact = layer.sqnr_db == math.inf
    sqnr = "exact" if exact else number(layer.sqnr_db, ".1f")
    title = f"{layer.name}: {sqnr}" + ("" if exact else " dB")
    is_float = layer.bits > 8
    scale, zero_point = (
        (DASH, DASH) if is_float else (number(layer.scale, ".6g"), number(layer.zero_point, "d"))
    )
    tag = ' <span class="tag">weakest</span>' if is_weak else ""
    return (
        f'<tr{" class=weak" if is_weak else ""}><th scope="row"><code>{escape(layer.name)}</code>'
        f'{tag}</th><td title="{escape(", ".join(others))}"><code>{escape(short) or DASH}</code>'
        f"</td><td>{escape(layer.kind.removesuffix('Quantized'))}</td>"
        f'<td class="shape">{TIMES.join(map(str, layer.shape)) or "1"}</td>'
        f'<td title="{escape(layer.why)}">{f"{layer.bits}, float" if is_float else layer.bits}</td>'
        f"<td>{scale}</td><td>{zero_point}</td>"
        f'<td class="sqnr"><span>{sqnr}</span>'
        f"{_svg.bar(layer.sqnr_db / full, title, 'lost' if is_weak else 'q8')}</td>"
        f"<td>{number(layer.cosine, '.6f')}</td><td>{number(layer.max_error)}</td></tr>\n"
    )


def _times(profile):
    if profile is None:
        return ""
    most = max(row.share for row in profile.layers)
    heads = ("layer", "kind", "microseconds", "share", "GMAC/s")
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(row.name)}</code></th>'
        f"<td>{escape(row.kind.removesuffix('Quantized'))}</td><td>{row.us:,.1f}</td>"
        f'<td class="sqnr"><span>{row.share:.1%}</span>'
        f"{_svg.bar(row.share / most if most else 0.0, f'{row.name}: {row.share:.1%}', 'q8')}</td>"
        f"<td>{DASH if row.gmacs_per_s is None else number(row.gmacs_per_s, ',.1f')}</td></tr>\n"
        for row in profile.layers
    )
    how = "as a program" if profile.is_program else "layer by layer"
    return (
        "<section>\n<h2>Layer by layer: where time goes</h2>\n"
        f"<p>Median times of {profile.repeat:,} runs of the 8-bit model {how}, with "
        f"{profile.n_threads} {'thread' if profile.n_threads == 1 else 'threads'}. "
        f"A whole run takes {profile.us:,.1f} microseconds. What lies before the first and after "
        "the last layer turns numbers into codes and back.</p>\n"
        '<div class="scroll" role="region" aria-label="Times" tabindex="0">\n<table class="data">'
        f"<thead><tr>{cells}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n</section>\n"
    )


# The numbers inside


def _activations(layers, histograms):
    by_name = {layer.name: layer for layer in layers}
    order = [*(name for name in histograms if name not in by_name), *by_name]
    figures = "".join(
        _activation(name, by_name.get(name), histograms[name])
        for name in order if histograms.get(name) is not None
    )
    if not figures:
        return ""
    return (
        "<section>\n<h2>The numbers inside: what 256 codes must cover</h2>\n"
        "<p>How often each value came out of a layer during calibration. Heights are logarithmic "
        "(log<sub>10</sub> of 1 + count), so that rare values show. Eight bits cover the shaded "
        "range; what lies outside, by more than half a step, is clipped to its ends. A wider range "
        "clips less, but makes steps coarser.</p>\n"
        f'<p class="key">{_key("q8", "values within the range")} '
        f"{_key('lost', 'values outside, clipped')} {_key('band', 'range of the codes')}</p>\n"
        f'<div class="figures">\n{figures}</div>\n</section>\n'
    )


def _activation(name, layer, histogram):
    histogram, params = histogram if isinstance(histogram, tuple) else (histogram, None)
    bins = _svg.Bins(histogram)
    kind = escape(layer.kind.removesuffix("Quantized")) if layer else ""
    head = f"<figcaption><code>{escape(name)}</code> <small>{kind}</small></figcaption>"
    if not bins.total:
        return f'<figure>{head}<p class="empty">No values were seen.</p></figure>\n'
    span = _span(layer, params)
    title = f"{name}: {bins.total:,} values from {number(bins.ends[0])} to {number(bins.ends[1])}"
    if span is None:
        note = "kept in float, nothing is clipped" if layer else "range of codes not known"
    else:
        outside = bins.clipped(span)
        share = f" ({_share(outside / bins.total)})" if outside else ""
        title += f"; codes cover {number(span[0])} to {number(span[1])}; {outside:,} outside"
        note = f"<strong>{outside:,}</strong> of {bins.total:,} values outside{share}"
    drawing = _svg.histogram(bins, span, title)
    return f'<figure>{head}{drawing}<p class="note">{note}</p></figure>\n'


def _span(layer, params):
    """Return the (low, high) of the reals that a tensor's codes stand for; None: not codes."""
    if params is not None:
        return float(np.min(params.low)), float(np.max(params.high))
    if layer is None or layer.bits > 8:
        return None
    return tuple(layer.scale * (q - layer.zero_point) for q in (layer.qmin, layer.qmax))


def _share(share):
    return f"{share:.2%}" if share >= 1e-4 else "&lt;0.01%"


# Answers


def _confusion(counts, names):
    if not counts.size:
        return ""
    total = int(counts.sum())
    has_grid = len(counts) <= MAX_GRID
    grid = ""
    if has_grid:
        title = (
            f"Answers of the float model (rows) and the 8-bit model (columns): {total:,} samples, "
            f"{int(np.trace(counts)):,} with the same answer"
        )
        drawing = _svg.heat_map(counts, names, "float model answers", "8-bit model answers", title)
        grid = (
            '<div class="scroll" role="region" aria-label="Answers, as a grid" tabindex="0">'
            f"{drawing}</div>\n"
        )
        lead = (
            "Each square counts the samples that the float model gave the row's answer and the "
            "8-bit model the column's. On the diagonal both agree."
        )
    else:
        lead = f"With {len(counts):,} classes, only answers that differ are listed."
    return (
        "<section>\n<h2>Answers: where the two models differ</h2>\n"
        f'<p>{lead}</p>\n<div class="answers">\n{grid}'
        f"{_pairs(counts, names, MAX_PAIRS[has_grid])}</div>\n</section>\n"
    )


def _pairs(counts, names, most):
    """Return a table of the pairs of different answers that are most frequent."""
    off = counts - np.diag(counts.diagonal())
    flat = off.reshape(-1)
    n_pairs = np.count_nonzero(flat)
    if not n_pairs:
        return '<p class="empty">They never differ.</p>\n'
    top = np.argsort(-flat, kind="stable")[: min(most, n_pairs)]
    rows = "".join(
        f"<tr><td>{escape(names[i])}</td><td>{escape(names[j])}</td>"
        f"<td>{off[i, j]:,}</td><td>{_share(off[i, j] / counts.sum())}</td></tr>\n"
        for i, j in (divmod(int(k), len(counts)) for k in top)
    )
    which = f"The {len(top)} most frequent of {n_pairs:,}" if n_pairs > len(top) else "All"
    return (
        f'<table class="data"><caption>{which} kinds of disagreement, {flat.sum():,} samples in '
        'all</caption><thead><tr><th scope="col">float</th><th scope="col">8-bit</th>'
        '<th scope="col">samples</th><th scope="col">share</th></tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table>\n"
    )


def _about(about):
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(_plain(value))}</td></tr>\n'
        for key, value in about.items()
    )
    table = f"<h2>Made with</h2>\n<table>\n{rows}</table>\n" if rows else ""
    return f"<footer>\n{table}<p>Written by qcy.</p>\n</footer>\n"


def _plain(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return value
