"""Differential attention: against transformers' DiffLlama, and the published forms against float64."""

import json
import subprocess

import numpy as np
import pytest
import torch
from llama_models import DIFF_LLAMA, PARE, difference, edit_config, make, pare_logits, reference, tokens
from scored_models import uneven_model
from safetensors.numpy import load_file, save_file

SHAPES = {
    "grouped heads": dict(num_attention_heads=8, num_key_value_heads=2),
    "four KV heads": dict(num_attention_heads=8, num_key_value_heads=4),
    "every head its own": dict(num_attention_heads=6, num_key_value_heads=6),
    "head of 20": dict(head_dim=20, num_attention_heads=4, num_key_value_heads=2),
    "tied, biases": dict(num_key_value_heads=2, tie_word_embeddings=True, attention_bias=True),
    "drops": dict(num_key_value_heads=2, drop_attention=[1], drop_mlp=[0]),
}


@pytest.mark.reference
@pytest.mark.parametrize("name", SHAPES)
def test_logits(name, tmp_path):
    model = make(tmp_path / "m", seed=len(name), family=DIFF_LLAMA, **SHAPES[name])
    sequences = [tokens(n, seed=n) for n in (1, 17, 65, 150)]
    theirs = reference(model, sequences)
    ours = pare_logits(tmp_path / "m", sequences, tmp_path)
    assert difference(ours, theirs) <= 1e-5
    pieces = pare_logits(tmp_path / "m", sequences, tmp_path, "--chunk", "7", "--batch", "--threads", "2")
    for a, b in zip(ours, pieces, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.reference
def test_long_context_in_spans(tmp_path):
    """Past spans of the cache: one token at a time on two threads gives the bits of the whole prompt at once."""
    model = make(tmp_path / "m", family=DIFF_LLAMA, num_hidden_layers=2, max_position_embeddings=2048,
                 num_attention_heads=4, num_key_value_heads=2)
    sequences = [tokens(1100)]
    ours = pare_logits(tmp_path / "m", sequences, tmp_path)
    assert difference(ours, reference(model, sequences)) <= 1e-5
    np.testing.assert_array_equal(
        ours[0], pare_logits(tmp_path / "m", sequences, tmp_path, "--chunk", "3", "--threads", "2")[0])


@pytest.mark.reference
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights(dtype, tmp_path):
    model = make(tmp_path / "m", dtype=dtype, family=DIFF_LLAMA, num_key_value_heads=2)
    sequences = [tokens(70)]
    theirs = reference(model, sequences)
    assert difference(pare_logits(tmp_path / "m", sequences, tmp_path), theirs) <= 1e-5
    for kv in ["f16", "q8_0"]:
        assert 0 < difference(pare_logits(tmp_path / "m", sequences, tmp_path, kv=kv), theirs) <= 2e-2


CHANGES = {"rms_norm_eps": 3e-3, "rope_theta": 5500.0, "head_dim": 8, "num_attention_heads": 12, "differential_form": "v2",
           "rope_interleaved": True, "num_key_value_heads": 4}  # fmt: skip


@pytest.mark.reference
@pytest.mark.parametrize("key", CHANGES)
def test_every_key_matters(key, tmp_path):
    make(tmp_path / "m", family=DIFF_LLAMA, num_key_value_heads=2)
    sequences = [tokens(40)]
    before = pare_logits(tmp_path / "m", sequences, tmp_path)
    if key == "rope_theta":
        edit_config(tmp_path / "m", rope_parameters=None)
    edit_config(tmp_path / "m", **{key: CHANGES[key]})
    try:
        after = pare_logits(tmp_path / "m", sequences, tmp_path)
    except RuntimeError as error:
        assert str(error).count("\n") == 0
        return
    assert difference(after, before) > 1e-5


def run(*arguments):
    return subprocess.run([PARE, *map(str, arguments)], capture_output=True, text=True)


# The published forms, each as its formula says it, in float64.

FORMS = {"v1": dict(heads=8, kv_heads=4), "v1, every head its own": dict(heads=4, kv_heads=4),
         "v2": dict(heads=8, kv_heads=2), "v2, one pair a KV head": dict(heads=4, kv_heads=2)}  # fmt: skip
PAGE = 64  # tokens of the KV cache that share a mean of values
HIDDEN, HEAD, WIDTH, VOCABULARY, LAYERS, EPSILON, THETA = 48, 8, 56, 101, 3, 1e-3, 5000.0


def make_form(folder, name, dtype=np.float32):
    form, sizes = name.split(",")[0], FORMS[name]
    heads, kv_heads = sizes["heads"], sizes["kv_heads"]
    rng = np.random.default_rng(len(name))
    outputs = heads * HEAD if form == "v1" else heads * HEAD // 2
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,),
              "lm_head.weight": (VOCABULARY, HIDDEN)}  # fmt: skip
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        shapes |= {
            layer + "input_layernorm.weight": (HIDDEN,), layer + "post_attention_layernorm.weight": (HIDDEN,),
            layer + "self_attn.q_proj.weight": (heads * HEAD, HIDDEN), layer + "self_attn.k_proj.weight": (kv_heads * HEAD, HIDDEN),
            layer + "self_attn.v_proj.weight": (kv_heads * HEAD, HIDDEN), layer + "self_attn.o_proj.weight": (HIDDEN, outputs),
            layer + "mlp.gate_proj.weight": (WIDTH, HIDDEN), layer + "mlp.up_proj.weight": (WIDTH, HIDDEN),
            layer + "mlp.down_proj.weight": (HIDDEN, WIDTH),
        }  # fmt: skip
        if form == "v1":
            shapes |= {layer + f"self_attn.lambda_{x}": (HEAD,) for x in ("q1", "k1", "q2", "k2")}
            shapes[layer + "self_attn.subln.weight"] = (2 * HEAD,)
        else:
            shapes[layer + "self_attn.lambda_proj.weight"] = (heads // 2, HIDDEN)
    weights = {}
    for key, shape in shapes.items():
        noise = rng.standard_normal(shape)
        one_dimensional = 0.4 * noise if "lambda" in key else 1 + 0.4 * noise
        scaled = noise if "embed" in key else noise / shape[-1] ** 0.5
        weights[key] = (one_dimensional if len(shape) == 1 else scaled).astype(dtype)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    config = dict(model_type="diffllama", hidden_size=HIDDEN, vocab_size=VOCABULARY, num_hidden_layers=LAYERS,
                  num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=HEAD, intermediate_size=WIDTH,
                  rms_norm_eps=EPSILON, rope_theta=THETA, max_position_embeddings=256, differential_form=form,
                  rope_interleaved=True)  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return {k: v.astype(np.float64) for k, v in weights.items()}


def norm(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)


def rotate(x):
    """Interleaved rope of [tokens, heads, HEAD]."""
    angle = np.outer(np.arange(len(x)), THETA ** (-np.arange(0, HEAD, 2) / HEAD))[:, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = np.stack([even * np.cos(angle) - odd * np.sin(angle), even * np.sin(angle) + odd * np.cos(angle)], -1)
    return turned.reshape(x.shape)


def softmax_map(q, k):
    scores = q @ k.T / HEAD**0.5
    scores[np.triu_indices(len(q), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def leave_out(weights, threshold):
    """Weights [queries, keys] below a part of their row's largest to their mean over each page that the query sees whole."""
    limit = threshold * np.abs(weights).max(-1)
    for query, row in enumerate(weights):
        for first in range(0, (query + 1) // PAGE * PAGE, PAGE):
            page = row[first : first + PAGE]
            below = np.abs(page) < limit[query]
            left_out = page[below].sum()
            page[below] = 0
            page += left_out / PAGE


def attention(w, name, layer, x, threshold):
    form, heads, kv_heads = name.split(",")[0], FORMS[name]["heads"], FORMS[name]["kv_heads"]
    weight = lambda key: w[f"model.layers.{layer}.self_attn.{key}"]
    split = lambda key, count: (x @ weight(f"{key}_proj.weight").T).reshape(len(x), count, HEAD)
    q, k, v = rotate(split("q", heads)), rotate(split("k", kv_heads)), split("v", kv_heads)
    out = []
    for h in range(heads // 2):
        if form == "v1":
            # The reference's flash version: q and k are [heads, 2, HEAD], a pair of queries reads a pair of keys.
            pair = h // (heads // kv_heads)
            keys, value = (2 * pair, 2 * pair + 1), v[:, 2 * pair : 2 * pair + 2].reshape(len(x), 2 * HEAD)
            dot = lambda i: (weight(f"lambda_q{i}") * weight(f"lambda_k{i}")).sum()
            init = 0.8 - 0.6 * np.exp(-0.3 * layer)
            lambda_ = np.exp(dot(1)) - np.exp(dot(2)) + init
        else:
            keys, value = (2 * h * kv_heads // heads,) * 2, v[:, 2 * h * kv_heads // heads]
            lambda_ = 1 / (1 + np.exp(-(x @ weight("lambda_proj.weight")[h])))[:, None]
        weights = softmax_map(q[:, 2 * h], k[:, keys[0]]) - lambda_ * softmax_map(q[:, 2 * h + 1], k[:, keys[1]])
        if threshold:
            leave_out(weights, threshold)
        head = weights @ value
        out.append(norm(head) * weight("subln.weight") * (1 - init) if form == "v1" else head)
    return np.concatenate(out, -1) @ weight("o_proj.weight").T


def float64_logits(w, name, ids, threshold=0.0):
    x = w["model.embed_tokens.weight"][ids]
    for i in range(LAYERS):
        weight = lambda key: w[f"model.layers.{i}.{key}.weight"]
        x = x + attention(w, name, i, norm(x) * weight("input_layernorm"), threshold)
        y = norm(x) * weight("post_attention_layernorm")
        gate = y @ weight("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ weight("mlp.up_proj").T)) @ weight("mlp.down_proj").T
    return norm(x) * w["model.norm.weight"] @ w["lm_head.weight"].T


@pytest.mark.reference
@pytest.mark.parametrize("name", FORMS)
def test_published_forms(name, tmp_path):
    w = make_form(tmp_path / "m", name)
    sequences = [tokens(n, seed=n, vocabulary=VOCABULARY) for n in (1, 30, 130)]
    theirs = [float64_logits(w, name, ids) for ids in sequences]
    ours = pare_logits(tmp_path / "m", sequences, tmp_path)
    assert difference(ours, theirs) <= 1e-5
    for source, out in (("m", "m.gguf"), ("m.gguf", "back")):
        assert run("quantize", tmp_path / source, "--weights", "f32", "-o", tmp_path / out, "--quiet").returncode == 0
        assert difference(pare_logits(tmp_path / out, sequences, tmp_path), theirs) <= 1e-5
    assert json.loads((tmp_path / "back" / "config.json").read_text())["differential_form"] == name.split(",")[0]


@pytest.mark.reference
@pytest.mark.parametrize("name", ["v1", "v2"])
def test_threshold(name, tmp_path):
    """What is replaced by means is what the formula replaces, but for the few weights that rounding moves across the limit."""
    w = make_form(tmp_path / "m", name)
    ids = tokens(200, vocabulary=VOCABULARY)
    dense, sparse = float64_logits(w, name, ids), float64_logits(w, name, ids, 0.05)
    ours = pare_logits(tmp_path / "m", [ids], tmp_path, "--attention-threshold", "0.05")
    assert np.median(np.abs(ours[0] - sparse)) < 1e-5 * np.abs(sparse).max() < np.median(np.abs(dense - sparse))
    pieces = pare_logits(tmp_path / "m", [ids], tmp_path, "--attention-threshold", "0.05", "--chunk", "1", "--threads", "2")
    np.testing.assert_array_equal(ours[0], pieces[0])


@pytest.mark.reference
@pytest.mark.parametrize("drops", [((), ()), ((1,), (0,)), ((1,), (1,))])
def test_gguf_round_trip(drops, tmp_path):
    model = make(tmp_path / "m", family=DIFF_LLAMA, num_key_value_heads=2, drop_attention=drops[0], drop_mlp=drops[1])
    sequences = [tokens(90)]
    theirs = reference(model, sequences)
    assert run("quantize", tmp_path / "m", "--weights", "f32", "-o", tmp_path / "m.gguf", "--quiet").returncode == 0
    assert difference(pare_logits(tmp_path / "m.gguf", sequences, tmp_path), theirs) <= 1e-5
    done = run("quantize", tmp_path / "m.gguf", "--weights", "f32", "-o", tmp_path / "back", "--quiet")
    if drops == ((1,), (1,)):
        # Without its second block the third would be the second to whoever reads config.json.
        assert done.returncode == 1 and "layer 1 has lambda_init" in done.stderr
        return
    assert done.returncode == 0
    np.testing.assert_array_equal(pare_logits(tmp_path / "m", sequences, tmp_path)[0],
                                  pare_logits(tmp_path / "back", sequences, tmp_path)[0])
    before, after = load_file(tmp_path / "m" / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert after.keys() <= before.keys() and all((before[k] == after[k]).all() for k in after)
    assert len(after) == len(before) - 9 * len(drops[0]) - 4 * len(drops[1])


def edit_weights(folder, edit):
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")


LAMBDA = "model.layers.1.self_attn.lambda_"
BAD = {
    "odd heads": (dict(num_attention_heads=5, num_key_value_heads=5), None, "5 attention heads, expected an even number"),
    "odd KV heads": (dict(num_key_value_heads=3), None, "3 KV heads, expected an even number"),
    "missing lambda": ({}, lambda w: w.pop(LAMBDA + "k2"), f"tensor {LAMBDA}k2 is missing"),
    "misshaped lambda": ({}, lambda w: w.update({LAMBDA + "q1": np.zeros(3, np.float32)}),
                         f"tensor {LAMBDA}q1 is [3], expected [16]"),
    "overflow": ({}, lambda w: [w.update({LAMBDA + x: np.full(16, 3, np.float32)}) for x in ("q1", "k1")],
                 f"{LAMBDA}q1 and {LAMBDA}k1 is 144, whose exponential overflows"),
    "unknown form": (dict(differential_form="v3"), None, 'differential_form is "v3", expected diffllama, v1 or v2'),
    "mixed layers": (dict(model_type="llama"), None, "unexpected tensor model.layers.0.self_attn.lambda_"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, tmp_path):
    changes, edit, message = BAD[name]
    make(tmp_path / "m", family=DIFF_LLAMA, num_key_value_heads=2)
    edit_config(tmp_path / "m", **changes)
    if edit:
        edit_weights(tmp_path / "m", edit)
    with pytest.raises(RuntimeError) as error:
        pare_logits(tmp_path / "m", [[1, 2]], tmp_path)
    assert message in str(error.value) and str(error.value).count("\n") == 0


def test_every_command_takes_it(tmp_path):
    """analyze, drop, quantize, run, eval, shrink and bench, as of any model."""
    folder = tmp_path / "m"
    uneven_model(folder, 5, vocab_size=257, hidden_size=64, intermediate_size=128, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=256, family=DIFF_LLAMA)
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a little fox who lived in the wood. " * 80)

    def done(*arguments):
        result = run(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    analysis = json.loads(done("analyze", folder, "--calibration", text, "--tokens", 2048, "--json"))
    assert all(0 <= layer["attention_sparsity"] < 1 for layer in analysis["layers"])
    losses = analysis["attention_thresholds"]
    assert [round(x["threshold"], 6) for x in losses] == [0, 0.001, 0.01, 0.03]
    assert losses[0]["values_left_out"] == 0 < losses[1]["values_left_out"] < losses[3]["values_left_out"] < 1
    assert all(len(x["values_left_out_by_layer"]) == 3 for x in losses)
    assert "attention threshold" in done("analyze", folder, "--calibration", text, "--tokens", 2048)
    done("drop", folder, "--attention", 1, "--calibration", text, "--tokens", 2048, "-o", tmp_path / "dropped.gguf")
    done("quantize", tmp_path / "dropped.gguf", "--weights", "q8_0", "-o", tmp_path / "small.gguf")
    greedy = ["--prompt", "Once upon", "--tokens", 16, "--greedy"]
    assert done("run", tmp_path / "small.gguf", *greedy) == done("run", tmp_path / "small.gguf", *greedy, "--threads", 2)
    scores = json.loads(done("eval", tmp_path / "small.gguf", "--perplexity", text, "--against", folder, "--json"))
    sparse = json.loads(done("eval", tmp_path / "small.gguf", "--perplexity", text, "--attention-threshold", 0.05, "--json"))
    assert scores != sparse
    self_distance = json.loads(done("eval", folder, "--perplexity", text, "--against", folder, "--attention-threshold",
                                    0.05, "--json"))  # the base leaves nothing out
    assert "kl" in json.dumps(self_distance).lower()
    done("shrink", folder, "-o", tmp_path / "shrunk.gguf", "--size", "400KB", "--quality", "50%", "--calibration", text, "--tokens", 2048,
         "--trials", 20)
    assert "diffllama" in done("inspect", tmp_path / "shrunk.gguf")
    refused = run("quantize", folder, "--weights", "q8_0", "--for", "llama.cpp", "-o", tmp_path / "no.gguf")
    assert refused.returncode == 1 and "differential attention, which llama.cpp does not have" in refused.stderr
