"""Threads that ask an index while it changes.

python asking.py SUBJECT SECONDS
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from subjects import SUBJECTS, Subject, bits

READERS = 8
LONG = 300  # seconds after which an answer will not come any more


def right_answers(subject: Subject) -> dict[str, list[Any]]:
    """For each call, its answers after the first step, the second, and so on."""
    index, answers = subject.make(), {name: [] for name in subject.calls}
    for step in subject.steps:
        step(index)
        for name, call in subject.calls.items():
            answers[name].append(bits(call(index)))
    return answers


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
        """One question, whose answer must be that of a state, and of none before the latest that was seen."""
        answer, right = bits(self.subject.calls[name](self.index)), self.right[name]
        states = [state for state in range(self.latest, len(right)) if right[state] == answer]
        if not states:
            raise AssertionError(f"{name}: an answer of no state after step {self.latest}")
        self.latest = states[0]
        self.count += 1


def ask_while_changing(name: str, seconds: float) -> tuple[int, int]:
    """How many questions were asked, in how many rounds, each with an index of its own."""
    subject = SUBJECTS[name]
    right = right_answers(subject)
    until = time.monotonic() + seconds
    rounds = questions = 0
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns very often
    try:
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
                questions += sum(reader.result(LONG) for reader in readers)
            rounds += 1
    finally:
        sys.setswitchinterval(before)
    return questions, rounds


if __name__ == "__main__":
    questions, rounds = ask_while_changing(sys.argv[1], float(sys.argv[2]))
    print(f"{questions} answers in {rounds} rounds")
