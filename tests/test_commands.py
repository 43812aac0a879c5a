"""The commands that build, search, tune, profile and measure, as people call them."""

from __future__ import annotations

import filecmp
import io
import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("click")

import nestvec as nv
from nestvec import cli
from nestvec.cli import bench, compare, inputs, opening, progress, results

COMMANDS = ["build", "search", "tune", "profile", "bench", "info", "verify", "demo"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in the current directory; exit status, stdout, stderr."""

    def call(*args: Any, stdin: bytes | str = b"") -> tuple[int, str, str]:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        code = 0
        try:
            cli.main([str(arg) for arg in args])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> SimpleNamespace:
    """A folder with vectors, queries, bags and their indexes, in which commands are run."""
    monkeypatch.chdir(tmp_path)
    x, q = rng.standard_normal((300, 24), np.float32), rng.standard_normal((7, 24), np.float32)
    np.save("x.npy", x)
    np.save("q.npy", q)
    tokens, offsets = rng.standard_normal((200, 8), np.float32), np.arange(0, 201, 10)
    np.savez("bags.npz", tokens=tokens, offsets=offsets, ask_tokens=tokens[40:64], ask_offsets=[0, 8, 24])
    index = nv.NestedIndex(24, metric="cosine")
    index.add(x)
    index.save("x.nv")
    codes = nv.BinaryIndex(24)
    codes.add(x)
    codes.save("codes.nv")
    return SimpleNamespace(x=x, q=q, tokens=tokens, offsets=offsets, index=index, codes=codes)


def found(out: str) -> tuple[list[list[Any]], list[list[float]]]:
    """Ids and scores that `search --json` printed, with queries in order."""
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["query"] for line in lines] == list(range(len(lines)))
    return [line["ids"] for line in lines], [line["scores"] for line in lines]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option(command: str, run: Any) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    options = [name for param in cli.commands().commands[command].params for name in param.opts if name[0] == "-"]
    assert all(name in out for name in options)
    assert max(map(len, out.splitlines())) <= 90


def test_help_and_version(run: Any) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(f"\n  {command} " in out for command in COMMANDS)
    assert run() == (0, out, "")
    assert run("--version") == (0, f"nestvec {nv.__version__}\n", "")


def test_importing_the_command_line_needs_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import nestvec.cli; assert 'click' not in sys.modules; "
        "nestvec.cli.commands(); print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"rich", "pyarrow", "faiss", "matplotlib", "torch", "scipy"}.intersection(done.stdout.split())


def test_build_is_what_add_and_save_do(here: SimpleNamespace, run: Any) -> None:
    code, out, err = run("build", "x.npy", "made.nv")
    assert (code, err) == (0, "")
    assert out.startswith(f"made.nv: {here.index!r}, {os.path.getsize('x.nv'):,} bytes, ")
    assert filecmp.cmp("made.nv", "x.nv", shallow=False)


def test_build_gives_rows_their_ids(here: SimpleNamespace, run: Any, rng: np.random.Generator) -> None:
    ids = rng.permutation(1000)[:300]
    np.savez("both.npz", x=here.x, ids=ids)
    Path("ids.txt").write_text("\n".join(map(str, ids)))
    whole = nv.NestedIndex(24, metric="cosine")
    whole.add(here.x, ids)
    whole.save("whole.nv")
    for options in (["both.npz", "--ids", "ids"], ["x.npy", "--ids", "ids.txt"], ["both.npz", "--ids", "ids.txt"]):
        assert run("build", *options, "made.nv", "--force")[0] == 0
        assert filecmp.cmp("made.nv", "whole.nv", shallow=False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--metric", "l2", "--levels", "8, 16"], {"metric": "l2", "levels": (8, 16, 24), "rows": "float32"}),
        (["--rows", "float16", "--codes", "b1,i4"], {"rows": "float16", "codes": ("b1", "i4", "i8")}),
        (["--rows", "none", "--codes", "i8"], {"rows": None, "codes": ("i8",)}),
        (["--kind", "binary", "--levels", "10"], {"bits": 24, "levels": (10, 24)}),
    ],
)
def test_build_options(here: SimpleNamespace, run: Any, options: list[str], expected: dict[str, Any]) -> None:
    code, out, err = run("build", "x.npy", "made.nv", "--json", "--threads", "1", *options)
    assert (code, err) == (0, "")
    index = nv.load("made.nv")
    assert {name: getattr(index, name) for name in expected} == expected
    facts = json.loads(out)
    assert facts.pop("seconds") >= 0
    size = os.path.getsize("made.nv")
    assert facts == {"file": "made.nv", "kind": type(index).__name__, "rows": 300, "bytes": size}


@pytest.mark.parametrize("kind", ["pca", "block-pca", "hadamard"])
def test_build_rotated(here: SimpleNamespace, run: Any, kind: str) -> None:
    code, _, err = run("build", "x.npy", "made.nv", "--rotate", kind)
    assert (code, err) == (0, "")
    index = nv.load("made.nv")
    np.testing.assert_allclose(index.search(here.q, 3)[0], here.index.search(here.q, 3)[0], rtol=1e-4)
    assert not filecmp.cmp("made.nv", "x.nv", shallow=False)
    ids, rows = opening.sampled(index, 5, 0)
    np.testing.assert_allclose(rows, here.x[ids], atol=1e-5)
    pytest.importorskip("faiss")
    _, search = compare.by_faiss(index, 3, None, 1)
    assert search(here.q).tolist() == here.index.search(here.q, 3)[1].tolist()


def test_build_of_packed_codes(here: SimpleNamespace, run: Any) -> None:
    codes = nv.pack_bits(here.x[:, :20])
    np.save("codes.npy", codes)
    assert run("build", "codes.npy", "made.nv", "--kind", "binary", "--bits", "20")[0] == 0
    index = nv.load("made.nv")
    assert (index.bits, index.ntotal) == (20, 300)
    assert (index.reconstruct(index.ids) == codes).all()


@pytest.mark.parametrize("key", [None, "ask"])
def test_build_of_bags(here: SimpleNamespace, run: Any, key: str | None) -> None:
    named = ["--key", key] if key else []
    count = 2 if key else 20
    Path("names.txt").write_text("\n".join(f"doc {i}" for i in range(count)) + "\n")
    options = ["--kind", "multi-vector", "--tokens", "f32", "--ids", "names.txt", *named]
    code, _, err = run("build", "bags.npz", "made.nv", *options)
    assert (code, err) == (0, "")
    index = nv.load("made.nv")
    assert index.ids.tolist() == [f"doc {i}" for i in range(count)]
    first = here.tokens[40:48] if key else here.tokens[:10]
    assert (index.reconstruct(["doc 0"])[0] == first).all()
    assert index.encoder.fit is not None


def test_build_replaces_only_by_force(here: SimpleNamespace, run: Any) -> None:
    before = Path("codes.nv").read_bytes()
    assert run("build", "x.npy", "codes.nv") == (2, "", "nestvec: codes.nv exists; --force replaces it\n")
    assert Path("codes.nv").read_bytes() == before
    assert run("build", "x.npy", "codes.nv", "--force")[0] == 0
    assert isinstance(nv.load("codes.nv"), nv.NestedIndex)


def test_search_prints_a_table(here: SimpleNamespace, run: Any) -> None:
    code, out, err = run("search", "x.nv", "q.npy", "-k", 2, "--show", 3)
    assert code == 0
    assert err == "nestvec: showing 3 of 7 queries; --show, --json or --out give more\n"
    scores, ids = here.index.search(here.q, 2)
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["query", "rank", "id", "score"]
    assert rows[1:] == [[str(i), str(r + 1), str(ids[i, r]), str(scores[i, r])] for i in range(3) for r in range(2)]


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ([], {"k": 10}),
        (["-k", "3", "--dims", "5", "--threads", "1"], {"k": 3, "dims": 5}),
        (["-k", "3", "--filter", "10:20"], {"k": 3, "filter": range(10, 20)}),
        (["-k", "3", "--filter", ":20", "--quick-open"], {"k": 3, "filter": range(20)}),
        (["--filter", "some.npy"], {"k": 10, "filter": [5, 6]}),
        (["--filter", "some.txt"], {"k": 10, "filter": [7, 9]}),
        (["-k", "2", "--filter", "masks.npy"], {"k": 2, "filter": np.eye(7, 300, 3, bool)}),
    ],
)
def test_search_is_that_of_the_index(
    here: SimpleNamespace, run: Any, monkeypatch: pytest.MonkeyPatch, options: list[str], asked: dict[str, Any]
) -> None:
    monkeypatch.setattr("nestvec.cli.search.PART", 3)
    np.save("some.npy", [5, 6])
    Path("some.txt").write_text("7\n9\n")
    np.save("masks.npy", np.eye(7, 300, 3, bool))
    code, out, err = run("search", "x.nv", "q.npy", "--json", *options)
    assert (code, err) == (0, "")
    scores, ids = here.index.search(here.q, **asked)
    there = ids >= 0
    assert found(out)[0] == [row[some].tolist() for row, some in zip(ids, there, strict=True)]
    assert all(
        (np.float32(mine) == row[some]).all() for mine, row, some in zip(found(out)[1], scores, there, strict=True)
    )


@pytest.mark.parametrize("kind", ["x", "codes"])
def test_search_within_a_radius(here: SimpleNamespace, run: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nestvec.cli.search.PART", 2)
    index, radius = (here.index, 0.3) if kind == "x" else (here.codes, 8)
    code, out, err = run("search", f"{kind}.nv", "q.npy", "--radius", radius, "--json")
    assert (code, err) == (0, "")
    lims, scores, ids = index.range_search(here.q, radius)
    mine = [list(chain(*some)) for some in found(out)]
    assert mine[0] == ids.tolist()
    assert [len(one) for one in found(out)[0]] == np.diff(lims).tolist()
    assert (np.asarray(mine[1], scores.dtype) == scores).all()


@pytest.mark.parametrize("form", ["json", "blanks", "commas", "rows", "npy", "npz", "float16"])
def test_queries_from_stdin(here: SimpleNamespace, run: Any, form: str) -> None:
    q = here.q.astype(np.float16).astype(np.float32)
    packed = io.BytesIO()
    if form == "npz":
        np.savez(packed, q=q, more=q[0])
    else:
        np.save(packed, q if form == "npy" else q.astype(np.float16))
    given = {
        "json": "\n".join(json.dumps(row.tolist()) for row in q),
        "blanks": "\n\n".join(" ".join(map(str, row)) for row in q) + "\n",
        "commas": "\r\n".join(", ".join(map(str, row)) for row in q),
        "rows": json.dumps(q.tolist()),
    }.get(form, packed.getvalue())
    code, out, err = run("search", "x.nv", "-", "-k", 4, "--json", stdin=given)
    assert (code, err) == (0, "")
    assert found(out)[0] == here.index.search(q, 4)[1].tolist()


def test_codes_from_stdin(here: SimpleNamespace, run: Any) -> None:
    expected = here.codes.search(here.q, 3)[1].tolist()
    for given in (here.q, nv.pack_bits(here.q)):
        text = "\n".join(" ".join(map(str, row)) for row in given)
        assert found(run("search", "codes.nv", "-", "-k", 3, "--json", stdin=text)[1])[0] == expected


def test_bags_of_queries(here: SimpleNamespace, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nestvec.cli.search.BAGS", 1)
    assert run("build", "bags.npz", "bags.nv", "--kind", "multi-vector")[0] == 0
    first, second = here.tokens[40:48], here.tokens[48:64]
    index = nv.load("bags.nv")
    expected = index.search([first, second], 3)[1].tolist()
    assert found(run("search", "bags.nv", "bags.npz", "--key", "ask", "-k", 3, "--json")[1])[0] == expected
    text = "\n".join(json.dumps(bag.tolist()) for bag in (first, second))
    assert found(run("search", "bags.nv", "-", "-k", 3, "--json", stdin=text)[1])[0] == expected
    np.save("one.npy", first)
    assert found(run("search", "bags.nv", "one.npy", "-k", 3, "--json")[1])[0] == expected[:1]
    lines = "\n".join(" ".join(map(str, token)) for token in first)
    assert found(run("search", "bags.nv", "-", "-k", 3, "--json", stdin=lines)[1])[0] == expected[:1]
    np.save("alike.npy", np.stack([first, second[:8]]))
    alike = index.search([first, second[:8]], 3)[1].tolist()
    assert found(run("search", "bags.nv", "alike.npy", "-k", 3, "--json")[1])[0] == alike


def columns(path: str) -> dict[str, list[Any]]:
    """What a file of results holds, a row for each result."""
    if path.endswith(".csv"):
        rows = [line.split(",") for line in Path(path).read_text().splitlines()]
        kinds = (int, int, int, float)
        return {
            row[0]: [kind(value) for value in row[1:]] for kind, row in zip(kinds, zip(*rows, strict=True), strict=True)
        }
    if path.endswith(".npz"):
        with np.load(path) as file:
            return {name: column.tolist() for name, column in results.Results(**file).columns().items()}
    return dict(pytest.importorskip("pyarrow.parquet").read_table(path).to_pydict())


@pytest.mark.parametrize("path", ["found.npz", "found.csv", "found.parquet"])
def test_results_in_files(here: SimpleNamespace, run: Any, path: str) -> None:
    code, out, err = run("search", "x.nv", "q.npy", "-k", 4, "--filter", "0:3", "--out", path)
    assert (code, err) == (0, "")
    assert out == f"{path}: 21 results of 7 queries\n"
    scores, ids = here.index.search(here.q, 3, filter=range(3))
    written = columns(path)
    assert written["query"] == np.repeat(np.arange(7), 3).tolist()
    assert written["rank"] == [1, 2, 3] * 7
    assert written["id"] == ids.ravel().tolist()
    assert (np.float32(written["score"]) == scores.ravel()).all()


def test_names_do_not_reach_the_terminal_as_commands(here: SimpleNamespace, run: Any) -> None:
    Path("names.txt").write_text("\n".join(f"\x1b[2J{i}" for i in range(20)))
    np.savez("odd.npz", **{"\x1b[2J": here.x, "y": here.x})
    assert run("build", "bags.npz", "bags.nv", "--kind", "multi-vector", "--ids", "names.txt")[0] == 0
    assert "\\x1b[2J7" in run("search", "bags.nv", "bags.npz", "--show", 20)[1]
    code, out, err = run("build", "odd.npz", "made.nv")
    assert (code, out) == (2, "")
    assert "\\x1b[2J: (300, 24) float32" in err


def test_names_in_files(here: SimpleNamespace, run: Any) -> None:
    Path("names.txt").write_text("\n".join(f"doc,{i}" for i in range(20)))
    assert run("build", "bags.npz", "bags.nv", "--kind", "multi-vector", "--ids", "names.txt")[0] == 0
    search = ["search", "bags.nv", "bags.npz", "-k", 30, "--json", "--out"]
    ids, _ = found(run(*search, "found.npz")[1])
    assert [len(one) for one in ids] == [20] * 20
    with np.load("found.npz") as file:
        assert file["ids"].tolist() == list(chain(*ids))
    assert run(*search, "found.csv")[0] == 0
    assert Path("found.csv").read_text().count('"doc,7"') == 20


def test_parquet(here: SimpleNamespace, run: Any) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    width, ids = here.x.shape[1], np.arange(300)[::-1] * 2
    flat = pa.array(here.x.ravel())
    fixed = pa.FixedSizeListArray.from_arrays(flat, width)
    listed = pa.ListArray.from_arrays(np.arange(0, flat.offset + len(flat) + 1, width, np.int32), flat)
    table = pa.table({"text": ["a"] * 300, "id": ids, "embedding": fixed})
    pq.write_table(table, "one.parquet")
    pq.write_table(table, "chunks.parquet", row_group_size=70)
    pq.write_table(pa.table({"id": ids, "listed": listed, "fixed": fixed}), "two.parquet")
    whole = nv.NestedIndex(width, metric="cosine")
    whole.add(here.x, ids)
    whole.save("whole.nv")
    for number, options in enumerate(
        (["one.parquet"], ["chunks.parquet"], ["two.parquet", "--column", "listed"], ["two.parquet", "--key", "fixed"])
    ):
        code, _, err = run("build", options[0], f"{number}.nv", "--ids", "id", *options[1:])
        assert (code, err) == (0, "")
        assert filecmp.cmp(f"{number}.nv", "whole.nv", shallow=False)
    assert run("build", "-", "made.nv", "--ids", "id", stdin=Path("one.parquet").read_bytes())[0] == 0
    assert filecmp.cmp("made.nv", "whole.nv", shallow=False)
    view = inputs.vectors(inputs.source("one.parquet"), None)
    assert not view.flags.owndata
    code, _, err = run("build", "two.parquet", "other.nv")
    assert code == 2
    assert "holds 2 arrays that may be vectors" in err
    assert "name one by --column" in err


def test_parquet_that_holds_no_vectors(here: SimpleNamespace, run: Any) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"v": [[1.0, 2.0], None]}), "null.parquet")
    pq.write_table(pa.table({"v": [[1.0, 2.0], [None, 1.0]]}), "inside.parquet")
    pq.write_table(pa.table({"v": [[1.0, 2.0], [3.0]]}), "uneven.parquet")
    pq.write_table(pa.table({"v": ["a", "b"]}), "text.parquet")
    for name, expected in (
        ("null", "holds nulls"),
        ("inside", "holds nulls"),
        ("uneven", "lists of different lengths"),
        ("text", "holds no array that may be vectors (v: 2 of string)"),
    ):
        code, out, err = run("build", f"{name}.parquet", "made.nv")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert expected in err
    data = Path("null.parquet").read_bytes()
    Path("cut.parquet").write_bytes(data[:40])
    assert run("build", "cut.parquet", "made.nv")[0] == 1


def test_missing_packages_are_named(here: SimpleNamespace, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pyarrow", "pyarrow.parquet", "faiss", "matplotlib"):
        monkeypatch.setitem(sys.modules, module, None)
    Path("x.parquet").write_bytes(b"PAR1" + bytes(40))
    hint = 'needs pyarrow: pip install "nestvec[parquet]"\n'
    assert run("build", "x.parquet", "made.nv") == (2, "", f"nestvec: x.parquet is Parquet, which {hint}")
    assert run("search", "x.nv", "q.npy", "--out", "r.parquet") == (2, "", f"nestvec: --out r.parquet {hint}")
    plot = run("profile", "x.npy", "--plot", "x.png")
    assert plot == (2, "", 'nestvec: --plot needs matplotlib: pip install "nestvec[plot]"\n')
    assert run("bench", "x.nv", "--compare")[2].endswith("nestvec: --compare needs faiss: pip install faiss-cpu\n")


WRONG = [
    ("build", "x.npy"),
    ("build", "missing.npy", "made.nv"),
    ("build", "x.npy", "no/such/folder/made.nv"),
    ("build", "x.npy", "folder"),
    ("build", "folder", "made.nv"),
    ("build", "x.npy", "made.nv", "--levels", "64,a"),
    ("build", "x.npy", "made.nv", "--levels", "16,8"),
    ("build", "x.npy", "made.nv", "--codes", "b2"),
    ("build", "x.npy", "made.nv", "--kind", "binary", "--metric", "l2"),
    ("build", "x.npy", "made.nv", "--kind", "binary", "--bits", "24"),
    ("build", "x.npy", "made.nv", "--kind", "multi-vector"),
    ("build", "x.npy", "made.nv", "--key", "x"),
    ("build", "x.npy", "made.nv", "--ids", "q.npy"),
    ("build", "x.npy", "made.nv", "--ids", "words.txt"),
    ("build", "x.npy", "made.nv", "--threads", "0"),
    ("build", "bags.npz", "made.nv"),
    ("build", "bags.npz", "made.nv", "--key", "none"),
    ("build", "cube.npy", "made.nv"),
    ("build", "nan.npy", "made.nv"),
    ("build", "text.npy", "made.nv"),
    ("build", "x.nv", "made.nv"),
    ("build", "words.txt", "made.nv"),
    ("build", "empty.txt", "made.nv"),
    ("build", "-", "made.nv"),
    ("search", "x.nv"),
    ("search", "x.nv", "missing.npy"),
    ("search", "missing.nv", "q.npy"),
    ("search", "empty.nv", "q.npy"),
    ("search", "x.nv", "bags.npz"),
    ("search", "x.nv", "q.npy", "--dims", "25"),
    ("search", "x.nv", "q.npy", "--bits", "8"),
    ("search", "codes.nv", "q.npy", "--dims", "8"),
    ("search", "codes.nv", "q.npy", "--radius", "0.5"),
    ("search", "x.nv", "q.npy", "-k", "0"),
    ("search", "x.nv", "q.npy", "--recall", "1.5"),
    ("search", "x.nv", "q.npy", "--radius", "1", "-k", "3"),
    ("search", "x.nv", "q.npy", "--radius", "nan"),
    ("search", "x.nv", "q.npy", "--filter", "missing.npy"),
    ("search", "x.nv", "q.npy", "--filter", "words.txt"),
    ("search", "x.nv", "q.npy", "--filter", "masks.npy"),
    ("search", "x.nv", "q.npy", "--out", "found.txt"),
    ("search", "x.nv", "q.npy", "--out", "no/such/folder/found.csv"),
    ("tune", "x.nv", "--recall", "2"),
    ("tune", "x.nv", "--bits", "8"),
    ("tune", "missing.nv"),
    ("profile", "missing.npy"),
    ("profile", "x.npy", "--plot", "no/such/folder/x.png"),
    ("profile", "x.npy", "--plot", "x.txt"),
    ("tune", "x.nv", "--confidence", "0.4"),
    ("bench", "missing.nv"),
    ("bench", "x.nv", "-k", "1"),
    ("bench", "x.nv", "--rounds", "2"),
]


@pytest.mark.parametrize("args", WRONG, ids=" ".join)
def test_errors_are_one_line_and_code_2(here: SimpleNamespace, run: Any, args: list[str]) -> None:
    os.mkdir("folder")
    np.save("cube.npy", np.zeros((2, 2, 2)))
    np.save("nan.npy", np.full((2, 2), np.nan))
    np.save("text.npy", np.asarray([["a", "b"]]))
    np.save("masks.npy", np.ones((3, 300), bool))
    Path("words.txt").write_text("not\na vector\n")
    Path("empty.txt").write_text("\n")
    nv.NestedIndex(24).save("empty.nv")
    before = set(os.listdir())
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert err.startswith("nestvec: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert set(os.listdir()) == before


@pytest.mark.parametrize("name", ["x.npy", "bags.npz", "x.nv"])
def test_damaged_files_are_code_1(here: SimpleNamespace, run: Any, name: str) -> None:
    data = Path(name).read_bytes()
    Path("cut").write_bytes(data[: len(data) // 2])
    code, out, err = run(*(["search", "cut", "q.npy"] if name == "x.nv" else ["search", "x.nv", "cut"]))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("nestvec: cut ")


def test_what_texts_are_wrong_about(here: SimpleNamespace, run: Any) -> None:
    for text, expected in (
        ("1 2\n\n1 2 3\n", "stdin, line 3: 3 numbers, the first vector has 2"),
        ("1 2\n[1, }\n", "stdin, line 2 is no vector: '[1, }'"),
        ('{"a": 1}\n', "stdin, line 1 is no vector"),
        ("[[[1]]]\n", "stdin, line 1 is no vector"),
        ("1 2\n", "q has 2 dims, the rows have 24"),
        (b"\x80\x04pickle", "a pickle"),
        (b"\xff\xfe1 2", "stdin holds no vectors"),
    ):
        code, out, err = run("search", "x.nv", "-", stdin=text)
        assert (code, out) == (2, "")
        assert expected in err


def test_ctrl_c_and_a_full_disk(here: SimpleNamespace, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code, said in (
        (KeyboardInterrupt(), 130, ""),
        (OSError(28, "No space left on device", "made.nv"), 2, "nestvec: made.nv: No space left on device\n"),
        (MemoryError(), 2, "nestvec: not enough memory\n"),
    ):
        monkeypatch.setattr(nv.NestedIndex, "save", Mock(side_effect=error))
        status, out, err = run("build", "x.npy", "made.nv")
        assert (status, out, err.strip()) == (code, "", said.strip())


def test_nobody_reads_the_output(here: SimpleNamespace) -> None:
    np.save("many.npy", np.repeat(here.q, 300, 0))
    command = [sys.executable, "-m", "nestvec", "search", "x.nv", "many.npy", "-k", "50", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["query"] == 0
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


class Terminal(io.StringIO):
    """A text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE", 3600)
    for stream, there in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress.Bar() as bar:
            bar(0, 0, "opening")
            bar(1, 4, "adding rows")
            bar._show()
            bar.counting(4, "adding rows")(2)
        assert ("adding rows" in stream.getvalue()) == there
        assert "opening" not in stream.getvalue()


def test_tune_keeps_its_plan(here: SimpleNamespace, run: Any) -> None:
    tune = ["tune", "x.nv", "-k", 5, "--recall", 0.9, "--sample", 50]
    code, out, err = run(*tune, "--no-save")
    assert (code, err) == (0, "")
    assert nv.load("x.nv").plans == ()
    code, out, err = run(*tune, "--json", "--queries", "q.npy")
    assert (code, err) == (0, "")
    (plan,) = nv.load("x.nv").plans
    assert json.loads(out) == {"file": "x.nv", "saved": True, **json.loads(json.dumps(plan.to_dict()))}
    assert (plan.k, plan.recall, plan.held_out) == (5, 0.9, False)
    assert run("verify", "x.nv")[0] == 0
    code, out, err = run("search", "x.nv", "q.npy", "-k", 5, "--recall", 0.9, "--json")
    assert (code, err) == (0, "")
    assert found(out)[0] == nv.load("x.nv").search(here.q, 5, recall=0.9)[1].tolist()


def test_search_says_that_it_tunes(here: SimpleNamespace, run: Any) -> None:
    code, out, err = run("search", "x.nv", "q.npy", "--recall", 0.9, "--json")
    assert code == 0
    assert len(found(out)[0]) == 7
    assert err == "nestvec: tuned for this search alone; nestvec tune x.nv -k 10 --recall 0.9 keeps the plan\n"


@pytest.mark.parametrize("name", ["x", "codes", "bags"])
def test_tune_and_bench_every_kind(here: SimpleNamespace, run: Any, name: str) -> None:
    assert run("build", "bags.npz", "bags.nv", "--kind", "multi-vector")[0] == 0
    depth = {"x": ["--dims", 20], "codes": ["--bits", 16], "bags": []}[name]
    tune = ["-k", 3, "--recall", 0.8, *depth]
    code, out, err = run("tune", f"{name}.nv", "--sample", 20, *tune)
    assert (code, err) == (0, "")
    assert out.endswith(f"kept in {name}.nv\n")
    code, out, err = run("bench", f"{name}.nv", "--sample", 10, "--json", *tune)
    assert (code, err) == (0, "")
    measured = json.loads(out)
    assert (measured["k"], measured["batch"], measured["queries"]) == (3, 10, "rows")
    assert measured["methods"]["exact"]["recall"] == 1
    assert all(min(one["one_ms"], one["batch_ms"]) > 0 for one in measured["methods"].values())
    assert run("bench", f"{name}.nv", "--sample", 10, *tune)[1].splitlines()[2].startswith("ms a query")


@pytest.mark.parametrize(
    ("name", "options", "by"),
    [
        ("x", [], "faiss IndexFlatIP"),
        ("x", ["--dims", "10"], "faiss IndexFlatIP"),
        ("l2", [], "faiss IndexFlatL2"),
        ("codes", ["--bits", "16", "--queries", "packed.npy"], "faiss IndexBinaryFlat"),
    ],
)
def test_bench_beside_faiss(here: SimpleNamespace, run: Any, name: str, options: list[str], by: str) -> None:
    pytest.importorskip("faiss")
    assert run("build", "x.npy", "l2.nv", "--metric", "l2", "--ids", "ids.txt")[0] == 2
    Path("ids.txt").write_text("\n".join(str(2 * i) for i in range(300)))
    assert run("build", "x.npy", "l2.nv", "--metric", "l2", "--ids", "ids.txt")[0] == 0
    np.save("packed.npy", nv.pack_bits(here.q))
    code, out, _ = run("bench", f"{name}.nv", "--compare", "--json", "--sample", 20, "-k", 4, *options)
    assert code == 0
    measured = json.loads(out)["methods"]
    assert measured.keys() >= {"exact", by}
    assert measured[by]["recall"] == measured["exact"]["recall"] == 1


def test_recall_counts_ties_and_leaves_out_the_queries_themselves() -> None:
    index = nv.NestedIndex(1, metric="l2")
    index.add([[0.0], [1.0], [-1.0], [2.0]], [5, 6, 7, 8])
    q = np.zeros((1, 1), np.float32)
    assert bench.reaching(index, q, None, 2) == ([{5, 6, 7}], 2)
    assert bench.reaching(index, q, np.asarray([5]), 2) == ([{6, 7}], 1)
    assert bench.reaching(index, q, None, 9) == ([{5, 6, 7, 8}], 4)
    assert bench.recall_of(np.asarray([[7, 6], [8, -1]]), [{5, 6, 7}, {5, 8}], 2) == 0.75


def test_profile(here: SimpleNamespace, run: Any) -> None:
    pytest.importorskip("matplotlib")
    profile = ["profile", "x.npy", "--queries", "q.npy", "-k", 3, "--metric", "l2", "--levels", "8,16", "--sample", 50]
    code, out, err = run(*profile, "--plot", "x.png")
    assert (code, err) == (0, "")
    made = nv.profile(here.x, here.q, k=3, metric="l2", levels=(8, 16), sample=50)
    assert made.verdict in out
    assert Path("x.png").read_bytes()[:4] == b"\x89PNG"
    code, out, err = run(*profile, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out).keys() == made.to_dict().keys()
