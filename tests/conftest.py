"""Fixtures shared by all tests; the inputs themselves are in `inputs`, independent answers in `truth`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from nestvec import backends

collect_ignore = ["torture"]  # runs only where named: `pytest tests/torture`

settings.register_profile(
    "nestvec", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("nestvec")


@pytest.fixture(params=backends.available())
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The kernels of each backend in turn, which is also the one in use."""
    monkeypatch.setattr(backends, "_current", None)  # so that the choice made before comes back afterwards
    backends.use(request.param)
    return backends.current()


@pytest.fixture(scope="session")
def device() -> Any:
    """The GPU, or what stands for it in a build with NESTVEC_CUDA=EMULATED."""
    from nestvec.cuda import device as devices

    if devices._native is not None and devices._native.emulated:
        return devices.Device("emulated")
    if devices.reason():
        pytest.skip(f"no GPU: {devices.reason()}")
    return devices.Device("cuda")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(20220526)


@pytest.fixture(scope="session")
def wordnet() -> SimpleNamespace:
    """2,000 WordNet glosses and 200 queries, 256 dims in float16; `rel` is the row that each query was made from."""
    with np.load(Path(__file__).parent / "data" / "tiny_wn_wordllama.npz") as file:
        return SimpleNamespace(docs=file["docs"], queries=file["queries"], rel=file["rel"])
