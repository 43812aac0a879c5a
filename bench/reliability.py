"""What filters, removals, files and early ends cost; results go to bench/results/reliability.json.

    python bench/reliability.py                          # everything, one thread, a million random rows of 256 dims
    python bench/reliability.py --only filters --data pkg_wordllama --backends amx avx512 avx2

Times are medians of interleaved runs. Filters are compared with the same search without, and answers with brute force
over the rows allowed. Files are compared with `cp`, which copies without checking and, here, with a sync at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

import machine
import nestvec as nv
from data import load
from nestvec import parallel, slices

SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 1.0)
ROUNDS = 7
K = 10


def interleaved(calls: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, tuple[float, float]]:
    """Median and least seconds of each call; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - begun)
    return {name: (median(some), min(some)) for name, some in times.items()}


def filters(x: np.ndarray, q: np.ndarray, backend: str) -> list[dict]:
    """Searches with filters over those without: one query, a batch, and a plan; masks, ids and one mask a query."""
    nv.use(backend)
    index = nv.NestedIndex(x.shape[1])
    index.add(x)
    plan = [nv.Stage("b1", keep=400), nv.Stage("raw")]
    rng, found = np.random.default_rng(0), []
    masks = {share: rng.random(len(x)) < share for share in SHARES}
    own = np.stack([rng.random(len(x)) < 0.5 for _ in range(16)])
    for nq in (1, 16, 500):
        some = q[:nq]
        search = partial(index.search, some, K, threads=1)
        calls: dict[str, Callable[[], object]] = {"none": search}
        calls |= {f"mask {share:g}": partial(search, filter=mask) for share, mask in masks.items()}
        calls["ids 0.01"] = partial(search, filter=np.flatnonzero(masks[0.01]))
        calls["range 0.5"] = partial(search, filter=range(len(x) // 2))
        if nq == 16:
            calls["own masks 0.5"] = partial(search, filter=own)
        if nq == 1:
            calls["plan, none"] = partial(search, plan=plan)
            calls |= {f"plan, mask {s:g}": partial(search, plan=plan, filter=masks[s]) for s in (0.01, 0.5, 1.0)}
        times = interleaved(calls, ROUNDS if nq < 500 else 5)
        for name, (seconds, least) in times.items():
            base, base_least = times["plan, none" if name.startswith("plan") else "none"]
            row = {"backend": backend, "nq": nq, "filter": name, "ms": seconds / nq * 1e3}
            row |= {"ratio": seconds / base, "ratio_min": least / base_least}
            found.append(row)
            print(row, flush=True)
        for share, mask in masks.items():
            allowed = np.flatnonzero(mask)
            exact = some[:3].astype(np.float64) @ x[allowed].astype(np.float64).T
            for i, scores in enumerate(exact):
                best = allowed[np.lexsort((allowed, -scores))[:K]]
                assert (index.search(some[:3], K, filter=mask)[1][i, : len(best)] == best).all(), share
    return found


def changes(x: np.ndarray) -> dict:
    """Microseconds to remove an id, alone and among many; seconds to compact."""
    index = nv.NestedIndex(x.shape[1])
    index.add(x)
    alone = []
    for one in range(2000):
        begun = time.perf_counter()
        index.remove(one)
        alone.append(time.perf_counter() - begun)
    some = np.random.default_rng(0).permutation(np.arange(2000, len(x)))[: len(x) // 4]
    begun = time.perf_counter()
    index.remove(some)
    many = (time.perf_counter() - begun) / len(some)
    begun = time.perf_counter()
    index.search(x[:1], 10, threads=1)
    first = time.perf_counter() - begun
    begun = time.perf_counter()
    index.compact(threads=1)
    result = {
        "remove_us": median(alone) * 1e6, "remove_many_us": many * 1e6, "first_search_after_ms": first * 1e3,
        "compact_s": time.perf_counter() - begun, "compact_rows": len(index),
    }  # fmt: skip
    print(result, flush=True)
    return result


def files(x: np.ndarray, folder: Path) -> dict:
    """GB of file a second: saved, loaded, checked, and copied by `cp`; milliseconds to open a mapped file."""
    index = nv.NestedIndex(x.shape[1])
    index.add(x)
    path, copy = folder / "index.nv", folder / "copy.nv"
    index.save(path)
    size = path.stat().st_size
    calls = {
        "save": lambda: index.save(path),
        "cp": lambda: subprocess.run(["cp", path, copy], check=True),
        "cp and sync": lambda: subprocess.run(f"cp {path} {copy} && sync {copy}", shell=True, check=True),
        "load": lambda: nv.load(path),
        "map, all checked": lambda: nv.load(path, mmap=True),
        "map, header checked": lambda: nv.load(path, mmap=True, verify="header"),
    }
    times = interleaved(calls, 5)
    result = {"bytes": size, **{f"{name} GB/s": size / seconds / 1e9 for name, (seconds, _) in times.items()}}
    result["map, header checked ms"] = times["map, header checked"][0] * 1e3
    print(json.dumps(result, indent=1), flush=True)
    return result


def checks(x: np.ndarray, q: np.ndarray) -> dict:
    """Time with `calls.check` over that without, for what calls it most."""
    index = nv.NestedIndex(x.shape[1])
    index.add(x)
    plan = [nv.Stage("b1", keep=400), nv.Stage("raw")]
    real, result = parallel.check, {}
    users = parallel, slices  # that others call it by

    def without(call: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            for user in users:
                user.check = lambda: None
            try:
                return call()
            finally:
                for user in users:
                    user.check = real

        return run

    for name, call in {
        "search, one query": lambda: index.search(q[:1], 10, threads=1),
        "search, 200 queries": lambda: index.search(q[:200], 10, threads=1),
        "plan": lambda: index.search(q[:1], 10, plan=plan, threads=1),
        "add": lambda: nv.NestedIndex(x.shape[1]).add(x[:200_000], threads=1),
    }.items():
        times = interleaved({"with": call, "without": without(call)}, 15)
        result[f"{name}, medians"], result[f"{name}, minima"] = (
            a / b for a, b in zip(times["with"], times["without"], strict=True)
        )
        print(name, result, flush=True)
    return result


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["filters", "changes", "files", "checks"])
    parser.add_argument("--data", help="a set of data.py; default: random rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--backends", nargs="*", default=[nv.show_config()["backend"]])
    parser.add_argument("--folder", help="where files are written; default: a temporary one")
    parser.add_argument("--name", default="reliability")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    if args.data:
        some = load(args.data)
        x, q = np.asarray(some.docs, np.float32), np.asarray(some.queries, np.float32)
    else:
        x, q = (rng.standard_normal((n, 256), dtype=np.float32) for n in (args.rows, 500))
    result = {"machine": machine.describe(), "data": args.data or f"random {x.shape}"}
    if "filters" in args.only:
        result["filters"] = [row for backend in args.backends for row in filters(x, q, backend)]
        nv.use(args.backends[0])
    if "changes" in args.only:
        result["changes"] = changes(x)
    if "files" in args.only:
        folder = Path(tempfile.mkdtemp(dir=args.folder))
        try:
            result["files"] = files(x, folder)
        finally:
            shutil.rmtree(folder)
    if "checks" in args.only:
        result["checks"] = checks(x, q)
    path = Path(__file__).parent / "results" / f"{args.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
