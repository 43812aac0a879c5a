"""Python threads: eight ask an index while one changes it; every answer is that of a state that existed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from subjects import SUBJECTS, Subject, bits
from tools import HANGS, amount

pytestmark = pytest.mark.torture

READERS = 8


def right_answers(subject: Subject) -> dict[str, list[Any]]:
    """For each call, its answers after the first step, the second, and so on."""
    index, answers = subject.make(), {name: [] for name in subject.calls}
    for step in subject.steps:
        step(index)
        for name, call in subject.calls.items():
            answers[name].append(bits(call(index)))
    return answers


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns very often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Asked:
    """One thread's questions to one index."""

    def __init__(self, subject: Subject, right: dict[str, list[Any]], index: Any, done: threading.Event) -> None:
        self.subject, self.right, self.index, self.done = subject, right, index, done
        self.count = 0
        self.latest = 0  # the index has made so many steps, at least

    def run(self, first: int) -> int:
        """Ask until `done`, then each question once more; how many were asked."""
        names = list(self.subject.calls)
        while not self.done.is_set():
            self.ask(names[(first + self.count) % len(names)])
        self.latest = len(self.subject.steps) - 1
        for name in names:
            self.ask(name)
        return self.count

    def ask(self, name: str) -> None:
        answer, right = bits(self.subject.calls[name](self.index)), self.right[name]
        states = [state for state in range(self.latest, len(right)) if right[state] == answer]
        assert states, f"{name}: an answer of no state after step {self.latest}"
        self.latest = states[0]
        self.count += 1


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("name", SUBJECTS)
def test_questions_while_an_index_changes(name: str, note: Callable[[str], None]) -> None:
    subject = SUBJECTS[name]
    right = right_answers(subject)
    until = time.monotonic() + amount(3, 60)
    rounds = questions = 0
    while rounds == 0 or time.monotonic() < until:
        index, done = subject.filled(1), threading.Event()
        with ThreadPoolExecutor(READERS) as pool:
            readers = [pool.submit(Asked(subject, right, index, done).run, reader) for reader in range(READERS)]
            try:
                for step in subject.steps[1:]:
                    time.sleep(0.01)
                    step(index)
            finally:
                done.set()
            questions += sum(reader.result(HANGS) for reader in readers)
        rounds += 1
    note(f"{questions} answers in {rounds} rounds, all of states that existed")
