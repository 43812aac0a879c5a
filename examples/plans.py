"""Search by a plan, from signs to exact scores: what each stage reads, and what a shorter list loses."""

from __future__ import annotations

import numpy as np

import nestvec as nv

rng = np.random.default_rng(0)
centres = rng.standard_normal((500, 256))
x = (centres[rng.integers(0, 500, 50_000)] + rng.standard_normal((50_000, 256))).astype(np.float32)
queries = x[:100] + 0.5 * rng.standard_normal((100, 256)).astype(np.float32)

index = nv.NestedIndex(256, metric="cosine")
index.add(x)
_, exact = index.search(queries, k=10)

for keep in (20, 50, 200):
    plan = [nv.Stage("b1", dims=128, keep=10 * keep), nv.Stage("b1", keep=keep), nv.Stage("raw")]
    _, found = index.search(queries, k=10, plan=plan)
    recall = np.mean([len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]) / 10
    print(f"shortlist of {keep}: {recall:.1%} of the exact top 10")

print(index.explain(queries, 10, plan))
print("exact:", index.explain(queries, 10), sep="\n")
