"""Layers of the trunk: rotary attention, SwiGLU and gated residuals, pre-norm.

B rows, T events, D width. Attention is plain SDPA, causal, over right-padded rows.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

# cuDNN's attention makes a plan for every new shape, a tenth of a second each, and batches of
# histories hardly ever have one shape twice. Other kernels of a GPU need none.
torch.backends.cuda.enable_cudnn_sdp(False)
_MASK_PIECE, _MASK_SEED = 4_000_000, 4_711  # values of the largest mask that is taken from the pool


def rotary(length: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines of rotary position embedding."""
    half = width // 2
    rates = 10_000.0 ** (-torch.arange(half, device=device) / half)
    angles = torch.arange(length, device=device)[:, None] * rates[None, :]
    return angles.cos(), angles.sin()


class _Rotate(torch.autograd.Function):
    """Rotation in four passes and no copies; its gradient is the rotation back."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(cosines, sines)
        return _rotated(x, cosines, sines, 1.0)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        cosines, sines = ctx.saved_tensors
        return _rotated(grad, cosines, sines, -1.0), None, None


def _rotated(
    x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, sign: float
) -> torch.Tensor:
    left, right = x.chunk(2, dim=-1)
    made = torch.empty_like(x, memory_format=torch.contiguous_format)
    first, second = made.chunk(2, dim=-1)
    torch.mul(left, cosines, out=first)
    first.addcmul_(right, sines, value=-sign)
    torch.mul(right, cosines, out=second)
    second.addcmul_(left, sines, value=sign)
    return made


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs of the last dimension by position."""
    if torch.compiler.is_compiling():  # which makes one pass of it by itself
        left, right = x.chunk(2, dim=-1)
        return torch.cat([left * cosines - right * sines, left * sines + right * cosines], dim=-1)
    return _Rotate.apply(x, cosines, sines)  # type: ignore[return-value]


class Dropout(nn.Module):
    """Dropout whose masks are pieces of one long random mask, from a random place on.

    Making random numbers costs a CPU a tenth of a training step, as one thread makes them all. Which
    places are left out at one step is as random as ever; only far steps share pieces. On
    other devices this is torch's own dropout.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self._masks: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return *x* with a share of its values left out, in training."""
        if not self.training or self.rate <= 0.0:
            return x
        size = x.numel()
        if x.device.type != "cpu" or size > _MASK_PIECE or self.rate >= 1.0:
            return functional.dropout(x, self.rate)
        if self._masks is None or self._masks.dtype != x.dtype:
            # Of a generator of its own, so that a resumed training has the same masks.
            chosen = torch.Generator().manual_seed(_MASK_SEED)
            kept = torch.empty(2 * _MASK_PIECE, dtype=x.dtype)
            kept.bernoulli_(1.0 - self.rate, generator=chosen)
            self._masks = kept.div_(1.0 - self.rate)
        at = int(torch.randint(2 * _MASK_PIECE - size + 1, ()))
        return x * self._masks[at : at + size].view(x.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_masks": None}


class Block(nn.Module):
    """One pre-norm transformer layer with gated residuals."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.hidden = 8 * width // 3 // 8 * 8
        self.norm_attention = nn.LayerNorm(width)
        self.norm_feed = nn.LayerNorm(width)
        self.qkv_gate = nn.Linear(width, 4 * width)
        self.out = nn.Linear(width, width, bias=False)
        self.feed_in = nn.Linear(width, 2 * self.hidden + width)
        self.feed_out = nn.Linear(self.hidden, width, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for (B, T, D)."""
        rows, length, width = x.shape
        mixed = self.qkv_gate(self.norm_attention(x))
        qkv, gate = mixed[..., : 3 * width], mixed[..., 3 * width :]
        qkv = qkv.view(rows, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k = rotate(qkv[:2], cosines, sines)
        attended = functional.scaled_dot_product_attention(q, k, qkv[2], is_causal=True)
        attended = self.out(attended.transpose(1, 2).reshape(rows, length, width))
        return self._fed(x + torch.sigmoid(gate) * self.dropout(attended))

    def last(
        self, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, at: torch.Tensor
    ) -> torch.Tensor:
        """Return what `forward` gives at one position per row (B, D), without the others."""
        rows, length, width = x.shape
        normed = self.norm_attention(x)
        kv_weight = self.qkv_gate.weight[width : 3 * width]
        kv = functional.linear(normed, kv_weight, self.qkv_gate.bias[width : 3 * width])
        kv = kv.view(rows, length, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        row = torch.arange(rows, device=x.device)
        mixed = self.qkv_gate(normed[row, at])
        q, gate = mixed[:, :width].view(rows, self.heads, 1, -1), mixed[:, 3 * width :]
        q = rotate(q, cosines[at][:, None, None], sines[at][:, None, None])
        seen = torch.arange(length, device=x.device)[None, :] <= at[:, None]
        k = rotate(kv[0], cosines, sines)
        attended = functional.scaled_dot_product_attention(
            q, k, kv[1], attn_mask=seen[:, None, None]
        )
        attended = self.out(attended.reshape(rows, width))
        y = x[row, at] + torch.sigmoid(gate) * self.dropout(attended)
        return self._fed(y)

    def _fed(self, x: torch.Tensor) -> torch.Tensor:
        width = x.shape[-1]
        value, switch, gate = self.feed_in(self.norm_feed(x)).split(
            [self.hidden, self.hidden, width], dim=-1
        )
        fed = self.feed_out(value * functional.silu(switch))
        return x + torch.sigmoid(gate) * self.dropout(fed)


class PiecewiseLinear(nn.Module):
    """Encode numbers by their place between quantile edges, with bits for zero and missing."""

    low: torch.Tensor
    scale: torch.Tensor

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


def last_linear(layers: nn.Sequential) -> nn.Linear:
    """Return the last layer of a perceptron."""
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    return last


def mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """Return a small two-layer perceptron."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)
    )
