"""`nestvec profile`: what prefixes, codes and rotations of some vectors would find, before an index is built."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from . import inputs, options
from .output import show
from .progress import Bar

DRAWN = (".png", ".svg", ".pdf")


@click.command(short_help="Say what index and plan suit some vectors.")
@click.argument("source", metavar="VECTORS")
@options.queries
@options.k
@options.metric
@options.LEVELS
@options.sample
@options.seed
@options.key
@click.option("--queries-key", metavar="NAME", help="The same for --queries; default: as --key.")
@click.option("--plot", metavar="FILE", type=click.Path(path_type=Path), help="Draw it, as .png, .svg or .pdf.")
@options.threads
@options.as_json
def profile(
    source: str,
    queries_: str | None,
    k: int,
    metric: str,
    levels: tuple[int, ...] | None,
    sample: int,
    seed: int,
    key: str | None,
    queries_key: str | None,
    plot: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Say how well prefixes and codes of VECTORS stand for them, and which index and plan that speaks for.

    \b
    nestvec profile vectors.npy --queries sample.npy --plot profile.png
    """
    from .. import profile as measured

    if plot is not None:
        _refuse_undrawable(plot)
    with Bar() as bar:
        bar(0, 0, "reading")
        rows = inputs.vectors(inputs.source(source), key)
        given = None
        if queries_ is not None:
            given = inputs.vectors(inputs.source(queries_), queries_key or key, "queries")
        found = measured(
            rows,
            given,
            k=k,
            metric=metric,
            levels=levels,
            sample=sample,
            seed=seed,
            threads=threads,
            progress=bar,
        )
        if plot is not None:
            bar(0, 0, "drawing")
            found.plot(plot)
    if as_json:
        show(found.to_dict(), as_json)
    else:
        print(found)
        if plot is not None:
            print(f"drawn in {plot}")


def _refuse_undrawable(path: Path) -> None:
    """What would stop the drawing is found before the work."""
    if path.suffix not in DRAWN:
        raise click.UsageError(f"--plot {path}: the name must end in {', '.join(DRAWN)}")
    if not path.absolute().parent.is_dir():
        raise click.UsageError(f"--plot {path}: there is no directory {path.parent}; make it first")
    try:
        import_module("matplotlib")
    except ImportError:
        raise click.UsageError('--plot needs matplotlib: pip install "nestvec[plot]"') from None
