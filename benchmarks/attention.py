"""Transformers as other libraries write them, small enough for a CPU."""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import torchvision
from fewbits.data.load import home


def vit(width: int = 96, layers: int = 6, patch: int = 4, heads: int = 4, classes: int = 10) -> nn.Module:
    """timm's vision transformer for images of 32 by 32 pixels, untrained."""
    torchvision()
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=32, patch_size=patch, embed_dim=width, depth=layers, num_heads=heads, num_classes=classes
    )


class Reviews(nn.Module):
    """transformers' BERT, the mean of its tokens (without padding), and a linear head."""

    def __init__(self, body: Any, classes: int = 2) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(body.config.hidden_size, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask[..., None].to(states.dtype)
        return self.head((states * weight).sum(1) / weight.sum(1))


def minilm() -> nn.Module:
    """all-MiniLM-L6-v2 with its published weights and a new head; see ``benchmarks.texts`` for the folder."""
    torchvision()
    from transformers import BertModel

    body = BertModel.from_pretrained(home() / "minilm", add_pooling_layer=False, attn_implementation="eager")
    torch.manual_seed(0)
    return Reviews(body)


class Bytes(nn.Module):
    """transformers' Llama over bytes; gives logits alone."""

    def __init__(self, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=256, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=length,
            use_cache=False, tie_word_embeddings=False,
        )  # fmt: skip
        self.body = LlamaForCausalLM(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.body(input_ids=input_ids).logits


def llama(width: int = 128, layers: int = 4, heads: int = 4, length: int = 128) -> nn.Module:
    """A tiny Llama-like language model, untrained."""
    torchvision()
    return Bytes(width, layers, heads, length)
