"""What kernels for GPUs are made of: warps, barriers, atomics, products of tiles; mistakes that emulation notices."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

THREADS, LANES = 96, 32
MISTAKES = {
    "block_barrier": "diverge: thread 32 waits for its block at .*probe.cu:.* thread 40 waits for its block at",
    "warp_barrier": "threads of a warp diverge: thread 32 waits for its warp at .*probe.cu:",
    "two_barriers": "threads of a block diverge: thread 0 waits for its block at .*probe.cu:.* thread 64 waits",
    "part_of_warp": "some lanes of a warp alone, at .*probe.cu:",
    "part_of_block": "some lanes of a warp alone",
    "exception": "thrown by a thread",
}
CODES = [*MISTAKES, "memory", "stack"]


@pytest.fixture(params=["forwards", "backwards", "shuffled", "shuffled:7"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NESTVEC_EMULATED_ORDER", request.param)
    return request.param


@pytest.fixture(scope="module")
def native(device: Any) -> Any:
    if not hasattr(device.native, "probe_mma"):
        pytest.skip("built without NESTVEC_CUDA_PROBE")
    return device.native


@pytest.fixture
def emulated(native: Any) -> Any:
    if not native.emulated:
        pytest.skip("a GPU does not notice mistakes")
    return native


@pytest.mark.parametrize("width", [32, 16, 4])
@pytest.mark.parametrize("by", [0, 1, 3, 13])
def test_lanes_exchange_values_and_vote(
    device: Any, native: Any, rng: np.random.Generator, order: str, width: int, by: int
) -> None:
    lane = np.arange(THREADS) % width
    base = np.arange(THREADS) - lane
    for limit in (-1, 50, 1000):
        values = rng.integers(0, 100, THREADS).astype(np.int32)
        shuffled, votes = device.empty((4, THREADS), np.int32), device.empty((6, THREADS), np.int32)
        native.probe_warps(device.put(values).buffer, by, width, limit, shuffled.buffer, votes.buffer, 0)
        sources = [np.full(THREADS, by % width), lane ^ by, lane - by, lane + by]
        kept = [np.where((source < 0) | (source >= width), lane, source) for source in sources]
        np.testing.assert_array_equal(shuffled.numpy(), [values[base + source] for source in kept])
        wanted = values < limit
        warps = wanted.reshape(-1, LANES)
        ballot = (warps * (np.uint64(1) << np.arange(LANES, dtype=np.uint64))).sum(1).astype(np.uint32).view(np.int32)
        of_warp = [np.repeat(some, LANES) for some in (ballot, warps.any(1), warps.all(1))]
        of_block = [np.full(THREADS, some) for some in (wanted.sum(), wanted.any(), wanted.all())]
        np.testing.assert_array_equal(votes.numpy(), of_warp + of_block)


def rounds_of(values: np.ndarray, rounds: int) -> np.ndarray:
    thread = np.arange(THREADS)
    for turn in range(rounds):
        values = values[(thread + 37 * (turn + 1)) % THREADS] + np.int32(1)
        values = values + values[thread // LANES * LANES + (thread * 7 + turn) % LANES]
    return values


def test_threads_meet_at_barriers(device: Any, native: Any, order: str) -> None:
    values = np.arange(THREADS, dtype=np.int32)
    held = device.put(values)
    native.probe_barriers(held.buffer, 9, True, 0)
    np.testing.assert_array_equal(held.numpy(), rounds_of(values, 9))


def test_a_missing_barrier_shows_in_some_order(device: Any, emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(THREADS, dtype=np.int32)
    wrong = set()
    for order in ("forwards", "backwards", "shuffled"):
        monkeypatch.setenv("NESTVEC_EMULATED_ORDER", order)
        held = device.put(values)
        emulated.probe_barriers(held.buffer, 9, False, 0)
        if not np.array_equal(held.numpy(), rounds_of(values, 9)):
            wrong.add(order)
    assert "shuffled" in wrong


def test_atomics_of_many_blocks(device: Any, native: Any, order: str) -> None:
    blocks = 5
    cells, places = device.put(np.array([3, 0, 99, 0], np.uint32)), device.empty(blocks * THREADS, np.uint32)
    native.probe_atomics(blocks, cells.buffer, places.buffer, 0)
    assert cells.numpy().tolist() == [3 + blocks * THREADS, blocks * THREADS - 1, 5, 2**32 - 1]
    np.testing.assert_array_equal(np.sort(places.numpy()), np.arange(blocks * THREADS) + 3)
    first = {"forwards": 3, "backwards": 2 + blocks * THREADS}
    if native.emulated and order in first:
        assert places.numpy()[0] == first[order]


@pytest.mark.parametrize(("product", "left", "right"), [(0, np.uint8, np.int8), (1, np.int8, np.int8)])
def test_tiles_of_bytes(
    device: Any, native: Any, rng: np.random.Generator, order: str, product: int, left: type, right: type
) -> None:
    for extreme in (False, True):
        a, b = (
            rng.choice([np.iinfo(t).min, np.iinfo(t).max], (rows, 32)).astype(t) if extreme
            else rng.integers(np.iinfo(t).min, np.iinfo(t).max + 1, (rows, 32)).astype(t)
            for t, rows in ((left, 16), (right, 8))
        )  # fmt: skip
        c = rng.integers(-1000, 1000, (16, 8)).astype(np.int32)
        out = device.put(c)
        native.probe_mma(product, device.put(a).buffer, device.put(b).buffer, out.buffer, 0)
        np.testing.assert_array_equal(out.numpy(), c + a.astype(np.int32) @ b.astype(np.int32).T)


@pytest.mark.parametrize("product", [2, 3])
def test_tiles_of_halves(device: Any, native: Any, rng: np.random.Generator, order: str, product: int) -> None:
    def halves(rows: int) -> tuple[np.ndarray, np.ndarray]:
        """As stored, and their values; whole numbers are summed exactly in any order."""
        x = np.ldexp(rng.integers(-100, 100, (rows, 16)).astype(np.float32), rng.integers(-3, 4))
        if product == 2:
            return x.astype(np.float16), x
        return (x.view(np.uint32) >> 16).astype(np.uint16), x

    (a, wide_a), (b, wide_b) = halves(16), halves(8)
    c = rng.integers(-1000, 1000, (16, 8)).astype(np.float32)
    out = device.put(c)
    native.probe_mma(product, device.put(a).buffer, device.put(b).buffer, out.buffer, 0)
    np.testing.assert_array_equal(out.numpy(), c + wide_a @ wide_b.T)


def test_tiles_of_tiny_and_huge_halves(device: Any, native: Any) -> None:
    a, b, c = np.zeros((16, 16), np.float16), np.zeros((8, 16), np.float16), np.zeros((16, 8), np.float32)
    a[0, 0], a[1, 1], a[2, 2] = 2**-24, -65504, 1023 * 2**-24  # subnormal numbers, and the largest
    b[:, :3] = 1
    out = device.put(c)
    native.probe_mma(2, device.put(a).buffer, device.put(b).buffer, out.buffer, 0)
    assert out.numpy()[:4].tolist() == [[2**-24] * 8, [-65504.0] * 8, [1023 * 2**-24] * 8, [0.0] * 8]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_errors_and_do_no_harm(device: Any, emulated: Any, mistake: str) -> None:
    values = device.put(np.zeros(THREADS, np.int32))
    with pytest.raises(RuntimeError, match=MISTAKES[mistake]):
        emulated.probe_mistake(CODES.index(mistake), values.buffer, 0)
    test_threads_meet_at_barriers(device, emulated, "forwards")


@pytest.mark.parametrize("mistake", ["memory", "stack"])
def test_memory_of_others_is_out_of_reach(emulated: Any, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    monkeypatch.setenv("NESTVEC_EMULATED_ORDER", "forwards")  # then it is the first thread
    code = (
        "import numpy; from nestvec.cuda import Device; d = Device('emulated')\n"
        f"d.native.probe_mistake({CODES.index(mistake)}, d.put(numpy.zeros({THREADS}, numpy.int32)).buffer, 0)"
    )
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True)
    assert done.returncode < 0
    assert "emulated kernel: no such memory, thread (0, 0, 0) of block (0, 0, 0)" in done.stderr


def test_an_unknown_order_is_an_error(device: Any, emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTVEC_EMULATED_ORDER", "sideways")
    values = device.put(np.zeros(THREADS, np.int32))
    with pytest.raises(RuntimeError, match="shuffled:SEED, got sideways"):
        emulated.probe_barriers(values.buffer, 1, True, 0)
