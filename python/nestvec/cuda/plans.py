"""Plans on a GPU: all queries of a batch go through a stage together, and nothing waits for the host in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..arrays import METRICS
from ..plan import Step
from ..planes import BLOCK, padded
from .device import DeviceArray
from .lists import RESULTS, Best, Lists, Names, buffer, rounds
from .queries import Coded, Frame, encode

if TYPE_CHECKING:
    from .dense import DeviceTask, Resident

GROUP = 1024  # queries at a time, at most
FIRST = 4096  # rows of the first round, at least
ROOM = 8192  # rows of a list, at least
REACHED = 2**14  # rows that may reach a threshold in one round: growth is less where more are kept
LISTED = 2**28  # bytes of a batch's lists
FEW = 8  # queries so few that rounds are what takes time: fewer of them
AHEAD = 256  # rows that a list needs room for besides those kept: what `scan_lost` takes at a time
RANKED = 512  # blocks that score the lists of a batch, about


class Extent(NamedTuple):
    """Of the first stage's scan: rows of its first round, by how much rounds grow, rows of a list."""

    first: int
    growth: int
    room: int

    @classmethod
    def of(cls, keep: int, n: int, nq: int) -> Extent:
        """A round leaves about `growth` times `keep` rows listed; room for a quarter more, and never more than `n`."""
        growth = max(min(32 if nq <= FEW else 8, REACHED // keep), 3)
        first = padded(max(FIRST, 4 * keep), BLOCK)
        room = max(ROOM, first, growth * keep * 5 // 4) + AHEAD
        return cls(first, growth, min(room, padded(n, BLOCK)))


def needed(steps: Sequence[Step], total: int) -> list[Step]:
    """The steps of a search of `total` rows that drop some, and the last one.

    Raises
    ------
    ValueError
        If stored rows are to choose more rows for another stage than a GPU ranks.
    """
    found: list[Step] = []
    for step in steps[:-1]:
        if step.keep >= (found[-1].keep if found else total):
            continue
        if step.code == "raw" and step.keep > RESULTS:
            raise ValueError(
                f'Stage("raw") keeps {step.keep} rows for the stage behind it, and a GPU ranks at most {RESULTS} rows '
                "exactly: keep fewer, leave the stage out, or search the index on the CPU"
            )
        found.append(step)
    return [*found, steps[-1]]


def queries_at_once(steps: Sequence[Step], n: int) -> int:
    """How many queries share a scan, for their lists to fit into `LISTED` bytes."""
    if steps[0].code == "raw":
        return GROUP
    room = max(Extent.of(steps[0].keep, n, nq).room for nq in (1, GROUP))
    return max(min(LISTED // (8 * room), GROUP), 1)


class Planned:
    """A batch of queries on its way through the stages of a plan."""

    def __init__(self, resident: Resident, steps: Sequence[Step], task: DeviceTask, frame: Frame, stream: int) -> None:
        self.resident, self.steps, self.task, self.frame, self.stream = resident, steps, task, frame, stream
        self.device, self.native = resident.device, resident.device.native
        self.nq = len(task.queries)

    def run(self, allowed: DeviceArray | None, stride: int, found: Best | None) -> Best:
        """The k best by the plan; `found`: what its first stage found, by row numbers, if that is an exact search."""
        if found is not None and len(self.steps) == 1:
            return found
        lists = None if found is None else self._listed(found)
        for number, step in enumerate(self.steps):
            if number == 0 and lists is not None:
                continue
            last = number == len(self.steps) - 1
            if step.code == "raw":
                assert lists is not None
                found = self._ranked(lists, step, self.steps[number - 1].keep, named=last)
                if last:
                    return found
                lists = self._listed(found)
                continue
            queries = encode(self.task.queries, step.code, step.dims, step.widest, self.frame, self.stream)
            if lists is None:
                lists = self._scanned(step, queries, allowed, stride)
            else:
                self._estimate(lists, step, queries)
            lists.keep(step.keep)
        assert lists is not None
        best = Best(self.device, self.nq, self.task.k, self.stream)
        lists.ordered(self.task.k, queries.units, queries.offsets, self.resident.names, best)
        return best

    def _scanned(self, step: Step, queries: Coded, allowed: DeviceArray | None, stride: int) -> Lists:
        """Lists with the rows that a first stage keeps, and others."""
        n, plane, metric = self.resident.n, self.resident.planes[step.code].native, METRICS[self.task.metric]
        extent = Extent.of(step.keep, n, self.nq)
        lists = Lists(self.device, self.nq, extent.room, self.stream)
        for number, (every, skip) in enumerate(rounds(n, extent.first, extent.growth)):
            if number:
                lists.keep(step.keep)
            self.native.scan_estimates(
                plane, queries.native, step.levels, metric, n, every, skip, buffer(allowed), stride, lists.native,
                self.stream,
            )  # fmt: skip
        if extent.room < n:
            self.native.scan_lost(
                plane, queries.native, step.levels, metric, n, step.keep, buffer(allowed), stride, lists.native,
                self.stream,
            )  # fmt: skip
        return lists

    def _estimate(self, lists: Lists, step: Step, queries: Coded) -> None:
        plane, metric = self.resident.planes[step.code].native, METRICS[self.task.metric]
        self.native.list_estimates(plane, queries.native, step.levels, metric, lists.native, self.stream)

    def _ranked(self, lists: Lists, step: Step, listed: int, *, named: bool) -> Best:
        """Exact scores of the rows listed, and their ids, or their numbers."""
        k, n = step.keep, self.resident.n
        names = self.resident.names if named else Names(None, 0, n)
        best = Best(self.device, self.nq, k, self.stream)
        shares = max(min(RANKED // self.nq, listed // max(2 * k, 64)), 1)
        partial = Best(self.device, self.nq * shares, k, self.stream) if shares > 1 else best
        vectors = self.resident.vectors(self.task.queries, step.dims, self.task.metric)
        self.native.rank_lists(
            lists.native, vectors, buffer(names.ids), names.base, n, shares, partial.scores.buffer, partial.ids.buffer,
            best.scores.buffer, best.ids.buffer, k, self.stream,
        )  # fmt: skip
        return best

    def _listed(self, found: Best) -> Lists:
        lists = Lists(self.device, self.nq, found.k, self.stream)
        self.native.list_best(found.scores.buffer, found.ids.buffer, found.k, lists.native, self.stream)
        return lists
