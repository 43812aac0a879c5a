"""`nestvec build`: an index from a file of vectors."""

from __future__ import annotations

from collections.abc import Callable
from os import fspath
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import click
import numpy.typing as npt

from .. import arrays
from ..binary import BinaryIndex
from ..index import NestedIndex
from ..multivector import MultiVectorIndex
from ..muvera import FixedDimensionalEncoder
from ..plan import CODES
from . import inputs, options
from .opening import Index
from .output import show
from .progress import Bar

Array = npt.NDArray[Any]

OPTIONS = {  # options that only some kinds have, with the value that stands for "not given"
    "nested": ("metric", "levels", "rows", "codes", "rotate"),
    "binary": ("levels", "bits"),
    "multi-vector": ("codes", "tokens"),
}


class Wishes(NamedTuple):
    """Options of one kind of index, None where not given."""

    metric: str | None
    levels: tuple[int, ...] | None
    rows: str | None
    codes: tuple[str, ...] | None
    rotate: str | None
    bits: int | None
    tokens: str | None

    def only(self, kind: str) -> dict[str, Any]:
        """Those given; a usage error for one that this kind does not have."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        for name in given:
            if name not in OPTIONS[kind]:
                own = ", ".join(f"--{option}" for option in OPTIONS[kind])
                raise click.UsageError(f"--{name} does not go with --kind {kind}, which has {own}")
        return given


@click.command(short_help="Make an index file of vectors.")
@click.argument("source", metavar="VECTORS")
@click.argument("index", metavar="INDEX", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(list(OPTIONS)), default="nested", show_default=True)
@click.option("--metric", type=click.Choice(list(arrays.METRICS)), help="nested: what scores are; default cosine.")
@options.LEVELS
@click.option(
    "--rows",
    type=click.Choice([*arrays.ROW_TYPES, "none"]),
    help="nested: how vectors are stored, default float32; none keeps codes alone.",
)
@click.option(
    "--codes",
    metavar="CODE,CODE",
    callback=options.words,
    help=f"nested, multi-vector: codes for plans, of {', '.join(CODES)}; default b1. Plans choose among those kept.",
)
@click.option(
    "--rotate",
    type=click.Choice(["pca", "block-pca", "hadamard"]),
    help="nested: rotate vectors, so that few leading dims say most of them; scores stay.",
)
@click.option("--bits", type=options.COUNT, help="binary: bits of a packed code, if not 8 for each byte.")
@click.option("--tokens", type=click.Choice(["f16", "f32", "bf16", "i8"]), help="multi-vector: default f16.")
@click.option("--ids", metavar="FILE|NAME", help="Ids: a file of integers, or an array or column beside the vectors.")
@options.key
@click.option("--force", is_flag=True, help="Replace INDEX if it exists.")
@options.threads
@options.as_json
def build(
    source: str,
    index: Path,
    kind: str,
    ids: str | None,
    key: str | None,
    force: bool,
    threads: int | None,
    as_json: bool,
    **wishes: Any,
) -> None:
    """Make an INDEX file of VECTORS.

    \b
    nested        vectors, searched at any number of leading dims
    binary        packed codes (uint8), or vectors whose signs are kept
    multi-vector  bags of token vectors: an .npz with tokens (N, d) and offsets (n + 1,),
                  or with --key doc its arrays doc_tokens and doc_offsets; an encoder is
                  fitted to them

    \b
    nestvec build vectors.npy vectors.nv --levels 64,128,256
    nestvec build data.parquet data.nv --column embedding --ids id
    nestvec build codes.npy codes.nv --kind binary
    """
    given = Wishes(**wishes).only(kind)
    _refuse_taken(index, force)
    began = perf_counter()
    data = inputs.source(source)
    names = None if ids is None else inputs.ids(ids, data)
    with Bar() as bar:
        made = MAKERS[kind](data, key, names, given, bar, threads)
        bar(0, 0, "writing")
        made.save(index)
    facts = {"file": fspath(index), "kind": type(made).__name__, "rows": made.ntotal}
    facts |= {"bytes": index.stat().st_size, "seconds": round(perf_counter() - began, 3)}
    if as_json:
        show(facts, as_json)
    else:
        print(f"{index}: {made!r}, {facts['bytes']:,} bytes, {facts['seconds']:.1f} s")


def add(index: NestedIndex | BinaryIndex, rows: Array, ids: Array | None, bar: Bar, threads: int | None) -> None:
    """Add rows, at once for the sake of their mean, and show how many are written."""
    index._written = bar.counting(len(rows), "adding rows")
    try:
        index.add(rows, ids, threads=threads)
    finally:
        index._written = None


def _refuse_taken(path: Path, force: bool) -> None:
    """What would stop saving is found before the work."""
    if not path.parent.is_dir():
        raise click.UsageError(f"{path.parent} is no directory; make it first")
    if path.is_dir():
        raise click.UsageError(f"{path} is a directory; name a file in it")
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists; --force replaces it")


def _nested(
    data: inputs.Source, key: str | None, ids: Array | None, given: dict[str, Any], bar: Bar, threads: int | None
) -> NestedIndex:
    rows = inputs.vectors(data, key)
    kind = given.pop("rotate", None)
    given["metric"] = given.get("metric", "cosine")
    if given.get("rows") == "none":
        given["rows"] = None
    if kind is not None:
        from .. import fit_rotation

        bar(0, 0, "fitting the rotation")
        given["transform"] = fit_rotation(rows, kind, given.get("levels"), threads=threads)
    index = NestedIndex(rows.shape[1], **given)
    add(index, rows, ids, bar, threads)
    return index


def _binary(
    data: inputs.Source, key: str | None, ids: Array | None, given: dict[str, Any], bar: Bar, threads: int | None
) -> BinaryIndex:
    rows = inputs.vectors(data, key)
    packed = rows.dtype.kind in "iu"
    bits = given.pop("bits", None)
    if bits is not None and not packed:
        raise click.UsageError(f"--bits is about packed codes (uint8); these vectors are {rows.dtype}, one bit a dim")
    index = BinaryIndex(bits or rows.shape[1] * (8 if packed else 1), **given)
    add(index, rows, ids, bar, threads)
    return index


def _bags(
    data: inputs.Source, key: str | None, ids: Array | None, given: dict[str, Any], bar: Bar, threads: int | None
) -> MultiVectorIndex:
    docs = inputs.ragged(data, key)
    bar(0, 0, "fitting the encoder")
    index = MultiVectorIndex(FixedDimensionalEncoder.fitted(tuple(docs)), **given)
    bar(0, 0, f"encoding {len(docs):,} documents")
    index.add(tuple(docs), ids, threads=threads)
    return index


MAKERS: dict[str, Callable[..., Index]] = {"nested": _nested, "binary": _binary, "multi-vector": _bags}
