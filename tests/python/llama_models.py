"""Random Llama models in which nothing can hide: gains and biases random, weights of standard deviation 1/sqrt(fan-in)."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import torch
from transformers import DiffLlamaConfig, DiffLlamaForCausalLM, LlamaConfig, LlamaForCausalLM

TOOLS = Path(os.environ["PARE_TOOLS"])
PARE = os.environ["PARE"]
SHARED = Path(os.environ["PARE_SHARED"])

BASE = dict(
    vocab_size=331,
    hidden_size=96,
    intermediate_size=176,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=64,
    rms_norm_eps=1e-3,
    rope_theta=5000.0,
    tie_word_embeddings=False,
)


LLAMA = (LlamaConfig, LlamaForCausalLM)
DIFF_LLAMA = (DiffLlamaConfig, DiffLlamaForCausalLM)


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.4 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.3 * noise)
            elif "embed" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
    return model


def make(folder, seed=0, dtype=torch.float32, drop_attention=(), drop_mlp=(), family=LLAMA, **changes):
    """A saved random model; returns the transformers model, with the named parts removed."""
    settings = {**BASE, **changes}
    rope = settings.pop("rope_scaling", None)
    theta = settings.pop("rope_theta")
    settings["rope_parameters"] = {"rope_theta": theta, **(rope or {"rope_type": "default"})}
    torch.manual_seed(seed)
    model = randomize(family[1](family[0](**settings, attn_implementation="eager")).eval(), seed).to(dtype)
    model.save_pretrained(folder)
    if drop_attention or drop_mlp:
        edit_config(folder, drop_attn_list=list(drop_attention), drop_mlp_list=list(drop_mlp))
        remove_parts(model, drop_attention, drop_mlp)
    return model


def remove_parts(model, attention=(), mlp=()):
    """A part that adds nothing to the residual stream is a part that is not there."""
    for layer in attention:
        module = model.model.layers[layer].self_attn
        module.forward = lambda hidden_states, **_: (torch.zeros_like(hidden_states), None)
    for layer in mlp:
        module = model.model.layers[layer].mlp
        module.forward = lambda x: torch.zeros_like(x)


def edit_config(folder, **changes):
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
    path.write_text(json.dumps(config))


def reference(model, sequences):
    """Logits [tokens, vocabulary] of each sequence, run alone, in float32.

    Each gets a fresh rotary embedding: transformers' dynamic scaling remembers longer calls, and a model that was once in
    bfloat16 keeps frequencies rounded to it.
    """
    logits = []
    with torch.no_grad():
        for ids in sequences:
            model.float().model.rotary_emb.__init__(model.config)
            logits.append(model(torch.tensor([ids])).logits[0].numpy())
    return logits


def pare_logits(folder, sequences, tmp, *arguments, kv="f32", environment=None):
    out = Path(tmp) / "logits.bin"
    command = [TOOLS / "tool_logits", str(folder), "--tokens", "-", "--out", str(out), "--kv", kv, *arguments]
    done = subprocess.run(
        command,
        input=json.dumps(sequences),
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    values = np.fromfile(out, np.float32)
    width = values.size // sum(map(len, sequences))
    rows = values.reshape(-1, width)
    ends = np.cumsum([len(ids) for ids in sequences])
    return np.split(rows, ends[:-1])


def difference(ours, theirs):
    """max|a-b| / max|b| over all sequences."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


def tokens(count, seed=0, vocabulary=331):
    return np.random.default_rng(seed).integers(0, vocabulary, count).tolist()
