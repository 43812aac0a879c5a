"""Where ids are: runs of rows whose ids follow each other, or are listed and then found by a dict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from . import parallel
from .tombstones import Tombstones, has_bits, to_bools, with_bits

Array = npt.NDArray[Any]

CHUNK = 65_536  # ids put into a dict at a time: Ctrl-C is answered in between
PLACE_BYTES = 100  # of a listed id in a dict, about
NOTHING = np.empty(0, np.int64)


class Run(NamedTuple):
    """Slots `first` to `first` + n: row r has id ``ids[r]``, or ``base + r`` where `ids` is empty."""

    first: int
    n: int
    ids: Array
    base: int

    def of(self, rows: Array) -> Array:
        """Ids of some rows."""
        return self.ids[rows] if len(self.ids) else rows + self.base


class Identified(Protocol):
    """Contents of an index: runs of ids over slots, some of which are removed."""

    @property
    def runs(self) -> Sequence[Run]: ...
    @property
    def pieces(self) -> int: ...
    @property
    def room(self) -> int: ...
    @property
    def ntotal(self) -> int: ...
    @property
    def tombstones(self) -> Tombstones: ...
    def without(self, slots: Array) -> Any: ...


class _Known(NamedTuple):
    """What a directory knows, changed in place: slots by listed id, and a bitmap of the slots that are not removed."""

    places: dict[Any, int]
    alive: Array


class Directory:
    """Slots by id. What it knows is made of an index's contents when it is first needed, and after an interrupt."""

    def __init__(self) -> None:
        self._known: _Known | None = None

    def find(self, contents: Identified, wanted: Array) -> Array:
        """The slot of each id of a 1-D array, -1 for those that no row alive has."""
        known = self._known = self._about(contents)
        slots = np.full(len(wanted), -1, np.int64)
        runs = contents.runs
        if known.places:
            for first in range(0, len(wanted), CHUNK):
                some = slice(first, first + CHUNK)
                slots[some] = [known.places.get(one, -1) for one in wanted[some].tolist()]
        if wanted.dtype.kind in "iu":
            for run in runs:
                if not len(run.ids):
                    here = np.flatnonzero((slots < 0) & (wanted >= run.base) & (wanted < run.base + run.n))
                    found = wanted[here].astype(np.int64) + (run.first - run.base)
                    slots[here] = np.where(has_bits(known.alive, found), found, -1)
        return slots

    def changed(self, contents: Identified, new: Array, slots: Array, gone: Array, dead: Array) -> _Known:
        """What is known when `new` ids, listed, are at `slots`, and those of `gone`, which were at `dead`, are not.

        The directory itself knows nothing until it is given that back: an interrupt costs time, not truth.
        """
        places, alive = self._about(contents)
        self._known = None
        with_bits(alive, dead, on=False)
        if places:
            for first in range(0, len(gone), CHUNK):
                for one in gone[first : first + CHUNK].tolist():
                    places.pop(one, None)
        _put(places, new, slots)
        return _Known(places, alive)

    def know(self, known: _Known | None) -> None:
        """Replace what is known; None: whatever the contents say when it is next needed."""
        self._known = known

    def _about(self, contents: Identified) -> _Known:
        room = contents.room // 64
        if self._known is None:
            alive = contents.tombstones.alive(contents.room)
            places: dict[Any, int] = {}
            for run in contents.runs:
                if len(run.ids):
                    rows = np.flatnonzero(to_bools(alive[run.first // 64 :], run.n))
                    _put(places, run.ids[rows], rows + run.first)
            return _Known(places, alive.copy())
        places, alive = self._known
        if len(alive) < room:
            alive = np.concatenate([alive, np.full(max(room - len(alive), len(alive) // 4), ~np.uint64(0))])
        return _Known(places, alive)


def _put(places: dict[Any, int], ids: Array, slots: Array) -> None:
    for first in range(0, len(ids), CHUNK):
        parallel.check()
        some = slice(first, first + CHUNK)
        places.update(zip(ids[some].tolist(), slots[some].tolist(), strict=True))


def listed_bytes(runs: Sequence[Run]) -> int:
    """Bytes that finding listed ids takes, about."""
    return PLACE_BYTES * sum(run.n for run in runs if len(run.ids))


def living(contents: Identified) -> Array:
    """Ids of what was not removed, in order of adding."""
    alive = contents.tombstones.alive(contents.room)
    found = [run.of(np.flatnonzero(to_bools(alive[run.first // 64 :], run.n))) for run in contents.runs]
    return np.concatenate(found) if found else NOTHING
