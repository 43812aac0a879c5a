"""Arrays of other libraries that are in a device's memory: taken in where they are, and results handed back."""

from __future__ import annotations

import importlib
import math
import sys
from typing import Any

import numpy as np

from .device import BFLOAT, CPU, CUDA, KINDS, LEGACY, MANAGED, Device, DeviceArray

# module and class of arrays, and where their `from_dlpack` is
LIBRARIES = (("torch", "Tensor", "torch"), ("cupy", "ndarray", "cupy"), ("jax", "Array", "jax.dlpack"))


def is_foreign(x: Any) -> bool:
    """Whether `x` is in a device's memory: a `DeviceArray`, a capsule of DLPack, or another library's array."""
    if isinstance(x, DeviceArray) or _is_capsule(x):
        return True
    if isinstance(x, (np.ndarray, list, tuple)):
        return False
    if hasattr(x, "__dlpack_device__"):
        return int(x.__dlpack_device__()[0]) in (CUDA, MANAGED)
    return hasattr(x, "__cuda_array_interface__")


def incoming(x: Any, device: Device, name: str, stream: int = 0) -> DeviceArray:
    """A view of a device's array, which it keeps alive; what comes later in `stream` sees its values.

    Strided arrays are copied, others are not.

    Parameters
    ----------
    x
        What `is_foreign` says yes to.
    name : str
        What messages call it.
    stream : int
        Handle of the stream that will read it.

    Raises
    ------
    ValueError
        If it is on another device.
    TypeError
        For a type that holds no real numbers.
    """
    if isinstance(x, DeviceArray):
        _refuse_elsewhere(name, x.device.name, device)
        if x.stream != stream:
            device.native.wait_for(stream, x.stream)
        return x
    if _is_capsule(x) or hasattr(x, "__dlpack__"):
        return _of_capsule(x if _is_capsule(x) else _capsule(x, stream), device, name, stream)
    return _of_interface(x, device, name, stream)


def outgoing(array: DeviceArray, like: Any) -> Any:
    """The same memory as an array of the library that `like` is of; a `DeviceArray` where that is none we know.

    What that library does next in its current stream waits for the values.
    """
    for module, kind, place in LIBRARIES:
        found = sys.modules.get(module)
        if found is not None and isinstance(like, getattr(found, kind, ())):
            return importlib.import_module(place).from_dlpack(array)
    return array


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


def _is_capsule(x: Any) -> bool:
    return type(x).__name__ == "PyCapsule"


def _capsule(x: Any, stream: int) -> Any:
    x = x.detach() if hasattr(x, "detach") else x  # torch hands out nothing that has a gradient
    on_cpu = int(x.__dlpack_device__()[0]) == CPU
    order = {} if on_cpu else {"stream": stream or LEGACY}
    try:
        return x.__dlpack__(max_version=(1, 0), **order)
    except TypeError:  # a library from before versions
        return x.__dlpack__(**order)


def _of_capsule(capsule: Any, device: Device, name: str, stream: int) -> DeviceArray:
    if '"used_dltensor' in repr(capsule):
        raise ValueError(f"{name} is a capsule that was taken over before; a capsule can be read once")
    pointer, kind, number, code, bits, lanes, shape, strides, owner = device.native.take_over(capsule)
    emulated = device.native.emulated
    if kind not in ((CPU,) if emulated else (CUDA, MANAGED)):
        raise ValueError(
            f"{name} is not in the memory of a GPU (device type {kind} of DLPack); {device.name} is needed"
        )
    if not emulated:
        _refuse_elsewhere(name, f"cuda:{number}", device)
    kinds = {number: letter for letter, number in KINDS.items()}
    if lanes != 1 or bits % 8 or (code not in kinds and (code, bits) != (BFLOAT, 16)):
        raise TypeError(
            f"{name} has a type that holds no real numbers (type {code} of DLPack, {bits} bits, {lanes} lanes); "
            "convert it first, as to float32"
        )
    dtype = np.dtype(np.uint16 if code == BFLOAT else f"{kinds[code]}{bits // 8}")
    step = None if strides is None else tuple(one * dtype.itemsize for one in strides)
    view = _view(device, pointer, shape, step, dtype, owner, stream)
    view.type = "bfloat16" if code == BFLOAT else dtype.name
    return view


def _of_interface(x: Any, device: Device, name: str, stream: int) -> DeviceArray:
    given = x.__cuda_array_interface__
    pointer, shape, dtype = given["data"][0], tuple(given["shape"]), np.dtype(given["typestr"])
    if dtype.kind not in KINDS or not dtype.isnative or given.get("mask") is not None:
        raise TypeError(f"{name} has type {given['typestr']}, which holds no real numbers here; convert it first")
    if pointer:
        _refuse_elsewhere(name, f"cuda:{device.native.device_of(pointer)}", device)
    producer = given.get("stream")
    if producer is not None and (0 if producer == LEGACY else producer) != stream:
        device.native.wait_for(stream, producer)
    return _view(device, pointer, shape, given.get("strides"), dtype, x, stream)


def _view(
    device: Device,
    pointer: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    dtype: np.dtype[Any],
    owner: Any,
    stream: int,
) -> DeviceArray:
    if strides is None or math.prod(shape) == 0 or _is_contiguous(shape, strides, dtype.itemsize):
        buffer = device.native.Buffer(pointer, math.prod(shape) * dtype.itemsize, device.number, owner)
        return DeviceArray(device, buffer, shape, dtype, stream)
    target = device.empty(shape, dtype, stream)
    device.native.copy_strided(pointer, shape, strides, dtype.itemsize, target.buffer, stream)
    return target


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> bool:
    step = item
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


def _refuse_elsewhere(name: str, place: str, device: Device) -> None:
    if place != device.name:
        raise ValueError(f"{name} is on {place}, the index on {device.name}: copy one to where the other is")
