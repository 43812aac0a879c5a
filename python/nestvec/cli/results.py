"""Results of searches, and files of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np
import numpy.typing as npt

from ..replacing import replacing

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Results:
    """Scores and ids of query i from ``lims[i]`` to ``lims[i + 1]``, best first."""

    lims: Array
    scores: Array
    ids: Array
    width: int = 0  # k, 0 where each query has a number of its own

    @classmethod
    def of_table(cls, scores: Array, ids: Array) -> Results:
        """Of ``(D, I)``, without what was not found."""
        there = ids >= 0 if ids.dtype != object else np.asarray([[one is not None for one in row] for row in ids])
        return cls(np.concatenate([[0], np.cumsum(there.sum(axis=1))]), scores[there], ids[there], ids.shape[1])

    def __len__(self) -> int:
        return len(self.lims) - 1

    def __getitem__(self, query: int) -> tuple[Array, Array]:
        some = slice(self.lims[query], self.lims[query + 1])
        return self.scores[some], self.ids[some]

    @property
    def count(self) -> int:
        """Results of all queries."""
        return len(self.ids)

    def columns(self) -> dict[str, Array]:
        """A row for each result: number of the query, rank from 1, id and score."""
        counts = np.diff(self.lims)
        query = np.repeat(np.arange(len(self)), counts)
        rank = np.arange(self.count) - np.repeat(self.lims[:-1], counts) + 1
        return {"query": query, "rank": rank, "id": self.ids, "score": self.scores}


def refuse_unknown(path: Path) -> None:
    """UsageError unless the file's name says how to write it, and that is possible here."""
    if path.suffix not in WRITERS:
        raise click.UsageError(f"--out {path}: the name must end in {', '.join(WRITERS)}")
    if not path.absolute().parent.is_dir():
        raise click.UsageError(f"--out {path}: there is no directory {path.parent}; make it first")
    if path.suffix == ".parquet":
        try:
            import_module("pyarrow")
        except ImportError:
            raise click.UsageError(f'--out {path} needs pyarrow: pip install "nestvec[parquet]"') from None


def write(found: Results, path: Path) -> None:
    """Write results wholly or not at all; see `WRITERS` for the formats."""
    with replacing(path) as file:
        WRITERS[path.suffix](found, file)


def _npz(found: Results, file: BinaryIO) -> None:
    """``lims``, ``scores``, ``ids``; nothing that was not found is in them."""
    ids = found.ids.astype(str) if found.ids.dtype == object else found.ids
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in (("lims", found.lims), ("scores", found.scores), ("ids", ids)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, array)


def _csv(found: Results, file: BinaryIO) -> None:
    import csv

    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    columns = found.columns()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    text.detach()


def _parquet(found: Results, file: BinaryIO) -> None:
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    pq.write_table(pa.table(found.columns()), file)


WRITERS: dict[str, Callable[[Results, BinaryIO], None]] = {".npz": _npz, ".parquet": _parquet, ".csv": _csv}
