"""Backends: anything that has every kernel of the table. One is in use at a time, for the whole process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

_core: ModuleType | None
try:
    _core = importlib.import_module("nestvec._core")
except ModuleNotFoundError:  # a wheel built without a compiler; an extension that does not load stays an error
    _core = None

ENVIRONMENT = "NESTVEC_BACKEND"
PREFERENCE = ("amx", "avx512", "avx2", "dotprod", "baseline", "numba", "python")

_loaded: dict[str, Any] = {}
_current: tuple[str, Any, str] | None = None


def core() -> ModuleType | None:
    """The compiled extension, or None in a wheel built without a compiler."""
    return _core


def available() -> list[str]:
    """Names of the backends that work on this machine, best first."""
    found = {name for name in PREFERENCE if isinstance(getattr(_core, name, None), ModuleType)}
    found.add("numba" if importlib.util.find_spec("numba") else "python")
    return [name for name in PREFERENCE if name in found]


def load(name: str) -> Any:
    """The kernels of one backend, as attributes.

    Raises
    ------
    ValueError
        If this machine has no backend of that name; the message lists what there is.
    """
    if isinstance(name, str) and name.partition(":")[0] == "cuda":
        raise ValueError(
            f'{name!r} is no backend: backends compute on the CPU; index.to("cuda") copies an index to a GPU and '
            "searches it there (nestvec.show_config() says whether there is one)"
        )
    if name not in available():
        built = f" (built: {_core.built.strip()})" if _core is not None else ""
        raise ValueError(f"backend {name!r} is not available here; use one of {', '.join(available())}{built}")
    if name not in _loaded:
        if name in ("numba", "python"):
            from . import kernels

            _loaded[name] = SimpleNamespace(**kernels.TABLE)
        else:
            _loaded[name] = getattr(_core, name)
    return _loaded[name]


def use(name: str) -> None:
    """Use one backend for every later call in this process.

    Parameters
    ----------
    name : str
        One of `nestvec.show_config()["available"]`: ``amx``, ``avx512``, ``avx2``, ``baseline`` (x86-64), ``dotprod``,
        ``baseline`` (arm64), ``numba``, or ``python`` where Numba is missing.

    Raises
    ------
    ValueError
        For an unknown name, or one that this machine does not support.

    Examples
    --------
    >>> import nestvec as nv
    >>> nv.use(nv.show_config()["available"][0])
    """
    _choose(name, "nestvec.use()")


def current() -> Any:
    """The kernels in use; the first call chooses them."""
    return _state()[1]


def describe() -> tuple[str, str]:
    """Name of the backend in use, and why it was chosen."""
    name, _, reason = _state()
    return name, reason


def _state() -> tuple[str, Any, str]:
    if _current is not None:
        return _current
    wanted = os.environ.get(ENVIRONMENT)
    if wanted:
        return _choose(wanted, f"environment variable {ENVIRONMENT}")
    best = available()[0]
    if best == "python":
        warnings.warn(
            "nestvec has no compiled kernels and Numba is not installed: searches run as plain Python loops. "
            'Install a C++ compiler and reinstall, or pip install "nestvec[numba]".',
            RuntimeWarning,
            stacklevel=4,
        )
    return _choose(best, "best of those available")


def _choose(name: str, reason: str) -> tuple[str, Any, str]:
    global _current
    _current = (name, load(name), reason)
    return _current
