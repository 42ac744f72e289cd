"""Attention sparsity and activation outliers of exported models, through transformers.

    python measure.py --model models/story models/story-differential --data DATA [--windows 32] [--out FILE]

Over windows of held-out fairy tales, in float32:

- sparsity: the share of attention weights whose magnitude is below 1e-3 of their row's largest, in
  rows of at least 64 keys. For differential attention a weight is that of the combined map,
  a1 - lambda a2; `maps` gives the same for its softmax maps one by one.
- outliers: the largest, the 10th and the 100th largest magnitude and the median, of attention logits
  (q k / sqrt(d), what causality hides left out) and of hidden states (after each block). The
  Differential Transformer paper (arXiv 2410.05258, section 3.7) compares these.
"""

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.sdpa_attention import repeat_kv

SPARSE_BELOW = 1e-3
SHORTEST_ROW = 64


class Largest:
    """The largest magnitudes of all that it is shown, and the median of a sample of it."""

    def __init__(self):
        self.top, self.sample = torch.zeros(0), []

    def see(self, x: Tensor) -> None:
        x = x.flatten().abs()
        self.top = torch.cat([self.top, x.topk(min(100, len(x))).values]).sort(descending=True).values[:100]
        self.sample.append(x[torch.randint(len(x), (1000,))])

    def result(self) -> dict[str, float]:
        values = {f"top_{n}": self.top[n - 1].item() for n in (1, 10, 100)}
        return {k: round(v, 3) for k, v in (values | {"median": torch.cat(self.sample).median().item()}).items()}


class Measurements:
    """Of one model."""

    def __init__(self):
        self.logits, self.hidden = Largest(), Largest()
        self.sparse = defaultdict(lambda: [0, 0])  # (kind, layer) -> [weights below the bound, weights]

    def see_weights(self, kind: str, layer: int, weights: Tensor) -> None:
        """weights [batch, heads, queries, keys] of whole windows."""
        keep = torch.ones(weights.shape[-2:]).tril().bool()
        keep[: SHORTEST_ROW - 1] = False
        size = weights.abs()
        below = (size < SPARSE_BELOW * size.amax(-1, keepdim=True)) & keep
        counts = self.sparse[kind, layer]
        counts[0] += below.sum().item()
        counts[1] += keep.sum().item() * weights.shape[0] * weights.shape[1]

    def see_attention(self, module: torch.nn.Module, logits: Tensor, weights: Tensor) -> None:
        self.logits.see(logits[logits > -math.inf])
        layer = module.layer_idx
        if not hasattr(module, "lambda_init"):
            self.see_weights("sparsity", layer, weights)
            return
        self.see_weights("maps", layer, weights)
        first, second = weights.chunk(2, dim=1)
        factor = (module.lambda_q1 @ module.lambda_k1).exp() - (module.lambda_q2 @ module.lambda_k2).exp()
        self.see_weights("sparsity", layer, first - (factor + module.lambda_init) * second)

    def result(self) -> dict:
        result = {"attention_logits": self.logits.result(), "hidden_states": self.hidden.result()}
        for kind in dict.fromkeys(kind for kind, _ in self.sparse):
            layers = [counts for (k, _), counts in sorted(self.sparse.items()) if k == kind]
            result[kind] = round(sum(c[0] for c in layers) / sum(c[1] for c in layers), 4)
            result[f"{kind}_by_layer"] = [round(a / b, 4) for a, b in layers]
        return result


measurements = Measurements()  # of the model that runs now: attention functions have no other way to tell


def measured_attention(module, query, key, value, attention_mask, scaling, **_) -> tuple[Tensor, None]:
    """Ordinary causal attention. query [batch, heads, tokens, d] -> [batch, tokens, heads, d]."""
    groups = module.num_key_value_groups
    logits = query @ repeat_kv(key, groups).mT * scaling
    hidden = torch.ones(logits.shape[-2:]).triu(1).bool()
    logits = logits.masked_fill(hidden, -math.inf)
    weights = logits.softmax(-1)
    # DiffLlama calls twice with the same queries and keys, for either half of the values.
    if getattr(module, "seen", None) is not query:
        module.seen = query
        measurements.see_attention(module, logits, weights)
    return (weights @ repeat_kv(value, groups)).transpose(1, 2).contiguous(), None


@torch.no_grad()
def measure(folder: Path, text: Path, windows: int) -> dict:
    global measurements
    measurements = Measurements()
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="measured").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    records = [r.strip() for r in text.read_text(encoding="utf-8").split(tokenizer.eos_token)]
    tokens = torch.tensor([i for r in records if r for i in tokenizer(r).input_ids])
    rows = tokens.unfold(0, model.config.max_position_embeddings, model.config.max_position_embeddings)[:windows]
    for row in rows:
        output = model(row[None], output_hidden_states=True, use_cache=False)
        for hidden in output.hidden_states[1:-1]:  # the last has gone through the final norm
            measurements.hidden.see(hidden)
    return {"tokens": rows.numel(), **measurements.result()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, required=True, help="where heldout_fairytaleqa_test.txt lies")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    AttentionInterface.register("measured", measured_attention)
    result = {}
    for folder in args.model:
        result[folder.name] = measure(folder, args.data / "heldout_fairytaleqa_test.txt", args.windows)
        print(folder.name, json.dumps(result[folder.name]), flush=True)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
