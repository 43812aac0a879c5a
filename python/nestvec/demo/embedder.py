"""Token vectors of texts and their means, Matryoshka embeddings, from the two data files in the `wordllama` package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from . import DemoError
from .methods import Floats, Ids, unit

_TABLE = "weights/l2_supercat_256.safetensors"
# The folder's name differs between releases, which is why the package's own loader is not used.
_TOKENIZER = "tokenizer*/l2_supercat_tokenizer_config.json"


class Embedder:
    """Token vectors of texts, 256-d, and their means; the leading 64 and 128 dims were trained as embeddings too.

    Parameters
    ----------
    folder : Path
        The installed `wordllama` package.

    Raises
    ------
    DemoError
        When the folder lacks the token table or the tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        tokenizer = next(folder.glob(_TOKENIZER), None)
        if tokenizer is None or not (folder / _TABLE).is_file():
            raise DemoError(f"the package {folder.name} lacks {_TABLE} or {_TOKENIZER}")
        self._table: Floats = load_file(folder / _TABLE)["embedding.weight"].astype(np.float32)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @classmethod
    def installed(cls) -> Embedder:
        """Read the installed package's files without importing it, which would load much that is unused."""
        spec = find_spec("wordllama")
        if spec is None or not spec.submodule_search_locations:
            raise DemoError("wordllama is not installed")
        return cls(Path(spec.submodule_search_locations[0]))

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embed texts by the mean of their token vectors; rows are not normalised.

        Parameters
        ----------
        texts : sequence of str
            At least one; a text without any token gets the vector of the unknown token.

        Returns
        -------
        (n, 256) float32
            Unitless.

        Examples
        --------
        >>> Embedder.installed().embed(["merge sorted lists"]).shape  # doctest: +SKIP
        (1, 256)
        """
        rows, offsets = self._rows(texts)
        sums = np.add.reduceat(self._table[rows], offsets[:-1], axis=0)
        sums /= np.diff(offsets)[:, None]
        return sums

    def bags(self, texts: Sequence[str], *, queries: bool = False) -> tuple[Floats, Ids]:
        """Token vectors of texts, in their order: of documents scaled to length 1, of queries as long as they are.

        A length is a learnt weight: names are long vectors, a full stop is a short one. In a sum over query tokens it
        counts; in a maximum over the tokens of a document it would only favour rare words.

        Parameters
        ----------
        texts : sequence of str
            As for `embed`.
        queries : bool

        Returns
        -------
        tokens : (N, 256) float32
        offsets : (n + 1,) int64
            Text i has the tokens ``offsets[i]`` to ``offsets[i + 1]``.

        Examples
        --------
        >>> tokens, offsets = Embedder.installed().bags(["merge", "merge sorted lists"])  # doctest: +SKIP
        >>> offsets.tolist()  # doctest: +SKIP
        [0, 1, 4]
        """
        rows, offsets = self._rows(texts)
        tokens = self._table[rows]
        return (tokens if queries else unit(tokens, np.float32)), offsets

    def _rows(self, texts: Sequence[str]) -> tuple[Ids, Ids]:
        """Rows of the table for the tokens of all texts, and where each text begins."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        tokens = [encoding.ids or [0] for encoding in encodings]
        offsets = np.cumsum([0, *map(len, tokens)])
        # Tokens added after training have no row of their own.
        return np.minimum(np.concatenate(tokens), len(self._table) - 1), offsets
