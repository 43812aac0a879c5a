"""Load and search files made of a good one: each load ends in an error or, if nothing was changed, the same answers.

python mutate.py FILE FOLDER FIRST LAST STEP

Prints the number of each file before it is tried, so that the last one printed is the one that a crash or a hang is
about; then how many loads there were, and how many of them were refused. Ends with status 1 and what went wrong.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import nestvec as nv
from hostile import Mutant, answers

SPARE = 64 * 2**20  # bytes beyond twice the size of a file that loading and searching may take
LONGEST = 1.0  # seconds of computing
SEARCHES = (  # what searching may say of tokens that are no numbers, and of transforms of large ones
    r"holds (nan|inf|-inf) at token",
    r"docs holds",
    r"q is beyond the range of float32 after the transform",
)
OPENINGS: list[dict[str, Any]] = [
    {"verify": "full"},
    {"verify": "full", "mmap": True},
    {"verify": "header"},
    {"verify": "header", "mmap": True},
]


def main(file: Path, folder: Path, numbers: range) -> None:
    warnings.simplefilter("ignore")
    original, path = file.read_bytes(), folder / "mutant.nv"
    right = answers(nv.load(original))
    answers(nv.load(file, mmap=True))
    loads = refused = 0
    for number in numbers:
        print(number, flush=True)
        mutant = Mutant(original, number)
        path.write_bytes(mutant.data)
        for how in OPENINGS:
            loads += 1
            with limited(2 * len(mutant.data) + SPARE):
                verdict = tried(path, how, right, mutant)
            refused += verdict == "refused"
            if verdict not in ("refused", "answered"):
                sys.exit(f"{file.name}, number {number}, {how}: {verdict}")
    print(json.dumps({"loads": loads, "refused": refused}))


class limited:
    """A limit of the memory that may be taken in addition."""

    def __init__(self, more: int) -> None:
        self.more = more

    def __enter__(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + self.more, resource.RLIM_INFINITY))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def tried(path: Path, how: dict[str, Any], right: Any, mutant: Mutant) -> str:
    """What became of loading and searching a file."""
    begun = time.process_time()
    try:
        found = answers(nv.load(path, **how))
        verdict = "answered"
        if found != right and not mutant.trusted and how["verify"] == "full":
            verdict = "other answers"
    except nv.FileError:
        verdict = "refused"
    except ValueError as error:
        verdict = "answered" if any(re.search(text, str(error)) for text in SEARCHES) else repr(error)
    except BaseException as error:
        verdict = repr(error)
    took = time.process_time() - begun
    return verdict if took < LONGEST else f"{verdict} after {took:.1f} s"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), range(*map(int, sys.argv[3:])))
