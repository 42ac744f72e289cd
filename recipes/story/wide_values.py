"""Which form of attention with wide values is fastest on this GPU (model.py, WIDE_VALUES)."""

import statistics
import time

import torch
from torch import Tensor

from model import WIDE_VALUES, Config

# bfloat16 results of two correct kernels differ by less than this share of the largest.
TOLERANCE = 0.02


def fastest_form(config: Config, rows: int, context: int, device: str, compiled: bool) -> str:
    """A name of WIDE_VALUES. Forms that no kernel serves, or that come out wrong, are left out."""
    d, kv_heads = config.head_dim, config.num_key_value_heads
    torch.manual_seed(1)
    inputs = [
        torch.randn(rows, context, heads, width, device=device, dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        for heads, width in ((config.num_attention_heads, d), (kv_heads, d), (kv_heads, 2 * d))
    ]

    def run(attend) -> list[Tensor]:
        """The output and the three gradients, for the derivative of a sum of squares."""
        y = attend(*inputs)
        return [y.detach(), *torch.autograd.grad(y.float().square().sum(), inputs)]

    seconds, expected = {}, None
    for name, form in WIDE_VALUES.items():
        try:
            attend = torch.compile(form, dynamic=False) if compiled else form
            results = run(attend)
            expected = expected or results
            for a, b in zip(results, expected, strict=True):
                if not (a - b).abs().max() <= TOLERANCE * b.abs().max():
                    raise RuntimeError("wrong result")
            times = []
            for _ in range(7):
                torch.cuda.synchronize()
                began = time.monotonic()
                run(attend)
                torch.cuda.synchronize()
                times.append(time.monotonic() - began)
            seconds[name] = statistics.median(times)
        except Exception as error:  # a kernel that is missing, memory that is short, a compiler's fault
            print(f"attention form {name}: left out: {str(error).splitlines()[0]}", flush=True)
    print("attention forms, ms:", {name: round(1e3 * s, 2) for name, s in seconds.items()}, flush=True)
    return min(seconds, key=seconds.get) if seconds else "twice"
