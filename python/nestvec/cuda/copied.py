"""What copies of all indexes in a GPU's memory have in common."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..collection import frozen
from .device import Device

if TYPE_CHECKING:
    from ..collection import Collection

Index = TypeVar("Index", bound="Collection[Any]")


class Copied(Generic[Index]):
    """An index as it was when it was copied to a device, which takes no changes."""

    _device: Device  # with a stream of its own, once the copy is made

    def __init__(self, index: Index, device: Device, what: str) -> None:
        if index.ntotal == 0:
            raise ValueError(f"the index is empty; add {what} before it is copied to {device.name}")
        self._index = frozen(index)

    @property
    def ntotal(self) -> int:
        """How many can be found."""
        return self._index.ntotal

    def __len__(self) -> int:
        return self.ntotal

    @property
    def device(self) -> str:
        """Where it is, as ``"cuda:0"``."""
        return self._device.name

    def memory_usage(self) -> int:
        """Bytes of the device's memory held between searches."""
        return self._device.held

    def __repr__(self) -> str:
        return f"Cuda{repr(self._index).removesuffix(')')}, device={self.device!r})"

    def to(self, device: Any, *, stream: Any = None) -> Any:
        """A copy on another device, or with ``"cpu"`` an index of the host of its own."""
        if device == "cpu":
            return copy.deepcopy(self._index)
        return self._index.to(device, stream=stream)
