"""Arrays of a device: handed out, taken in, searched, and what is said where there is no device."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import nestvec as nv
from nestvec import cuda
from nestvec.cuda import dense, foreign
from nestvec.cuda import device as devices
from nestvec.cuda.device import DeviceArray

TYPES = ["float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.fixture
def emulated(device: Any) -> Any:
    """A device whose memory other libraries read as the host's."""
    if not device.native.emulated:
        pytest.skip("a GPU's memory is none of the host's")
    return device


class Recorder:
    """The extension, with a note of which streams were made to wait for which."""

    def __init__(self, native: Any) -> None:
        self._native, self.waits, self.read_by = native, [], []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def wait_for(self, waiting: int, other: int) -> None:
        self.waits.append((waiting, other))

    def hand_out(self, *args: Any) -> Any:
        self.read_by.append(args[-1])
        return self._native.hand_out(*args[:-1], 0)


@pytest.fixture
def recorded(emulated: Any) -> Any:
    """A device whose streams are numbers only."""
    found = devices.Device(emulated.name)
    found.native = Recorder(found.native)
    return found


class Interface:
    """Another library's array of a device, by the CUDA array interface."""

    def __init__(self, array: Any, **more: Any) -> None:
        self.array = array
        pointer, shape, strides = array.ctypes.data, array.shape, array.strides
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": array.dtype.str, "data": (pointer, False), "strides": strides, "version": 3,
            **more,
        }  # fmt: skip


# Handing out


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 4), (0, 4)], ids=str)
def test_arrays_are_read_where_they_are(
    emulated: Any, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> None:
    """By numpy, which asks for a versioned capsule."""
    x = rng.integers(0, 100, shape).astype(dtype)
    array = emulated.put(x)
    read = np.from_dlpack(array)
    assert read.dtype == x.dtype
    np.testing.assert_array_equal(read, x)
    if x.size:
        assert read.ctypes.data == array.buffer.pointer
        array.write(x[::-1])
        np.testing.assert_array_equal(read.reshape(-1), x[::-1].reshape(-1))


def test_torch_reads_arrays_where_they_are(emulated: Any, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((3, 5), np.float32)
    array = emulated.put(x)
    read = torch.from_dlpack(array)
    assert read.data_ptr() == array.buffer.pointer
    np.testing.assert_array_equal(read.numpy(), x)
    array = emulated.put(x.astype(ml_dtypes.bfloat16).view(np.uint16))
    array.type = "bfloat16"
    read = torch.from_dlpack(array)
    assert read.dtype == torch.bfloat16
    np.testing.assert_array_equal(read.float().numpy(), x.astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (2, 1)])
def test_memory_lives_as_long_as_somebody_reads_it(emulated: Any, version: tuple[int, int] | None) -> None:
    """What is freed in an emulated device cannot be read any more: that would crash."""
    array = emulated.put(np.arange(10.0))
    capsule = array.__dlpack__(max_version=version)
    assert ("versioned" in repr(capsule)) == (version is not None and version >= (1, 0))
    view = foreign.incoming(capsule, emulated, "x")
    del array, capsule
    gc.collect()
    assert view.numpy().tolist() == list(range(10))
    read = np.from_dlpack(view)
    del view
    gc.collect()
    assert read.tolist() == list(range(10))


class Kept:
    """Something to look whether it is still there."""


def test_capsules_that_nobody_reads_let_go(emulated: Any) -> None:
    for version in (None, (1, 0)):
        array = emulated.put(np.arange(10.0))
        kept = Kept()
        array.buffer.keep(kept)
        gone = weakref.ref(kept)
        del kept
        capsule = array.__dlpack__(max_version=version)
        del array
        assert gone() is not None
        del capsule
        assert gone() is None


def test_a_buffer_keeps_one_object(emulated: Any) -> None:
    buffer = emulated.empty(3, np.float32).buffer
    buffer.keep(object())
    with pytest.raises(ValueError, match="keeps one object"):
        buffer.keep(object())


@pytest.mark.parametrize("asked", [{"copy": True}, {"dl_device": (2, 0)}, {"dl_device": (1, 1)}], ids=str)
def test_arrays_are_not_handed_out_as_copies(emulated: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(BufferError, match=r"DeviceArray\(emulated:0, \(3,\), float32\) can be read where it is"):
        emulated.empty(3, np.float32).__dlpack__(**asked)


def test_the_interface_of_arrays_on_a_gpu() -> None:
    """Not of emulated ones, whose memory is the host's, and not of bfloat16, for which it has no name."""
    on_gpu = SimpleNamespace(native=SimpleNamespace(emulated=False), number=1, name="cuda:1")
    buffer = SimpleNamespace(pointer=4096)
    array = DeviceArray(on_gpu, buffer, (2, 3), np.dtype(np.float16), stream=0)  # type: ignore[arg-type]
    assert array.__cuda_array_interface__ == {
        "shape": (2, 3), "typestr": "<f2", "data": (4096, False), "strides": None, "stream": 1, "version": 3
    }  # fmt: skip
    assert array.__dlpack_device__() == (2, 1)
    array.stream = 77
    assert array.__cuda_array_interface__["stream"] == 77
    assert foreign.is_foreign(array)
    array.type = "bfloat16"
    assert not hasattr(array, "__cuda_array_interface__")
    on_gpu.native.emulated, array.type = True, "float16"
    assert not hasattr(array, "__cuda_array_interface__")
    assert array.__dlpack_device__() == (1, 0)


@pytest.mark.parametrize(
    ("reader", "own", "waits", "order"),
    [
        (None, 0, [], 1),
        (1, 0, [], 1),
        (1, 5, [(1, 5)], 1),
        (5, 5, [], 5),
        (7, 5, [(7, 5)], 7),
        (2, 0, [(2, 0)], 2),
        (-1, 5, [], 5),
    ],
)
def test_readers_wait_for_values(recorded: Any, reader: int | None, own: int, waits: Any, order: int) -> None:
    array = recorded.put(np.arange(3.0))
    array.stream = own
    array.__dlpack__(stream=reader)
    assert recorded.native.waits == waits
    assert recorded.native.read_by == [order]


# Taking in


@pytest.mark.parametrize(
    ("library", "dtype"),
    [("torch", "bfloat16"), *((library, dtype) for library in ("numpy", "torch", "interface") for dtype in TYPES)],
)
def test_arrays_of_others_are_views(emulated: Any, rng: np.random.Generator, dtype: str, library: str) -> None:
    """Of a capsule, or of an object that has one or the CUDA array interface."""
    x: Any = rng.integers(0, 100, (3, 5)).astype(np.uint16 if dtype == "bfloat16" else dtype)
    right, pointer = x, x.ctypes.data
    if library == "torch":
        torch = pytest.importorskip("torch")
        x = torch.from_numpy(x)
        x = x.view(torch.bfloat16) if dtype == "bfloat16" else x
    elif library == "interface":
        x = Interface(x)
    views = [foreign.incoming(x, emulated, "x")]
    views += [] if library == "interface" else [foreign.incoming(x.__dlpack__(), emulated, "x")]
    for view in views:
        assert (view.shape, view.type, view.buffer.pointer) == ((3, 5), dtype, pointer)
        np.testing.assert_array_equal(view.numpy(), right)


def test_a_tensor_with_a_gradient_is_taken_in(emulated: Any) -> None:
    torch = pytest.importorskip("torch")
    view = foreign.incoming(torch.ones(2, 3, requires_grad=True), emulated, "x")
    assert (view.numpy() == 1).all()


@pytest.mark.parametrize("library", ["numpy", "interface"])
def test_a_view_keeps_its_owner(emulated: Any, library: str) -> None:
    class Owner(np.ndarray):
        pass

    x = np.arange(12.0).reshape(3, 4).view(Owner)
    gone, given = weakref.ref(x), Interface(x) if library == "interface" else x
    view = foreign.incoming(given, emulated, "x")
    some = view.rows(1, 3).reshape(8)
    del x, given, view
    gc.collect()
    assert gone() is not None
    assert some.numpy().tolist() == list(range(4, 12))
    del some
    gc.collect()
    assert gone() is None


STRIDED = {
    "columns": lambda x: x[:, 1:4],
    "rows backwards": lambda x: x[::-1],
    "every other": lambda x: x[1::2, ::3],
    "transposed": lambda x: x.T,
    "one row for all": lambda x: np.broadcast_to(x[0], (4, x.shape[1])),
    "empty": lambda x: x[:0, ::2],
    "one column": lambda x: x[:, :1],
    "one row": lambda x: x[3:4],
    "a vector": lambda x: x[:, 2],
    "a cube": lambda x: x.reshape(7, 2, 3).transpose(2, 0, 1),
}


@pytest.mark.parametrize("how", STRIDED)
@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "float64"])
@pytest.mark.parametrize("library", ["numpy", "interface"])
def test_strided_arrays_are_copied(emulated: Any, how: str, dtype: str, library: str) -> None:
    x = STRIDED[how](np.arange(42).reshape(7, 6).astype(dtype))
    given = Interface(x) if library == "interface" or how == "one row for all" else x
    view = foreign.incoming(given, emulated, "x")
    assert view.shape == x.shape
    np.testing.assert_array_equal(view.numpy(), x)
    if how == "one row":
        assert view.buffer.pointer == x.ctypes.data


def test_nine_axes_are_too_many(emulated: Any) -> None:
    x = np.zeros((2,) * 9)[..., ::2]
    with pytest.raises(ValueError, match="at most 8 axes"):
        foreign.incoming(x, emulated, "x")


@pytest.mark.parametrize(
    ("producer", "stream", "waits"),
    [({}, 5, []), ({"stream": None}, 5, []), ({"stream": 1}, 0, []), ({"stream": 1}, 5, [(5, 1)]),
     ({"stream": 5}, 5, []), ({"stream": 7}, 5, [(5, 7)])],
)  # fmt: skip
def test_values_are_waited_for(recorded: Any, producer: Any, stream: int, waits: Any) -> None:
    foreign.incoming(Interface(np.ones(3), **producer), recorded, "x", stream)
    assert recorded.native.waits == waits


def test_arrays_of_ours_are_waited_for_and_freed_later(recorded: Any) -> None:
    array = recorded.put(np.ones(3), 5)
    assert foreign.incoming(array, recorded, "x", 5) is array
    foreign.done_with(array, 5)
    assert recorded.native.waits == []
    assert foreign.incoming(array, recorded, "x", 7) is array
    foreign.done_with(array, 7)
    assert recorded.native.waits == [(7, 5), (5, 7)]


def test_nothing_is_freed_that_a_search_still_reads(recorded: Any, rng: np.random.Generator) -> None:
    """Neither what the index holds, in the order of a stream of its own, nor queries of ours."""
    index, _, q = made(rng)
    there, array = index.to(recorded), recorded.put(q)
    there.search(array, 3, stream=7)
    assert recorded.native.waits == [(7, 0), (0, 7), (0, 7)]
    recorded.native.waits.clear()
    there.search(array, 3)
    assert recorded.native.waits == []


def test_the_stream_that_others_are_told(emulated: Any) -> None:
    """1 is the default stream in the protocol, which has no 0; old libraries know of no versions."""
    asked = []

    class Old:
        def __init__(self, place: tuple[int, int]) -> None:
            self.place = place

        def __dlpack_device__(self) -> tuple[int, int]:
            return self.place

        def __dlpack__(self, stream: Any = None) -> Any:
            asked.append(stream)
            return np.ones(3).__dlpack__()

    on_gpu = SimpleNamespace(native=SimpleNamespace(emulated=False), name="cuda:0")
    for stream in (0, 5):
        foreign._capsule(Old((2, 0)), on_gpu, "x", stream)  # type: ignore[arg-type]
    foreign._capsule(Old((1, 0)), emulated, "x", 5)
    assert asked == [1, 5, None]
    assert foreign.is_foreign(Old((2, 3)))
    assert foreign.is_foreign(Old((13, 0)))
    assert not foreign.is_foreign(Old((1, 0)))
    with pytest.raises(ValueError, match=r"x is on cuda:3, the index on cuda:0: copy one to where the other is"):
        foreign._capsule(Old((2, 3)), on_gpu, "x", 0)  # type: ignore[arg-type]
    assert len(asked) == 3


def test_what_cannot_be_taken_in(emulated: Any) -> None:
    capsule = np.ones(3).__dlpack__()
    foreign.incoming(capsule, emulated, "x")
    with pytest.raises(ValueError, match="x is a capsule that was taken over before"):
        foreign.incoming(capsule, emulated, "x")
    for x in (np.ones(3, bool), np.ones(3, complex)):
        with pytest.raises(TypeError, match="x has a type that holds no real numbers"):
            foreign.incoming(x.__dlpack__(), emulated, "x")
        with pytest.raises(TypeError, match=r"x has type .*, which holds no real numbers"):
            foreign.incoming(Interface(x), emulated, "x")
    with pytest.raises(TypeError, match="x has type >f4"):
        foreign.incoming(Interface(np.ones(3, ">f4")), emulated, "x")
    other = emulated.put(np.ones(3))
    other.device = SimpleNamespace(name="cuda:1")
    with pytest.raises(ValueError, match="x is on cuda:1, the index on emulated:0"):
        foreign.incoming(other, emulated, "x")


def test_host_arrays_are_not_foreign(emulated: Any) -> None:
    for x in (np.ones(3), [1.0], 3.0, None, "text"):
        assert not foreign.is_foreign(x)
    assert foreign.is_foreign(emulated.put(np.ones(3)))
    assert foreign.is_foreign(Interface(np.ones(3)))
    assert foreign.is_foreign(np.ones(3).__dlpack__())
    torch = pytest.importorskip("torch")
    assert not foreign.is_foreign(torch.ones(3))


def test_results_go_to_the_library_of_the_queries(emulated: Any) -> None:
    torch = pytest.importorskip("torch")
    array = emulated.put(np.arange(6).reshape(2, 3))
    found = foreign.outgoing(array, torch.ones(1))
    assert isinstance(found, torch.Tensor)
    assert found.data_ptr() == array.buffer.pointer
    del array
    gc.collect()
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    array = emulated.put(np.ones(3))
    for like in (array, np.ones(1), Interface(np.ones(3))):
        assert foreign.outgoing(array, like) is array


def test_streams() -> None:
    handle = devices.stream_handle
    assert [handle(one) for one in (None, 0, 1, 2, 9)] == [0, 0, 0, 2, 9]
    assert handle(SimpleNamespace(cuda_stream=5)) == 5
    assert handle(SimpleNamespace(ptr=6)) == 6
    assert handle(SimpleNamespace(__cuda_stream__=lambda: (0, 7))) == 7
    assert handle(SimpleNamespace(__cuda_stream__=(0, 8))) == 8
    for wrong in ("0", 1.5, True, -1, object()):
        with pytest.raises(TypeError, match="stream must be the handle of a CUDA stream"):
            handle(wrong)


# Searching


def made(rng: np.random.Generator, metric: str = "ip", **more: Any) -> tuple[nv.NestedIndex, Any, Any]:
    x, q = rng.standard_normal((300, 40), np.float32), rng.standard_normal((7, 40), np.float32)
    index = nv.NestedIndex(40, levels=(16,), metric=metric, **more)
    index.add(x[:130])
    index.add(x[130:])
    return index, x, q


def check_same(found: Any, right: Any) -> None:
    for a, b in zip(found, right, strict=True):
        a = a.numpy() if isinstance(a, DeviceArray) else a
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("metric", ["ip", "l2", "cosine"])
@pytest.mark.parametrize("dims", [None, 16, 7])
def test_queries_on_the_device(
    device: Any, rng: np.random.Generator, metric: str, dims: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Have results on the device, those of the host; in several batches, cut or whole, with filters, one or many."""
    index, _, q = made(rng, metric)
    there = index.to(device)
    monkeypatch.setattr(dense, "GROUP", 3)
    for filter in (None, np.arange(300) % 3 == 0, [range(i, i + 5) for i in range(7)]):
        for k in (1, 10, 305):
            right = index.search(q, k, dims=dims, filter=filter)
            check_same(there.search(q, k, dims=dims, filter=filter), right)
            found = there.search(device.put(q), k, dims=dims, filter=filter)
            assert all(isinstance(one, DeviceArray) for one in found)
            check_same(found, right)
    if dims:
        cut = np.ascontiguousarray(q[:, :dims])
        check_same(there.search(device.put(cut), 5, dims=dims), index.search(cut, 5, dims=dims))
    check_same(there.search(device.put(q[0]), 4, dims=dims), index.search(q[0], 4, dims=dims))
    check_same(there.search(device.put(q[:0]), 4, dims=dims), index.search(q[:0], 4, dims=dims))


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "int64", "bfloat16"])
def test_queries_of_every_type(device: Any, rng: np.random.Generator, dtype: str) -> None:
    index, _, q = made(rng)
    given = (q * 5).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    array = device.put(given.view(np.uint16) if dtype == "bfloat16" else given)
    array.type = dtype
    check_same(index.to(device).search(array, 5), index.search(given, 5))


def test_queries_of_capsules_and_interfaces(emulated: Any, rng: np.random.Generator) -> None:
    """Strided ones too; the host's arrays have results of the host."""
    index, _, q = made(rng)
    there, wide = index.to(emulated), np.repeat(q, 2, axis=1)[:, ::2]
    right = index.search(q, 5)
    for given in (q.__dlpack__(), wide.__dlpack__(), Interface(q), Interface(wide)):
        found = there.search(given, 5)
        assert isinstance(found[0], DeviceArray)
        check_same(found, right)
    torch = pytest.importorskip("torch")
    check_same(there.search(torch.from_numpy(q), 5), right)
    assert isinstance(there.search(torch.from_numpy(q), 5)[0], np.ndarray)


def test_results_outlive_what_made_them(device: Any, rng: np.random.Generator) -> None:
    index, _, q = made(rng)
    right, there = index.search(q, 5), index.to(device)
    found, kept = there.search(device.put(q), 5, stream=SimpleNamespace(ptr=0)), weakref.ref(there)
    del there
    gc.collect()
    assert kept() is None
    check_same(found, right)


def test_a_stream_lives_as_long_as_results(device: Any, rng: np.random.Generator) -> None:
    """Their memory is freed in its order."""

    class Stream:
        ptr = 0

    index, _, q = made(rng)
    stream = Stream()
    gone = weakref.ref(stream)
    D, I = index.to(device).search(device.put(q), 5, stream=stream)
    del stream, I
    gc.collect()
    assert gone() is not None
    del D
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_queries_that_are_not_finite(
    device: Any, rng: np.random.Generator, dtype: str, value: float, metric: str
) -> None:
    """Are the error that they are on the host, or find nothing where nobody looked."""
    index, _, q = made(rng, metric)
    given = q.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    right = index.search(given, 5)
    given[[1, 6], [3, 39]] = value
    array = device.put(given.view(np.uint16) if dtype == "bfloat16" else given)
    array.type = dtype
    there = index.to(device)
    with pytest.raises(ValueError, match=f"q holds {value} at row 1, column 3; only finite values can be searched"):
        there.search(array, 5)
    with pytest.raises(ValueError, match="row 1, column 3"):
        there.search(given, 5, check=False)
    found = there.search(array, 5, check=False)
    for one, missing in zip(right, (np.inf if metric == "l2" else -np.inf, -1), strict=True):
        one[[1, 6]] = missing
    check_same(found, right)
    check_same(there.search(array, 5, dims=3)[1].numpy()[[0]][None], index.search(given[:1], 5, dims=3)[1][None])


def test_queries_beyond_float32(device: Any, rng: np.random.Generator) -> None:
    index, _, q = made(rng)
    wide = q.astype(np.float64)
    wide[2, 5] = 1e39
    with pytest.raises(ValueError, match=r"q holds 1e\+39 at row 2, column 5, beyond the range of float32"):
        index.to(device).search(device.put(wide), 5)


@pytest.mark.parametrize("kind", ["pca", "hadamard", "permutation", "adaptor"])
def test_queries_go_through_the_transform(device: Any, rng: np.random.Generator, kind: str) -> None:
    """On the device, wherever they come from; what they become is checked, too."""
    x = rng.standard_normal((300, 40), np.float32)
    through = nv.Transform(rng.standard_normal((24, 40))) if kind == "adaptor" else None
    through = nv.Transform(rng.permutation(40)) if kind == "permutation" else through
    index = nv.NestedIndex(40, levels=(16,), transform=through or nv.fit_rotation(x, kind))
    width = index.transform.d_in  # type: ignore[union-attr]
    index.add(x[:, :width])
    there, q = index.to(device), rng.standard_normal((5, width), np.float32)
    for dims in (None, 16):
        right = index.search(q, 3, dims=dims)
        check_same(there.search(q, 3, dims=dims), right)
        check_same(there.search(device.put(q), 3, dims=dims), right)
    if kind == "permutation":
        return
    q[3] = 3.4e38 * np.sign(index.transform.matrix[:, np.abs(index.transform.matrix).sum(axis=0).argmax()])  # type: ignore[union-attr]
    for given in (q, device.put(q)):
        with pytest.raises(ValueError, match="q is beyond the range of float32 after the transform, at row 3"):
            there.search(given, 3)
    q[3] = 1
    right = index.search(q, 3)
    q[3, 2] = np.nan
    right[0][3], right[1][3] = -np.inf, -1
    check_same(there.search(device.put(q), 3, check=False), right)


def test_errors_are_those_of_the_host(device: Any, rng: np.random.Generator) -> None:
    index, _, q = made(rng)
    there = index.to(device)
    for arguments in [
        {"q": q[:, :39], "k": 3},
        {"q": q[None], "k": 3},
        {"q": q, "k": 0},
        {"q": q, "k": 1.5},
        {"q": q, "k": 3, "dims": 41},
        {"q": q[:, :20], "k": 3, "dims": 16},
        {"q": q, "k": 3, "filter": [range(3)]},
        {"q": np.empty((3, 0), np.float32), "k": 3},
    ]:
        with pytest.raises((ValueError, TypeError)) as right:
            index.search(**arguments)
        for given in (arguments["q"], device.put(arguments["q"])):
            with pytest.raises(right.type) as found:
                there.search(**{**arguments, "q": given})
            assert str(found.value) == str(right.value)
    with pytest.raises(TypeError, match=r"q has dtype (longdouble|float128)"):
        there.search(device.put(q.astype(np.longdouble)), 3)
    with pytest.raises(TypeError, match="stream must be"):
        there.search(q, 3, stream="default")


def test_a_gpu_lists_no_more_than_it_can(device: Any) -> None:
    index = nv.NestedIndex(1)
    index.add(np.ones((2100, 1)))
    with pytest.raises(ValueError, match="k=2049; a GPU lists at most 2048 results"):
        index.to(device).search(np.ones(1), 2049)


# Doors


def test_a_copy_says_what_it_is(device: Any, rng: np.random.Generator) -> None:
    index, x, q = made(rng, "cosine", rows="float16")
    there = index.to(device)
    right = index.search(q, 3)
    assert isinstance(there, cuda.CudaNestedIndex)
    assert (there.ntotal, len(there), there.d, there.levels, there.metric) == (300, 300, 40, (16, 40), "cosine")
    assert there.device == device.name
    assert repr(there) == repr(index).replace("NestedIndex(", "CudaNestedIndex(")[:-1] + f", device='{device.name}')"
    assert 300 * 40 * 3 < there.memory_usage() < 300 * 40 * 6
    index.add(x)
    index.remove(range(100))
    check_same(there.search(q, 3), right)
    again, back = there.to(device), there.to("cpu")
    check_same(again.search(q, 3), right)
    check_same(back.search(q, 3), right)
    back.add(x)
    index.add(x)
    assert (len(there), len(back), len(index)) == (300, 600, 800)


def test_removed_rows_stay_away(device: Any, rng: np.random.Generator) -> None:
    index, _, q = made(rng)
    index.remove(range(0, 300, 2))
    there = index.to(device)
    assert there.ntotal == 150
    check_same(there.search(device.put(q), 200), index.search(q, 200))


def test_an_empty_index_has_no_copy(device: Any) -> None:
    with pytest.raises(ValueError, match=f"the index is empty; add vectors before it is copied to {device.name}"):
        nv.NestedIndex(3).to(device)


def test_memory_is_asked_for_before_anything_is_copied(emulated: Any, rng: np.random.Generator) -> None:
    index, _, q = made(rng)
    needed = index.to(emulated).memory_usage()
    try:
        emulated.native.limit_memory(needed // 2)
        with pytest.raises(MemoryError, match=r"the index needs \d+ bytes on emulated:0 \(emulated\), where \d+ bytes"):
            index.to(emulated)
        emulated.native.limit_memory(2 * needed)
        there = index.to(emulated)
        with pytest.raises(MemoryError, match=r"needed .* free"):
            there.search(q, 100)
    finally:
        emulated.native.limit_memory(2**34)
    check_same(there.search(q, 3), index.search(q, 3))


def test_the_copy_waits_for_a_stream(device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _, _ = made(rng)
    waited = []
    monkeypatch.setattr(devices.Device, "wait", lambda self, stream=None: waited.append(stream))
    index.to(device, stream=SimpleNamespace(ptr=0))
    assert waited == [0, None]
    with pytest.raises(TypeError, match="stream must be"):
        index.to(device, stream="s")


def test_devices_have_names(device: Any) -> None:
    for wrong in ("gpu", "cpu", "", 3, None):
        with pytest.raises(ValueError, match='a device is named "cuda" or "cuda:1"'):
            devices.Device(wrong)
    kind = device.kind
    for wrong in (f"{kind}:99", f"{kind}:x", f"{kind}:-1"):
        with pytest.raises(ValueError, match=rf"no device '{wrong}'; there are \d+, numbered from 0"):
            devices.Device(wrong)


def fake(**facts: Any) -> Any:
    """An extension for GPUs."""
    facts = {"name": "GPU", "capability": (9, 0), "total": 80 * 2**30, "multiprocessors": 1, "shared": 1} | facts
    return SimpleNamespace(emulated=False, device_count=lambda: 1, current_device=lambda: 0, facts=lambda _: facts)


def test_what_is_said_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_native", fake())
    assert nv.show_config()["cuda"] == ["cuda:0: GPU, 80.0 GiB, compute capability 9.0"]
    assert cuda.available() == ["cuda:0"]
    assert cuda.reason() is None
    assert repr(devices.Device()) == "Device('cuda:0')"
    monkeypatch.setattr(devices, "_native", fake(capability=(7, 5), total=2**29))
    assert nv.show_config()["cuda"] == "GPU is too old: it has compute capability 7.5, 8.0 or newer is needed"
    assert cuda.available() == []
    with pytest.raises(RuntimeError, match=r"cuda:0 \(GPU\) is too old: it has compute capability 7.5, 8.0 or newer"):
        devices.Device("cuda")
    monkeypatch.setattr(devices, "_native", fake())
    with pytest.raises(ValueError, match="this build has no device 'emulated': it was built for GPUs"):
        devices.Device("emulated")


def test_what_is_said_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> int:
        raise RuntimeError("no CUDA device: CUDA driver version is insufficient for CUDA runtime version")

    native = fake()
    native.device_count = no_driver
    monkeypatch.setattr(devices, "_native", native)
    assert nv.show_config()["cuda"].startswith("no CUDA device: CUDA driver version is insufficient")
    assert cuda.available() == []
    index = nv.NestedIndex(2)
    index.add(np.ones((1, 2)))
    with pytest.raises(RuntimeError, match="no CUDA device: CUDA driver"):
        index.to()
    native.device_count = lambda: 0
    assert cuda.reason() == "no CUDA device"


@pytest.mark.parametrize(
    "make",
    [lambda: nv.NestedIndex(8), lambda: nv.BinaryIndex(8), lambda: nv.MultiVectorIndex(nv.FixedDimensionalEncoder(8))],
)
def test_what_is_said_without_the_extension(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_native", None)
    with pytest.raises(ImportError, match=r"built without CUDA kernels; .* cmake.define.NESTVEC_CUDA=ON"):
        make().to("cuda")
    assert "built without CUDA kernels" in nv.show_config()["cuda"]
    assert cuda.available() == []


WITHOUT = """
import sys
sys.modules["nestvec._cuda"] = None
import json, numpy as np, nestvec as nv
early = [name for name in sys.modules if name.startswith("nestvec.cuda")]
index = nv.NestedIndex(2)
index.add(np.eye(2))
found = index.search([0.0, 1.0], 1)[1].tolist()
try:
    index.to()
    said = ""
except ImportError as error:
    said = str(error)
print(json.dumps([early, found, said, nv.show_config()["cuda"]]))
"""


def test_nothing_needs_the_extension() -> None:
    """And `import nestvec` imports none of what belongs to it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, env=environment, check=True)
    early, found, said, config = json.loads(run.stdout)
    assert early == []
    assert found == [[1]]
    assert "pip install . -C cmake.define.NESTVEC_CUDA=ON" in said
    assert config == "built without CUDA kernels (-C cmake.define.NESTVEC_CUDA=ON)"


def test_cuda_is_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    from nestvec import backends

    for name in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match=rf"'{name}' is no backend: .*index.to\(\"cuda\"\)"):
            nv.use(name)
    monkeypatch.setattr(backends, "_current", None)
    monkeypatch.setenv(backends.ENVIRONMENT, "cuda")
    with pytest.raises(ValueError, match="is no backend"):
        nv.show_config()


def test_names_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match=r"module 'nestvec.cuda' has no attribute 'nonsense'"):
        cuda.nonsense  # noqa: B018
