"""What this installation is and runs: the first thing to ask for in a bug report."""

from __future__ import annotations

import platform
from typing import Any


def show_config() -> dict[str, Any]:
    """Version, backend in use and why, what else is available, compiler, cores, GPUs or why there is none, and numpy.

    Examples
    --------
    >>> import nestvec as nv
    >>> nv.show_config()["backend"] in nv.show_config()["available"]
    True
    """
    import numpy as np

    from . import __version__, backends, parallel
    from .cuda import device

    backend, reason = backends.describe()
    core = backends.core()
    return {
        "version": __version__,
        "backend": backend,
        "reason": reason,
        "available": backends.available(),
        "built": core.built.split() if core else [],
        "compiler": core.compiler if core else None,
        "cores": parallel.cores(),
        "cuda": device.described(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
