"""``fewbits explain`` on a text network of one's own, with a vocabulary."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from test_cli import fewbits

MINE = """\
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(12, 8), nn.Linear(8, 2)

    def forward(self, tokens):
        return self.head(self.table(tokens).mean(1))


def trained():
    torch.manual_seed(0)
    return Text()


def loaders():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(12, (96, 6), generator=generator)
    data = TensorDataset(tokens, (tokens[:, 0] > 5).long())
    return DataLoader(data, 32), DataLoader(data, 32)
"""
RECIPE = """\
schema: 2
network: {name: "mine.py:trained"}
data: {name: "mine.py:loaders"}
assign: {method: ecq}
train: null
"""


def test_a_text_is_shown_token_by_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("mine.py").write_text(MINE)
    Path("recipe.yaml").write_text(RECIPE)
    Path("vocab.json").write_text(json.dumps({f"word {n}": n for n in range(11)}))
    ran = fewbits("compress", "recipe.yaml")
    assert ran.code == 0, ran.err
    ran = fewbits("explain", "recipe.yaml", "--vocabulary", "vocab.json", "--json", "e.json")
    assert ran.code == 0, ran.err
    assert "tokens.png" in ran.out
    assert Path("out/tokens.png").read_bytes().startswith(b"\x89PNG")
    assert "Which tokens matter" in Path("out/report.html").read_text()
    shown = json.loads(Path("e.json").read_text())["tokens"]
    assert [heat["target"] for heat in shown] == ["0", "1"]
    words = {word for heat in shown for word in heat["tokens"]}
    assert words <= {f"word {n}" for n in range(11)} | {"11"}
    assert len(words) > 4
