"""The table of kernels is the same everywhere: in Python, in the compiled module and in its stub."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cases
import nestvec
from nestvec import backends
from nestvec.kernels import TABLE

Signature = tuple[list[str], str]

COMPILED = [name for name in backends.available() if isinstance(backends.load(name), ModuleType)]


def declared(function: ast.FunctionDef) -> Signature:
    """Argument names and return type of a definition."""
    returned = function.returns
    assert returned is not None
    return [argument.arg for argument in function.args.args], ast.unparse(returned)


def documented(kernel: Any) -> Signature:
    """The same from the first line of the docstring that pybind11 writes."""
    (definition,) = ast.parse(f"def {kernel.__doc__.splitlines()[0]}: ...").body
    assert isinstance(definition, ast.FunctionDef)
    return declared(definition)


def signatures() -> dict[str, Signature]:
    """What the loops of the table say."""
    found = {name: inspect.signature(loop) for name, loop in TABLE.items()}
    return {name: (list(signature.parameters), signature.return_annotation) for name, signature in found.items()}


def test_every_backend_has_the_kernels_of_the_table(backend: Any) -> None:
    assert {name for name in vars(backend) if not name.startswith("_")} == set(TABLE)


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_kernels_have_the_arguments_of_the_loops(name: str) -> None:
    assert {kernel: documented(getattr(backends.load(name), kernel)) for kernel in TABLE} == signatures()


def test_cases_name_the_arguments_of_the_loops() -> None:
    """The parity tests pass arguments by position."""
    assert {k: list(cases.arguments(k, 1, 1, "normal")) for k in TABLE} == {k: v[0] for k, v in signatures().items()}


def test_stub_declares_the_kernels_of_the_table() -> None:
    stub = ast.parse(Path(nestvec.__file__).with_name("_core.pyi").read_text(encoding="utf-8"))
    (kernels,) = (node for node in stub.body if isinstance(node, ast.ClassDef))
    found = {node.name: declared(node) for node in kernels.body if isinstance(node, ast.FunctionDef)}
    assert {name: (arguments[1:], returned) for name, (arguments, returned) in found.items()} == signatures()


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("kernel", TABLE)
def test_arrays_of_another_type_are_refused(kernel: str, name: str) -> None:
    """A copy made on the way would lose what is written to it."""
    arguments = cases.arguments(kernel, 3, 5, "normal")
    for key, value in arguments.items():
        if isinstance(value, np.ndarray):
            other = np.zeros(value.shape, np.float32 if value.dtype != np.float32 else np.float64)
            with pytest.raises(TypeError, match="incompatible function arguments"):
                getattr(backends.load(name), kernel)(*{**arguments, key: other}.values())
