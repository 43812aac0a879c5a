"""scikit-build-core, but for builds that ask for CUDA kernels: where these cannot be built, such a build fails.

Other builds fall back to a wheel without compiled kernels (pyproject.toml), and pip does not show that they did.
"""

from __future__ import annotations

import os
from typing import Any

from scikit_build_core import build


def _without_fallback(settings: dict[str, Any] | None) -> dict[str, Any]:
    asked = [repr(settings), *(os.environ.get(name, "") for name in ("CMAKE_ARGS", "SKBUILD_CMAKE_DEFINE"))]
    return (settings or {}) | ({"wheel.cmake": "true"} if "NESTVEC_CUDA" in " ".join(asked) else {})


def build_wheel(folder: str, settings: dict[str, Any] | None = None, metadata: str | None = None) -> str:
    """PEP 517's hook."""
    return build.build_wheel(folder, _without_fallback(settings), metadata)


def build_editable(folder: str, settings: dict[str, Any] | None = None, metadata: str | None = None) -> str:
    """PEP 660's hook."""
    return build.build_editable(folder, _without_fallback(settings), metadata)


def __getattr__(name: str) -> Any:  # the hooks that need no change
    return getattr(build, name)
