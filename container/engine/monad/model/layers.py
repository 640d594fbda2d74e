"""Layers of the trunk: rotary attention, SwiGLU and gated residuals, pre-norm.

B rows, T events, D width. Attention is plain SDPA, causal, over right-padded rows.
"""

import torch
from torch import nn
from torch.nn import functional


def rotary(length: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines of rotary position embedding."""
    half = width // 2
    rates = 10_000.0 ** (-torch.arange(half, device=device) / half)
    angles = torch.arange(length, device=device)[:, None] * rates[None, :]
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs of the last dimension by position."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cosines - right * sines, left * sines + right * cosines], dim=-1)


class Block(nn.Module):
    """One pre-norm transformer layer with gated residuals."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        hidden = 8 * width // 3 // 8 * 8
        self.norm_attention = nn.RMSNorm(width)
        self.norm_feed = nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feed_in = nn.Linear(width, 2 * hidden, bias=False)
        self.feed_out = nn.Linear(hidden, width, bias=False)
        self.gate_attention = nn.Linear(width, width)
        self.gate_feed = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for (B, T, D)."""
        rows, length, width = x.shape
        h = self.norm_attention(x)
        qkv = self.qkv(h).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        x = x + torch.sigmoid(self.gate_attention(h)) * self.dropout(mixed)
        h = self.norm_feed(x)
        value, gate = self.feed_in(h).chunk(2, dim=-1)
        fed = self.feed_out(value * functional.silu(gate))
        return x + torch.sigmoid(self.gate_feed(h)) * self.dropout(fed)


class PiecewiseLinear(nn.Module):
    """Encode numbers by their place between quantile edges, with bits for zero and missing."""

    def __init__(self, edges: torch.Tensor) -> None:
        super().__init__()
        low, high = edges[..., :-1], edges[..., 1:]
        self.register_buffer("low", low)
        self.register_buffer("scale", torch.where(high > low, 1.0 / (high - low + 1e-6), 0.0))
        self.width = low.shape[-1] + 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., F, width) for (..., F) numbers."""
        missing = torch.isnan(x)
        clean = torch.nan_to_num(x)
        inside = (clean[..., None] - self.low) * self.scale
        bits = torch.stack([(clean == 0) & ~missing, missing], dim=-1).to(inside.dtype)
        return torch.cat([inside.clamp(0, 1) * ~missing[..., None], bits], dim=-1)


def mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """Return a small two-layer perceptron."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)
    )
