"""Fuzz loading and searching, with checksums that are always right: only FileError and MemoryError may come of it.

python fuzz_load.py [-max_total_time=SECONDS] [-seed=NUMBER] [CORPUS ...]

With atheris (pip install atheris) libFuzzer looks for inputs that reach new lines of nestvec; without it the hostile
files of `hostile.py` are tried, one after the other. Seeds are the golden files. To see what kernels do wrong too, run
it, without atheris, by a build with sanitizers: `sanitized` in .ci/run shows how.
"""

from __future__ import annotations

import importlib.util
import itertools
import random
import re
import resource
import sys
import tempfile
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.append(str(Path(__file__).parents[1]))
atheris: Any = importlib.import_module("atheris") if importlib.util.find_spec("atheris") else None

with atheris.instrument_imports(include=["nestvec"]) if atheris else nullcontext():
    import nestvec as nv
    from hostile import Mutant, answers
    from mutate import SEARCHES
    from nestvec import storage

MOST_KIB = 2**17  # that the largest use of memory may grow by
OPENINGS: list[dict[str, Any]] = [{}, {"mmap": True}, {"verify": "header"}]


class Right(int):
    """A checksum that equals any other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def one_input(data: bytes) -> None:
    """Load and search it, in no more memory than some hundred MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ask(data)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if taken > MOST_KIB:
        raise AssertionError(f"{taken} KiB more than before")


def ask(data: bytes) -> None:
    """Load and search it; raises what must not happen."""
    for how in OPENINGS:
        try:
            if how.get("mmap"):
                with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
                    file.write(data)
                    file.flush()
                    answers(nv.load(file.name, **how))
            else:
                answers(nv.load(data, **how))
        except (nv.FileError, MemoryError):
            return
        except ValueError as error:
            if not any(re.search(text, str(error)) for text in SEARCHES):
                raise


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """libFuzzer's own changes, and those that know the format."""
    some = random.Random(seed)
    try:
        if some.random() < 0.5:
            return bytes(Mutant(data, 1000 + 2 * seed % 2**40 + 1).data[:most])
    except (nv.FileError, ValueError, IndexError):
        pass
    return bytes(atheris.Mutate(data, most))


def own(seconds: float, seed: int) -> int:
    """Without atheris; how many inputs there were."""
    seeds, end = [path.read_bytes() for path in sorted(GOLDEN.glob("*.nv"))], time.monotonic() + seconds
    for number in itertools.count(1001 + 2 * seed, 2):
        for original in seeds:
            try:
                one_input(bytes(Mutant(original, number).data))
            except BaseException:
                print(f"number {number} of {original[48:64]!r}", file=sys.stderr)
                raise
        if time.monotonic() > end:
            return (number - 1001 - 2 * seed) // 2 * len(seeds)
    raise AssertionError


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    storage._crc = lambda *_: Right()
    if atheris is None:
        options = dict(one[1:].split("=") for one in arguments[1:] if one.startswith("-"))
        print(own(float(options.get("max_total_time", 60)), int(options.get("seed", 0))), "inputs")
        return
    with tempfile.TemporaryDirectory() as found:
        atheris.Setup([*arguments, "-max_len=65536", found, str(GOLDEN)], one_input, custom_mutator=mutated)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
