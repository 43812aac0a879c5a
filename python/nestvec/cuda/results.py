"""What a search on a device returns."""

from __future__ import annotations

from typing import Any

import numpy as np

from .device import Device, DeviceArray
from .foreign import outgoing
from .lists import Best, buffer


class Results:
    """`D` (nq, k) float32 and `I` (nq, k) int64, filled a batch of queries at a time."""

    def __init__(self, device: Device, nq: int, k: int, metric: str, bad: DeviceArray | None, stream: int) -> None:
        self.device, self.k, self.distances, self.bad, self.stream = device, k, metric == "l2", bad, stream
        self.D = device.empty((nq, k), np.float32, stream)
        self.I = device.empty((nq, k), np.int64, stream)

    def put(self, best: Best, first: int, count: int) -> None:
        """The best of the queries from `first` on; -1 for queries that are marked."""
        self.device.native.to_results(
            best.scores.buffer, best.ids.buffer, count, best.k, self.distances, buffer(self.bad), first,
            self.D.buffer, self.I.buffer, self.k, self.stream,
        )  # fmt: skip

    def given(self, like: Any, stream: Any) -> tuple[Any, Any]:
        """Arrays on the device, of the library of `like`; `stream` lives until their memory is freed."""
        for array in (self.D, self.I):
            if not isinstance(stream, (int, type(None))):
                array.buffer.keep(stream)
        return outgoing(self.D, like), outgoing(self.I, like)

    def numpy(self) -> tuple[Any, Any]:
        """Arrays of the host."""
        return self.D.numpy(self.stream), self.I.numpy(self.stream)
