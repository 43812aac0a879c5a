"""Data sets of the benchmarks: real embeddings and synthetic spectra, built once and cached as .npy files.

    python bench/data.py build wn_wordllama        # sources: see bench/README.md
    >>> dataset = load("synth_a0.25", n=5_000)     # small synthetic sets are made on the spot
    >>> bags = load_multivectors("mv_colbert")     # many vectors a text

Files live in the folder named by NESTVEC_DATA. Rows are unit length (up to float16 rounding in the real sets).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import multivector_data
from corpora import Texts, package_texts, source, wordnet_texts
from encoders import embed_minilm, embed_wordllama, unit_rows
from multivector_data import MultiVectors

SYNTH_ROWS, SYNTH_DIMS, SYNTH_QUERIES = 200_000, 768, 1_000


@dataclass(frozen=True)
class Dataset:
    """docs (n, d) float16 or float32, queries (nq, d) float32; relevant (nq,) is one known answer each, or None."""

    name: str
    docs: np.ndarray
    queries: np.ndarray
    levels: tuple[int, ...]
    relevant: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray | None]:
        return {"docs": self.docs, "queries": self.queries, "relevant": self.relevant}


def data_folder() -> Path:
    return Path(os.environ.get("NESTVEC_DATA", "bench-data"))


def synthetic(name: str, a: float, n: int = SYNTH_ROWS, seed: int = 0, nq: int = SYNTH_QUERIES) -> Dataset:
    """Clustered unit rows whose variance in dim i falls as i^(-2a).

    A row is a common direction, its cluster's centre and noise, with squared lengths .22, .41 and .37: two rows have
    cosine .22, two of one cluster .63, and the ten best of about 200 of a cluster .66 to .70, as text embeddings do.
    Queries are fresh points of the same clusters.
    """
    rng = np.random.default_rng([seed, int(a * 1000), n])
    spread = np.arange(1, SYNTH_DIMS + 1, dtype=np.float32) ** -a
    spread /= np.linalg.norm(spread)
    common = rng.standard_normal(SYNTH_DIMS, np.float32) * spread
    common /= np.linalg.norm(common)
    centres = rng.standard_normal((max(16, n // 200), SYNTH_DIMS), np.float32) * spread
    centres = np.float32(0.22**0.5) * common + np.float32(0.41**0.5) * centres

    def draw(count: int) -> np.ndarray:
        out = np.empty((count, SYNTH_DIMS), np.float32)
        for start in range(0, count, 16_384):
            part = out[start : start + 16_384]
            rng.standard_normal(out=part, dtype=np.float32)
            part *= np.float32(0.37**0.5) * spread
            part += centres[rng.integers(len(centres), size=len(part))]
            part /= np.linalg.norm(part, axis=1, keepdims=True)
        return out

    return Dataset(name, draw(n), draw(nq), (64, 128, 256, 512, SYNTH_DIMS))


def _embedded(texts: Callable[[], Texts], embed: Callable, levels: tuple[int, ...], name: str) -> Dataset:
    docs, queries, relevant = texts()
    return Dataset(name, embed(docs), embed(queries).astype(np.float32), levels, relevant)


def _adapted(name: str) -> Dataset:
    """MiniLM rows times a learned 384 x 384 matrix that orders the dims (trained on this corpus: say so in reports)."""
    adaptor = np.load(source("MINILM_ADAPTOR", "the 384 x 384 adaptor matrix (.npy)")).astype(np.float32)
    raw = load("wn_minilm")
    docs = np.concatenate([unit_rows(part @ adaptor).astype(np.float16) for part in np.array_split(raw.docs, 16)])
    return Dataset(name, docs, unit_rows(raw.queries @ adaptor), raw.levels, raw.relevant)


BUILDERS: dict[str, Callable[..., Dataset]] = {
    "wn_wordllama": partial(_embedded, wordnet_texts, embed_wordllama, (64, 128, 256)),
    "wn_minilm": partial(_embedded, wordnet_texts, embed_minilm, (64, 128, 256, 384)),
    "wn_minilm_adaptor": _adapted,
    "pkg_wordllama": partial(_embedded, package_texts, embed_wordllama, (64, 128, 256)),
    **{f"synth_a{a:g}": partial(synthetic, a=a) for a in (0, 0.25, 0.5)},
}
MULTIVECTORS: dict[str, Callable[..., MultiVectors]] = {"mv_colbert": multivector_data.colbert}
MAKERS = BUILDERS | MULTIVECTORS


def build(name: str) -> None:
    """Make a data set from its sources and save it; an interrupted build leaves no half file under the final name."""
    dataset = MAKERS[name](name=name)
    folder = data_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    for outdated in folder.glob("truth_*"):
        outdated.unlink()
    for file, array in dataset.arrays().items():
        if array is not None:
            np.save(folder / "partial.npy", array)
            (folder / "partial.npy").replace(folder / f"{file}.npy")
    if isinstance(dataset, Dataset):
        (folder / "levels.txt").write_text(" ".join(map(str, dataset.levels)))


def load(name: str, *, n: int | None = None, seed: int = 0) -> Dataset:
    """A cached data set, memory-mapped; n (and for synthetic sets another seed) asks for a smaller or other version.

    The n of a real set takes its leading rows and drops the relevance labels that then point nowhere.
    """
    if name not in BUILDERS:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(BUILDERS)}")
    if name.startswith("synth") and (seed or n not in (None, SYNTH_ROWS)):
        return BUILDERS[name](name=name, n=n or SYNTH_ROWS, seed=seed)
    folder = _folder_with(name, "levels.txt")
    docs, queries = np.load(folder / "docs.npy", mmap_mode="r")[:n], np.load(folder / "queries.npy")
    labels = folder / "relevant.npy"
    relevant = np.load(labels) if n is None and labels.exists() else None
    levels = tuple(map(int, (folder / "levels.txt").read_text().split()))
    return Dataset(name, docs, queries, levels, relevant)


def load_multivectors(name: str, *, n: int | None = None) -> MultiVectors:
    """mv_synth, made on the spot, or a cached set; n asks for a smaller one, or a larger one with noisy repeats."""
    if name == "mv_synth":
        return multivector_data.synthetic(name, *([n] if n else []))
    folder = _folder_with(name, "relevant.npy")
    dataset = MultiVectors(name, *(np.load(folder / f"{file}.npy") for file in MultiVectors.files))
    return dataset if n is None else multivector_data.grown(dataset, n)


def _folder_with(name: str, file: str) -> Path:
    folder = data_folder() / name
    if not (folder / file).exists():
        raise FileNotFoundError(
            f"data set {name} is not in NESTVEC_DATA; make it with: python bench/data.py build {name}"
        )
    return folder


def describe(name: str) -> str:
    if name in MULTIVECTORS:
        bags = load_multivectors(name)
        return f"{len(bags)} texts, {bags.docs.shape} {bags.docs.dtype}, {len(bags.query_offsets) - 1} queries"
    dataset = load(name)
    shape = " ".join(map(str, dataset.docs.shape))
    return f"{shape} {dataset.docs.dtype} queries {len(dataset.queries)} {dataset.levels}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("build", "list"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(MAKERS)}")
    args = parser.parse_args()
    for name in args.names or MAKERS:
        if args.command == "build":
            build(name)
        try:
            print(name, describe(name))
        except FileNotFoundError as error:
            print(name, "-", error)


if __name__ == "__main__":
    main()
