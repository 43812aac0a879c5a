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


def incoming(x: Any, device: Device, name: str, stream: int = 0, *, wide: bool = False) -> DeviceArray:
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
    wide : bool
        Whether `pitch` may be more than a row, as that of the leading dims of wider rows: no copy then.

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
    if _is_capsule(x):
        return _of_capsule(x, device, name, stream, wide)
    if hasattr(x, "__dlpack__"):
        return _of_capsule(_capsule(x, device, name, stream), device, name, stream, wide)
    return _of_interface(x, device, name, stream, wide)


def outgoing(array: DeviceArray, like: Any) -> Any:
    """The same memory as an array of the library that `like` is of; a `DeviceArray` where that is none we know.

    What that library does next in its current stream waits for the values.
    """
    for module, kind, place in LIBRARIES:
        found = sys.modules.get(module)
        if found is not None and isinstance(like, getattr(found, kind, ())):
            return importlib.import_module(place).from_dlpack(array)
    return array


def done_with(x: Any, stream: int) -> None:
    """Do not free an input of ours before what was put into `stream` has read it; others look after theirs."""
    if isinstance(x, DeviceArray) and x.stream != stream:
        x.device.native.wait_for(x.stream, stream)


def _is_capsule(x: Any) -> bool:
    return type(x).__name__ == "PyCapsule"


def _capsule(x: Any, device: Device, name: str, stream: int) -> Any:
    x = x.detach() if hasattr(x, "detach") else x  # torch hands out nothing that has a gradient
    kind, number = (int(one) for one in x.__dlpack_device__())
    _refuse_other(kind, number, device, name)
    order = {} if kind == CPU else {"stream": stream or LEGACY}
    try:
        return x.__dlpack__(max_version=(1, 0), **order)
    except TypeError:  # a library from before versions
        return x.__dlpack__(**order)


def _of_capsule(capsule: Any, device: Device, name: str, stream: int, wide: bool) -> DeviceArray:
    if '"used_dltensor' in repr(capsule):
        raise ValueError(f"{name} is a capsule that was taken over before; a capsule can be read once")
    pointer, kind, number, code, bits, lanes, shape, strides, owner = device.native.take_over(capsule)
    _refuse_other(kind, number, device, name)
    kinds = {number: letter for letter, number in KINDS.items()}
    if lanes != 1 or bits % 8 or (code not in kinds and (code, bits) != (BFLOAT, 16)):
        raise TypeError(
            f"{name} has a type that holds no real numbers (type {code} of DLPack, {bits} bits, {lanes} lanes); "
            "convert it first, as to float32"
        )
    dtype = np.dtype(np.uint16 if code == BFLOAT else f"{kinds[code]}{bits // 8}")
    step = None if strides is None else tuple(one * dtype.itemsize for one in strides)
    view = _view(device, pointer, shape, step, dtype, owner, stream, wide)
    view.type = "bfloat16" if code == BFLOAT else dtype.name
    return view


def _of_interface(x: Any, device: Device, name: str, stream: int, wide: bool) -> DeviceArray:
    given = x.__cuda_array_interface__
    pointer, shape, dtype = given["data"][0], tuple(given["shape"]), np.dtype(given["typestr"])
    if dtype.kind not in KINDS or not dtype.isnative or given.get("mask") is not None:
        raise TypeError(f"{name} has type {given['typestr']}, which holds no real numbers here; convert it first")
    if pointer:
        _refuse_elsewhere(name, f"{device.kind}:{device.native.device_of(pointer)}", device)
    producer = given.get("stream")
    if producer is not None and (0 if producer == LEGACY else producer) != stream:
        device.native.wait_for(stream, producer)
    return _view(device, pointer, shape, given.get("strides"), dtype, x, stream, wide)


def _view(
    device: Device,
    pointer: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    dtype: np.dtype[Any],
    owner: Any,
    stream: int,
    wide: bool,
) -> DeviceArray:
    if strides is None or math.prod(shape) == 0 or _is_contiguous(shape, strides, dtype.itemsize):
        buffer = device.native.Buffer(pointer, math.prod(shape) * dtype.itemsize, device.number, owner)
        return DeviceArray(device, buffer, shape, dtype, stream)
    item, width = dtype.itemsize, dtype.itemsize * shape[-1]
    if wide and len(shape) == 2 and strides[1] == item and strides[0] > width and strides[0] % item == 0:
        buffer = device.native.Buffer(pointer, (shape[0] - 1) * strides[0] + width, device.number, owner)
        view = DeviceArray(device, buffer, shape, dtype, stream)
        view.pitch = strides[0] // item
        return view
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


def _refuse_other(kind: int, number: int, device: Device, name: str) -> None:
    emulated = device.native.emulated
    if kind not in ((CPU,) if emulated else (CUDA, MANAGED)):
        raise ValueError(f"{name} is not in a GPU's memory (DLPack says device type {kind}); {device.name} is needed")
    if not emulated:
        _refuse_elsewhere(name, f"cuda:{number}", device)


def _refuse_elsewhere(name: str, place: str, device: Device) -> None:
    if place != device.name:
        raise ValueError(f"{name} is on {place}, the index on {device.name}: copy one to where the other is")
