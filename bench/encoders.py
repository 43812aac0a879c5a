"""Encoders that make the texts of the real data sets vectors; their weights come from folders, never from a hub."""

from __future__ import annotations

import importlib.util
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
    """all-MiniLM-L6-v2, mean pooled, in bfloat16 (cosine .999 to float32, several times faster with AMX)."""
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    folder = source("MINILM", "a folder with all-MiniLM-L6-v2's model.safetensors and tokenizer.json")
    weights = {name.removeprefix("bert."): w for name, w in load_file(folder / "model.safetensors").items()}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    ids = [e.ids for e in tokenizer.encode_batch_fast(texts)]
    order = np.argsort([len(i) for i in ids], kind="stable")  # equal lengths together: little padding
    out = np.empty((len(texts), 384), np.float16)
    for batch in np.array_split(order, max(1, len(texts) // 256)):
        width = max(len(ids[i]) for i in batch)
        tokens = torch.tensor([ids[i] + [0] * (width - len(ids[i])) for i in batch])
        mask = tokens != 0
        states = _bert(weights, tokens, mask)
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        out[batch] = unit_rows(pooled.numpy())
    return out


def _bert(weights: dict, tokens, mask):
    """Last hidden states (batch, width, 384) float32 of a six-layer BERT with 12 heads."""
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
    for layer in range(6):
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
