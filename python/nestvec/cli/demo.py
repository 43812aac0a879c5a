"""`nestvec demo`."""

from __future__ import annotations

import click

from .. import demo as demos
from .options import as_json

LEVELS = click.Choice([str(level) for level in demos.LEVELS])


@click.command(short_help="Search Python's docstrings by meaning.")
@click.argument("query", required=False)
@click.option("-k", "--k", type=click.IntRange(min=1), default=5, show_default=True, help="Results per query.")
@click.option("--dims", type=LEVELS, help="Leading dims to search; default all.")
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    help="Tune a plan that finds this share of the nearest, and search by such; default exact.",
)
@click.option("--multi-vector", is_flag=True, help="Search bags of token vectors by MaxSim.")
@click.option("--table/--no-table", default=True, help="Measure first.")
@as_json
def demo(
    query: str | None,
    k: int,
    dims: str | None,
    recall: float | None,
    multi_vector: bool,
    table: bool,
    as_json: bool,
) -> None:
    """Search the docstrings of Python's standard library by meaning.

    Prints what each nested depth costs and finds, or with --multi-vector what MaxSim of token vectors does, then
    answers QUERY, or prompts for queries on a terminal.
    """
    leading = int(dims) if dims else None
    demos.run(query, k=k, dims=leading, recall=recall, multi_vector=multi_vector, table=table, as_json=as_json)
