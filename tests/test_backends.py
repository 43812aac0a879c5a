"""Which kernels run, who chooses them, and what importing the package costs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import nestvec as nv
import truth
from nestvec import backends, parallel
from nestvec.cuda import device

HERE = backends.available()
MISSING = [name for name in backends.PREFERENCE if name not in HERE]
HEAVY = ("numba", "torch", "click", "rich", "concurrent.futures")

NO_CORE = "import sys; sys.modules['nestvec._core'] = None"
NO_NUMBA = "import sys; sys.modules['numba'] = None"
SEARCH = """
import nestvec as nv, numpy as np
x = np.random.default_rng(0).integers(-8, 8, (70, 12)).astype(np.float32)
index = nv.NestedIndex(12, levels=[5], metric="l2")
index.add(x)
found = [[a.tolist() for a in index.search(x[:nq], 4, dims=dims)] for nq in (1, 5, 17) for dims in (5, 7, 12)]
"""


@pytest.fixture(autouse=True)
def no_choice_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test chooses is forgotten afterwards."""
    monkeypatch.setattr(backends, "_current", None)
    monkeypatch.delenv(backends.ENVIRONMENT, raising=False)


def python(*lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter."""
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


def printed(*lines: str, **environment: str) -> Any:
    """What a new interpreter prints, as JSON."""
    done = python(*lines, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def brute_force() -> list[Any]:
    """What `found` of `SEARCH` must be."""
    x = np.random.default_rng(0).integers(-8, 8, (70, 12)).astype(np.float32)
    answers = [truth.topk(x[:nq, :dims], x[:, :dims], 4, "l2") for nq in (1, 5, 17) for dims in (5, 7, 12)]
    return [[a.tolist() for a in answer] for answer in answers]


# Choosing


@pytest.mark.parametrize("name", HERE)
def test_environment_variable(name: str) -> None:
    code = "import json; from nestvec import backends; print(json.dumps(backends.describe()))"
    wanted = [name, "environment variable NESTVEC_BACKEND"]
    assert printed(code, NESTVEC_BACKEND=name) == wanted


def test_best_is_chosen_where_nobody_asks() -> None:
    code = "import json; from nestvec import backends; print(json.dumps(backends.describe()))"
    assert printed(code, NESTVEC_BACKEND="") == [HERE[0], "best of those available"]


def test_available_is_in_order_of_preference() -> None:
    assert sorted(HERE, key=backends.PREFERENCE.index) == HERE
    assert len({"numba", "python"} & set(HERE)) == 1


@pytest.mark.parametrize("name", HERE)
def test_use(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes before the environment, and holds for what was made before."""
    monkeypatch.setenv(backends.ENVIRONMENT, HERE[-1])
    x = np.random.default_rng(0).integers(-3, 4, (300, 20))
    index = nv.NestedIndex(20)
    index.add(x)
    wanted = truth.topk(x[:5], x, 3, "ip")[1]
    for one in (HERE[-1], name):
        if one == name:
            nv.use(name)
            assert backends.describe() == (name, "nestvec.use()")
        assert backends.current() is backends.load(one)
        np.testing.assert_array_equal(index.search(x[:5], 3)[1], wanted)


@pytest.mark.parametrize("name", ["nonsense", "AVX2", "", " baseline", None, 3, *MISSING], ids=repr)
def test_unknown_names(name: Any) -> None:
    """The message says what there is; the choice made before stays."""
    nv.use(HERE[-1])
    with pytest.raises(ValueError, match=f"backend {name!r} is not available here; use one of {', '.join(HERE)}"):
        nv.use(name)
    assert backends.describe()[0] == HERE[-1]


@pytest.mark.parametrize("name", ["nonsense", MISSING[-1]])
def test_unknown_names_in_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the first call that needs kernels, not of the import; `use` helps."""
    monkeypatch.setenv(backends.ENVIRONMENT, name)
    index, x = nv.NestedIndex(3), np.ones((2, 3))
    for call in (lambda: index.add(x), lambda: nv.prefix_topk(x, x, 1), nv.show_config):
        with pytest.raises(ValueError, match=f"backend '{name}' is not available here; use one of {HERE[0]}"):
            call()
    nv.use(HERE[0])
    index.add(x)
    assert len(index) == 2


def test_variants_that_were_built_are_named() -> None:
    core = backends.core()
    if core is None:
        pytest.skip("no compiled kernels")
    with pytest.raises(ValueError, match=rf"\(built: {core.built.strip()}\)"):
        nv.use("nonsense")


# Describing


@pytest.mark.parametrize("name", HERE)
def test_show_config(name: str) -> None:
    nv.use(name)
    config = nv.show_config()
    core = backends.core()
    assert config == {
        "version": nv.__version__,
        "backend": name,
        "reason": "nestvec.use()",
        "available": HERE,
        "built": core.built.split() if core else [],
        "compiler": core.compiler if core else None,
        "cores": parallel.cores(),
        "cuda": device.described(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    assert json.loads(json.dumps(config)) == config


def test_config_makes_sense() -> None:
    config = nv.show_config()
    assert config["version"][0].isdigit()
    assert config["backend"] == HERE[0]
    assert 1 <= config["cores"] <= (os.cpu_count() or 1)
    compiled = {name for name in HERE if isinstance(backends.load(name), ModuleType)}
    assert compiled == set(HERE) - {"numba", "python"}
    assert compiled <= set(config["built"])
    assert bool(config["compiler"]) == bool(compiled)


def test_no_other_attributes() -> None:
    assert set(nv.__all__) <= {*dir(nv), "__version__"}
    with pytest.raises(AttributeError, match="module 'nestvec' has no attribute 'nonsense'"):
        _ = nv.nonsense


# Importing


def test_import_is_light() -> None:
    """Nothing that takes long to import and that a search may not need."""
    modules = "import json, sys, numpy; before = set(sys.modules); import nestvec"
    found = printed(modules, "print(json.dumps(sorted(set(sys.modules) - before)))")
    assert "nestvec.index" in found
    assert [name for name in found if name.startswith(HEAVY)] == []


@pytest.mark.skipif(HERE[0] in ("numba", "python"), reason="no compiled kernels")
def test_compiled_search_is_light() -> None:
    modules = "import json, sys, numpy; before = set(sys.modules)"
    found = printed(modules, SEARCH, "print(json.dumps(sorted(set(sys.modules) - before)))")
    assert [name for name in found if name.startswith((*HEAVY, "nestvec.kernels"))] == []


# What may be missing


def test_without_numba() -> None:
    """The loops run as plain Python if asked to, without a word."""
    code = (NO_NUMBA, "import json, warnings; warnings.simplefilter('error')", SEARCH, "from nestvec import backends")
    output = "print(json.dumps([found, backends.describe()[0], backends.available()]))"
    found, name, available = printed(*code, output, NESTVEC_BACKEND="python")
    assert (name, available) == ("python", [*(one for one in HERE if one != HERE[-1]), "python"])
    assert found == brute_force()


def test_without_numba_it_is_no_backend() -> None:
    done = python(NO_NUMBA, "import nestvec; nestvec.use('numba')")
    assert "ValueError: backend 'numba' is not available here; use one of " in done.stderr


@pytest.mark.skipif(HERE[-1] != "numba", reason="numba is not installed")
def test_without_compiled_kernels() -> None:
    """Numba takes over; nothing is built, and that is no reason to warn."""
    code = (NO_CORE, "import json, warnings; warnings.simplefilter('error'); from nestvec import backends")
    output = "print(json.dumps([backends.available(), backends.describe(), backends.core()]))"
    assert printed(*code, output) == [["numba"], ["numba", "best of those available"], None]


def test_without_both() -> None:
    """Right, slow, and said once."""
    code = (NO_CORE, NO_NUMBA, "import json, warnings")
    record = "with warnings.catch_warnings(record=True) as caught:"
    calls = ("    warnings.simplefilter('always')", *(f"    exec({SEARCH!r})" for _ in range(2)))
    output = "print(json.dumps([found, [[w.category.__name__, str(w.message)] for w in caught], nv.show_config()]))"
    found, warned, config = printed(*code, record, *calls, output)
    assert found == brute_force()
    ((category, message),) = warned
    assert category == "RuntimeWarning"
    assert "no compiled kernels and Numba is not installed" in message
    assert 'pip install "nestvec[numba]"' in message
    wanted = {"backend": "python", "available": ["python"], "built": [], "compiler": None}
    assert {**config, **wanted} == config
