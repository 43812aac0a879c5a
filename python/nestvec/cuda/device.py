"""Devices, their memory, and arrays in it."""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_native: ModuleType | None
try:
    _native = importlib.import_module("nestvec._cuda")
except ModuleNotFoundError:  # a build without it; an extension that does not load stays an error
    _native = None


def native() -> Any:
    """The extension with the kernels.

    Raises
    ------
    ImportError
        If this build has none.
    """
    if _native is None:
        raise ImportError(
            "nestvec was built without CUDA kernels; build it where nvcc is, by "
            "pip install . -C cmake.define.NESTVEC_CUDA=ON"
        )
    return _native


def reason() -> str | None:
    """Why there is no device to use; None if there is one."""
    if _native is None:
        return "built without CUDA kernels (-C cmake.define.NESTVEC_CUDA=ON)"
    if _native.emulated:
        return "built with emulated CUDA kernels, for tests: NESTVEC_CUDA=EMULATED"
    try:
        return None if _native.device_count() else "no CUDA device"
    except RuntimeError as error:
        return str(error)


def available() -> list[str]:
    """Names of the devices that can be used, as ``"cuda:0"``; none without a GPU or without the extension."""
    return [] if reason() or _native is None else [f"cuda:{i}" for i in range(_native.device_count())]


class Device:
    """A GPU, by name: ``"cuda"`` is the current one, ``"cuda:1"`` the second; ``"emulated"`` where that was built.

    Raises
    ------
    ValueError
        For another name, or a device that is not there.
    ImportError
        If the extension was not built.
    RuntimeError
        If no GPU can be used, or it is too old.
    """

    def __init__(self, name: str = "cuda") -> None:
        if not isinstance(name, str) or name.split(":")[0] not in ("cuda", "emulated"):
            raise ValueError(f'a device is named "cuda" or "cuda:1", got {name!r}')
        self.native = native()
        kind, _, number = name.partition(":")
        if (kind == "emulated") != self.native.emulated:
            raise ValueError(f"this build has no device {name!r}: {reason() or 'it was built for GPUs'}")
        count = self.native.device_count()
        self.number = int(number) if number.isdecimal() else self.native.current_device()
        if (number and not number.isdecimal()) or self.number >= count:
            raise ValueError(f"no device {name!r}; there are {count}, numbered from 0")
        self.name = f"{kind}:{self.number}"
        facts = self.native.facts(self.number)
        if facts["capability"] < (8, 0):
            raise RuntimeError(f"{self.name} ({facts['name']}) is too old: compute capability 8.0 or newer is needed")

    def __repr__(self) -> str:
        return f"Device({self.name!r})"

    def activate(self) -> None:
        """Make this the device of the calling thread, which launches kernels on it."""
        self.native.use_device(self.number)

    def empty(self, shape: tuple[int, ...] | int, dtype: npt.DTypeLike, stream: int = 0) -> DeviceArray:
        """Uninitialised; MemoryError says what is needed and free."""
        shape = (shape,) if isinstance(shape, int) else shape
        dtype = np.dtype(dtype)
        return DeviceArray(
            self, self.native.Buffer(math.prod(shape) * dtype.itemsize, self.number, stream), shape, dtype
        )

    def put(self, source: Array, stream: int = 0) -> DeviceArray:
        """A copy of an array of the host."""
        source = np.ascontiguousarray(source)
        result = self.empty(source.shape, source.dtype, stream)
        if source.size:
            result.buffer.write(0, source.reshape(-1).view(np.uint8), stream)
        return result

    def wait(self, stream: int = 0) -> None:
        """Until all that was put into a stream is done."""
        self.native.wait(stream)


class DeviceArray:
    """A C-contiguous array in a device's memory."""

    def __init__(self, device: Device, buffer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.device, self.buffer, self.shape, self.dtype = device, buffer, shape, dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray({self.device.name}, {self.shape}, {self.dtype})"

    def write(self, source: Array, first: int = 0, stream: int = 0) -> None:
        """Copy elements of the host, to the place `first` and those behind it."""
        source = np.ascontiguousarray(source, self.dtype)
        if source.size:
            self.buffer.write(first * self.dtype.itemsize, source.reshape(-1).view(np.uint8), stream)

    def numpy(self, stream: int = 0) -> Array:
        """A copy in the host's memory."""
        result = np.empty(self.shape, self.dtype)
        if result.size:
            self.buffer.read(0, result.reshape(-1).view(np.uint8), stream)
        return result
