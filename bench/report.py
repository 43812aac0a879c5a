"""bench/results/*.json to Markdown tables and plots: python bench/report.py [NAME ...]

With --readme instead: results/frontier.json to the plot and the table of README.md.
Writes results/NAME.md and, for each group of batch searches, results/NAME-*.png (recall against queries per second).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from itertools import groupby
from pathlib import Path
from statistics import mean, median

import frontier_report

RESULTS = Path(__file__).parent / "results"
LEGEND = (
    "`vs faiss` is the speed relative to the faster of faiss' two flat searches, `vs best peer` to the fastest rival "
    "whose recall is at least .99, in the same run. Recall forgives ties; score errors are against float64."
)
LEGEND_BITS = (
    "Exact Hamming top-k. `vs faiss` is the speed relative to the faster of faiss' heap and counting, in the same run; "
    "`prefix` searches the leading bits of an index of more."
)
GROUP = ("data", "n", "d", "dims", "k", "threads", "simd")
GROUP_BITS = ("data", "n", "bits", "k", "threads", "simd")
FLAT = ("faiss-flat", "faiss-flat-blas", "faiss-heap", "faiss-count", "faiss-heap-tuned", "faiss-count-tuned")
TABLES = {  # of multivector.py: what the rows of a table share, and its columns: key, header, format
    "encode": (
        ("case", "setting", "dims"),
        [("ms_median", "ms/bag", ".4g"), ("ms_min", "min", ".4g"), ("max_error", "error", ".1e")],
    ),
    "maxsim": (
        ("case", "query", "n", "tokens"),
        [
            ("ms_median", "ms/1000 documents", ".4g"),
            ("ms_min", "min", ".4g"),
            ("gflops", "GFLOP/s", ".0f"),
            ("max_error", "error", ".1e"),
        ],
    ),
    "search": (
        ("data", "n", "tokens", "setting", "k", "queries", "nq"),
        [
            ("ms_median", "ms/query", ".4g"),
            ("ms_min", "min", ".4g"),
            ("recall", "recall", ".4f"),
            ("ndcg", "nDCG@10", ".4f"),
            ("max_score_error", "score error", ".1e"),
            ("knob", "tuned to", "d"),
            ("index_bytes", "bytes", ",d"),
            ("build_s", "build s", ".1f"),
        ],
    ),
    "curves": (
        ("data", "n", "candidates"),
        [("found", "share of the top 10", ".4f"), ("answered", "share of the answers", ".4f")],
    ),
    "compression": (
        ("data", "n", "setting", "dims"),
        [
            ("bytes", "bytes/document", ".0f"),
            ("recall", "recall@100", ".4f"),
            ("found", "share of the top 10", ".4f"),
            ("answered", "share of the answers", ".4f"),
            ("ms_median", "ms/query", ".4g"),
            ("trained_on", "trained on", "d"),
            ("train_s", "train s", ".1f"),
            ("encode_s", "encode s", ".1f"),
        ],
    ),
    "crossing": (
        ("data", "setting", "k", "nq", "n", "tokens"),
        [
            ("ms_median", "ms/query", ".4g"),
            ("ms_min", "min", ".4g"),
            ("recall", "recall", ".4f"),
            ("knob", "tuned to", "d"),
            ("index_bytes", "bytes", ",d"),
        ],
    ),
    "gpu": (  # of gpu.py
        ("case", "n", "d", "k", "nq"),
        [
            ("ms_median", "ms", ".4g"),
            ("ms_min", "min", ".4g"),
            ("wall_ms", "by the host", ".4g"),
            ("recall", "recall", ".4f"),
            ("max_error", "error", ".1e"),
            ("per_second", "documents/s", ",.0f"),
            ("gbps", "GB/s", ".0f"),
            ("of_bandwidth", "of bandwidth", ".0%"),
            ("tops", "TOP/s", ".0f"),
            ("of_peak", "of peak", ".0%"),
        ],
    ),
    "frontier": (
        ("data", "n", "d", "k", "nq"),
        [
            ("target", "tuned to", ".3f"),
            ("setting", "setting", ""),
            ("ms_median", "ms/query", ".4g"),
            ("ms_min", "min", ".4g"),
            ("recall", "recall", ".4f"),
            ("index_bytes", "bytes", ",d"),
            ("build_s", "build s", ".1f"),
        ],
    ),
}
LEGENDS = {
    "encode": "Fixed dimensional encodings of bags of vectors; errors are the largest differences to muvfde's values.",
    "maxsim": "Scores of documents for one query; errors are the largest against float64 scores of the same tokens, "
    "and peers of more than 1e-5 and twice the error of a row are not compared with it.",
    "search": "Recall counts documents whose exact score reaches the true k-th; peers below .99 are not compared with. "
    "nDCG has one known answer a query. Rows of nestvec share one index, whose bytes are those of all its parts.",
    "curves": "What is among the first candidates, ranked by encodings or by nearest tokens, before any exact score.",
    "compression": "What is among the first 100 documents; recall is against the 100 best by uncompressed encodings.",
    "crossing": "Exact search beside shortlists tuned to recall .99, as documents are repeated with noise.",
    "frontier": "Tuned on up to 1,000 queries, judged by 500 others; a row has rivals tuned to as much or more.",
    "gpu": "Calls on one GPU, in turns; bytes and operations are those that a method cannot do without, also as parts "
    "of what the driver says of the device. Peers whose recall is below .99 are not compared with.",
    "tuning": "Each seed tunes on a sample and is judged by the other queries. Short: by over two standard errors.",
    "grid": "Medians of single queries by turns; the best of a grid that finds what was asked for, or what the tuned "
    "plan does.",
}
HEADER = ("nq", "peer", "ms/query", "min", "recall", "vs faiss", "vs best peer", "score error", "bytes/row", "build s")


def groups(rows: list[dict]) -> list[tuple[dict, list[dict]]]:
    """Rows that may be compared: the same data, dims or bits, k, threads and instruction sets."""
    keys = GROUP_BITS if any("bits" in row for row in rows) else GROUP
    rows = sorted(rows, key=lambda row: ([row[key] for key in keys], row["nq"], row["ms_median"]))
    return [
        (dict(zip(keys, values, strict=True)), list(group))
        for values, group in groupby(rows, lambda row: [row[key] for key in keys])
    ]


def is_ours(row: dict) -> bool:
    return row["backend"] is not None


def fastest(rows: list[dict]) -> float | None:
    return min((row["ms_median"] for row in rows), default=None)


def ratio(reference: float | None, row: dict) -> str:
    return f"{reference / row['ms_median']:.2f}x" if reference else "-"


def table(rows: list[dict]) -> str:
    """One line per row, the fastest first; ours in bold."""
    header = HEADER[:6] if "bits" in rows[0] else HEADER
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for nq, batch in groupby(rows, lambda row: row["nq"]):
        batch = list(batch)
        flat = fastest([row for row in batch if row["peer"] in FLAT])
        rival = fastest([row for row in batch if not is_ours(row) and row.get("recall", 0) >= 0.99])
        for row in batch:
            name = f"**{row['peer']}**" if is_ours(row) else row["peer"]
            judged = "recall" in row
            cells = [
                str(nq),
                name,
                f"{row['ms_median']:.4g}",
                f"{row['ms_min']:.4g}",
                f"{row['recall']:.4f}" if judged else "-",
                ratio(flat, row) if judged else "-",
                ratio(rival, row) if judged else "-",
                f"{row['max_score_error']:.1e}" if judged else "-",
                f"{row['index_bytes'] / row['n']:.0f}" if row["index_bytes"] else "-",
                f"{row['build_s']:.2f}",
            ]
            lines.append("| " + " | ".join(cells[: len(header)]) + " |")
    return "\n".join(lines)


def plain_tables(rows: list[dict]) -> list[str]:
    """A table for each group of rows, the fastest first, as TABLES says; ours in bold."""
    keys, columns = TABLES[rows[0]["bench"]]
    shapes = dict.fromkeys(tuple(row[key] for key in keys) for row in rows)
    parts = []
    for shape in shapes:
        every = [row for row in rows if tuple(row[key] for key in keys) == shape]
        group = [row for row in every if "failed" not in row]
        group.sort(key=lambda row: row.get("ms_median", 0))
        rivals = [row for row in group if "peer" in row and not is_ours(row)]
        header = ["peer", *(header for _, header, _ in columns), *(["vs best peer"] if rivals else [])]
        lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
        for row in group:
            name = row.get("peer") or row["setting"]
            cells = [format(row[key], form) if row.get(key) is not None else "-" for key, _, form in columns]
            cells += [ratio(fastest([r for r in rivals if comparable(row, r)]), row)] if rivals else []
            lines.append("| " + " | ".join([f"**{name}**" if row.get("backend") else name, *cells]) + " |")
        title = ", ".join(f"{key} {value}" for key, value in zip(keys, shape, strict=True))
        parts += [f"## {title}", "\n".join(lines)]
        parts += [f"{row['peer']} failed: {row['failed']}" for row in every if "failed" in row]
    return parts


def comparable(row: dict, rival: dict) -> bool:
    """Whether a rival answers well enough for the row to be compared with."""
    if row["bench"] == "frontier":
        return frontier_report.level(rival) >= frontier_report.level(row)
    if row["bench"] == "maxsim":
        return rival["max_error"] <= max(1e-5, 2 * row["max_error"])
    return row["bench"] in ("encode", "search", "crossing", "gpu") and rival.get("recall", 1) >= 0.99


def promises(rows: list[dict]) -> list[str]:
    """What tuning promised and what came true, a line for all seeds of a set and a recall."""
    head = ("data", "rows", "k", "recall", "seeds", "expected", "lower", "achieved", "least", "reached", "short")
    lines = ["| " + " | ".join((*head, "tune s", "ms", "exact ms", "most frequent plan")) + " |", "|---" * 15 + "|"]
    shapes = dict.fromkeys((row["data"], row["n"], row["k"], row["recall"], row["codes"]) for row in rows)
    for shape in shapes:
        group = [r for r in rows if (r["data"], r["n"], r["k"], r["recall"], r["codes"]) == shape]
        achieved = [row["achieved"] for row in group]
        short = sum(row["achieved"] + 2 * row["achieved_error"] < shape[3] for row in group)
        shares = [mean(row["expected"] for row in group), mean(row["lower"] for row in group), mean(achieved)]
        cells = [shape[0], f"{shape[1]:,}", shape[2], f"{shape[3]:g}", len(group)]
        cells += [f"{share:.4f}" for share in (*shares, min(achieved))]
        cells += [sum(share >= shape[3] for share in achieved), short]
        cells += [f"{median(row[key] for row in group):.3g}" for key in ("tune_s", "ms", "exact_ms")]
        cells += Counter(row["plan"] for row in group).most_common(1)[0][:1]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return ["\n".join(lines)]


def grids(rows: list[dict]) -> list[str]:
    """Tuned plans beside the best of a grid."""
    lines = ["| data | rows | k | to find | tuned | ms | best of the grid | ms | ratio |", "|---" * 9 + "|"]
    for row in rows:
        plans = [f"{row[plan]} ({row[share]:.4f})" for plan, share in (("plan", "achieved"), ("best", "best_recall"))]
        cells = [row["data"], f"{row['n']:,}", row["k"], f"{row['goal_recall']:.4f}, {row['goal']}"]
        cells += [plans[0], f"{row['ms']:.3f}", plans[1], f"{row['best_ms']:.3f}", f"{row['ratio']:.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return ["\n".join(lines)]


def wrong(rows: list[dict]) -> list[str]:
    """A line that names the exact searches whose distances were not, if there are any."""
    names = sorted({row["peer"] for row in rows if row.get("max_score_error", 0) != 0})
    return [f"Wrong distances: {', '.join(names)}."] if names else []


def plot(shape: dict, rows: list[dict], path: Path) -> None:
    """Recall against queries per second, one panel per nq."""
    from matplotlib import pyplot

    batches = [(nq, [r for r in batch if "recall" in r]) for nq, batch in groupby(rows, lambda row: row["nq"])]
    figure, panels = pyplot.subplots(1, len(batches), figsize=(4.2 * len(batches), 4.4), squeeze=False, sharey=True)
    names = sorted({row["peer"] for row in rows if "recall" in row})
    colours = {name: pyplot.colormaps["tab20"](i % 20) for i, name in enumerate(names)}
    for panel, (nq, batch) in zip(panels[0], batches, strict=True):
        for row in batch:
            look = {"marker": "*", "s": 190} if is_ours(row) else {"marker": "o", "s": 50}
            panel.scatter(1e3 / row["ms_median"], row["recall"], color=colours[row["peer"]], label=row["peer"], **look)
        panel.set(xscale="log", xlabel="queries per second", title=f"nq = {nq}")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel(f"recall@{shape['k']}")
    handles = {label: h for panel in panels[0] for h, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=5, fontsize=8)
    figure.suptitle(f"{shape['data']}, {shape['n']:,} x {shape['dims']}, {shape['threads']} thread(s), {shape['simd']}")
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def machine_lines(result: dict) -> list[str]:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {' '.join(machine['flags'])}; {machine['date']}; {versions}.",
    ]
    if "repeats" in result["settings"]:
        repeats = result["settings"]["repeats"]
        single = "" if "device_facts" in result["settings"] else " (single queries: of 8 different ones each)"
        lines.append(f"Median of {repeats} interleaved repeats{single}.")
    if facts := result["settings"].get("device_facts"):
        lines.append("GPU: " + ", ".join(f"{key} {value}" for key, value in facts.items()) + ".")
    for run in result["runs"]:
        kernels = ", ".join(f"{library} {kernel}" for library, kernel in run["blas"].items())
        load = " to ".join(f"{averages[0]:.2f}" for averages in run["load_average"])
        lines.append(f"{run['threads']} thread(s): OpenBLAS kernels {kernels}; load average {load}.")
    return lines


def costs(result: dict) -> list[str]:
    """What reliability.py measured: a table of filters, and a line for each other figure."""
    machine = result["machine"]
    parts = [f"{machine['cpu']}, {machine['cores']} cores; {machine['date']}; {result['data']}."]
    if rows := result.get("filters"):
        lines = ["| backend | nq | filter | ms/query | of no filter | by minima |", "|---" * 6 + "|"]
        lines += [
            f"| {r['backend']} | {r['nq']} | {r['filter']} | {r['ms']:.4g} | {r['ratio']:.3f} | {r['ratio_min']:.3f} |"
            for r in rows
        ]
        parts += ["## filters", "\n".join(lines)]
    for name in ("changes", "files", "checks"):
        if name in result:
            parts += [f"## {name}", "\n".join(f"- {key}: {value:.4g}" for key, value in result[name].items())]
    return parts


def report(path: Path) -> None:
    result = json.loads(path.read_text())
    if "runs" not in result:
        write(path, [f"# {path.stem}", *costs(result)])
        return
    every = [row for run in result["runs"] for row in run["rows"]]
    if every[0].get("bench"):
        parts = [f"# {path.stem}", *machine_lines(result)]
        for bench in dict.fromkeys(row["bench"] for row in every):
            tables = {"tuning": promises, "grid": grids}.get(bench, plain_tables)
            parts += [LEGENDS[bench], *tables([row for row in every if row["bench"] == bench])]
        write(path, parts)
        return
    parts = [f"# {path.stem}", *machine_lines(result), LEGEND_BITS if any("bits" in row for row in every) else LEGEND]
    for shape, rows in groups(every):
        title = ", ".join(f"{key} {value}" for key, value in shape.items())
        if "bits" in shape:
            parts += [f"## {title}", table(rows), *wrong(rows)]
            continue
        image = path.with_name(
            "-".join([path.stem, *(str(shape[key]) for key in ("data", "dims", "k", "threads"))]) + ".png"
        )
        plot(shape, rows, image)
        parts += [f"## {title}", f"![recall against queries per second]({image.name})", table(rows)]
    write(path, parts)


def write(path: Path, parts: list[str]) -> None:
    path.with_suffix(".md").write_text("\n\n".join(parts) + "\n")
    print(path.with_suffix(".md"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="results to report; default: all")
    parser.add_argument("--readme", action="store_true", help="write README.md's plot and table")
    parser.add_argument("--frontier", default="frontier", help="the results that --readme shows")
    args = parser.parse_args()
    if args.readme:
        frontier_report.update(json.loads((RESULTS / f"{args.frontier}.json").read_text()))
        return
    names = args.names
    for path in [RESULTS / f"{name}.json" for name in names] or sorted(RESULTS.glob("*.json")):
        report(path)


if __name__ == "__main__":
    main()
