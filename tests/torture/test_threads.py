"""Python threads: eight ask an index while one changes it; every answer is that of a state that existed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asking import ask_while_changing
from subjects import SUBJECTS
from tools import amount

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("name", SUBJECTS)
def test_questions_while_an_index_changes(name: str, note: Callable[[str], None]) -> None:
    questions, rounds = ask_while_changing(name, amount(2, 60))
    note(f"{questions} answers in {rounds} rounds, all of states that existed")
