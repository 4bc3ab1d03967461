"""Vision transformers (Dosovitskiy et al., 2010.11929) of the size of DeiT-Tiny (Touvron et al., 2012.12877)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention of `heads` heads; (batch, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The tokens after attending to each other."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        y = F.scaled_dot_product_attention(q, k, v)
        mixed: torch.Tensor = self.out(y.transpose(1, 2).reshape(batch, tokens, width))
        return mixed


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width, 1e-6), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, 1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        attended: torch.Tensor = x + self.attention(self.norm1(x))
        y: torch.Tensor = attended + self.mlp(self.norm2(attended))
        return y


class VisionTransformer(nn.Module):
    """Patches as tokens, a class token, learned positions, an encoder, and a dense layer on the class token."""

    def __init__(
        self, image: int, patch: int, width: int, depth: int, heads: int, classes: int, ratio: int = 4
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (image // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads, ratio) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The scores of the classes."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.positions
        scores: torch.Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return scores


def vit_tiny(classes: int = 1000, *, image: int = 224, depth: int = 12) -> VisionTransformer:
    """ViT-Tiny/16; input (batch, 3, image, image), 224 x 224 and 12 blocks in the paper."""
    return VisionTransformer(image, 16, 192, depth, 3, classes)
