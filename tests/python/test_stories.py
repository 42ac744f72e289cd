"""stories260K generates, greedily, the same 200 tokens as a float64 forward pass in NumPy."""

import json
import subprocess

import gguf
import numpy as np
from llama_models import PARE, SHARED

MODEL = SHARED / "data" / "models" / "stories260K" / "stories260K.gguf"


class Float64Llama:
    """Llama as its paper and GGUF's conventions say (interleaved rope), one token at a time, everything in float64."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.w = {t.name: t.data.astype(np.float64) for t in reader.tensors}
        field = lambda key: reader.fields[f"llama.{key}"].contents()
        self.layers, self.heads = field("block_count"), field("attention.head_count")
        self.kv_heads, self.epsilon = field("attention.head_count_kv"), field("attention.layer_norm_rms_epsilon")
        hidden = field("embedding_length")
        self.head = hidden // self.heads
        self.frequencies = 10000.0 ** (-np.arange(0, self.head, 2) / self.head)
        self.keys = [[] for _ in range(self.layers)]
        self.values = [[] for _ in range(self.layers)]

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean() + self.epsilon) * self.w[name + ".weight"]

    def rope(self, x, position):
        x = x.reshape(-1, self.head // 2, 2)
        angle = position * self.frequencies
        cos, sin = np.cos(angle), np.sin(angle)
        return np.stack([x[..., 0] * cos - x[..., 1] * sin, x[..., 0] * sin + x[..., 1] * cos], -1).reshape(-1, self.head)

    def step(self, token, position):
        x = self.w["token_embd.weight"][token]
        for i in range(self.layers):
            w = lambda name: self.w[f"blk.{i}.{name}.weight"]
            h = self.norm(x, f"blk.{i}.attn_norm")
            q = self.rope(w("attn_q") @ h, position)
            self.keys[i].append(self.rope(w("attn_k") @ h, position))
            self.values[i].append((w("attn_v") @ h).reshape(-1, self.head))
            keys, values = np.array(self.keys[i]), np.array(self.values[i])
            mixed = []
            for head in range(self.heads):
                group = head // (self.heads // self.kv_heads)
                scores = keys[:, group] @ q[head] / np.sqrt(self.head)
                weights = np.exp(scores - scores.max())
                mixed.append(weights / weights.sum() @ values[:, group])
            x = x + w("attn_output") @ np.concatenate(mixed)
            h = self.norm(x, f"blk.{i}.ffn_norm")
            gate = w("ffn_gate") @ h
            x = x + w("ffn_down") @ (gate / (1 + np.exp(-gate)) * (w("ffn_up") @ h))
        return self.w.get("output.weight", self.w["token_embd.weight"]) @ self.norm(x, "output_norm")


def test_two_hundred_greedy_tokens():
    model = Float64Llama(MODEL)
    token, expected = 1, []
    for position in range(200):
        token = int(np.argmax(model.step(token, position)))
        expected.append(token)
    done = subprocess.run([PARE, "run", MODEL, "-n", "200", "--greedy", "--ignore-eos", "--kv", "f32", "--json"],
                          capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["tokens"] == expected
    assert result["text"].lstrip().startswith("Once upon a time, there was a little girl named Lily.")
