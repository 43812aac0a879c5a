"""The searches that gpu.py compares. Each function gets its data onto the device and returns the call to be timed.

Inputs are already on the device where a library takes them there, and answers stay there. Libraries are imported when
they are asked for; one that is missing, fails or has no room is reported as failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nestvec as nv

Call = Callable[[], Any]
SCORES = 2**29  # that torch holds at a time: 1 GiB of halves
INT_MM_ROWS = 32  # torch._int_mm wants more than 16 rows
ODD, PAIRS, FOURS, EIGHTS = 0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F, 0x0101010101010101


def _torch(device: Any) -> tuple[Any, str]:
    """torch, and where it is to work: beside an emulated device on the CPU, so that what is written here is tried."""
    import torch

    if device.native.emulated:
        return torch, "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU")
    return torch, "cuda"


def _put(x: np.ndarray, device: Any, dtype: Any = None, step: int = 2**20) -> Any:
    """An array on the device, in another type if one is named, some rows at a time."""
    torch, place = _torch(device)
    out = torch.empty(x.shape, dtype=dtype or torch.from_numpy(x[:1]).dtype, device=place)
    for at in range(0, len(x), step):
        out[at : at + step] = torch.from_numpy(x[at : at + step]).to(place)
    return out


def moved(thing: Any, device: Any) -> Any:
    """An index or an encoder on the device."""
    return thing.to(device.name)


def given(x: np.ndarray, device: Any) -> Any:
    """What nestvec is given: an array on the device, if torch is there to hold it."""
    try:
        return x if device.native.emulated else _put(x, device)
    except (ImportError, RuntimeError):
        return x


def host(answer: Any) -> Any:
    """numpy arrays of an answer that is an array, or several."""
    if isinstance(answer, (tuple, list)):
        return tuple(host(one) for one in answer)
    if hasattr(answer, "copy_to_host"):  # of cuVS
        return answer.copy_to_host()
    if hasattr(answer, "detach"):
        return answer.detach().float().cpu().numpy() if answer.is_floating_point() else answer.cpu().numpy()
    return answer.numpy() if hasattr(answer, "numpy") else np.asarray(answer)


# Inner products


def nestvec_search(index: Any, x: np.ndarray, q: np.ndarray, k: int, device: Any) -> Call:
    there, queries = moved(index, device), given(q, device)
    return lambda: there.search(queries, k, check=False)  # no peer looks for NaN


def cpu_search(index: Any, x: np.ndarray, q: np.ndarray, k: int, device: Any) -> Call:
    return lambda: index.search(q, k)


def _best(
    torch: Any, scores: Callable[[int, int], Any], n: int, k: int, step: int, largest: bool = True
) -> tuple[Any, Any]:
    """The k best of all rows: `scores` of `step` rows at a time, then the best of those that were kept."""
    kept = []
    for at in range(0, n, step):
        values, ids = torch.topk(scores(at, min(at + step, n)), min(k, min(step, n - at)), largest=largest)
        kept.append((values, ids + at))
    values, ids = (torch.cat(some, 1) for some in zip(*kept, strict=True))
    if len(kept) == 1:
        return values, ids
    best, places = torch.topk(values, k, largest=largest)
    return best, ids.gather(1, places)


def torch_dense(dtype: str) -> Callable[..., Call]:
    def make(index: Any, x: np.ndarray, q: np.ndarray, k: int, device: Any) -> Call:
        torch, _ = _torch(device)
        rows, queries = (_put(some, device, getattr(torch, dtype)) for some in (x, q))
        step = max(k, SCORES // len(q))
        return lambda: _best(torch, lambda a, b: queries @ rows[a:b].T, len(rows), k, step)

    return make


def torch_int8(index: Any, x: np.ndarray, q: np.ndarray, k: int, device: Any) -> Call:
    """Codes with one scale for all rows, so that integer products rank by themselves; nothing is rescored."""
    torch, place = _torch(device)
    row_scale, query_scale = (127 / max(float(np.abs(some[: 2**20]).max()), 1e-30) for some in (x, q))
    rows = torch.empty(x.shape, dtype=torch.int8, device=place)
    for at in range(0, len(x), 2**20):
        part = torch.from_numpy(x[at : at + 2**20]).to(place).float()
        rows[at : at + 2**20] = (part * row_scale).round().clamp(-127, 127)
    padded = max(INT_MM_ROWS, -(-len(q) // 8) * 8)
    queries = torch.zeros((padded, x.shape[1]), dtype=torch.int8, device=place)
    queries[: len(q)] = (_put(q, device).float() * query_scale).round()
    step = max(k, SCORES // padded)

    def call() -> Any:
        found = _best(torch, lambda a, b: torch._int_mm(queries, rows[a:b].T)[: len(q)], len(rows), k, step)
        return found[0].float() / (row_scale * query_scale), found[1]

    return call


def cuvs_dense(index: Any, x: np.ndarray, q: np.ndarray, k: int, device: Any) -> Call:
    from cuvs.common import Resources
    from cuvs.neighbors import brute_force

    torch, _ = _torch(device)
    resources = Resources(stream=torch.cuda.current_stream().cuda_stream)
    rows, queries = (_put(some, device, torch.float16) for some in (x, q))
    built = brute_force.build(rows, metric="inner_product", resources=resources)
    # the index reads the rows where they are
    return lambda: _keep(brute_force.search(built, queries, k, resources=resources), rows)


def _keep(answer: Any, *owners: Any) -> Any:
    """The answer; what else is named lives as long as the call that does so."""
    return answer


def faiss_dense(index: Any, x: np.ndarray, q: np.ndarray, k: int, device: Any) -> Call:
    import faiss

    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    resources = faiss.StandardGpuResources()
    there = faiss.GpuIndexFlatIP(resources, x.shape[1], config)
    for at in range(0, len(x), 2**18):
        there.add(x[at : at + 2**18].astype(np.float32))
    queries = q.astype(np.float32)
    return lambda: _keep(there.search(queries, k), resources)


DENSE = {
    "nestvec-cuda": nestvec_search,
    "torch-float16": torch_dense("float16"),
    "torch-bfloat16": torch_dense("bfloat16"),
    "torch-int8": torch_int8,
    "cuvs-brute-force": cuvs_dense,
    "faiss-gpu-flat": faiss_dense,
    "nestvec-cpu": cpu_search,
}


# Hamming distances


def torch_hamming(compiled: bool) -> Callable[..., Call]:
    def make(index: Any, codes: np.ndarray, q: np.ndarray, k: int, device: Any) -> Call:
        torch, _ = _torch(device)
        rows, queries = (_put(some.view(np.int64), device) for some in (codes, q))

        def distances(some: Any, one: Any) -> Any:
            """Bits that differ, counted by halves in words of 64."""
            x = some ^ one
            x = x - ((x >> 1) & ODD)
            x = (x & PAIRS) + ((x >> 2) & PAIRS)
            x = (x + (x >> 4)) & FOURS
            return (((x * EIGHTS) >> 56) & 0xFF).sum(1).to(torch.int32)

        count = torch.compile(distances) if compiled else distances

        def of_one(one: Any) -> Any:
            return _best(torch, lambda a, b: count(rows[a:b], one)[None], len(rows), k, 2**24, largest=False)

        def call() -> Any:
            found = [of_one(one) for one in queries]
            return tuple(torch.cat(some) for some in zip(*found, strict=True))

        return call

    return make


def faiss_hamming(index: Any, codes: np.ndarray, q: np.ndarray, k: int, device: Any) -> Call:
    import faiss

    resources = faiss.StandardGpuResources()
    there = faiss.GpuIndexBinaryFlat(resources, codes.shape[1] * 8)
    for at in range(0, len(codes), 2**22):
        there.add(codes[at : at + 2**22])
    return lambda: _keep(there.search(q, k), resources)


HAMMING = {
    "nestvec-cuda": nestvec_search,
    "torch-popcount": torch_hamming(compiled=False),
    "torch-popcount-compiled": torch_hamming(compiled=True),
    "faiss-gpu-binary-flat": faiss_hamming,
    "nestvec-cpu": cpu_search,
}


# Fixed dimensional encodings; docs (n, length, d) float16


def nestvec_encode(encoder: Any, docs: np.ndarray, device: Any) -> Call:
    there, tokens = moved(encoder, device), device.put(docs.reshape(-1, docs.shape[2]).astype(np.float32))
    offsets = device.put(np.arange(0, len(docs) * docs.shape[1] + 1, docs.shape[1]))
    return lambda: there.encode_on_device(tokens, offsets, "documents")


def cpu_encode(encoder: Any, docs: np.ndarray, device: Any) -> Call:
    return lambda: encoder.encode_documents(docs)


def torch_encode(encoder: Any, docs: np.ndarray, device: Any) -> Call:
    """The same shapes and other random numbers: products in halves, sums of partitions by index_add."""
    torch, place = _torch(device)
    repetitions, bits, width = encoder.num_repetitions, encoder.num_simhash_projections, encoder.projection_dim
    n, length, d = docs.shape
    tokens = _put(docs, device)
    planes = torch.randn(d, repetitions * bits, device=place, dtype=torch.float16)
    sketches = torch.randn(d, repetitions * width, device=place, dtype=torch.float16) * width**-0.5
    powers = 2 ** torch.arange(bits, device=place)
    step = max(1, 2**22 // (length * repetitions))

    def part(some: Any) -> Any:
        count = len(some)
        flat = some.reshape(-1, d)
        signs = (flat @ planes).reshape(-1, repetitions, bits) > 0
        cells = (signs * powers).sum(2) + torch.arange(repetitions, device=place) * 2**bits
        cells += torch.arange(count, device=place).repeat_interleave(length)[:, None] * (repetitions * 2**bits)
        sums = torch.zeros(count * repetitions * 2**bits, width, device=place)
        counts = torch.zeros(len(sums), 1, device=place)
        values = (flat @ sketches).float().reshape(-1, width)
        sums.index_add_(0, cells.reshape(-1), values)
        counts.index_add_(0, cells.reshape(-1), torch.ones(len(values), 1, device=place))
        return (sums / counts.clamp(min=1)).reshape(count, -1)

    out = torch.empty(n, encoder.fde_dim, device=place)

    def call() -> Any:
        for at in range(0, n, step):
            out[at : at + step] = part(tokens[at : at + step])
        return out

    return call


ENCODE = {"nestvec-cuda": nestvec_encode, "torch-index-add": torch_encode, "nestvec-cpu": cpu_encode}


# MaxSim; q (m, d), docs (n, length, d), both float16


def nestvec_maxsim(q: np.ndarray, docs: np.ndarray, device: Any) -> Call:
    from nestvec import cuda

    queries, there = given(q, device), cuda.Documents(device, given(docs, device))
    return lambda: cuda.maxsim(queries, there, check=False)[0]


def cpu_maxsim(q: np.ndarray, docs: np.ndarray, device: Any) -> Call:
    return lambda: nv.maxsim(q, docs)[0]


def torch_maxsim(compiled: bool) -> Callable[..., Call]:
    def make(q: np.ndarray, docs: np.ndarray, device: Any) -> Call:
        torch, _ = _torch(device)
        query, there = _put(q, device), _put(docs, device)
        step = max(1, SCORES // (len(q) * docs.shape[1]))

        def part(some: Any) -> Any:
            return torch.einsum("qd,ntd->nqt", query, some).amax(2).sum(1, dtype=torch.float32)

        score = torch.compile(part, mode="max-autotune") if compiled else part
        # clone: the next call of a compiled function overwrites what the last one gave
        return lambda: torch.cat([score(there[at : at + step]).clone() for at in range(0, len(there), step)])

    return make


def flash_maxsim(q: np.ndarray, docs: np.ndarray, device: Any) -> Call:
    from flash_maxsim import flash_maxsim as score

    query, there = _put(q, device), _put(docs, device)
    return lambda: score(query, there)


def late_interaction(q: np.ndarray, docs: np.ndarray, device: Any) -> Call:
    from late_interaction_kernels import maxsim as score

    query, there = _put(q, device)[None], _put(docs, device)
    return lambda: score(query, there)[0]


MAXSIM = {
    "nestvec-cuda": nestvec_maxsim,
    "torch-einsum": torch_maxsim(compiled=False),
    "torch-einsum-compiled": torch_maxsim(compiled=True),
    "flash-maxsim": flash_maxsim,
    "late-interaction-kernels": late_interaction,
    "nestvec-cpu": cpu_maxsim,
}
