"""Logits against transformers, both in float32 on the same stored weights."""

import json
import subprocess

import numpy as np
import pytest
import torch
from llama_models import PARE, difference, edit_config, make, pare_logits, reference, tokens

LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
LONGROPE = dict(rope_type="longrope", factor=2.0, original_max_position_embeddings=32,
                short_factor=[1 + 0.1 * i for i in range(8)], long_factor=[1 + 0.7 * i for i in range(8)])

SHAPES = {
    "grouped heads": {},
    "every head its own": dict(num_key_value_heads=6),
    "one KV head": dict(num_key_value_heads=1),
    "tied": dict(tie_word_embeddings=True),
    "biases": dict(attention_bias=True, mlp_bias=True),
    "head of 20": dict(head_dim=20, hidden_size=100, num_attention_heads=5, num_key_value_heads=5),
    "head wider than hidden / heads": dict(head_dim=40),
    "odd sizes": dict(vocab_size=97, hidden_size=70, intermediate_size=61, head_dim=14, num_attention_heads=5,
                      num_key_value_heads=1),
    "linear": dict(rope_scaling=dict(rope_type="linear", factor=3.0)),
    "dynamic": dict(rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "yarn": dict(rope_scaling=YARN),
    "yarn, all keys": dict(rope_scaling={**YARN, "beta_fast": 16.0, "beta_slow": 2.0, "mscale": 0.8,
                                         "mscale_all_dim": 0.4, "truncate": False}),
    "yarn, own factor": dict(rope_scaling={**YARN, "attention_factor": 1.3}),
    "longrope": dict(rope_scaling=LONGROPE),
    "llama3": dict(rope_scaling=LLAMA3),
    "drop attention": dict(drop_attention=[1]),
    "drop MLP": dict(drop_mlp=[0]),
    "drop both": dict(drop_attention=[0, 2], drop_mlp=[1, 2]),
    "drop everything": dict(drop_attention=[0, 1, 2], drop_mlp=[0, 1, 2]),
}


@pytest.mark.reference
@pytest.mark.parametrize("name", SHAPES)
def test_logits(name, tmp_path):
    model = make(tmp_path / "m", seed=len(name), **SHAPES[name])
    vocabulary = model.config.vocab_size
    # Shorter than a page, across pages, and past the original and the configured context.
    sequences = [tokens(n, seed=n, vocabulary=vocabulary) for n in (1, 17, 65, 150)]
    theirs = reference(model, sequences)
    ours = pare_logits(tmp_path / "m", sequences, tmp_path)
    assert difference(ours, theirs) <= 1e-5
    # Fed in pieces or together, the numbers are the same bits, unless the scaling depends on the length of a call.
    if name not in ("dynamic", "longrope"):
        pieces = pare_logits(tmp_path / "m", sequences, tmp_path, "--chunk", "7", "--batch", "--threads", "2")
        for a, b in zip(ours, pieces, strict=True):
            np.testing.assert_array_equal(a, b)


CHANGES = {
    "rms_norm_eps": (3e-3, {}),
    "rope_theta": (5500.0, {}),
    "head_dim": (8, {}),
    "num_attention_heads": (3, {}),
    "num_key_value_heads": (3, {}),
    "num_hidden_layers": (2, {}),
    "hidden_size": (48, {}),
    "intermediate_size": (175, {}),
    "vocab_size": (330, {}),
    "tie_word_embeddings": (True, {}),
    "attention_bias": (True, {}),
    "mlp_bias": (True, {}),
    "hidden_act": ("gelu", {}),
    "drop_attn_list": ([1], {}),
    "drop_mlp_list": ([1], {}),
    "max_position_embeddings": (100, dict(rope_scaling=dict(rope_type="dynamic", factor=2.0))),
    "rope_type": ("linear", dict(rope_scaling=dict(rope_type="dynamic", factor=2.0))),
    "factor": (2.1, dict(rope_scaling=LLAMA3)),
    "low_freq_factor": (1.2, dict(rope_scaling=LLAMA3)),
    "high_freq_factor": (5.0, dict(rope_scaling=LLAMA3)),
    "original_max_position_embeddings": (40, dict(rope_scaling=LLAMA3)),
    "beta_fast": (8.0, dict(rope_scaling={**YARN, "truncate": False, "beta_fast": 4.0})),
    "beta_slow": (0.5, dict(rope_scaling={**YARN, "truncate": False})),
    "attention_factor": (1.1, dict(rope_scaling=YARN)),
    "mscale": (0.5, dict(rope_scaling={**YARN, "mscale": 0.8, "mscale_all_dim": 0.4})),
    "mscale_all_dim": (0.5, dict(rope_scaling={**YARN, "mscale": 0.8, "mscale_all_dim": 0.4})),
    "truncate": (False, dict(rope_scaling=YARN)),
    "short_factor": ([1.5] * 8, dict(rope_scaling=LONGROPE)),
    "long_factor": ([1.5] * 8, dict(rope_scaling=LONGROPE)),
}


@pytest.mark.reference
@pytest.mark.parametrize("key", CHANGES)
def test_every_key_matters(key, tmp_path):
    value, settings = CHANGES[key]
    model = make(tmp_path / "m", seed=3, **settings)
    sequences = [tokens(20, seed=1), tokens(150, seed=2)]
    theirs = reference(model, sequences)
    assert difference(pare_logits(tmp_path / "m", sequences, tmp_path), theirs) <= 1e-5
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    rope = config["rope_parameters"]
    if key in rope or key not in config and key not in ("drop_attn_list", "drop_mlp_list"):
        rope[key] = value
        edit_config(tmp_path / "m", rope_parameters=rope)
    else:
        edit_config(tmp_path / "m", **{key: value})
    try:
        changed = pare_logits(tmp_path / "m", sequences, tmp_path)
    except RuntimeError as error:
        assert str(error).count("\n") == 0 and "m" in str(error)
        return
    assert changed[0].shape != theirs[0].shape or difference(changed, theirs) > 1e-5


@pytest.mark.reference
@pytest.mark.parametrize("style", ["transformers 4", "transformers 5"])
def test_config_styles(style, tmp_path):
    model = make(tmp_path / "m", rope_scaling=LLAMA3)
    if style == "transformers 4":
        scaling = {k: v for k, v in LLAMA3.items()}
        edit_config(tmp_path / "m", rope_parameters=None, rope_theta=5000.0, rope_scaling=scaling, dtype=None,
                    torch_dtype="float32")
    sequences = [tokens(80)]
    assert difference(pare_logits(tmp_path / "m", sequences, tmp_path), reference(model, sequences)) <= 1e-5


@pytest.mark.reference
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights(dtype, tmp_path):
    model = make(tmp_path / "m", dtype=dtype)
    sequences = [tokens(70)]
    theirs = reference(model, sequences)
    assert difference(pare_logits(tmp_path / "m", sequences, tmp_path), theirs) <= 1e-5
    # Other caches round keys and values only.
    for kv in ["f16", "q8_0"]:
        assert 0 < difference(pare_logits(tmp_path / "m", sequences, tmp_path, kv=kv), theirs) <= 1e-2


@pytest.mark.reference
@pytest.mark.parametrize("scaling", [None, LLAMA3, YARN, dict(rope_type="linear", factor=3.0), LONGROPE])
@pytest.mark.parametrize("drops", [((), ()), ((1,), (0,)), ((1,), (1,))])
def test_gguf_round_trip(scaling, drops, tmp_path):
    """Through GGUF (q and k in another order) and back to a folder."""
    model = make(tmp_path / "m", attention_bias=True, rope_scaling=scaling, drop_attention=drops[0], drop_mlp=drops[1])
    sequences = [tokens(90)]
    theirs = reference(model, sequences)
    for source, out in (("m", "m.gguf"), ("m.gguf", "back")):
        subprocess.run([PARE, "quantize", tmp_path / source, "--weights", "f32", "-o", tmp_path / out, "--quiet"], check=True)
        assert difference(pare_logits(tmp_path / out, sequences, tmp_path), theirs) <= 1e-5
    straight = pare_logits(tmp_path / "m", sequences, tmp_path)
    back = pare_logits(tmp_path / "back", sequences, tmp_path)
    np.testing.assert_array_equal(straight[0], back[0])
