"""Matryoshka text embeddings from the two data files in the `wordllama` package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from . import DemoError

_TABLE = "weights/l2_supercat_256.safetensors"
# The folder's name differs between releases, which is why the package's own loader is not used.
_TOKENIZER = "tokenizer*/l2_supercat_tokenizer_config.json"


class Embedder:
    """Mean of a text's token vectors, 256-d; the leading 64 and 128 dims were trained as embeddings too.

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
        self._table: npt.NDArray[np.float32] = load_file(folder / _TABLE)["embedding.weight"].astype(np.float32)
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

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts; rows are not normalised.

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
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        tokens = [encoding.ids or [0] for encoding in encodings]
        counts = np.array([len(ids) for ids in tokens])
        # Tokens added after training have no row of their own.
        flat = np.minimum(np.concatenate(tokens), len(self._table) - 1)
        sums = np.add.reduceat(self._table[flat], np.cumsum(counts) - counts, axis=0)
        sums /= counts[:, None]
        return sums
