"""`nestvec demo`: search the docstrings of Python's standard library, at nested depths or by MaxSim."""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from .corpus import Entry
    from .report import Docstrings

LEVELS = (32, 64, 128, 256)
PACKAGES = {
    "ir_measures": "ir-measures",
    "rich": "rich",
    "safetensors": "safetensors",
    "threadpoolctl": "threadpoolctl",
    "tokenizers": "tokenizers",
    "wordllama": "wordllama",
}


class DemoError(RuntimeError):
    """The demo cannot run; the message is one sentence that says why and what to do."""


class Demo(NamedTuple):
    """One kind of search, ready: what it indexed, what it measured and how to ask it."""

    docstrings: Docstrings
    found: Mapping[str, object]  # JSON-ready
    shown: list[RenderableType]
    search: Callable[[str, int], list[tuple[float, Entry]]]


def run(
    query: str | None,
    *,
    k: int = 5,
    dims: int | None = None,
    recall: float | None = None,
    multi_vector: bool = False,
    table: bool = True,
    as_json: bool = False,
) -> None:
    """Index the docstrings, measure ways to search them, answer queries.

    Parameters
    ----------
    query : str or None
        None prompts for queries in a loop when the program talks to a terminal.
    k : int
        Answers per query.
    dims : int, optional
        Leading dims that typed queries are searched in; default all.
    recall : float, optional
        Tune a plan that finds this share of the nearest, and search by such plans; default: exact search.
    multi_vector : bool
        Whether texts are bags of token vectors, ranked by MaxSim, instead of single vectors.
    table : bool
        Whether to measure: every depth and searches by signs, or exact MaxSim and shortlists.
    as_json : bool
        Print one JSON object instead of text, and never prompt.

    Raises
    ------
    DemoError
        When packages or docstrings are missing, the query is blank, or `dims` or `recall` meets `multi_vector`.

    Examples
    --------
    >>> run("merge sorted iterables", table=False)  # doctest: +SKIP
    """
    if query is not None and not query.strip():
        raise DemoError("the query is empty")
    for option, value in (("--dims", dims), ("--recall", recall)):
        if multi_vector and value is not None:
            raise DemoError(f"{option} is for single vectors and does not go together with --multi-vector")
    require_packages()
    from rich.console import Console

    from . import report

    # Progress goes to stderr, so that standard output holds the results alone.
    progress = Console(stderr=True)
    demo = _by_bags(progress, table) if multi_vector else _by_prefixes(progress, table, dims or LEVELS[-1], recall)
    answers = demo.search(query, k) if query else []
    if as_json:
        print(json.dumps(report.as_dict(demo.docstrings, demo.found, answers), indent=2))
        return
    console = Console()
    console.print(report.summary(demo.docstrings), *demo.shown, sep="\n", highlight=False)
    if query:
        console.print(report.answer_table(answers))
    elif sys.stdin.isatty() and sys.stdout.isatty():
        converse(
            lambda: console.input("\nquery> "),
            lambda text: console.print(report.answer_table(demo.search(text, k))),
        )


def _by_prefixes(progress: Console, table: bool, dims: int, recall: float | None) -> Demo:
    from . import library, report

    docstrings = library.build(_stdlib(), progress)
    depths, methods = docstrings.measure(progress) if table else ([], {})
    found: dict[str, object] = {
        "depths": [asdict(depth) for depth in depths],
        "methods": {name: asdict(outcome) for name, outcome in methods.items()},
    }
    shown: list[RenderableType] = []
    if table:
        shown += [report.depth_table(depths), report.notes(depths), ""]
        shown += [report.method_table(methods), report.method_notes(methods)]
    if recall is not None:
        plan = docstrings.tuned(recall, dims)
        found["plan"] = plan.to_dict()
        shown.append(f"First sentences, searched for among the remainders:\n{plan}")
    return Demo(docstrings, found, shown, partial(docstrings.search, dims=dims, recall=recall))


def _by_bags(progress: Console, table: bool) -> Demo:
    from . import bag_report, bags

    docstrings = bags.build(_stdlib(), progress)
    if not table:
        return Demo(docstrings, {"methods": {}}, [], docstrings.search)
    findings = docstrings.measure(progress)
    shown: list[RenderableType] = [bag_report.bag_table(findings.methods), bag_report.bag_notes(findings)]
    return Demo(docstrings, asdict(findings), shown, docstrings.search)


def _stdlib() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def require_packages() -> None:
    """Check that the demo's packages are installed, without importing them.

    Raises
    ------
    DemoError
        Naming those that are missing.
    """
    missing = [name for module, name in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise DemoError(f'the demo needs {", ".join(missing)}: pip install "nestvec[demo]"')


def converse(ask: Callable[[], str], answer: Callable[[str], object]) -> None:
    """Answer queries until an empty line, the end of input or Ctrl-C.

    Parameters
    ----------
    ask : callable
        Returns the next line typed.
    answer : callable
        Called with each query.

    Examples
    --------
    >>> lines = iter(["sort a list", ""])
    >>> converse(lambda: next(lines), print)
    sort a list
    """
    try:
        while query := ask().strip():
            answer(query)
    except (EOFError, KeyboardInterrupt):
        # The prompt has no line break of its own.
        print()
