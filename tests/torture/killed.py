"""Save one generation of an index after the other to one file, until killed.

python killed.py KIND FILE

Says on standard output which generation is going to be saved, and which was. Goes on from the file, if it is there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

import nestvec as nv
from subjects import DOCS, ENCODER, ROWS, D, X

ADDED, WHICH = 20, 7  # rows of a generation, and of those before, one in so many is removed

KINDS = {
    "vectors": lambda: nv.NestedIndex(D, codes=("b1", "i4")),
    "documents": lambda: nv.MultiVectorIndex(ENCODER),
}


def ids_of(generation: int) -> list[int]:
    """Ids that are in an index: rows of the last generation are whole, of those before some are gone."""
    last = ADDED * (generation - 1)
    return [one for one in range(ADDED * generation) if one >= last or one % WHICH]


def rows_of(kind: str, ids: Any) -> list[Any]:
    """What has these ids."""
    source = DOCS if kind == "documents" else X
    return [source[one % ROWS] for one in ids]


def generation_of(index: Any) -> int:
    """Which one a file holds."""
    return (int(index.ids[-1]) + 1) // ADDED if len(index) else 0


def advance(kind: str, index: Any, generation: int) -> None:
    """Make an index the next generation."""
    new = range(ADDED * (generation - 1), ADDED * generation)
    before = range(max(0, new[0] - ADDED), new[0])
    index.remove([one for one in before if one % WHICH == 0])
    if generation % 5 == 0:
        index.compact()
    some = rows_of(kind, new)
    index.add(some if kind == "documents" else np.stack(some))


def main(kind: str, path: Path) -> None:
    index = nv.load(path) if path.exists() else KINDS[kind]()
    generation = generation_of(index)
    while True:
        generation += 1
        advance(kind, index, generation)
        os.write(1, f"begun {generation}\n".encode())
        index.save(path)
        os.write(1, f"saved {generation}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
