"""Tables of what the harness measured: one page for each run, the medians of all, and a summary.

    python asv_benchmarks/peers/tables.py docs/performance run1.json run2.json ...

Each file holds one run, at any number of threads. A runtime's time is that of its fastest 8-bit
form; a form whose results are more than twice as far from float32 as the most exact one's did not
do the same work (sums that saturate, another padding), and is left out. ncnn's 3x3 convolutions are
Winograd's, whose sums can overflow: they are shown, and take no part in ratios.
"""

import json
import statistics
import sys
from pathlib import Path

NAMES = {
    "ort": "onnxruntime", "openvino": "OpenVINO", "torch": "PyTorch", "litert": "LiteRT",
    "ncnn": "ncnn", "qcy": "qcy",
}
FAMILIES = {
    "gemm": "Matrix product", "gemv": "One row", "dyn": "Reals in and out, int8 weights",
    "conv": "Convolution", "dwconv": "Depthwise convolution", "eltwise": "Element by element",
    "model": "Whole models, reals in and out",
}
#: What is promised on one thread: the best other runtime's time over qcy's.
PROMISED = {
    "gemm_64x64x64": 1.0, "gemm_256x256x256": 1.05, "gemm_512x512x512": 1.05,
    "gemm_1024x1024x1024": 1.05, "gemm_2048x2048x2048": 1.0, "gemm_128x768x768": 1.0,
    "gemm_128x3072x768": 1.0, "gemm_128x768x3072": 1.0, "gemm_1x1024x1024": 1.1,
    "gemm_1x4096x4096": 1.2, "dyn_1x1024x1024": 1.0, "dyn_1x4096x4096": 1.0,
    "dyn_128x768x768": 1.0, "dyn_512x512x512": 1.0, "conv_3x3_64_56_b1": 1.05,
    "conv_3x3_128_28_b1": 1.05, "conv_3x3_256_14_b1": 1.05, "conv_3x3_512_7_b1": 1.0,
    "conv_1x1_64_256_56_b1": 1.05, "conv_1x1_256_64_56_b1": 1.05, "conv_1x1_1024_256_14_b1": 1.05,
    "conv_7x7s2_3_64_224_b1": 1.25, "dw3x3s1_144_56": 1.5, "dw3x3s2_144_56": 1.25,
    "dw3x3s1_384_28": 1.5, "dw3x3s2_384_28": 1.25, "dw3x3s1_960_7": 1.5, "dw3x3s2_960_7": 1.25,
    "quantize_64k": 0.65, "dequantize_64k": 1.0, "add_64k": 1.2, "mul_64k": 1.5, "relu_64k": 1.5,
    "sigmoid_64k": 2.5, "tanh_64k": 2.5, "maxpool_64k": 1.0, "gap_64k": 1.0, "mlp_b1": 1.05,
    "mlp_b32": 1.05, "mlp_b256": 1.05, "lenet_b1": 1.5, "lenet_b32": 1.5, "resnet18_b1": 1.05,
    "mobilenetv2_b1": 1.3, "minilm_s128": 1.05,
}


def fastest(run):
    """Return microseconds of each runtime's fastest 8-bit form."""
    forms = {
        name: form for name, form in run.items()
        if name != "errors" and name.split("/")[1] == "int8"
    }
    errors = [form["err"] for form in forms.values() if isinstance(form.get("err"), float)]
    most = 2 * min(errors) + 1e-3 if errors else float("inf")
    times = {}
    for name, form in forms.items():
        if not (isinstance(form.get("err"), float) and form["err"] > most):
            peer = name.split("/")[0]
            times[peer] = min(times.get(peer, float("inf")), form["t"] * 1e6)
    return times


def others(name, times):
    """Return the runtimes that a ratio compares with."""
    return [p for p in times if p != "qcy" and not (p == "ncnn" and name.startswith("conv_3x3"))]


def tables(runs, threads):
    """Yield lines of Markdown: medians over runs of times, and of ratios within each run."""
    cases = runs[0]["cases"]
    peers = [p for p in NAMES if any(p in fastest(c["runs"].get(threads, {}))
                                     for c in cases.values())]
    for family, title in FAMILIES.items():
        yield f"## {title}\n"
        yield "| | " + " | ".join(NAMES[p] for p in peers) + " | ratio | promised |"
        yield "|---|" + "---|" * (len(peers) + 2)
        for name, case in cases.items():
            if case["family"] != family:
                continue
            found = [fastest(run["cases"][name]["runs"].get(threads, {})) for run in runs
                     if name in run["cases"]]
            ratios = [
                min(times[p] for p in others(name, times)) / times["qcy"]
                for times in found if "qcy" in times and others(name, times)
            ]
            cells = [
                number(statistics.median(t[p] for t in found if p in t))
                if any(p in t for t in found) else "" for p in peers
            ]
            ratio = statistics.median(ratios) if ratios else None
            promised = PROMISED.get(name)
            shown = "" if ratio is None else f"{ratio:.2f}"
            if ratio is not None and promised is not None and threads == "1":
                shown = f"**{shown}**" if round(ratio, 2) < promised else shown
            yield f"| {name} | {' | '.join(cells)} | {shown} | {promised or ''} |"
        yield ""


def summary(by_threads):
    """Yield lines of Markdown: qcy beside the best other runtime, at each number of threads."""
    counts = sorted(by_threads, key=int)
    heads = [f"{n} thread{'s' if n != '1' else ''}: best other | qcy | ratio" for n in counts]
    yield "| | " + " | ".join(heads) + " | promised for 1 |"
    yield "|---|" + "---|" * (3 * len(counts) + 1)
    for name in next(iter(by_threads.values()))[0]["cases"]:
        cells = []
        for n in counts:
            found = [
                times for run in by_threads[n] if name in run["cases"]
                for times in [fastest(run["cases"][name]["runs"].get(n, {}))]
                if "qcy" in times and others(name, times)
            ]
            if not found:
                cells += ["", "", ""]
                continue
            rest = {p for times in found for p in others(name, times)}
            best = min(rest, key=lambda p: statistics.median(t.get(p, 1e12) for t in found))
            ratio = statistics.median(
                min(t[p] for p in others(name, t)) / t["qcy"] for t in found
            )
            cells += [
                f"{NAMES[best]} {number(statistics.median(t[best] for t in found if best in t))}",
                number(statistics.median(t["qcy"] for t in found)), f"{ratio:.2f}",
            ]
        yield f"| {name} | {' | '.join(cells)} | {PROMISED.get(name, '')} |"


def number(us):
    """Return microseconds as people write them."""
    return f"{us:.1f}" if us < 100 else f"{us:,.0f}"


def about(run):
    """Return what was measured with what."""
    peers = run["meta"]["peers"]
    versions = ", ".join(
        f"{NAMES.get(p, p)} {next(iter(v.values())) if isinstance(v, dict) else v}"
        for p, v in peers.items() if p != "qcy"
    )
    return f"{run['meta']['date']}; {versions}; qcy's kernels: {peers['qcy'].get('variant')}."


def main(folder, *paths):
    """Write ``run-T-N.md`` for each run on T threads, ``median-T.md`` and ``summary.md``."""
    runs = [json.loads(Path(path).read_text()) for path in paths]
    by_threads = {}
    for run in runs:
        threads = max(next(iter(run["cases"].values()))["runs"], key=int)
        by_threads.setdefault(threads, []).append(run)
    Path(folder, "summary.md").write_text("\n".join(summary(by_threads)) + "\n")
    for threads, group in by_threads.items():
        many = f"{threads} thread" + ("s" if threads != "1" else "")
        pages = {f"median-{threads}": group}
        pages |= {f"run-{threads}-{i + 1}": [run] for i, run in enumerate(group)}
        for name, some in pages.items():
            what = f"medians of {len(some)} runs" if len(some) > 1 else f"run {name[-1]}"
            lines = [
                f"# Against other runtimes: {many}, {what}\n",
                "Microseconds of each runtime's fastest 8-bit form. Ratio: the best other's time "
                "over qcy's; bold where it is below what is promised.\n",
                about(some[0]) + "\n",
                *tables(some, threads),
            ]
            Path(folder, f"{name}.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
