"""Encoders that make the texts of the real data sets vectors; their weights come from folders, never from a hub."""

from __future__ import annotations

import importlib.util
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from corpora import source


def embed_wordllama(texts: list[str]) -> np.ndarray:
    """Mean of WordLlama's static token vectors; 64, 128 and 256 dims were trained as prefixes."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    spec = importlib.util.find_spec("wordllama")
    folder = Path(spec.origin).parent if spec and spec.origin else source("WORDLLAMA", "the unpacked wordllama package")
    table = load_file(folder / "weights/l2_supercat_256.safetensors")["embedding.weight"].astype(np.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers/l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    out = np.empty((len(texts), table.shape[1]), np.float16)
    for start in range(0, len(texts), 8192):
        encoded = tokenizer.encode_batch_fast(texts[start : start + 8192], add_special_tokens=False)
        ids = [e.ids or [0] for e in encoded]
        starts = np.cumsum([0, *map(len, ids[:-1])])
        tokens = np.minimum(np.concatenate(ids), len(table) - 1).astype(np.int64)
        sums = np.add.reduceat(table[tokens], starts, axis=0)
        out[start : start + len(ids)] = unit_rows(sums)
    return out


def embed_minilm(texts: list[str]) -> np.ndarray:
    """all-MiniLM-L6-v2, mean pooled."""
    from safetensors.torch import load_file

    folder = source("MINILM", "a folder with all-MiniLM-L6-v2's model.safetensors and tokenizer.json")
    weights = {name.removeprefix("bert."): w for name, w in load_file(folder / "model.safetensors").items()}
    out = np.empty((len(texts), 384), np.float16)
    for batch, states, mask in _hidden_states(weights, [e.ids for e in _tokenizer(folder).encode_batch_fast(texts)]):
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        out[batch] = unit_rows(pooled.numpy())
    return out


def embed_colbert(texts: list[str], *, queries: bool) -> tuple[np.ndarray, np.ndarray]:
    """Token vectors and offsets: answerai-colbert-small-v1 without its last layer, which the file of the weights lacks,
    times a learned 384 x 128 projection in its place.

    A marker follows [CLS]. Queries end after 32 tokens and are not padded with [MASK]; documents lose punctuation.
    """
    folder = source("COLBERT", "a folder with the model.onnx and tokenizer.json of answerai-colbert-small-v1, in int8")
    projection = np.load(source("COLBERT_PROJECTION", "the 384 x 128 projection (.npy)")).astype(np.float32)
    tokenizer = _tokenizer(folder)
    cls, sep, asks, tells = map(tokenizer.token_to_id, ("[CLS]", "[SEP]", "[unused0]", "[unused1]"))
    ids = [[cls, asks if queries else tells, *e.ids[1:]] for e in tokenizer.encode_batch_fast(texts)]
    ids = [[*i[:31], sep] if queries and len(i) > 32 else i for i in ids]
    dropped = [] if queries else [tokenizer.token_to_id(mark) for mark in string.punctuation]
    kept = [~np.isin(i, dropped) for i in ids]
    offsets = np.cumsum([0, *(mask.sum() for mask in kept)])
    out = np.empty((offsets[-1], projection.shape[1]), np.float16)
    for batch, states, _ in _hidden_states(_onnx_weights(folder / "model.onnx"), ids):
        for row, vectors in zip(batch, states.numpy(), strict=True):
            out[offsets[row] : offsets[row + 1]] = unit_rows(vectors[: len(ids[row])][kept[row]] @ projection)
    return out, offsets


def _tokenizer(folder: Path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    return tokenizer


def _onnx_weights(path: Path) -> dict:
    """Weights of a BERT exported with int8 matrices, dequantised, by their names before the export.

    Matrices of products lost theirs; the nodes that multiply by them still have the path of the module.
    """
    import onnx
    import torch

    graph = onnx.load(path).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def matrix(name: str) -> np.ndarray:
        codes, zero = (stored[name + part].astype(np.float32) for part in ("_quantized", "_zero_point"))
        return (codes - zero) * stored[name + "_scale"]

    weights = {name: values for name, values in stored.items() if name.endswith((".weight", ".bias"))}
    embeddings = [name.removesuffix("_quantized") for name in stored if name.startswith("embeddings.")]
    weights |= {name: matrix(name) for name in embeddings if name + "_quantized" in stored}
    for node in graph.node:
        if node.op_type == "MatMulInteger" and node.input[1] in stored:
            module = node.name.removesuffix("/MatMul_quant").strip("/").replace("/", ".")
            weights[module + ".weight"] = matrix(node.input[1].removesuffix("_quantized")).T
    return {name: torch.tensor(values) for name, values in weights.items()}


def _hidden_states(weights: dict, ids: list[list[int]]) -> Iterator[tuple]:
    """Batches of texts: their rows, last hidden states and mask.

    In bfloat16 (of mean pooled vectors cosine .999 to float32, several times faster with AMX).
    """
    import torch

    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    order = np.argsort([len(i) for i in ids], kind="stable")  # equal lengths together: little padding
    for batch in np.array_split(order, max(1, len(ids) // 256)):
        width = max(len(ids[i]) for i in batch)
        tokens = torch.tensor([ids[i] + [0] * (width - len(ids[i])) for i in batch])
        mask = tokens != 0
        yield batch, _bert(weights, tokens, mask), mask


def _bert(weights: dict, tokens, mask):
    """Last hidden states (batch, width, 384) float32 of a BERT with 12 heads."""
    import torch
    import torch.nn.functional as F

    def linear(x, name):
        return F.linear(x, weights[name + ".weight"].bfloat16(), weights[name + ".bias"].bfloat16())

    def norm(x, name):
        return F.layer_norm(
            x.float(), x.shape[-1:], weights[name + ".weight"], weights[name + ".bias"], 1e-12
        ).bfloat16()

    table = {kind: weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")}
    x = table["word"][tokens] + table["position"][: tokens.shape[1]] + table["token_type"][0]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(sum(name.endswith("query.weight") for name in weights)):
        at = f"encoder.layer.{layer}."
        heads = [linear(x, f"{at}attention.self.{part}").unflatten(-1, (12, -1)) for part in ("query", "key", "value")]
        q, k, v = (part.transpose(1, 2) for part in heads)
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :]).transpose(1, 2).flatten(2)
        x = norm(x + linear(context, at + "attention.output.dense"), at + "attention.output.LayerNorm")
        hidden = F.gelu(linear(x, at + "intermediate.dense"))
        x = norm(x + linear(hidden, at + "output.dense"), at + "output.LayerNorm")
    return x.to(torch.float32)


def unit_rows(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
