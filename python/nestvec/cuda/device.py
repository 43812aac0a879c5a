"""Devices, their memory, and arrays in it."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

OLDEST = (8, 0)  # compute capability: tensor cores with int8 and bfloat16, asynchronous copies
CPU, CUDA, MANAGED = 1, 2, 13  # devices as DLPack numbers them
KINDS, BFLOAT = {"i": 0, "u": 1, "f": 2}, 4  # types as DLPack numbers them
LEGACY = 1  # the default stream as other libraries name it

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
        found = [_native.facts(i) for i in range(_native.device_count())]
    except RuntimeError as error:
        return str(error)
    if not found:
        return "no CUDA device"
    if all(facts["capability"] < OLDEST for facts in found):
        return f"{found[0]['name']} is too old: it has {_capability(found[0])}, 8.0 or newer is needed"
    return None


def _facts() -> dict[str, dict[str, Any]]:
    """What is known of devices that can be used, by name."""
    if reason() or _native is None:
        return {}
    found = {f"cuda:{i}": _native.facts(i) for i in range(_native.device_count())}
    return {name: facts for name, facts in found.items() if facts["capability"] >= OLDEST}


def available() -> list[str]:
    """Names of the devices that can be used, as ``"cuda:0"``; none without a GPU or without the extension."""
    return list(_facts())


def described() -> list[str] | str:
    """The devices that can be used with what they are, or why there is none."""
    found = [
        f"{name}: {facts['name']}, {_size(facts['total'])}, {_capability(facts)}" for name, facts in _facts().items()
    ]
    return found or reason() or ""


def _capability(facts: dict[str, Any]) -> str:
    return "compute capability " + ".".join(map(str, facts["capability"]))


def _size(count: int) -> str:
    """Bytes in words."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


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
        self.kind, self.name = kind, f"{kind}:{self.number}"
        facts = self.native.facts(self.number)
        if facts["capability"] < OLDEST:
            raise RuntimeError(
                f"{self.name} ({facts['name']}) is too old: it has {_capability(facts)}, 8.0 or newer is needed"
            )
        self.home = self.held = 0
        self._stream: Any = None

    @classmethod
    def after(cls, device: str | Device, stream: Any) -> Device:
        """A device, or the one of a name, when what is in a stream of it, if any is named, is done."""
        found = device if isinstance(device, Device) else cls(device)
        if stream is not None:
            found.wait(stream_handle(stream))
        return found

    def __repr__(self) -> str:
        return f"Device({self.name!r})"

    def with_stream(self) -> Device:
        """The same device with a stream of its own, in whose order it frees what it allocates without naming another.

        `reads` makes that stream wait for others: what they still read is not freed before. `held` counts the bytes.
        """
        other = copy.copy(self)
        other.held = 0
        other._stream = self.native.OwnStream(self.number)
        other.home = other._stream.handle
        return other

    def reads(self, stream: int) -> None:
        """Free nothing until what was put into `stream` is done."""
        if stream != self.home:
            self.native.wait_for(self.home, stream)

    def activate(self) -> None:
        """Make this the device of the calling thread, which launches kernels on it."""
        self.native.use_device(self.number)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the device of the calling thread for a while."""
        before = self.native.current_device()
        self.native.use_device(self.number)
        try:
            yield
        finally:
            self.native.use_device(before)

    def require(self, needed: int, what: str) -> None:
        """MemoryError if there are fewer free bytes."""
        free = self.native.free_bytes(self.number)
        if needed > free:
            raise MemoryError(
                f"{what} needs {_size(needed)} on {self.name} ({self.native.facts(self.number)['name']}), where "
                f"{_size(free)} are free"
            )

    def empty(self, shape: tuple[int, ...] | int, dtype: npt.DTypeLike, stream: int | None = None) -> DeviceArray:
        """Uninitialised, freed in the order of `stream`; MemoryError says what is needed and free."""
        shape = (shape,) if isinstance(shape, int) else shape
        dtype = np.dtype(dtype)
        order = self.home if stream is None else stream
        buffer = self.native.Buffer(math.prod(shape) * dtype.itemsize, self.number, order)
        if stream is None and self._stream is not None:
            buffer.keep(self._stream)
            self.held += buffer.bytes
        return DeviceArray(self, buffer, shape, dtype, order)

    def put(self, source: Array, stream: int | None = None) -> DeviceArray:
        """A copy of an array of the host."""
        source = np.ascontiguousarray(source)
        result = self.empty(source.shape, source.dtype, stream)
        if source.size:
            result.buffer.write(0, source.reshape(-1).view(np.uint8), result.stream)
        return result

    def wait(self, stream: int | None = None) -> None:
        """Until all that was put into a stream is done."""
        with self.active():
            self.native.wait(self.home if stream is None else stream)


def stream_handle(stream: Any) -> int:
    """The handle of a stream: an int, or an object of torch, cupy or cuda.core; None is the default stream, 0.

    Raises
    ------
    TypeError
        For anything else.
    """
    if stream is None:
        return 0
    for attribute in ("cuda_stream", "ptr"):
        stream = getattr(stream, attribute, stream)
    if hasattr(stream, "__cuda_stream__"):
        found = stream.__cuda_stream__
        stream = (found() if callable(found) else found)[1]
    if isinstance(stream, bool) or not isinstance(stream, int) or stream < 0:
        raise TypeError(
            f"stream must be the handle of a CUDA stream, or a stream of torch, cupy or cuda.core, got {stream!r}"
        )
    return 0 if stream == LEGACY else stream


class DeviceArray:
    """A C-contiguous array in a device's memory.

    Other libraries take it over without a copy: ``torch.from_dlpack(array)``, ``cupy.asarray(array)``,
    ``jax.dlpack.from_dlpack(array)``.

    Attributes
    ----------
    device : Device
    shape : tuple of int
    dtype : numpy.dtype
        Of bfloat16 uint16, its bits.
    type : str
        Name of the values' type: that of `dtype`, or ``"bfloat16"``.
    stream : int
        Handle of the stream that makes its values.
    pitch : int
        Elements from one row to the next: as many as a row has, but for views that `foreign.incoming` is asked for.
    """

    def __init__(
        self,
        device: Device,
        buffer: Any,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        stream: int = 0,
        type: str | None = None,
    ) -> None:
        self.device, self.buffer, self.shape, self.dtype, self.stream = device, buffer, shape, dtype, stream
        self.type = type or dtype.name
        self.pitch = math.prod(shape[1:])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray({self.device.name}, {self.shape}, {self.type})"

    def reshape(self, *shape: int) -> DeviceArray:
        """The same elements."""
        if math.prod(shape) != self.size:
            raise ValueError(f"an array of shape {self.shape} cannot become one of shape {shape}")
        return DeviceArray(self.device, self.buffer, shape, self.dtype, self.stream, self.type)

    def rows(self, first: int, last: int) -> DeviceArray:
        """Some of its rows, in the same memory."""
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        some = self.device.native.Buffer(
            self.buffer.pointer + first * row, (last - first) * row, self.device.number, self.buffer
        )
        return DeviceArray(self.device, some, (last - first, *self.shape[1:]), self.dtype, self.stream, self.type)

    def write(self, source: Array, first: int = 0, stream: int | None = None) -> None:
        """Copy elements of the host, to the place `first` and those behind it."""
        source = np.ascontiguousarray(source, self.dtype)
        if source.size:
            order = self.device.home if stream is None else stream
            self.buffer.write(first * self.dtype.itemsize, source.reshape(-1).view(np.uint8), order)

    def numpy(self, stream: int | None = None) -> Array:
        """A copy in the host's memory, after all that was put into `stream`, or into the array's own."""
        result = np.empty(self.shape, self.dtype)
        if result.size:
            self.buffer.read(0, result.reshape(-1).view(np.uint8), self.stream if stream is None else stream)
        return result

    def numbers(self, stream: int | None = None) -> Array:
        """The same, with bfloat16, which numpy lacks, as float32."""
        bits = self.numpy(stream)
        return (bits.astype(np.uint32) << 16).view(np.float32) if self.type == "bfloat16" else bits

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.device.native.emulated or self.type == "bfloat16":  # memory of the host; a type it does not know
            raise AttributeError("__cuda_array_interface__")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.buffer.pointer if self.size else 0, False),
            "strides": None,
            "stream": self.stream or LEGACY,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CPU, 0) if self.device.native.emulated else (CUDA, self.device.number)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule for a reader that works in `stream`, which waits for the values; -1: it does not wait."""
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError(f"{self!r} can be read where it is only; its numpy() is a copy in the host's memory")
        reader = LEGACY if stream is None else int(stream)
        if reader != -1 and reader != (self.stream or LEGACY):
            with self.device.active():
                self.device.native.wait_for(reader, self.stream)
        code, bits = KINDS[self.dtype.kind], self.dtype.itemsize * 8
        if self.type == "bfloat16":
            code = BFLOAT
        versioned = max_version is not None and max_version[0] >= 1
        order = self.stream if reader == -1 else reader
        return self.device.native.hand_out(self.buffer, self.shape, code, bits, versioned, order)
