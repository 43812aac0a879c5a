"""Searches on a GPU: nestvec and its peers, in interleaved runs; results go to bench/results/NAME.json.

    python bench/gpu.py                                  # everything, as on one 80 GB GPU with 64 GB of host memory
    python bench/gpu.py --only dense --n 1000000         # fewer rows, for smaller devices
    python bench/gpu.py --device emulated --tiny         # toy sizes without a GPU: tries the script, times nothing

Times are by CUDA events around a call whose inputs are on the device, and beside them by the host's clock between two
moments in which the device idles. Peers take turns; the first two turns warm up and compile. Bytes are those that a
method has to read or write once, operations those of its products; fractions are of what the driver says of the device:
memory clock times bus width, and clock times products of tensor cores (known for compute capability 8.0 and 9.0).
Recall and errors are against exact float64 search by the CPU.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import gpu_peers
import ledger
import nestvec as nv
from gpu_peers import Call, host
from nestvec.cuda import Device

WARM = 2  # turns
JUDGED = 16  # queries, or bags
LENGTH, DIMS, QUERY = 128, 128, 32  # tokens of a document, their dims, tokens of a query
ATTRIBUTES = {"clock_khz": 13, "memory_clock_khz": 36, "bus_bits": 37, "l2_bytes": 38, "multiprocessors": 16}
# Multiply-adds of a multiprocessor's tensor cores in a clock, of halves and of bytes; sparse ones are not counted.
TENSOR = {(8, 0): {"half": 1024, "int8": 2048}, (9, 0): {"half": 2048, "int8": 4096}}


# The device


def facts_of(device: Device) -> dict:
    """Of the driver and the device, and the peaks that follow from them."""
    found = dict(device.native.facts(device.number))
    found["capability"] = list(found["capability"])
    if device.native.emulated:
        return found
    driver = ctypes.CDLL("libcuda.so.1")
    value = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(value))
    found["driver"] = value.value
    for name, number in ATTRIBUTES.items():
        if driver.cuDeviceGetAttribute(ctypes.byref(value), number, device.number) == 0:
            found[name] = value.value
    found["bandwidth"] = 2 * found["memory_clock_khz"] * 1e3 * found["bus_bits"] / 8
    ops = TENSOR.get(tuple(found["capability"]), {})
    found["peaks"] = {key: 2 * n * found["multiprocessors"] * found["clock_khz"] * 1e3 for key, n in ops.items()}
    return found


class Clock:
    """Milliseconds of a call, by events of torch or cupy if there are any, and by the host."""

    def __init__(self, device: Device) -> None:
        self.device, self.torch, self.cupy = device, None, None
        if device.native.emulated:
            return
        try:
            import torch

            self.torch = torch if torch.cuda.is_available() else None
        except ImportError:
            try:
                import cupy

                self.cupy = cupy
            except ImportError:
                print("neither torch nor cupy: times are the host's")

    def wait(self) -> None:
        if self.torch:
            self.torch.cuda.synchronize()
        elif self.cupy:
            self.cupy.cuda.Device().synchronize()
        else:
            self.device.wait()

    def _event(self) -> Any:
        if self.torch:
            return self.torch.cuda.Event(enable_timing=True)
        return self.cupy.cuda.Event() if self.cupy else None

    def time(self, call: Call) -> tuple[float, float, Any]:
        """By events, by the host, and the answer."""
        begin, end = self._event(), self._event()
        self.wait()
        began = time.perf_counter()
        if begin:
            begin.record()
        answer = call()
        if end:
            end.record()
        self.wait()
        wall = (time.perf_counter() - began) * 1e3
        if self.torch:
            return begin.elapsed_time(end), wall, answer
        if self.cupy:
            return self.cupy.cuda.get_elapsed_time(begin, end), wall, answer
        return wall, wall, answer


# Turns


def failure(name: str, error: BaseException, args: argparse.Namespace) -> dict:
    """What is left of a peer that did not work; the script goes on."""
    if args.trace:
        traceback.print_exception(error)
    print(f"{name} failed: {type(error).__name__}: {str(error)[:200]}")
    return {"peer": name, "backend": backend_of(name), "failed": f"{type(error).__name__}: {str(error)[:500]}"}


def backend_of(name: str) -> str | None:
    """Of nestvec's peers."""
    return name.partition("-")[2] if name.startswith("nestvec-") else None


def compare(
    makers: dict[str, Callable[..., Call]], args: argparse.Namespace, device: Device, judge: Callable[[Any], dict]
) -> list[dict]:
    """A row for each peer, of calls in turns; `judge` says how right the last answer is."""
    clock, calls, rows = Clock(device), {}, []
    for name, make in makers.items():
        if args.peers and name not in args.peers:
            continue
        try:
            calls[name] = make(device=device)
        except Exception as error:
            rows.append(failure(name, error, args))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    judged: dict[str, dict] = {}
    for turn in range(WARM + args.repeats):
        for name in list(calls):
            try:
                by_events, wall, answer = clock.time(calls[name])
                times[name].append((by_events, wall))
                if turn == 0:
                    judged[name] = judge(host(answer))
            except Exception as error:
                rows.append(failure(name, error, args))
                del calls[name]
    for name in calls:
        by_events, wall = zip(*times[name][WARM:], strict=True)
        row = {"peer": name, "backend": backend_of(name), "ms_median": median(by_events), "ms_min": min(by_events)}
        if backend_of(name) == "cpu":
            row |= {"ms_median": median(wall), "ms_min": min(wall)}
        rows.append(row | {"wall_ms": median(wall), "samples": args.repeats} | judged[name])
    return rows


def rated(rows: list[dict], read: dict[str, float], ops: float, kinds: dict[str, str], facts: dict) -> list[dict]:
    """Rows with their bytes and operations per second, and what part of the device's these are."""
    for row in rows:
        if "failed" in row or row["backend"] == "cpu":
            continue
        seconds = row["ms_median"] / 1e3
        size = read.get(row["peer"], read[""])
        row |= {"bytes": size, "gbps": size / seconds / 1e9, "tops": ops / seconds / 1e12}
        if facts.get("bandwidth"):
            row["of_bandwidth"] = size / seconds / facts["bandwidth"]
        peak = facts.get("peaks", {}).get(kinds.get(row["peer"], "half"))
        if peak and ops:
            row["of_peak"] = ops / seconds / peak
    for row in (row for row in rows if "failed" not in row):
        print(*(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()))
    return rows


# What is compared


def random_rows(n: int, d: int, seed: int) -> np.ndarray:
    """float16 unit rows around some centres, with less and less in later dims, as nested embeddings have."""
    spread = np.arange(1, d + 1, dtype=np.float32) ** -0.25
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((1024, d), np.float32)
    out = np.empty((n, d), np.float16)
    for first in range(0, n, 2**16):
        part = rng.standard_normal((min(2**16, n - first), d), np.float32)
        part = (part + centres[rng.integers(len(centres), size=len(part))]) * spread
        out[first : first + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return out


def of_scores(x: np.ndarray, q: np.ndarray, truth: np.ndarray, answer: tuple[np.ndarray, np.ndarray]) -> dict:
    """Recall by exact scores, ties forgiven, and the largest error of a score."""
    scores, ids = (np.asarray(some)[: len(truth)] for some in answer)
    exact = np.einsum("qkd,qd->qk", x[ids].astype(np.float64), q[: len(truth)].astype(np.float64))
    worst = truth[:, -1:].astype(np.float64)
    return {
        "recall": float((exact >= worst - 1e-6 * np.abs(worst)).mean()),
        "max_error": float(np.abs(scores - exact).max()),
    }


def dense(args: argparse.Namespace, device: Device, facts: dict, book: ledger.Ledger) -> None:
    """Top 10 by inner product."""
    n, d, k = args.n or (3000 if args.tiny else 10_000_000), 256, 10
    x = random_rows(n, d, 1)
    index = nv.NestedIndex(d, rows="float16")
    for first in range(0, n, 2**18):
        index.add(x[first : first + 2**18])
    for nq in (1, 33) if args.tiny else (1, 1000):
        q = random_rows(nq, d, 2)
        judge = partial(of_scores, x, q, index.search(q[:JUDGED], k)[0])
        makers = {name: partial(make, index, x, q, k) for name, make in gpu_peers.DENSE.items()}
        one_byte = {"nestvec-cuda": n * (d + 12), "torch-int8": n * d}
        rows = compare(makers, args, device, judge)
        kinds = dict.fromkeys(one_byte, "int8")
        book.put(rated(rows, {"": 2 * n * d, **one_byte}, 2 * n * d * nq, kinds, facts), bench="gpu", case="dense",
                 n=n, d=d, k=k, nq=nq)  # fmt: skip


def of_distances(truth: np.ndarray, answer: tuple[np.ndarray, np.ndarray]) -> dict:
    """Of the k smallest distances; which of equal rows are found is not compared."""
    found = np.sort(np.asarray(answer[0])[: len(truth)].astype(np.int64), axis=1)
    return {"recall": float((found <= truth[:, -1:]).mean()), "max_error": float(np.abs(found - truth).max())}


def hamming(args: argparse.Namespace, device: Device, facts: dict, book: ledger.Ledger) -> None:
    """Top 100 by Hamming distance."""
    n, bits, k = args.n or (3000 if args.tiny else 100_000_000), 256, 100
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 2**63, (n, bits // 64), np.int64).view(np.uint8)
    index = nv.BinaryIndex(bits)
    for first in range(0, n, 2**22):
        index.add(codes[first : first + 2**22])
    for nq in (1, 5) if args.tiny else (1, 256):
        q = rng.integers(0, 2**63, (nq, bits // 64), np.int64).view(np.uint8)
        truth = index.search(q[:JUDGED], k)[0].astype(np.int64)
        makers = {name: partial(make, index, codes, q, k) for name, make in gpu_peers.HAMMING.items()}
        rows = compare(makers, args, device, partial(of_distances, truth))
        read = {"": n * bits / 8, "torch-popcount": n * bits / 8 * nq, "torch-popcount-compiled": n * bits / 8 * nq}
        book.put(rated(rows, read, 0, {}, facts), bench="gpu", case="hamming", n=n, d=bits, k=k, nq=nq)


def encode(args: argparse.Namespace, device: Device, facts: dict, book: ledger.Ledger) -> None:
    """Fixed dimensional encodings of documents, in single precision."""
    n = args.n or (20 if args.tiny else 50_000)
    encoder = nv.FixedDimensionalEncoder(DIMS, num_repetitions=20, num_simhash_projections=5, projection_dim=16)
    docs = random_rows(n * LENGTH, DIMS, 4).reshape(n, LENGTH, DIMS)
    truth = encoder.encode_documents(docs[:JUDGED])

    def judge(answer: np.ndarray, name: str) -> dict:
        return {} if name.startswith("torch") else {"max_error": float(np.abs(answer[: len(truth)] - truth).max())}

    rows = []
    for name, make in gpu_peers.ENCODE.items():  # one after the other: encodings take much memory
        rows += compare({name: partial(make, encoder, docs)}, args, device, partial(judge, name=name))
    for row in rows:
        if "failed" not in row:
            row["per_second"] = n / row["ms_median"] * 1e3
    size = 2 * docs.nbytes + n * encoder.fde_dim * 4
    ops = 2 * n * LENGTH * DIMS * encoder.num_repetitions * (5 + 16)
    book.put(rated(rows, {"": size}, ops, {}, facts), bench="gpu", case="encode", n=n, d=DIMS, k=0, nq=0)


def maxsim(args: argparse.Namespace, device: Device, facts: dict, book: ledger.Ledger) -> None:
    """Scores of all documents for one query."""
    n = args.n or (40 if args.tiny else 100_000)
    docs = random_rows(n * LENGTH, DIMS, 5).reshape(n, LENGTH, DIMS)
    q = random_rows(QUERY, DIMS, 6)
    exact = np.einsum("qd,ntd->nqt", q.astype(np.float64), docs[:JUDGED].astype(np.float64)).max(2).sum(1)
    makers = {name: partial(make, q, docs) for name, make in gpu_peers.MAXSIM.items()}
    rows = compare(makers, args, device, lambda a: {"max_error": float(np.abs(a[: len(exact)] - exact).max())})
    ops = 2 * docs.size * QUERY
    book.put(rated(rows, {"": docs.nbytes}, ops, {}, facts), bench="gpu", case="maxsim", n=n, d=DIMS, k=0, nq=1)


CASES = {"dense": dense, "hamming": hamming, "encode": encode, "maxsim": maxsim}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="gpu", help="results go to bench/results/NAME.json")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or emulated")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--n", type=int, help="rows or documents, of all that is compared")
    parser.add_argument("--peers", nargs="+", help="only these")
    parser.add_argument("--repeats", type=int, default=7, help="at least 5")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, results are not kept")
    parser.add_argument("--trace", action="store_true", help="show where a peer failed")
    args = parser.parse_args()
    if args.repeats < 5 and not args.tiny:
        parser.error("--repeats must be at least 5")
    device = Device(args.device)
    device.activate()
    facts = facts_of(device)
    print(facts)
    with tempfile.TemporaryDirectory() as scratch:
        if args.tiny:
            ledger.RESULTS = Path(scratch)
        book = ledger.Ledger(args.name, vars(args) | {"device_facts": facts}, ("bench", "case", "n", "d", "k", "nq"))
        for name in args.only:
            print(f"-- {name}")
            CASES[name](args, device, facts, book)


if __name__ == "__main__":
    main()
