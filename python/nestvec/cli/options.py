"""Options that commands share."""

from __future__ import annotations

import re
from typing import Any

import click

from ..arrays import METRICS
from ..collection import Collection


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """``64,128`` as integers."""
    if value is None:
        return None
    if not re.fullmatch(r" *\d+( *, *\d+)* *", value):
        raise click.BadParameter(f"{value!r} is no list of integers such as 64,128", ctx, param)
    return tuple(int(number) for number in value.split(","))


def words(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """``b1,i8`` as strings; nestvec checks what they say."""
    return None if value is None else tuple(word.strip() for word in value.split(","))


COUNT = click.IntRange(min=1)
LEVELS = click.option(
    "--levels",
    metavar="N,N,...",
    callback=numbers,
    help="Nesting boundaries, as 64,128. Default: 64, 128, 256, ... and all dims.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
threads = click.option("--threads", type=COUNT, help="Default: all cores this process may use.")
k = click.option("-k", "--k", type=COUNT, default=10, show_default=True, help="Results per query.")
key = click.option(
    "--key",
    "--column",
    "key",
    metavar="NAME",
    help="Array of an .npz file, or column of a Parquet file, that holds vectors; default: the only one that does.",
)
metric = click.option(
    "--metric", type=click.Choice(list(METRICS)), default="cosine", show_default=True, help="What scores are."
)
queries = click.option(
    "--queries",
    "queries_",
    metavar="FILE",
    help="Sample of queries like those to come, any format that vectors have, '-' for stdin. Default: rows themselves.",
)
dims = click.option("--dims", type=COUNT, help="Leading dims to search; default all.")
bits = click.option("--bits", type=COUNT, help="Leading bits to compare, for binary codes; default all.")
recall = click.option(
    "--recall", type=click.FloatRange(0, 1), default=0.99, show_default=True, help="Share of the exact results to find."
)
sample = click.option("--sample", type=COUNT, default=500, show_default=True, help="Queries to look at, at most.")
quick = click.option("--quick-open", is_flag=True, help="Check INDEX as memory safety needs, not its every byte.")
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sample.")


def depth_name(index: Collection[Any]) -> str | None:
    """What the depth of a search is called for this kind of index, None if it has none."""
    return {"NestedIndex": "dims", "BinaryIndex": "bits"}.get(type(index).__name__)


def depth(index: Collection[Any], dims: int | None, bits: int | None) -> dict[str, int]:
    """`--dims` and `--bits` as an argument of the index's methods, empty if neither is given."""
    given = {name: value for name, value in (("dims", dims), ("bits", bits)) if value is not None}
    own = depth_name(index)
    for name in given:
        if name != own:
            hint = f"use --{own}" if own else "leave it out"
            raise click.UsageError(f"--{name} does not go with a {type(index).__name__}; {hint}")
    return given


def plan_dims(depth: dict[str, int]) -> int | None:
    """What `tune` calls either of them."""
    return next(iter(depth.values()), None)
