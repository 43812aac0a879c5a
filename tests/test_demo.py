"""The command line, and the demo on a made-up standard library."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("click")

from click.testing import CliRunner

import nestvec as nv
from nestvec import cli, demo
from nestvec.demo import corpus

REMAINDER = "The inputs must already be sorted, and equal elements keep their order."

HEAP = f'''
"""Heaps of things.

A heap is an array for which every parent is smaller than its children.
"""

def merge(*iterables):
    """Merge sorted inputs into one. {REMAINDER}"""
    def helper():
        """Not reachable by name."""

class Heap:
    """Hold a heap."""

    class Node:
        """Hold one element."""

    def push(self, item):
        """Push an item onto the heap."""

    def _sift(self):
        """Private, hence not listed."""

    if True:
        async def pop(self):
            """Pop the smallest item."""

try:
    import _heap
except ImportError:
    def alias():
        """Push an item onto the heap."""
'''


@pytest.fixture
def stdlib(tmp_path: Path) -> Path:
    files = {
        "heap.py": HEAP,
        "package/__init__.py": '"""A package of modules."""',
        "package/part.py": 'def f():\n    """Do a part of the work."""',
        "_pyio.py": 'def open():\n    """Open a file for reading."""',
        "broken.py": "def (:",
        "not-a-module.py": '"""Only a script."""',
        "test/test_heap.py": '"""Tests of heaps."""',
        "site-packages/other.py": '"""Not in the standard library."""',
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def parse(stdlib: Path) -> list[tuple[str, str]]:
    return [pair for path in corpus.python_files(stdlib) for pair in corpus.parsed_docstrings(path, stdlib)]


def test_parsing_names_every_reachable_object(stdlib: Path) -> None:
    assert [name for name, _ in parse(stdlib)] == [
        "io.open",
        "heap",
        "heap.merge",
        "heap.Heap",
        "heap.Heap.Node",
        "heap.Heap.push",
        "heap.Heap._sift",
        "heap.Heap.pop",
        "heap.alias",
        "package",
        "package.part.f",
    ]


def test_each_public_object_and_text_counts_once(stdlib: Path) -> None:
    entries = corpus.unique_entries([*parse(stdlib), ("heap.merge", "Another text of the same object.")])
    names = [entry.name for entry in entries]
    assert "heap.Heap._sift" not in names
    assert "heap.alias" not in names
    assert names.count("heap.merge") == 1
    assert entries[names.index("heap.merge")] == corpus.Entry("heap.merge", "Merge sorted inputs into one.", REMAINDER)


def test_compiled_objects_carry_public_names() -> None:
    docstrings = dict(corpus.compiled_docstrings())
    assert {"builtins.sorted", "builtins.dict.update", "itertools.chain", "math.gcd", "os.listdir"} <= set(docstrings)
    assert not any(name.split(".")[0] in ("posix", "nt", "_io") for name in docstrings)


@pytest.mark.parametrize(
    ("docstring", "sentence", "remainder"),
    [
        ("One line", "One line", ""),
        ("First\nline. Second line.\n\nThird.", "First line.", "Second line. Third."),
        ("A paragraph without an end\n\nThe rest.", "A paragraph without an end", "The rest."),
        ("f(x[, y]) -> int\n\nAdd things.\n\nMore.", "Add things.", "More."),
        ("f(x) --> g\nf(x, y) --> g\nMap it.", "Map it.", ""),
        (
            "Read a format, e.g. JSON, from a file. Close it.",
            "Read a format, e.g. JSON, from a file.",
            "Close it.",
        ),
        ("Version 3.5 or later is needed.", "Version 3.5 or later is needed.", ""),
        ("f(x)", "", ""),
    ],
)
def test_docstrings_split_after_the_first_sentence(docstring: str, sentence: str, remainder: str) -> None:
    assert corpus.split_docstring(docstring) == (sentence, remainder)


@pytest.mark.parametrize(
    ("sentence", "remainder"),
    [
        ("Merge inputs.", REMAINDER),
        ("word " * 41, REMAINDER),
        ("Merge sorted inputs.", "Too short a remainder."),
        ("Keep their order.", f"{REMAINDER} Keep their order."),
        (">>> merge([1], [2])", REMAINDER),
    ],
)
def test_trivial_items_are_dropped(sentence: str, remainder: str) -> None:
    assert corpus.known_items([corpus.Entry("heap.merge", sentence, remainder)]) == []


def test_known_items_are_unambiguous() -> None:
    first = corpus.Entry("a.f", "Merge sorted inputs.", REMAINDER)
    same_query = corpus.Entry("b.f", first.sentence, REMAINDER.upper())
    same_answer = corpus.Entry("c.f", "Merge many sorted inputs.", REMAINDER)
    assert corpus.known_items([first, same_query, same_answer]) == [first]


def test_measures_of_a_hand_made_ranking() -> None:
    pytest.importorskip("ir_measures")
    pytest.importorskip("threadpoolctl")
    from nestvec.demo import measure

    ids = np.array([[0, 2, 1], [3, 2, 1], [0, 1, 3], [-1, -1, -1]])
    recall, reciprocal_rank = measure.known_item(ids)
    assert recall == pytest.approx(2 / 4)
    assert reciprocal_rank == pytest.approx((1 + 1 / 3) / 4)
    assert measure.known_item(ids, np.array([2, 0, 0, 0])) == pytest.approx((2 / 4, (1 / 2 + 1) / 4))
    assert measure.overlap(ids[:2], np.array([[2, 1, 0], [3, 4, 5]])) == pytest.approx(4 / 6)


def test_brute_force_orders_ties_by_id() -> None:
    pytest.importorskip("ir_measures")
    pytest.importorskip("threadpoolctl")
    from nestvec.demo import measure

    rows = np.array([[0, 1], [1, 1], [2, 0], [1, 0], [2, 2]], np.float32)
    ids = measure.brute_force(np.array([[1, 0], [0, 4]], np.float32), rows, 3)
    assert ids.tolist() == [[2, 3, 1], [0, 1, 4]]


def test_depths_of_an_index_are_exact() -> None:
    pytest.importorskip("ir_measures")
    pytest.importorskip("threadpoolctl")
    from nestvec.demo import measure

    rng = np.random.default_rng(3)
    rows = rng.standard_normal((60, 256), np.float32)
    queries = rows + rng.standard_normal((60, 256), np.float32)
    index = nv.NestedIndex(256, levels=demo.LEVELS, metric="cosine")
    index.add(rows)
    full = measure.brute_force(queries, rows, measure.K)
    shallow, deep = (measure.measure_depth(index, queries, rows, dims, full) for dims in (32, 256))
    assert (shallow.equal_queries, deep.equal_queries) == (60, 60)
    assert deep.nestvec.row_bytes - shallow.nestvec.row_bytes == 256 - 32
    assert deep.nestvec.read_bytes >= 60 * 256 + measure.K * 256 * 4
    assert deep.nestvec.overlap == 1 > shallow.nestvec.overlap
    assert deep.nestvec.recall >= shallow.nestvec.recall > 0.5
    assert deep.largest_gap == 0
    assert min(deep.nestvec.single_us, deep.numpy_single_us, deep.nestvec.batch_us, deep.numpy_batch_us) > 0


def test_methods_by_signs_come_closer_with_more_bits_and_with_a_float_query() -> None:
    pytest.importorskip("ir_measures")
    pytest.importorskip("threadpoolctl")
    from nestvec.demo import measure, methods

    rng = np.random.default_rng(5)
    rows = rng.standard_normal((300, 256), np.float32) + 0.5
    queries = rows + rng.standard_normal((300, 256), np.float32)
    index = nv.NestedIndex(256, levels=demo.LEVELS, metric="cosine")
    index.add(rows)
    full = measure.brute_force(queries, rows, methods.K)
    by_name = {method.name: method for method in methods.by_signs(index, queries, rows)}
    outcomes = [measure.measure_method(method, full) for method in by_name.values()]
    overlaps = [outcome.overlap for outcome in outcomes]
    *hamming, estimated, reranked, nested = overlaps
    assert sorted(hamming) == hamming
    assert hamming[-1] < estimated < reranked < 1
    assert estimated < nested < 1
    assert [outcome.row_bytes for outcome in outcomes] == [8, 16, 32, 36, 36, 20]
    assert outcomes[2].read_bytes == 300 * 32
    assert outcomes[4].read_bytes == 300 * 36 + methods.SHORTLIST * 256 * 4


def test_hamming_compares_bits_above_the_mean() -> None:
    from nestvec.demo import methods

    rng = np.random.default_rng(6)
    rows = rng.standard_normal((50, 256), np.float32) + 1
    index = nv.NestedIndex(256, metric="cosine")
    index.add(rows)
    hamming = methods.by_signs(index, rows, rows)[len(methods.PREFIX_BITS) - 1]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    codes = nv.pack_bits(unit, unit.mean(axis=0))
    assert (hamming.search(slice(None)) == nv.hamming_topk(codes, codes, methods.K)[1]).all()


def test_differing_ids_are_reported_with_their_gap() -> None:
    pytest.importorskip("ir_measures")
    pytest.importorskip("threadpoolctl")
    pytest.importorskip("rich")
    from nestvec.demo import measure

    rng = np.random.default_rng(4)
    rows = rng.standard_normal((30, 8), np.float32)
    index = nv.NestedIndex(8, metric="cosine")
    index.add(rows)
    reversed_ids = measure.brute_force(rows, rows, measure.K)[:, ::-1]
    careless = Mock(
        explain=index.explain, search=Mock(return_value=(np.zeros((30, measure.K), np.float32), reversed_ids))
    )
    depth = measure.measure_depth(careless, rows, rows, 8, reversed_ids)
    assert depth.equal_queries == 0
    assert 0.1 < depth.largest_gap <= 2


def test_notes_admit_what_did_not_go_well() -> None:
    pytest.importorskip("ir_measures")
    pytest.importorskip("rich")
    pytest.importorskip("safetensors")
    pytest.importorskip("threadpoolctl")
    pytest.importorskip("tokenizers")
    from nestvec.demo.measure import Depth, Outcome
    from nestvec.demo.report import method_notes, notes

    shallow = Outcome(0.5, 0.4, 0.3, 76, 8000, 10.0, 1.0)
    deep = Outcome(1.0, 0.5, 0.4, 268, 28_000, 20.0, 1.0)
    good = Depth(64, shallow, 20.0, 2.0, 100, 100, 0.0)
    bad = Depth(256, deep, 10.0, 2.0, 100, 99, 2e-8)
    assert "100 of 100 searches" in notes([good])
    assert "numpy is faster" not in notes([good])
    assert "199 of 200 searches" in notes([good, bad])
    assert "at most 2.0e-08" in notes([good, bad])
    assert "numpy is faster in 1 of 4 timings" in notes([good, bad])
    assert "faster" not in method_notes({"signs": shallow, "exact search": deep})
    assert "Exact search is faster in 1 of 2 timings" in method_notes({"signs": deep, "exact search": shallow})


def test_tables_fit_80_columns() -> None:
    for module in demo.PACKAGES:
        pytest.importorskip(module)
    from rich.console import Console

    from nestvec.demo import methods, report
    from nestvec.demo.measure import Depth, Outcome

    slow = Outcome(1.0, 0.999, 0.999, 268, 8_888_888, 12_345.6, 1234.5)
    names = [f"Hamming, {bits} bits" for bits in methods.PREFIX_BITS] + list(methods.PLANS)
    console = Console(width=80, file=io.StringIO())
    with console.capture() as captured:
        console.print(report.depth_table([Depth(256, slow, 12_345.6, 1234.5, 10_000, 10_000, 0.0)]))
        console.print(report.method_table(dict.fromkeys(names, slow)))
    text = captured.get()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("12,346") == 2 + len(names)
    assert all(name in text for name in names)
    assert [text.count(heading) for heading in ("overlap", "recall", "nestvec")] == [2, 2, 2]


def test_info_prints_the_configuration() -> None:
    runner = CliRunner()
    plain = runner.invoke(cli.commands(), ["info"])
    assert plain.exit_code == 0
    config = json.loads(runner.invoke(cli.commands(), ["info", "--json"]).stdout)
    assert config.keys() == nv.show_config().keys()
    assert all(f"{key}: " in plain.stdout for key in config)


@pytest.mark.parametrize(
    "args",
    [
        ["demo", "--k", "0"],
        ["demo", "--dims", "48"],
        ["demo", "--dims", "256", "--multi-vector"],
        ["demo", "--recall", "0.9", "--multi-vector"],
        ["demo", "--recall", "0"],
        ["demo", " "],
        ["nonsense"],
        ["info", "--loud"],
        ["info", "no/such/file"],
        ["verify"],
        ["verify", "/"],
    ],
)
def test_errors_are_one_line_and_code_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(args)
    captured = capsys.readouterr()
    assert exit_.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("nestvec: ")
    assert captured.err.count("\n") == 1


def test_missing_packages_are_named_with_the_command_to_install_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "PACKAGES", {"no_such_module": "no-such-package"})
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo"])
    assert capsys.readouterr().err == 'nestvec: the demo needs no-such-package: pip install "nestvec[demo]"\n'


def test_missing_click_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["info"])
    assert capsys.readouterr().err == 'nestvec: the nestvec command needs click: pip install "nestvec[cli]"\n'


def test_ctrl_c_exits_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "run", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit, match="130"):
        cli.main(["demo"])
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("end", ["", EOFError, KeyboardInterrupt])
def test_conversation_ends_cleanly(end: str | type[BaseException]) -> None:
    lines = iter(["sort a list", " copy a file ", end])
    answered: list[str] = []

    def ask() -> str:
        line = next(lines)
        if isinstance(line, str):
            return line
        raise line

    demo.converse(ask, answered.append)
    assert answered == ["sort a list", "copy a file"]


@pytest.fixture(scope="module")
def demo_packages() -> None:
    for module in demo.PACKAGES:
        pytest.importorskip(module, reason=f'{module} is not installed: pip install "nestvec[demo]"')


@pytest.mark.usefixtures("demo_packages")
def test_small_library_is_refused(stdlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from nestvec.demo import library

    monkeypatch.setattr(library, "compiled_docstrings", lambda: iter(()))
    with pytest.raises(demo.DemoError, match="has only 2 docstrings"):
        library.build(stdlib, Console(quiet=True))


@pytest.mark.usefixtures("demo_packages")
def test_demo_answers_from_the_compiled_objects(stdlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(stdlib)})
    runner = CliRunner()
    result = runner.invoke(cli.commands(), ["demo", "greatest common divisor", "--k", "3", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [depth["dims"] for depth in found["depths"]] == list(demo.LEVELS)
    assert all(depth["queries"] == found["known_items"] > 100 for depth in found["depths"])
    assert all(depth["largest_gap"] < 1e-6 for depth in found["depths"])
    assert found["depths"][-1]["nestvec"]["recall"] > 0.5
    *by_signs, exact = found["methods"].values()
    assert exact == found["depths"][-1]["nestvec"]
    assert [method["overlap"] < 1 for method in by_signs] == [True] * 6
    assert all(method["row_bytes"] < exact["row_bytes"] for method in by_signs)
    assert len(found["answers"]) == 3
    assert found["answers"][0]["name"] == "math.gcd"

    text = runner.invoke(cli.commands(), ["demo", "merge sorted inputs", "--no-table", "--dims", "64"])
    assert text.exit_code == 0
    assert "heap.merge" in text.stdout
    assert "recall" not in text.stdout
    assert "plan for" not in text.stdout
    tuned = ["demo", "greatest common divisor", "--no-table", "--dims", "128", "--recall", "0.9"]
    plan = json.loads(runner.invoke(cli.commands(), [*tuned, "--json"]).stdout)["plan"]
    assert (plan["k"], plan["dims"], plan["recall"], plan["held_out"]) == (10, 128, 0.9, False)
    assert plan["expected"] >= plan["lower"] >= 0.9
    assert plan["rows"] == found["known_items"]
    shown = runner.invoke(cli.commands(), tuned).stdout
    assert "plan for k=10, 128 dims" in shown
    assert "math.gcd" in shown
    measured = runner.invoke(cli.commands(), ["demo"]).stdout
    assert "Exactness" in measured
    assert "float query, 256 bits" in measured


def bags(rng: np.random.Generator, count: int, longest: int) -> list[np.ndarray]:
    """Tokens of length 1."""
    drawn = [rng.standard_normal((rng.integers(1, longest + 1), 256), np.float32) for _ in range(count)]
    return [tokens / np.linalg.norm(tokens, axis=1, keepdims=True) for tokens in drawn]


@pytest.mark.usefixtures("demo_packages")
def test_bags_hold_the_tokens_of_each_text_in_order() -> None:
    from nestvec.demo.embedder import Embedder

    embedder = Embedder.installed()
    texts = ["merge sorted inputs", "", "sorted"]
    tokens, offsets = embedder.bags(texts)
    assert offsets[0] == 0
    assert offsets[-1] == len(tokens)
    assert (np.diff(offsets) > 0).all()
    assert np.linalg.norm(tokens, axis=1) == pytest.approx(1, abs=1e-6)
    for text, first, last in zip(texts, offsets[:-1], offsets[1:], strict=True):
        assert (embedder.bags([text])[0] == tokens[first:last]).all()
    mean = embedder.embed(["sorted"])[0]
    assert tokens[-1] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


@pytest.mark.usefixtures("demo_packages")
def test_numpy_and_the_index_rank_by_the_same_maxsim() -> None:
    from nestvec.demo import bags as demo_bags
    from nestvec.demo import measure

    rng = np.random.default_rng(7)
    documents, queries = bags(rng, 50, 9), bags(rng, 8, 5)
    scores = demo_bags.float64_maxsim(queries, documents)
    assert scores == pytest.approx(nv.maxsim(queries, documents), abs=1e-6)
    full = measure.ranked(scores, measure.K)
    assert (nv.maxsim_topk(queries, documents, measure.K)[1] == full).all()
    assert (demo_bags.numpy_maxsim(queries, documents)(slice(2, 5)) == full[2:5]).all()


@pytest.mark.usefixtures("demo_packages")
def test_longer_shortlists_come_closer_to_exact_maxsim() -> None:
    from nestvec.demo import bags as demo_bags
    from nestvec.demo import measure

    rng = np.random.default_rng(8)
    documents = bags(rng, 400, 20)
    answers = np.arange(0, 400, 20)
    queries = [documents[row][:8] + rng.standard_normal((1, 256), np.float32) / 16 for row in answers]
    index = demo_bags.bag_index(np.concatenate(documents), np.cumsum([0, *map(len, documents)]))
    stored = index.reconstruct(range(400))
    full = measure.ranked(demo_bags.float64_maxsim(queries, stored), measure.K)
    methods = demo_bags.by_maxsim(index, queries, stored)
    outcomes = {method.name: demo_bags.measure_singly(method, full, answers) for method in methods}
    *estimates, exact, by_numpy = outcomes.values()
    overlaps = [outcome.overlap for outcome in estimates]
    assert sorted(overlaps) == overlaps
    assert overlaps[0] < overlaps[-1] < 1
    assert exact.overlap == by_numpy.overlap == 1
    assert exact.recall == 1
    tokens = np.mean([len(document) for document in documents])
    assert [outcome.document_bytes for outcome in estimates] == [index.encoder.fde_dim / 8 + 2] * 4
    assert (exact.document_bytes, by_numpy.document_bytes) == pytest.approx((tokens * 264, tokens * 1024))
    assert all(outcome.single_ms > 0 for outcome in outcomes.values())


@pytest.mark.usefixtures("demo_packages")
def test_notes_on_bags_admit_what_did_not_go_well() -> None:
    from nestvec.demo import bag_report
    from nestvec.demo.bags import EXACT, MEANS, NUMPY, BagOutcome, Findings

    fast, slow = BagOutcome(0.5, 0.4, 0.3, 1282, 1.0), BagOutcome(1.0, 0.5, 0.4, 22_000, 2.0)
    good = {MEANS: fast, "encodings": fast, EXACT: slow, NUMPY: BagOutcome(1.0, 0.5, 0.4, 86_000, 50.0)}
    bad = {MEANS: slow, "encodings": BagOutcome(0.5, 0.6, 0.3, 1282, 3.0), EXACT: fast, NUMPY: slow}
    rest = (8.0, 80.0, 500.0, 10_240, 210_000_000, 4_000_000)
    praised = bag_report.bag_notes(Findings(good, 900, 300, 300, 0.0, *rest))
    blamed = bag_report.bag_notes(Findings(bad, 900, 300, 299, 2e-8, *rest))
    assert "300 of 300 searches" in praised
    assert "210 MB" in praised
    assert not any(word in praised for word in ("differ by", "Slower", "faster", "more recall"))
    assert "299 of 300 searches" in blamed
    assert "at most 2.0e-08" in blamed
    assert "0.500 against 0.400, in 200.0% of its time" in blamed
    assert "Estimates with more recall" in blamed
    assert "Slower than exact MaxSim, hence no use here: encodings." in blamed
    assert "numpy's exact MaxSim is faster than: encodings." in blamed


@pytest.mark.usefixtures("demo_packages")
def test_table_of_bags_fits_80_columns() -> None:
    from rich.console import Console

    from nestvec.demo import bag_report
    from nestvec.demo.bags import CANDIDATES, BagOutcome

    names = [f"encodings, MaxSim of {candidates}" for candidates in CANDIDATES]
    console = Console(width=80, file=io.StringIO())
    with console.capture() as captured:
        console.print(bag_report.bag_table(dict.fromkeys(names, BagOutcome(1.0, 0.999, 0.999, 888_888, 12_345.67))))
    text = captured.get()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("12,345.67") == len(names)
    assert all(name in text for name in names)


@pytest.mark.usefixtures("demo_packages")
def test_demo_ranks_compiled_objects_by_maxsim(stdlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nestvec.demo import bags as demo_bags

    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(stdlib)})
    monkeypatch.setattr(demo_bags, "QUERIES", 40)
    runner = CliRunner()
    args = ["demo", "--multi-vector"]
    result = runner.invoke(cli.commands(), [*args, "greatest common divisor", "--k", "3", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["documents"] == found["known_items"] > 100
    assert found["equal_queries"] == found["queries"] or found["largest_gap"] < 1e-12
    means, *estimates, exact, by_numpy = found["methods"].values()
    assert exact["overlap"] > 0.999
    assert by_numpy["overlap"] > 0.9
    assert all(outcome["overlap"] < exact["overlap"] for outcome in (means, *estimates))
    assert all(outcome["document_bytes"] < exact["document_bytes"] for outcome in (means, *estimates))
    assert means["recall"] > 0.5
    assert len(found["answers"]) == 3
    assert found["answers"][0]["name"] == "math.gcd"

    text = runner.invoke(cli.commands(), [*args, "merge sorted inputs", "--no-table"]).stdout
    assert "heap.merge" in text
    assert "recall" not in text
    measured = runner.invoke(cli.commands(), args).stdout
    assert "of float64 MaxSim" in measured
    assert "encodings, MaxSim of 100" in measured
