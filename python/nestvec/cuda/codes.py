"""Binary codes on a GPU: their planes, and what finds the nearest in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bitplans import known_bits
from ..ids import Run
from ..plan import Step
from ..planes import BLOCK, level_starts, level_widths, padded
from .device import Device, DeviceArray
from .lists import Best, Lists, buffer, rounds
from .resident import Placed

Array = npt.NDArray[Any]

GROUP = 1024  # queries per pass, at most
PLACES = 2**24  # in the lists, or in the histograms, of all queries of a pass
FEW = 8  # queries so few that rounds are what takes time: fewer of them, and longer lists
# rows of the first round at most, how many times as many the next one leaves behind, rows of a list at least
FOR_FEW, FOR_MANY = (4096, 32, 2**15), (1024, 8, 8192)
SAMPLED = 8  # times k: rows of the first round, too
LARGE = 4096  # k from which rounds grow slowly, for lists not to be long
SPARE = 4  # times what a round appends on average: room for the others and for equally near rows
WORD = np.dtype([("begin", np.int64), ("step", np.int64), ("bit", np.int32), ("end", np.int32)])
XOR, AND = 0, 1


class Words(Placed):
    """Room for the words of codes, one part of an index behind the other."""

    def __init__(self, device: Device, bounds: Array, runs: Sequence[Run], stream: int | None = None) -> None:
        super().__init__(device, runs)
        self.widths = level_widths(bounds, 64) // 64
        self.starts = level_starts(self.widths, self.capacity)
        self.words = device.empty(self.capacity * int(self.widths.sum()), np.uint64, stream)
        self.bits, table = word_table(bounds, self.starts, self.widths)
        self.table = device.put(table.view(np.int64), stream)
        self.plane = device.native.BitPlane(self.words.buffer, self.table.buffer, len(table), self.capacity)
        ranks = _ranks(runs, self.firsts, self.capacity)
        self.ranks = None if ranks is None else device.put(ranks)

    def width(self, bits: int) -> int:
        """Words that hold the first `bits` bits."""
        return int(np.searchsorted(self.bits, bits))

    def write(self, number: int, words: Array, starts: Array, count: int) -> None:
        """Copy the words of one part, `count` rows of a plane whose levels begin at `starts`."""
        first, size = self.firsts[number], padded(count, BLOCK)
        for start, own, width in zip(self.starts.tolist(), starts.tolist(), self.widths.tolist(), strict=True):
            self.words.write(words[own : own + size * width], start + first * width)


def word_table(bounds: Array, starts: Array, widths: Array) -> tuple[Array, Array]:
    """The first bit of each word of a code, and where the words of a plane are: what kernels call a table."""
    table = np.empty(int(widths.sum()), WORD)
    at = begin = 0
    for start, width, end in zip(starts.tolist(), widths.tolist(), bounds.tolist(), strict=True):
        some, words = table[at : at + width], np.arange(width)
        some["begin"], some["step"] = start + words * BLOCK, width * BLOCK
        some["bit"], some["end"] = begin + words * 64, end
        at, begin = at + width, end
    return table["bit"].copy(), table


def _ranks(runs: Sequence[Run], firsts: Sequence[int], capacity: int) -> Array | None:
    """The order of rows by id; None where ids ascend with rows."""
    ids = np.concatenate([run.of(np.arange(run.n)) for run in runs] or [np.empty(0, np.int64)])
    if bool((ids[1:] > ids[:-1]).all()):
        return None
    rows = np.concatenate([first + np.arange(run.n) for run, first in zip(runs, firsts, strict=False)])
    ranks = np.zeros(capacity, np.int32)
    ranks[rows[np.argsort(ids, kind="stable")]] = np.arange(len(ids), dtype=np.int32)
    return ranks


@dataclass(frozen=True)
class Extent:
    """How a scan for the k nearest goes: rows of its first round, growth of rounds, rows of a list."""

    first: int
    growth: int
    room: int

    @classmethod
    def of(cls, nq: int, k: int, n: int) -> Extent:
        """For some queries among n rows."""
        first, growth, room = FOR_FEW if nq <= FEW and k < LARGE else FOR_MANY
        first = padded(max(first, SAMPLED * k), BLOCK)
        return cls(first, growth, max(min(max(room, first, SPARE * growth * k), padded(n, BLOCK)), k))


def group_size(nq: int, k: int, n: int, bits: int) -> int:
    """Queries that pass over the rows together."""
    room = max(Extent.of(count, k, n).room for count in (1, GROUP))
    return max(1, min(nq, GROUP, PLACES // max(room, bits + 1)))


class Batch:
    """A batch of queries, packed codes (nq, bytes) on the device, and the rows they may find."""

    def __init__(
        self, words: Words, codes: DeviceArray, allowed: DeviceArray | None, step: int, stream: int, what: int = XOR
    ) -> None:
        self.words, self.allowed, self.step, self.stream, self.what = words, allowed, step, stream, what
        self.device, self.native, self.nq = words.device, words.device.native, len(codes)
        self.packed = self.device.empty((self.nq, len(words.bits)), np.uint64, stream)
        self.native.pack_query_codes(
            codes.buffer, self.nq, codes.shape[1], words.plane, self.packed.buffer, stream
        )  # fmt: skip

    def run(self, steps: Sequence[Step]) -> Best:
        """The nearest by the stages of a plan, or exactly by its only one."""
        if len(steps) == 1:
            return self.nearest(steps[0].dims, steps[0].keep)
        lists = self._listed(steps[0].dims, steps[0].keep, None).lists
        self.native.list_lost(
            self.words.plane, self._queries(steps[0].dims), self.words.n, steps[0].keep, buffer(self.allowed),
            self.step, lists.native, self.stream,
        )  # fmt: skip
        for before, step in pairwise(steps):
            self.native.list_bits(
                self.words.plane, self._queries(step.dims), known_bits(before, step), lists.native, self.stream
            )
            ranks = self.words.ranks if step is steps[-1] else None
            self.native.keep_nearest(lists.native, buffer(ranks), self.words.n, step.keep, self.stream)
        return self._ordered(lists, steps[-1].keep)

    def nearest(self, bits: int, k: int) -> Best:
        """The k nearest in the first `bits` bits, by distance and then id."""
        lists = self._listed(bits, k, self.words.ranks).lists
        best, names, n = self._ordered(lists, k), self.words.names, self.words.n
        shares = Best.shares(self.nq, k, n)
        partial = Best(self.device, self.nq * shares, k, self.stream)
        self.native.top_k_of_bits(
            self.words.plane, self._queries(bits), lists.lost.buffer, n, shares, buffer(self.allowed), self.step,
            buffer(names.ids), names.base, partial.scores.buffer, partial.ids.buffer, best.scores.buffer,
            best.ids.buffer, k, self.stream,
        )  # fmt: skip
        return best

    def within(self, bits: int, radius: int, room: int) -> Near:
        """Lists of all rows at most so far away; its histogram counts also those for which there was no room."""
        near = Near(self, bits, room, None)
        near.lists.begin(float(-radius))
        near.ends.buffer.fill(0x7F, self.stream)
        self._scan(near, bits, 1, 0)
        return near

    def _queries(self, bits: int) -> Any:
        words = self.words
        return self.native.BitQueries(self.packed.buffer, self.nq, words.width(bits), bits, self.what, words.plane)

    def _listed(self, bits: int, k: int, ranks: DeviceArray | None) -> Near:
        """Lists of the k nearest, of equally near rows those of smaller rank, except where lists lost rows."""
        extent = Extent.of(self.nq, k, self.words.n)
        near = Near(self, bits, extent.room, ranks)
        plan = rounds(self.words.n, extent.first, extent.growth)
        for number, (stride, skip) in enumerate(plan):
            self._scan(near, bits, stride, skip)
            self.native.narrow_lists(near.native, k, number == len(plan) - 1, self.stream)
        return near

    def _scan(self, near: Near, bits: int, stride: int, skip: int) -> None:
        self.native.scan_bits(
            self.words.plane, self._queries(bits), self.words.n, stride, skip, buffer(self.allowed), self.step,
            near.native, self.stream,
        )  # fmt: skip

    def _ordered(self, lists: Lists, k: int) -> Best:
        names, best = self.words.names, Best(self.device, self.nq, k, self.stream)
        self.native.order_lists(
            lists.native, k, None, None, buffer(names.ids), names.base, names.n, best.scores.buffer, best.ids.buffer,
            self.stream,
        )  # fmt: skip
        return best


class Near:
    """Lists of the nearest, and how many rows there are at each distance: see ``csrc/cuda/bits.h``."""

    def __init__(self, batch: Batch, bits: int, room: int, ranks: DeviceArray | None) -> None:
        device, stream = batch.device, batch.stream
        self.lists = Lists(device, batch.nq, room, stream)
        self.histogram = device.empty((batch.nq, bits + 1), np.int32, stream)
        self.histogram.buffer.fill(0, stream)
        self.ends = device.empty(batch.nq, np.int32, stream)
        self.native = device.native.Near(
            self.lists.native, self.histogram.buffer, self.ends.buffer, buffer(ranks), batch.words.n, bits + 1
        )
