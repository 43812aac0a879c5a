"""Check an installed nestvec: it imports, runs the kind of kernels expected, and finds what brute force finds.

python smoke.py {compiled,numba,python}
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np

import nestvec as nv

PAIRS = [(0, 100), (100, 100), (100, 250), (250, 300)]  # documents of the rows, one of them empty


def main(expected: str) -> None:
    config = nv.show_config()
    print(config)
    kind = config["backend"] if config["backend"] in ("numba", "python") else "compiled"
    if kind != expected:
        sys.exit(f"expected {expected} kernels, runs on {config['backend']}")
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 8, (300, 40)).astype(np.float32)  # integers: float32 brute force is exact, with many ties
    q = x[:5] + 1
    index = nv.NestedIndex(40, levels=(16,))
    index.add(x)
    for dims in (16, 40):
        D, I = index.search(q, 7, dims=dims)
        scores = q[:, :dims] @ x[:, :dims].T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :7]
        if not (np.array_equal(I, order) and np.array_equal(D, np.take_along_axis(scores, order, 1))):
            sys.exit(f"search in {dims} dims differs from brute force")
    distances = (q[:, None] > 0) ^ (x > 0)
    D, I = nv.hamming_topk(nv.pack_bits(q), nv.pack_bits(x), 7, bits=40)
    order = np.argsort(distances.sum(axis=2), axis=1, kind="stable")[:, :7]
    if not np.array_equal(I, order):
        sys.exit("Hamming search differs from brute force")
    _, I = index.search(q, 7, plan=[nv.Stage("b1", keep=len(x)), nv.Stage("raw")])
    if not np.array_equal(I, index.search(q, 7)[1]):
        sys.exit("a plan that keeps every row differs from exact search")
    _, I = index.search(q, 7, filter=range(100, 200))
    index.remove(range(200, 300))
    index.remove(range(100))
    if not np.array_equal(I, index.search(q, 7)[1]):
        sys.exit("a filter differs from removing the others")
    with tempfile.TemporaryDirectory() as folder:
        index.save(f"{folder}/index.nv")
        if not np.array_equal(I, nv.load(f"{folder}/index.nv").search(q, 7)[1]):
            sys.exit("an index differs after it was saved")
    docs = nv.MultiVectorIndex(nv.FixedDimensionalEncoder(40, projection_dim=8))
    docs.add((x, [first for first, _ in PAIRS] + [300]))
    D, I = docs.search(q, 4, exact=True)
    best = [-np.inf if first == last else (q @ x[first:last].T).max(axis=1).sum() for first, last in PAIRS]
    order = np.argsort(-np.array(best), kind="stable")[:3]
    if I[0].tolist() != [*order.tolist(), -1] or D[0, :3].tolist() != np.array(best)[order].tolist():
        sys.exit("MaxSim differs from brute force")


if __name__ == "__main__":
    main(sys.argv[1])
