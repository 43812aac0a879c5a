"""What a benchmark ran on, and an environment in which every library shows its best."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DENSE = ("nestvec", "numpy", "faiss-cpu", "usearch", "numkong", "turbovec", "numba")
MULTIVECTOR = ("torch", "muvfde", "muvera-python", "fastembed", "maxsim-cpu", "fast-plaid")
GPU = (
    "cupy-cuda12x",
    "cupy-cuda13x",
    "cuvs-cu12",
    "cuvs-cu13",
    "faiss-gpu-cu12",
    "faiss-gpu",
    "triton",
    "flash-maxsim",
)
PACKAGES = DENSE + MULTIVECTOR + GPU + ("late-interaction-kernels",)
CPU_FLAGS = ("avx2", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx512_vpopcntdq", "amx_int8")
AVX2_ONLY = {
    "FAISS_SIMD_LEVEL": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "LIBXSMM_TARGET": "hsw",
}
SSE_KERNELS = {"Prescott", "Core2", "Penryn", "Dunnington", "Nehalem"}


def describe() -> dict:
    """Processor, system and versions, as JSON takes them."""
    model, flags = _cpu()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": model,
        "flags": flags,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: number for package in PACKAGES if (number := _version(package))},
    }


def environment(threads: int, avx2: bool) -> dict[str, str]:
    """Environment variables for a process in which every library uses as many threads.

    BLAS kernels forced by the user are dropped, as they slow newer libraries; where that makes an older OpenBLAS fall
    back to SSE code, because it does not know the processor, AVX-512 kernels are forced.
    """
    env = {key: value for key, value in os.environ.items() if key not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    env |= {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "RAYON", "NUMBA")}
    if avx2:
        return env | AVX2_ONLY
    probe = [sys.executable, "-c", "import faiss, numpy, machine; print(*machine.blas_kernels().values())"]
    chosen = subprocess.run(probe, env=env, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    if SSE_KERNELS & set(chosen.stdout.split()) and "avx512f" in _cpu()[1]:
        env["OPENBLAS_CORETYPE"] = "SkylakeX"
    return env


def blas_kernels() -> dict[str, str]:
    """The kernels that each loaded BLAS library chose."""
    from threadpoolctl import threadpool_info

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {Path(library["filepath"]).parent.name: library["architecture"] for library in libraries}


def _cpu() -> tuple[str, list[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor(), []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    return facts.get("model name", platform.processor()), [flag for flag in CPU_FLAGS if flag in flags]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
