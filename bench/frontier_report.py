"""What README.md shows of bench/results/frontier.json: a plot of recall against speed, and a table of both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLOT = ROOT / "docs" / "frontier.svg"
BEGIN, END = "<!-- frontier: python bench/report.py --readme -->", "<!-- /frontier -->"
RECALL = 0.99  # that the table compares at
OURS = "#c1121f"
FAMILIES = {  # what is shown as one: its fastest member
    "nestvec, exact": ("nestvec-exact",),
    "nestvec, tuned": ("nestvec-tuned",),
    "faiss flat": ("faiss-flat", "faiss-flat-blas", "faiss-panorama8"),
    "faiss IVF": ("faiss-ivf-flat", "faiss-ivf-sq8-refine", "faiss-ivf-pq4fs-refine"),
    "faiss HNSW32": ("faiss-hnsw32",),
    "faiss PQ64x4fs + refine": ("faiss-pq64x4fs-refine",),
    "faiss RaBitQ + refine": ("faiss-rabitqfs-refine", "faiss-rabitq-refine"),
    "turbovec + rerank": ("turbovec2-rerank", "turbovec4-rerank"),
    "numkong i8 + rerank": ("numkong-i8-rerank",),
}
COLOURS = dict(
    zip(
        FAMILIES, (OURS, OURS, "#222222", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#ff7f0e", "#7f7f7f"), strict=True
    )
)
TEXTS = {
    "pkg_wordllama": "package descriptions",
    "wn_wordllama": "WordNet, WordLlama",
    "wn_minilm": "WordNet, MiniLM",
    "wn_minilm_adaptor": "WordNet, MiniLM and adaptor",
}


def member(row: dict, family: str) -> bool:
    """Whether a row's peer is of a family; names of ours go on with rotation and backend."""
    return row["peer"] in FAMILIES[family] or (row["backend"] and row["peer"].startswith(FAMILIES[family]))


def level(row: dict) -> float:
    """The recall that a row's setting was chosen for; of peers without a knob the one they have."""
    return row["recall"] if row["target"] is None else row["target"]


def best(rows: Sequence[dict], recall: float) -> dict | None:
    """The fastest of those chosen for a recall, or for more."""
    return min((row for row in rows if level(row) >= recall), key=lambda row: row["ms_median"], default=None)


def line(rows: Sequence[dict]) -> list[dict]:
    """The fastest of a family for each recall, without those that another one beats in both."""
    places = [best(rows, recall) for recall in sorted({level(row) for row in rows})]
    unique = {(row["peer"], row["setting"]): row for row in places if row is not None}
    return sorted(unique.values(), key=lambda row: row["recall"])


def subject(row: dict) -> str:
    return f"{row['n']:,} x {row['d']} ({TEXTS.get(row['data'], row['data'])})"


def plot(rows: Sequence[dict], caption: str, path: Path = PLOT) -> None:
    """Recall against queries per second, a panel for each size of batch."""
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    def tick(speed: float, _: int) -> str:
        return f"{speed:,.0f}" if f"{speed:e}"[0] in "125" else ""

    ticks = FuncFormatter(tick)
    style = {"svg.fonttype": "none", "svg.hashsalt": "frontier", "font.family": "sans-serif", "font.size": 9}
    batches = [(nq, list(group)) for nq, group in groupby(sorted(rows, key=lambda r: r["nq"]), lambda r: r["nq"])]
    with pyplot.rc_context(style):
        figure, panels = pyplot.subplots(1, len(batches), figsize=(4.6 * len(batches), 4.3), squeeze=False, sharey=True)
        for panel, (nq, batch) in zip(panels[0], batches, strict=True):
            for family, colour in COLOURS.items():
                places = line([row for row in batch if member(row, family)])
                if places:
                    draw(panel, family, places, colour)
            panel.set(xscale="log", xlabel="queries per second, one thread", ylim=(0.885, 1.006))
            for formatted in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
                formatted(ticks)
            panel.set_title("one query at a time" if nq == 1 else f"{nq} queries at once", fontsize=10)
            panel.grid(alpha=0.25, which="major")
            panel.spines[["top", "right"]].set_visible(False)
        panels[0][0].set_ylabel(f"recall@{rows[0]['k']}")
        found = {label: h for panel in panels[0] for h, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        figure.legend(
            found.values(), found.keys(), loc="lower center", ncols=5, frameon=False, bbox_to_anchor=(0.5, 0.05)
        )
        figure.text(0.5, 0.012, caption, ha="center", fontsize=6.5, color="#555555")
        figure.suptitle(subject(rows[0]), fontsize=11)
        figure.tight_layout(rect=(0, 0.16, 1, 1))
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        pyplot.close(figure)


def draw(panel, family: str, places: Sequence[dict], colour: str) -> None:
    ours = family.startswith("nestvec")
    look = {"marker": "*" if family == "nestvec, exact" else "o", "markersize": 4, "linewidth": 1.1, "alpha": 0.85}
    if ours:
        look |= {"markersize": 13 if family == "nestvec, exact" else 6, "linewidth": 2.4, "alpha": 1, "zorder": 5}
    speeds, shares = [1e3 / row["ms_median"] for row in places], [row["recall"] for row in places]
    panel.plot(speeds, shares, color=colour, label=family, **look)


def table(rows: Sequence[dict]) -> str:
    """Milliseconds per query and recall of each family where it was tuned to RECALL; the fastest in bold."""
    shown = [family for family in FAMILIES if any(member(row, family) for row in rows)]
    lines = ["| data | queries at once | " + " | ".join(shown) + " |", "|---" * (len(shown) + 2) + "|"]
    shapes = dict.fromkeys((row["data"], row["n"], row["d"], row["nq"]) for row in rows)
    for shape in shapes:
        group = [row for row in rows if (row["data"], row["n"], row["d"], row["nq"]) == shape]
        places = [best([row for row in group if member(row, family)], RECALL) for family in shown]
        least = min((row["ms_median"] for row in places if row), default=0)
        cells = ["" if row is None else cell(row, row["ms_median"] == least) for row in places]
        lines.append("| " + " | ".join([subject(group[0]), str(shape[3]), *cells]) + " |")
    return "\n".join(lines)


def cell(row: dict, fastest: bool) -> str:
    speed = f"{row['ms_median']:.2g}"
    share = "1" if row["recall"] > 0.99995 else f"{row['recall']:.4f}".lstrip("0").rstrip("0")
    return f"**{speed}** ({share})" if fastest else f"{speed} ({share})"


def caption(result: dict) -> str:
    machine = result["machine"]
    names = ("nestvec", "faiss-cpu", "turbovec", "numkong")
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in names if name in machine["versions"])
    amx = ", AMX" if "amx_int8" in machine["flags"] else ""
    return f"{machine['cpu']}{amx}, {machine['cores']} cores; {versions}; {machine['date'][:10]}"


def update(result: dict, readme: Path = ROOT / "README.md") -> None:
    """Draw the plot, of the largest data set, and write it and the table into README.md, between its two marks."""
    rows = sorted(result["runs"][0]["rows"], key=lambda row: (-row["n"], row["d"], row["data"], row["nq"]))
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{readme.name} needs these two lines, once each, between which to write:\n{BEGIN}\n{END}")
    where = caption(result)
    first = [row for row in rows if (row["data"], row["n"]) == (rows[0]["data"], rows[0]["n"])]
    plot(first, where)
    parts = [
        BEGIN,
        f"Milliseconds per query with recall@{rows[0]['k']} in brackets, every peer tuned to recall {RECALL:g}: "
        "rivals' knobs to that share of up to 1,000 queries, nestvec's plans to a lower confidence bound of it; judged "
        f"by 500 others. A blank: not reached. {where}, one thread (`bench/frontier.py`).",
        table(rows),
        END,
    ]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(before + "\n\n".join(parts) + after, encoding="utf-8")
    print(readme, PLOT, f"{PLOT.stat().st_size:,} bytes")
