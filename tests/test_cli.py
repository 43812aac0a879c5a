"""The commands that look at files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("click")

import nestvec as nv
from nestvec import cli, storage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "x.nv"
    storage.write(file, "Thing", {"metric": "i\x1bp", "levels": [1, 5]}, [storage.array_part("rows", np.ones((3, 5)))])
    return file


def run(capsys: pytest.CaptureFixture[str], *args: Any) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    code = 0
    try:
        cli.main(list(map(str, args)))
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_info_of_a_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "info", path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:5] == [
        f"file: {path}",
        "kind: Thing",
        "format: 1.0",
        f"bytes: {path.stat().st_size}",
        "levels: [1, 5]",
    ]
    assert lines[5] == 'metric: "i\\u001bp"'
    assert [line.split() for line in lines[6:]] == [
        ["meta", "uint8", "(36,)", "36", "bytes"],
        ["rows", "float64", "(3,", "5)", "120", "bytes"],
        ["checksums", "uint32", "(2,)", "8", "bytes"],
    ]
    found = json.loads(run(capsys, "info", path, "--json")[1])
    assert found["meta"] == {"levels": [1, 5], "metric": "i\x1bp"}
    assert found["sections"][1] == {"name": "rows", "dtype": "float64", "shape": [3, 5], "bytes": 120}


def test_info_reads_the_header_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(path, storage.open_file(path).sections["rows"].offset)
    assert run(capsys, "info", path)[0] == 0
    damage(path, 50)
    code, out, err = run(capsys, "info", path)
    assert (code, out) == (1, "")
    assert err == f"nestvec: {path} is damaged: its header or table of sections\n"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    index = nv.BinaryIndex(70)
    index.add(np.zeros((3, 70), np.float32), [7, 5, 6])
    index.save(tmp_path / "codes.nv")
    return tmp_path / "codes.nv"


def test_verify(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = saved.stat().st_size
    code, out, err = run(capsys, "verify", saved)
    assert (code, err) == (0, "")
    assert out.startswith(f"ok: BinaryIndex, format 1.0, {size:,} bytes, ")
    found = json.loads(run(capsys, "verify", saved, "--json")[1])
    assert found.pop("seconds") >= 0
    assert found == {"ok": True, "file": str(saved), "kind": "BinaryIndex", "format": "1.0", "bytes": size}


def test_verify_asks_what_an_index_must_be(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "verify", path)
    assert (code, out) == (1, "")
    assert err == f"nestvec: {path} holds a Thing, which this nestvec does not know; upgrade nestvec\n"


def test_verify_finds_damage_anywhere(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = saved.read_bytes()
    for at in range(0, len(whole), 5):
        saved.write_bytes(whole)
        damage(saved, at)
        code, out, err = run(capsys, "verify", saved)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"nestvec: {saved} ")
    code, out, err = run(capsys, "verify", saved, "--json")
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert found.keys() == {"ok", "error"}
    assert not found["ok"]
    assert str(saved) in found["error"]
