"""Saving and loading while calls on files fail, one after the other; run with `disk.c` loaded before everything else.

python disk.py SUBJECT FOLDER ERROR

ERROR is the number of an error, or -1: calls then read or write less than they were asked to. Prints, for saving and
for loading, what became of it by the call that failed; ends with status 1 if a file was lost.
"""

from __future__ import annotations

import ctypes
import errno
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nestvec as nv
from nestvec import files
from subjects import SUBJECTS

_shim = ctypes.CDLL(None)
_shim.disk_arm.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_long, ctypes.c_int)
_shim.disk_disarm.restype = ctypes.c_long
_shim.disk_failed.restype = ctypes.c_char_p
NEVER = 2**62


class Disk:
    """A folder in which calls fail."""

    def __init__(self, folder: Path, error: int) -> None:
        self.folder, self.error = folder, error

    def run(self, call: Callable[[], Any], first: int, last: int) -> tuple[Any, Exception | None, int]:
        """The answer of a call, or what it raised, and the calls on files that it made."""
        answer, raised = None, None
        _shim.disk_arm(str(self.folder).encode(), first, last, self.error)
        try:
            answer = call()
        except Exception as error:
            raised = error
        return answer, raised, _shim.disk_disarm()

    def each(self, call: Callable[[], Any], check: Callable[[Any, Exception | None, int], None]) -> Counter[str]:
        """Fail each call on a file, and then all from it on."""
        _, raised, count = self.run(call, NEVER, NEVER)
        assert raised is None, raised
        ends = Counter[str]()
        for first in range(1, count + 1):
            for last in (first, NEVER if self.error > 0 and self.error != errno.EINTR else first + 5):
                answer, raised, _ = self.run(call, first, last)
                check(answer, raised, first)
                name = _shim.disk_failed().decode().removesuffix("64")
                ends[f"{name}: {type(raised).__name__ if raised else 'done'}"] += 1
        return ends


def refuse(what: str) -> None:
    print(what, file=sys.stderr)
    sys.exit(1)


def main(name: str, folder: Path, error: int) -> None:
    disk, path = Disk(folder, error), folder / "index.nv"
    old, new = SUBJECTS[name].filled(1), SUBJECTS[name].filled(12)
    before, after = files.to_bytes(old), files.to_bytes(new)
    old.save(path)

    def saved(_: Any, raised: Exception | None, number: int) -> None:
        found = path.read_bytes()
        if found not in (before, after) or (raised is None and found != after):
            refuse(f"the file is neither old nor new after call {number} failed: {raised!r}")
        if raised is not None and not (isinstance(raised, OSError) and raised.errno == error):
            refuse(f"call {number} failed: {raised!r}")
        if raised is not None and raised.filename != str(path):
            refuse(f"call {number} failed, and {raised!r} names {raised.filename}")
        stray = [one for one in folder.iterdir() if one != path]
        if len(stray) > (raised is not None and "unlink" in _shim.disk_failed().decode()):
            refuse(f"{stray} is left after call {number} failed")
        for one in stray:  # deleting failed too
            one.unlink()
        old.save(path)

    def loaded(index: Any, raised: Exception | None, number: int) -> None:
        if raised is None and files.to_bytes(index) != before:
            refuse(f"another index was loaded as call {number} failed")
        if raised is not None and not (isinstance(raised, OSError) and raised.errno == error):
            refuse(f"call {number} failed: {raised!r}")
        if files.to_bytes(nv.load(path)) != before:
            refuse(f"nothing can be loaded after call {number} failed")

    print(json.dumps({"save": disk.each(lambda: new.save(path), saved)}))
    print(json.dumps({"load": disk.each(lambda: nv.load(path), loaded)}))
    print(json.dumps({"map": disk.each(lambda: nv.load(path, mmap=True), loaded)}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
