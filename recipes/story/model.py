"""A Llama with tied embeddings, written for training. Tensor names are those of transformers.

Two seams for variants of the model: `LINEAR` (how a weight and its input enter a product) and
`ATTENTION` (how queries, keys and values become an output), each a table from a kind to a class.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Config:
    vocab_size: int = 8192
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 32
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    linear: str = "dense"
    attention: str = "softmax"


class Linear(nn.Module):
    """y = x W^T, no bias. W is [n_out, n_in], float32; the product runs in the type of x."""

    def __init__(self, n_in: int, n_out: int, std: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        nn.init.normal_(self.weight, std=std)

    @staticmethod
    def used_input(x: Tensor) -> Tensor:
        return x

    def used_weight(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype)


LINEAR = {"dense": Linear}


def project(x: Tensor, *linears: Linear) -> tuple[Tensor, ...]:
    """Several projections of one input as one product: x [..., n_in] -> ([..., n_out], ...)."""
    x = linears[0].used_input(x)
    weights = [linear.used_weight(x.dtype) for linear in linears]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    return F.linear(x, weight).split([w.shape[0] for w in weights], dim=-1)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * self.weight).to(x.dtype)


def rope_table(config: Config) -> tuple[Tensor, Tensor]:
    """cos and sin, [positions, head_dim / 2] float32."""
    frequency = config.rope_theta ** (-torch.arange(0, config.head_dim, 2).double() / config.head_dim)
    angle = torch.outer(torch.arange(config.max_position_embeddings).double(), frequency)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates (x[i], x[i + head_dim/2]) pairs. x [batch, tokens, heads, head_dim]."""
    a, b = x.float().chunk(2, dim=-1)
    cos, sin = cos[: x.shape[1], None], sin[: x.shape[1], None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


class Attention(nn.Module):
    """Causal softmax attention with fewer KV heads than query heads."""

    def __init__(self, config: Config, std: float, out_std: float):
        super().__init__()
        linear = LINEAR[config.linear]
        self.head_dim = config.head_dim
        q_size = config.num_attention_heads * config.head_dim
        kv_size = config.num_key_value_heads * config.head_dim
        self.q_proj = linear(config.hidden_size, q_size, std)
        self.k_proj = linear(config.hidden_size, kv_size, std)
        self.v_proj = linear(config.hidden_size, kv_size, std)
        self.o_proj = linear(q_size, config.hidden_size, out_std)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (
            y.unflatten(-1, (-1, self.head_dim))  # [batch, tokens, heads, head_dim]
            for y in project(x, self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True
        )
        return project(y.transpose(1, 2).flatten(2), self.o_proj)[0]


ATTENTION = {"softmax": Attention}


class MLP(nn.Module):
    def __init__(self, config: Config, std: float, out_std: float):
        super().__init__()
        linear = LINEAR[config.linear]
        self.gate_proj = linear(config.hidden_size, config.intermediate_size, std)
        self.up_proj = linear(config.hidden_size, config.intermediate_size, std)
        self.down_proj = linear(config.intermediate_size, config.hidden_size, out_std)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = project(x, self.gate_proj, self.up_proj)
        return project(F.silu(gate) * up, self.down_proj)[0]


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        # Each block adds two outputs to the residual stream: scaled so that the sum of all stays
        # of the size of one.
        std = 0.5 / math.sqrt(config.hidden_size)
        out_std = std / math.sqrt(2 * config.num_hidden_layers)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = ATTENTION[config.attention](config, std, out_std)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config, std, out_std)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        cos, sin = rope_table(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def hidden(self, tokens: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """tokens [batch, tokens] -> the last block's output, [batch, tokens, hidden_size]."""
        x = self.embed_tokens(tokens).to(dtype)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return x

    def losses(self, x: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy in nats, [batch * tokens], 0 where the target is -100."""
        logits = F.linear(self.norm(x), self.embed_tokens.weight.to(x.dtype))
        return F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="none"
        )
