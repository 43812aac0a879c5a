"""The standard library's docstrings, embedded and indexed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

import nestvec as nv

from . import LEVELS, DemoError
from .corpus import (
    Entry,
    compiled_docstrings,
    known_items,
    parsed_docstrings,
    python_files,
    unique_entries,
)
from .embedder import Embedder
from .measure import Depth, Outcome, brute_force, measure_depth, measure_method
from .methods import Floats, K, by_signs

_CHUNK = 512


@dataclass(frozen=True)
class Library:
    """Two indexes: one over names and first sentences for typed queries, one over remainders for known items.

    Row i of `remainders`, and of the index over them, is the one relevant answer to row i of `sentences`.
    """

    entries: list[Entry]
    embedder: Embedder
    labels: nv.NestedIndex
    sentences: Floats
    remainders: Floats
    known: nv.NestedIndex
    seconds: dict[str, float]

    @property
    def known_items(self) -> int:
        """Pairs of a sentence and its remainder."""
        return len(self.remainders)

    def search(self, query: str, k: int, dims: int, recall: float | None = None) -> list[tuple[float, Entry]]:
        """Return up to k (cosine, entry) for a typed query, best first; exact, or by a plan tuned to a recall."""
        count = min(k, len(self.entries))
        scores, ids = self.labels.search(self.embedder.embed([query]), count, dims=dims, recall=recall)
        return [(score, self.entries[row]) for score, row in zip(scores[0].tolist(), ids[0].tolist(), strict=True)]

    def tuned(self, recall: float, dims: int) -> nv.Plan:
        """Tune searches for known items, on one thread."""
        return self.known.tune(self.sentences, K, recall, dims=dims, threads=1)

    def measure(self, console: Console) -> tuple[list[Depth], dict[str, Outcome]]:
        """Measure known-item search at every level, and ways to search by signs with exact search as the last."""
        # A refresh in the background would disturb the timings.
        with progress_on(console, auto_refresh=False) as progress:
            full = brute_force(self.sentences, self.remainders, K)
            depths = [
                measure_depth(self.known, self.sentences, self.remainders, dims, full)
                for dims in progress.track(LEVELS, description="measure depths")
            ]
            methods = by_signs(self.known, self.sentences, self.remainders)
            tracked = progress.track(methods, description="measure signs")
            outcomes = {method.name: measure_method(method, full) for method in tracked}
        return depths, {**outcomes, "exact search": depths[-1].nestvec}


def build(stdlib: Path, console: Console) -> Library:
    """Collect, embed and index the docstrings under a library folder.

    Parameters
    ----------
    stdlib : Path
        Folder of the standard library.
    console : rich.console.Console
        Shows progress.

    Returns
    -------
    Library
        Ready to search.

    Raises
    ------
    DemoError
        When there are too few docstrings to search.

    Examples
    --------
    >>> build(Path(sysconfig.get_paths()["stdlib"]), Console(stderr=True))  # doctest: +SKIP
    """
    clock = [time.perf_counter()]
    with progress_on(console) as progress:
        entries, items = collect(stdlib, progress)
        clock.append(time.perf_counter())
        embedder = Embedder.installed()
        labels, sentences, remainders = _embed(
            embedder,
            [
                [entry.label for entry in entries],
                [item.sentence for item in items],
                [item.remainder for item in items],
            ],
            progress,
        )
        clock.append(time.perf_counter())
        answers, known = (cosine_index(rows) for rows in progress.track([labels, remainders], description="index"))
        clock.append(time.perf_counter())
    seconds = dict(zip(("collect", "embed", "index"), np.diff(clock).tolist(), strict=True))
    return Library(entries, embedder, answers, sentences, remainders, known, seconds)


def progress_on(console: Console, auto_refresh: bool = True) -> Progress:
    """Bars that vanish when done, on a terminal only."""
    return Progress(console=console, transient=True, auto_refresh=auto_refresh, disable=not console.is_terminal)


def collect(stdlib: Path, progress: Progress) -> tuple[list[Entry], list[Entry]]:
    """Collect the docstrings under a library folder, and the known items among them.

    Parameters
    ----------
    stdlib : Path
        Folder of the standard library.
    progress : rich.progress.Progress

    Returns
    -------
    entries, items : list of Entry

    Raises
    ------
    DemoError
        When there are too few docstrings to search.

    Examples
    --------
    >>> collect(Path("no/such/folder"), Progress(disable=True))[0][0].name  # doctest: +SKIP
    'builtins.abs'
    """
    docstrings: list[tuple[str, str]] = []
    for path in progress.track(python_files(stdlib), description="collect"):
        docstrings.extend(parsed_docstrings(path, stdlib))
    entries = unique_entries([*docstrings, *compiled_docstrings()])
    items = known_items(entries)
    if len(items) <= K:
        raise DemoError(f"the standard library has only {len(items)} docstrings to search here")
    return entries, items


def _embed(embedder: Embedder, columns: Sequence[list[str]], progress: Progress) -> list[Floats]:
    task = progress.add_task("embed", total=sum(map(len, columns)))
    embedded = []
    for texts in columns:
        chunks = []
        for start in range(0, len(texts), _CHUNK):
            chunks.append(embedder.embed(texts[start : start + _CHUNK]))
            progress.advance(task, len(chunks[-1]))
        embedded.append(np.concatenate(chunks))
    return embedded


def cosine_index(rows: Floats) -> nv.NestedIndex:
    """Index rows for searches at every level."""
    index = nv.NestedIndex(rows.shape[1], levels=LEVELS, metric="cosine")
    index.add(rows)
    return index
