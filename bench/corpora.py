"""Texts of the real data sets. Nothing is downloaded here: environment variables name the folders of the sources, and
bench/README.md says how to get them.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

PARTS_OF_SPEECH = {"n": "noun", "v. t": "verb", "v. i": "verb", "a": "adj", "adv": "adv"}

Texts = tuple[list[str], list[str], "np.ndarray | None"]  # documents, queries, the row that answers each query
Description = tuple[str, str, list[str]]  # package, synopsis, paragraphs of the long description


def source(variable: str, what: str) -> Path:
    """The folder that an environment variable names; the message is the whole help a user gets, so it says what."""
    path = Path(os.environ.get(variable, ""))
    if variable not in os.environ or not path.exists():
        raise FileNotFoundError(f"set {variable} to {what}; bench/README.md says how to get it")
    return path


def wordnet_entries(root: Path) -> Iterator[tuple[list[str], str, str]]:
    """(lemmas, part of speech, gloss without examples) of the 117,659 WordNet 3.0 synsets."""
    for pos in ("noun", "verb", "adj", "adv"):
        for line in (root / f"usr/share/wordnet/data.{pos}").read_text("utf-8", "replace").splitlines():
            if line.startswith("  "):  # the licence text
                continue
            head, gloss = line.split(" | ", 1)
            fields = head.split()
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            lemmas = [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words]
            yield lemmas, pos, re.split(r';\s*"', gloss.strip(), maxsplit=1)[0].strip()


def webster_definitions(root: Path) -> Iterator[tuple[str, str, str]]:
    """(headword, part of speech, first sense) of the entries that Webster 1913 wrote; WordNet's own are dropped."""
    text = gzip.decompress((root / "usr/share/dictd/gcide.dict.dz").read_bytes()).decode("utf-8", "replace")
    for entry in re.split(r"\n(?=\S)", text):
        head, _, body = entry.partition("\n")
        name = re.match(r"([A-Za-z][A-Za-z' -]*?) \\", entry)
        pos = re.search(r"\\[^\\]*\\[^a-z]*(?:[^ ]*\)?,? )?(n|v\. t|v\. i|a|adv)\.", head)
        origin = re.search(r"\[(?:1913 Webster[^\]]*|WordNet[^\]]*|PJC|Webster[^\]]*)\]", body)
        if not name or not pos or not origin or origin[0] != "[1913 Webster]":
            continue
        definition = _plain_definition(body[: origin.start()])
        if len(definition.split()) >= 6 and not re.match(r"See|Same as|Of or pertaining", definition):
            yield name[1].strip(), PARTS_OF_SPEECH[pos[1]], definition


def _plain_definition(sense: str) -> str:
    """A dictionary sense without etymology, numbering, cross-reference braces and quotations."""
    while (bare := re.sub(r"\[[^\[\]]*\]", " ", sense)) != sense:  # brackets nest
        sense = bare
    sense = re.split(r"\n\s*\n", sense.split("]")[-1].strip())[0]
    sense = re.sub(r"\s+", " ", sense)
    sense = re.sub(r"^(\d+\.\s*)?(\([A-Z][A-Za-z.& ]*\)\s*)?(\([a-z]\)\s*)?", "", sense)
    sense = re.split(r";? as, |; -- |\s--\s", re.sub(r"\{([^}]*)\}", r"\1", sense))[0]
    return re.sub(r"\s*\.?\s*--\s?[A-Z][\w. ]*$", "", sense).strip(" ;.")


def wordnet_texts() -> Texts:
    """Reverse dictionary: WordNet entries, asked for by Webster's definition of a headword that has one synset."""
    root = source("WORDNET", "the folder where wordnet-base and dict-gcide are unpacked")
    entries = list(wordnet_entries(root))
    synsets: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, (lemmas, pos, _) in enumerate(entries):
        for lemma in lemmas:
            synsets[lemma.lower(), pos].append(row)
    found: list[tuple[str, int]] = []
    for headword, pos, definition in webster_definitions(root):
        rows = synsets.pop((headword.lower(), pos), [])  # the first sense of a headword counts
        if len(rows) == 1:
            names = [headword[: max(4, len(headword) - 2)], *entries[rows[0]][0]]
            if not any(name.lower() in definition.lower() for name in names):  # the answer must not be in the question
                found.append((definition, rows[0]))
    random.Random(0).shuffle(found)  # this order: the MiniLM adaptor was trained without the first 2,000
    docs = [f"{', '.join(lemmas)}: {gloss}" for lemmas, _, gloss in entries]
    return docs, [definition for definition, _ in found], np.array([row for _, row in found])


def _normal_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.lower())


def package_texts() -> Texts:
    """Package summaries, asked for by Debian's description of its package of the same project."""
    lists = source("PKGLISTS", "the folder of pypi.tsv and npm.tsv (name ... summary, tab-separated)")
    docs: list[str] = []
    rows: dict[tuple[str, str], int] = {}
    for registry, column in (("pypi", 4), ("npm", 3)):
        with open(lists / f"{registry}.tsv", encoding="utf-8", errors="replace") as lines:
            next(lines)  # column names
            for line in lines:
                fields = line.rstrip("\n").split("\t")
                if len(fields) > column and len(summary := fields[column].strip()) >= 8:
                    rows[registry, _normal_name(fields[0])] = len(docs)
                    docs.append(summary)
    if "APTLISTS" in os.environ:
        asked = list(dict(_debian_questions(rows)).items())
        random.Random(0).shuffle(asked)
        return docs, [question for _, question in asked], np.array([row for row, _ in asked])
    print("APTLISTS is not set: the queries are 2,000 summaries held out of the rows")
    order = np.random.default_rng(0).permutation(len(docs))
    return [docs[i] for i in np.sort(order[2000:])], [docs[i] for i in order[:2000]], None


def _debian_questions(rows: dict[tuple[str, str], int]) -> Iterator[tuple[int, str]]:
    boilerplate = re.compile(r"This package (contains|provides|installs)|Node\.js is an|This is the")
    for package, _, paragraphs in _debian_descriptions(_apt_lists()):
        match = re.match(r"(python3|pypy3|node)-(.+)(?<!-doc)(?<!-dev)(?<!-dbg)(?<!-examples)$", package)
        text = next((p for p in paragraphs if len(p) > 60 and not boilerplate.match(p)), None)
        if not match or text is None:
            continue
        name = _normal_name(match[2])
        node = match[1] == "node"
        keys = [("npm", name)] if node else [("pypi", p + name) for p in ("", "py", "python-")]
        if key := next((key for key in keys if key in rows), None):
            yield rows[key], text[:400]


def debian_texts(rows: int = 12_000, asked: int = 1_000) -> Texts:
    """Long descriptions of Debian's packages, one for each source, asked for by the synopsis of the same package."""
    synopses: dict[str, str] = {}
    for _, synopsis, paragraphs in _one_for_each_source(_apt_lists()):
        text = " ".join(p for p in paragraphs if p)
        if len(text) >= 80:
            synopses.setdefault(text, synopsis)
    docs, questions = list(synopses), list(synopses.values())
    answers = [row for row, question in enumerate(questions) if len(question.split()) >= 4]
    random.Random(0).shuffle(answers)
    count = Counter(questions)
    fair = [row for row in answers if count[questions[row]] == 1 and questions[row].lower() not in docs[row].lower()]
    answers = fair[:asked]  # the projection of the token vectors was trained without these
    others = sorted(set(range(len(docs))) - set(answers))
    random.Random(7).shuffle(others)
    kept = np.sort(answers + others[: rows - len(answers)])
    return [docs[i] for i in kept], [questions[i] for i in answers], np.searchsorted(kept, answers)


def _one_for_each_source(lists: Path) -> list[Description]:
    """Descriptions of the package that stands for each source package, in the order of the sources' names."""
    described = {description[0]: description for description in _debian_descriptions(lists)}
    packages: dict[str, list[str]] = defaultdict(list)
    for entry in _apt_list(lists, "*_main_binary-*_Packages*").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Source): (\S+)", entry, re.MULTILINE))
        if (name := fields.get("Package")) in described:
            packages[fields.get("Source", name)].append(name)
    auxiliary = re.compile(r"-(dev|doc|dbg|common|data|examples)$")

    def rank(name: str, origin: str) -> tuple[bool, bool, int]:
        return name != origin, bool(auxiliary.search(name)), len(name)

    return [described[min(names, key=partial(rank, origin=origin))] for origin, names in sorted(packages.items())]


def _debian_descriptions(lists: Path) -> Iterator[Description]:
    entry = re.compile(r"Package: (\S+)\nDescription-md5: \S+\nDescription-en: (.*)\n((?: .*\n?)*)")
    for match in entry.finditer(_apt_list(lists, "*_main_i18n_Translation-en*")):
        paragraphs = f"\n{match[3]}".split("\n .\n")
        yield match[1], match[2].strip(), [re.sub(r"\s+", " ", p).strip() for p in paragraphs]


def _apt_lists() -> Path:
    return source("APTLISTS", "a folder of apt lists with English translations")


def _apt_list(lists: Path, pattern: str) -> str:
    """The largest list of a kind; apt-helper reads whatever compression apt chose."""
    found = sorted(lists.glob(pattern), key=lambda file: file.stat().st_size)
    if not found:
        raise FileNotFoundError(f"APTLISTS has no {pattern}; bench/README.md says how to make these lists")
    command = ["/usr/lib/apt/apt-helper", "cat-file", found[-1]]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()
