"""A Llama with tied embeddings, written for training. Tensor names are those of transformers.

Two seams for variants of the model: `LINEAR` (how a weight and its input enter a product) and
`ATTENTION` (how queries, keys and values become an output), each a table from a kind to a class.
`MODELS` names the combinations that transformers knows.
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
    hidden_act: str = "silu"
    sub_norms: bool = False  # BitNet's norms in front of o_proj and down_proj


# What differs from a Llama, by the model_type of transformers.
MODELS = {
    "llama": {},
    "bitnet": {"linear": "ternary", "hidden_act": "relu2", "sub_norms": True},
    "diffllama": {"attention": "differential"},
}
ACTIVATIONS = {"silu": F.silu, "relu2": lambda x: F.relu(x).square()}


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


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight as (codes in {-1, 0, 1}, scale): about codes * scale. The scale is mean|weight|,
    at least 1e-5 (BitNet b1.58, arXiv 2402.17764, equations 1 to 3). float32."""
    scale = weight.abs().mean().clamp(min=1e-5)
    return (weight / scale).round().clamp(-1, 1), scale


def eight_bits(x: Tensor) -> Tensor:
    """Each row of x [..., n] rounded to 127 steps of its largest magnitude (at least 1e-5), float32."""
    y = x.float()
    scale = 127 / y.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return (y * scale).round().clamp(-128, 127) / scale


class TernaryLinear(Linear):
    """BitNet b1.58: the product of a ternary weight and 8-bit rows. Both are rounded anew in each
    pass; gradients go straight through the rounding, to the float32 weight and the float input.

    The sums that let gradients pass are float32: in bfloat16 they would not come out ternary."""

    @staticmethod
    def used_input(x: Tensor) -> Tensor:
        y = x.float()
        return (y + (eight_bits(y) - y).detach()).to(x.dtype)

    def used_weight(self, dtype: torch.dtype) -> Tensor:
        codes, scale = ternary(self.weight)
        return (self.weight + (codes * scale - self.weight).detach()).to(dtype)


LINEAR = {"dense": Linear, "ternary": TernaryLinear}


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

    def __init__(self, config: Config, layer: int, std: float, out_std: float):
        super().__init__()
        linear = LINEAR[config.linear]
        self.head_dim = config.head_dim
        q_size = config.num_attention_heads * config.head_dim
        kv_size = config.num_key_value_heads * config.head_dim
        self.q_proj = linear(config.hidden_size, q_size, std)
        self.k_proj = linear(config.hidden_size, kv_size, std)
        self.v_proj = linear(config.hidden_size, kv_size, std)
        self.o_proj = linear(q_size, config.hidden_size, out_std)
        self.attn_sub_norm = RMSNorm(q_size, config.rms_norm_eps) if config.sub_norms else nn.Identity()

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [batch, heads, tokens, head_dim], k and v of fewer heads -> the same shape as q."""
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (
            y.unflatten(-1, (-1, self.head_dim))  # [batch, tokens, heads, head_dim]
            for y in project(x, self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = self.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return project(self.attn_sub_norm(y.transpose(1, 2).flatten(2)), self.o_proj)[0]


def attend_twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention whose values are twice as wide as the keys, as two calls over the halves of v.

    q [batch, heads, tokens, d], k [batch, kv_heads, tokens, d], v [batch, kv_heads, tokens, 2 d]
    -> [batch, heads, tokens, 2 d].
    """
    halves = (F.scaled_dot_product_attention(q, k, x, is_causal=True, enable_gqa=True) for x in v.chunk(2, dim=-1))
    return torch.cat(list(halves), dim=-1)


def attend_wide(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same in one call, by kernels that take values wider than the keys."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def attend_padded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same in one call of any kernel: zeros make queries and keys as wide as the values."""
    d = q.shape[-1]
    q, k = F.pad(q, (0, d)), F.pad(k, (0, d))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True, scale=d**-0.5)


# Which is fastest depends on the GPU and on PyTorch's kernels: train.py measures.
WIDE_VALUES = {"twice": attend_twice, "wide": attend_wide, "padded": attend_padded}


class DifferentialAttention(Attention):
    """Differential attention (arXiv 2410.05258) in the form of transformers' DiffLlama: query head h
    pairs with h + heads / 2; lambda is one number a layer; the norm of each pair has no weight.

    Values of KV heads i and i + kv_heads / 2 are joined into one of twice the width, which both
    maps of a pair read, so the sizes of all projections are those of softmax attention.
    """

    form = "twice"  # of WIDE_VALUES

    def __init__(self, config: Config, layer: int, std: float, out_std: float):
        super().__init__(config, layer, std, out_std)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            setattr(self, name, nn.Parameter(torch.empty(config.head_dim).normal_(std=0.1)))
        # A tensor, not a number: numbers that differ would have each layer compiled anew.
        start = torch.tensor(0.8 - 0.6 * math.exp(-0.3 * layer))
        self.register_buffer("lambda_init", start, persistent=False)
        self.eps = config.rms_norm_eps

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        wide = torch.cat(v.chunk(2, dim=1), dim=-1).repeat(1, 2, 1, 1)  # [batch, kv_heads, tokens, 2 d]
        first, second = WIDE_VALUES[self.form](q, k, wide).float().chunk(2, dim=1)
        factor = (self.lambda_q1 * self.lambda_k1).sum().exp() - (self.lambda_q2 * self.lambda_k2).sum().exp()
        y = first - (factor + self.lambda_init) * second  # [batch, heads / 2, tokens, 2 d]
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps) * (1 - self.lambda_init)
        return y.to(q.dtype)


ATTENTION = {"softmax": Attention, "differential": DifferentialAttention}


class MLP(nn.Module):
    def __init__(self, config: Config, std: float, out_std: float):
        super().__init__()
        linear = LINEAR[config.linear]
        self.gate_proj = linear(config.hidden_size, config.intermediate_size, std)
        self.up_proj = linear(config.hidden_size, config.intermediate_size, std)
        self.down_proj = linear(config.intermediate_size, config.hidden_size, out_std)
        self.activation = ACTIVATIONS[config.hidden_act]
        norm = config.sub_norms
        self.ffn_sub_norm = RMSNorm(config.intermediate_size, config.rms_norm_eps) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        gate, up = project(x, self.gate_proj, self.up_proj)
        return project(self.ffn_sub_norm(self.activation(gate) * up), self.down_proj)[0]


class Block(nn.Module):
    def __init__(self, config: Config, layer: int):
        super().__init__()
        # Each block adds two outputs to the residual stream: scaled so that the sum of all stays
        # of the size of one.
        std = 0.5 / math.sqrt(config.hidden_size)
        out_std = std / math.sqrt(2 * config.num_hidden_layers)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = ATTENTION[config.attention](config, layer, std, out_std)
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
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
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

    def logits(self, x: Tensor) -> Tensor:
        """The last block's output -> [batch, tokens, vocab_size]."""
        return F.linear(self.norm(x), self.embed_tokens.weight.to(x.dtype))

    def losses(self, x: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy in nats, [batch * tokens], 0 where the target is -100."""
        return F.cross_entropy(
            self.logits(x).flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="none"
        )
