"""BitNet models in every packing: what transformers computes, and the same codes and scales through every format."""

import json
import os
import platform
import shutil
import struct
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import stock_llama_cpp
import torch
from llama_models import PARE, SHARED, TOOLS, difference, pare_logits, reference, tokens
from safetensors.torch import load_file, save_file
from ternary_models import (PACKINGS, SHAPE, WIDE, as_1bitllm, check_near, edit, make, rewrite, stored_model, ternary_tensors,
                            to_i2s)

STORY = Path(__file__).parents[2] / "models" / "story-ternary"
STORIES = SHARED / "data/models/stories260K/stories260K.gguf"


def pare(*arguments, code=0):
    done = subprocess.run([PARE, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done
    return done


def refused(*arguments):
    """The one line that a command fails with."""
    done = pare(*arguments, code=1)
    error = done.stderr.strip()
    assert done.stdout == "" and error.count("\n") == 0, done
    return error


def inspect(model, *arguments):
    return json.loads(pare("inspect", model, "--json", *arguments).stdout)


def short_sequences(vocabulary=SHAPE["vocab_size"]):
    return [tokens(1 + n % 3, seed=n, vocabulary=vocabulary) for n in range(24)]


def check_logits(folder, model, tmp_path, *arguments):
    sequences = short_sequences()
    ours = pare_logits(folder, sequences, tmp_path, *arguments)
    check_near(ours, reference(model, sequences))
    return ours


def gguf_tensors(file):
    """{name: type, shape and bytes} as the library reads them."""
    done = subprocess.run([TOOLS / "tool_formats", "gguf", str(file)], capture_output=True, text=True, check=True)
    return {tensor["name"]: tensor for tensor in json.loads(done.stdout)["tensors"]}


CASES = {
    "offline": {},
    "offline, silu": dict(hidden_act="silu"),
    "offline, bf16": dict(dtype=torch.bfloat16),
    "offline, tied": dict(tie_word_embeddings=True),
    "online, biases": dict(attention_bias=True),
    "offline, rows of 256": WIDE,
    "offline, modules as they are": dict(not_converted=["lm_head", "model.layers.0.mlp.down_proj", "self_attn.k_proj"]),
    "offline, llama": dict(family="llama"),
    "online": {},
    "online, bf16": dict(dtype=torch.bfloat16),
    "online, llama": dict(family="llama", dtype=torch.bfloat16),
    "legacy": {},
    "legacy, bf16": dict(dtype=torch.bfloat16),
    "legacy, llama": dict(family="llama", **WIDE),
    "legacy, llama, biases": dict(family="llama", attention_bias=True, mlp_bias=True),
}


@pytest.mark.reference
@pytest.mark.parametrize("name", CASES)
def test_logits(name, tmp_path):
    model = make(tmp_path / "m", packing=name.split(",")[0], seed=len(name), **CASES[name])
    ours = check_logits(tmp_path / "m", model, tmp_path)
    for a, b in zip(ours, pare_logits(tmp_path / "m", short_sequences(), tmp_path, "--threads", "2"), strict=True):
        np.testing.assert_array_equal(a, b)
    # From a GGUF file too; the same bits, unless q and k have another order there, in which sums are others.
    pare("convert", tmp_path / "m", "-o", tmp_path / "m.gguf", "-q")
    again = check_logits(tmp_path / "m.gguf", model, tmp_path)
    for a, b in zip(ours, again, strict=True):
        if CASES[name].get("family") != "llama":
            np.testing.assert_array_equal(a, b)


@pytest.mark.reference
def test_first_models_of_1bitllm(tmp_path):
    model = make(tmp_path / "m", packing="online", seed=3, hidden_act="silu", tie_word_embeddings=True)
    as_1bitllm(tmp_path / "m")
    check_logits(tmp_path / "m", model, tmp_path)
    # What is written is a model that transformers knows.
    pare("convert", tmp_path / "m", "-o", tmp_path / "m.gguf", "-q")
    pare("convert", tmp_path / "m.gguf", "-o", tmp_path / "back", "-q")
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert config["architectures"] == ["BitNetForCausalLM"] and config["hidden_act"] == "silu"
    assert "model.layers.0.self_attn.attn_sub_norm.weight" in load_file(tmp_path / "back/model.safetensors")
    check_logits(tmp_path / "back", model, tmp_path)
    for key in ("weight_bits", "input_bits"):
        edit(tmp_path / "m", **{key: 4})
        assert key in refused("inspect", tmp_path / "m")


CHANGES = {
    "hidden_act": ("silu", "offline"),
    "rms_norm_eps": (3e-3, "offline"),
    "rope_theta": (5500.0, "offline"),
    "num_key_value_heads": (4, "offline"),
    "num_attention_heads": (2, "offline"),
    "model_type": ("llama", "offline"),
    "linear_class": (None, "offline"),
    "quantization_mode": ("online", "offline"),
    "quantization_mode ": ("offline", "online"),
    "linear_class ": ("bitlinear", "online"),
    "quant_method": ("awq", "offline"),
    "modules_to_not_convert": (["lm_head", "q_proj"], "offline"),
    "modules_to_not_convert ": (["lm_head", "q_proj"], "online"),
    "modules_to_not_convert  ": ([], "online"),
    "modules_to_not_convert   ": (["lm_head", "q_proj.*"], "online"),
    "use_rms_norm": (True, "offline"),
}


@pytest.mark.reference
@pytest.mark.parametrize("key", CHANGES)
def test_every_key_matters(key, tmp_path):
    value, packing = CHANGES[key]
    model = make(tmp_path / "m", packing=packing, seed=5, rms_norm_eps=1e-3)
    check_logits(tmp_path / "m", model, tmp_path)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    key = key.strip()
    for part in ("quantization_config", "rope_parameters"):
        if key in config[part] or (part == "quantization_config" and key in ("modules_to_not_convert", "use_rms_norm")):
            changed = {**config[part], key: value}
            edit(tmp_path / "m", **{part: {k: v for k, v in changed.items() if v is not None}})
            break
    else:
        edit(tmp_path / "m", **{key: value})
    sequences = short_sequences()
    try:
        ours = pare_logits(tmp_path / "m", sequences, tmp_path)
    except RuntimeError as error:
        assert str(error).count("\n") == 0 and str(tmp_path / "m") in str(error)
        return
    theirs = reference(model, sequences)
    assert np.median([difference([a], [b]) for a, b in zip(ours, theirs, strict=True)]) > 1e-4


@pytest.mark.reference
def test_defaults_of_bitnet(tmp_path):
    """Keys that transformers leaves out have the values of its configuration class."""
    model = make(tmp_path / "m", seed=1, num_key_value_heads=5, num_attention_heads=5, hidden_size=320, head_dim=64,
                 rms_norm_eps=1e-5, rope_theta=500000.0)
    edit(tmp_path / "m", num_key_value_heads=None, rms_norm_eps=None, hidden_act=None, rope_parameters=None)
    check_logits(tmp_path / "m", model, tmp_path)


@pytest.mark.reference
@pytest.mark.parametrize("family", ["bitnet", "llama"])
@pytest.mark.parametrize("shape", [{}, WIDE], ids=["rows of 64", "rows of 256"])
def test_round_trip(family, shape, tmp_path):
    make(tmp_path / "m", family=family, seed=2, **shape)
    pare("convert", tmp_path / "m", "-o", tmp_path / "m.gguf", "-q")
    pare("convert", tmp_path / "m.gguf", "-o", tmp_path / "back", "-q")
    theirs, ours = load_file(tmp_path / "m/model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert theirs.keys() == ours.keys()
    for name in theirs:
        assert theirs[name].dtype == ours[name].dtype and torch.equal(theirs[name], ours[name]), name
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert config["quantization_config"] == {**PACKINGS["offline"], "modules_to_not_convert": ["lm_head"]}
    # A second file has the tensors of the first one.
    pare("convert", tmp_path / "back", "-o", tmp_path / "again.gguf", "-q")
    first, again = gguf_tensors(tmp_path / "m.gguf"), gguf_tensors(tmp_path / "again.gguf")
    assert first == again
    assert first["blk.1.ffn_down.weight"]["type"] == ("tq2_0" if shape else "q2_0")
    # What gguf-py reads is what the folder holds (it does not know Q2_0).
    codes, scale = ternary_tensors(tmp_path / "m")["model.layers.1.mlp.down_proj.weight"]
    assert first["blk.1.ffn_down.scale"]["bytes"] == struct.pack("<f", scale).hex()
    if shape:
        stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}["blk.1.ffn_down.weight"]
        np.testing.assert_array_equal(gguf.quants.dequantize(stored.data, stored.tensor_type), codes)


@pytest.mark.reference
def test_back_in_transformers(tmp_path):
    """What pare writes of a legacy folder is an offline one that transformers reads as it stands."""
    model = make(tmp_path / "m", packing="legacy", seed=4)
    pare("convert", tmp_path / "m", "-o", tmp_path / "m.gguf", "-q")
    pare("convert", tmp_path / "m.gguf", "-o", tmp_path / "back", "-q")
    before, after = ternary_tensors(tmp_path / "m"), ternary_tensors(tmp_path / "back")
    for name, (codes, scale) in before.items():
        np.testing.assert_array_equal(after[name][0], codes)
        assert after[name][1] == np.float32(1) / np.float32(scale)
    check_logits(tmp_path / "back", model, tmp_path)


def make_gguf(tmp_path, **changes):
    folder = tmp_path / "m"
    model = make(folder, **changes)
    pare("convert", folder, "-o", tmp_path / "m.gguf", "-q")
    return model, tmp_path / "m.gguf"


@pytest.mark.parametrize("family", ["bitnet", "llama"])
def test_ternary_types(family, tmp_path):
    """From one ternary type to another nothing is lost, and nothing is asked."""
    _, file = make_gguf(tmp_path, family=family, seed=6, **WIDE)
    logits = pare_logits(file, short_sequences(), tmp_path)
    for kind in ("tq1_0", "tq2_0", "q2_0"):
        others = ("--embedding", "f32", "--output-matrix", "f32")
        pare("quantize", file, "--weights", kind, *others, "-o", tmp_path / f"{kind}.gguf", "-q")
        file = tmp_path / f"{kind}.gguf"
        types = {tensor["type"] for tensor in inspect(file)["tensors"] if tensor["kind"] == "ffn_up"}
        assert types == {kind}
        for a, b in zip(logits, pare_logits(file, short_sequences(), tmp_path), strict=True):
            np.testing.assert_array_equal(a, b)
    pare("convert", file, "-o", tmp_path / "back", "-q")
    for name, (codes, scale) in ternary_tensors(tmp_path / "m").items():
        after = ternary_tensors(tmp_path / "back")[name]
        np.testing.assert_array_equal(after[0], codes)
        assert after[1] == scale


def test_other_types(tmp_path):
    """The embedding and the head alone; ternary weights in other types only on request, and never as ternary again."""
    _, file = make_gguf(tmp_path, seed=7, **WIDE)
    for head in ("--head", "--output-matrix"):
        pare("quantize", file, "--embedding", "q8_0", head, "q6_k", "-o", tmp_path / "head.gguf", "-q")
        types = {tensor["kind"]: tensor["type"] for tensor in inspect(tmp_path / "head.gguf")["tensors"]}
        assert types["embedding"] == "q8_0" and types["output"] == "q6_k" and types["attn_q"] == "tq2_0"
    assert "--requantize" in refused("quantize", file, "--weights", "q8_0", "-o", tmp_path / "no.gguf", "-q")
    pare("convert", file, "--type", "f32", "-o", tmp_path / "floats", "-q")
    floats = load_file(tmp_path / "floats/model.safetensors")
    for name, (codes, scale) in ternary_tensors(tmp_path / "m").items():
        np.testing.assert_array_equal(floats[name].numpy(), codes.astype(np.float32) * np.float32(scale))
    pare("convert", file, "--type", "f16", "-o", tmp_path / "f16.gguf", "-q")
    error = refused("quantize", tmp_path / "f16.gguf", "--weights", "tq2_0", "-o", tmp_path / "no.gguf", "-q")
    assert "expected -1, 0 or 1" in error and "blk.0.attn_q.weight" in error


def test_the_head_of_a_model_that_has_one_matrix_for_both(tmp_path):
    _, file = make_gguf(tmp_path, seed=7, tie_word_embeddings=True, **WIDE)
    out = ("-o", tmp_path / "head.gguf", "-q")
    for more in ((), ("--embedding", "q4_k")):
        pare("quantize", file, "--head", "q4_k", *more, *out)
        types = {tensor["kind"]: tensor["type"] for tensor in inspect(tmp_path / "head.gguf")["tensors"]}
        assert types["embedding"] == "q4_k" and types["attn_q"] == "tq2_0" and "output" not in types
    assert "must be the same type" in pare("quantize", file, "--head", "q4_k", "--embedding", "q8_0", *out, code=2).stderr


def test_drop_and_inspect(tmp_path):
    _, file = make_gguf(tmp_path, seed=8, num_hidden_layers=3)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"version": 1, "drop": {"attention": [1], "mlp": [0]}}))
    pare("drop", file, "--plan", plan, "-o", tmp_path / "d.gguf", "-q")
    pare("drop", tmp_path / "m", "--plan", plan, "-o", tmp_path / "d", "-q")
    names = {tensor["name"] for tensor in inspect(tmp_path / "d.gguf")["tensors"]}
    assert not [name for name in names if name.startswith(("blk.1.attn", "blk.0.ffn"))]
    for a, b in zip(pare_logits(tmp_path / "d", short_sequences(), tmp_path),
                    pare_logits(tmp_path / "d.gguf", short_sequences(), tmp_path), strict=True):
        np.testing.assert_array_equal(a, b)
    shown = inspect(file)
    assert shown["layers"][0]["mlp"]["activation_quantization"] == "int8"
    assert shown["layers"][0]["attention"]["sub_norm"] is True
    scales = {tensor["name"]: tensor["scale"] for tensor in shown["tensors"]}
    _, scale = ternary_tensors(tmp_path / "m")["model.layers.2.mlp.up_proj.weight"]
    assert np.float32(scales["blk.2.ffn_up.weight"]) == np.float32(scale)
    text = pare("inspect", file, "--tensors").stdout
    assert "int8 activations" in text and "squared ReLU" in text and f"{scale:g}" in text


# I2_S, and files of bitnet.cpp.


@pytest.mark.parametrize("layout, run", [("x86", 32), ("arm", 16)])
@pytest.mark.parametrize("family, architecture", [("bitnet", "bitnet-b1.58"), ("bitnet", "bitnet-25"), ("llama", "llama")])
def test_i2s(layout, run, family, architecture, tmp_path):
    make(tmp_path / "m", family=family, seed=9, hidden_act="relu2" if family == "bitnet" else "silu", **WIDE)
    pare("convert", tmp_path / "m", "-o", tmp_path / "m.gguf", "-q")
    own = ("pare.activations", f"{family}.hidden_activation")
    rewrite(tmp_path / "m.gguf", tmp_path / "renamed.gguf", architecture, leave_out=own)
    file = to_i2s(tmp_path / "renamed.gguf", tmp_path / "i2s.gguf", run)
    error = refused("inspect", file)
    assert "--i2s x86" in error and "--i2s arm" in error and "blk.0.attn_q.weight" in error
    pare("convert", file, "--i2s", layout, "-o", tmp_path / "back.gguf", "-q")
    for a, b in zip(pare_logits(tmp_path / "m.gguf", short_sequences(), tmp_path),
                    pare_logits(tmp_path / "back.gguf", short_sequences(), tmp_path), strict=True):
        np.testing.assert_array_equal(a, b)
    # Every command that opens a model takes the layout.
    assert inspect(file, "--i2s", layout)["tensors"] != []
    assert "x86 or arm" in pare("inspect", file, "--i2s", "mips", code=2).stderr


def test_i2s_that_is_none(tmp_path):
    _, file = make_gguf(tmp_path, seed=10, **WIDE)
    name = "blk.0.ffn_up.weight"

    def broken(change):
        return to_i2s(file, tmp_path / "bad.gguf", 32, lambda n, data: change(data) if n == name else data)

    def scale(value):
        return lambda data: data[:-32] + struct.pack("<f", value) + bytes(28)

    for value in (0.0, -0.5, float("nan"), float("inf")):
        error = refused("inspect", broken(scale(value)), "--i2s", "x86")
        assert name in error and "positive" in error
    error = refused("convert", broken(lambda data: b"\xff" + data[1:]), "--i2s", "x86", "-o", tmp_path / "no.gguf")
    assert name in error and "code 3" in error
    whole = broken(lambda data: data)
    whole.write_bytes(whole.read_bytes()[:-4096])
    assert "bytes" in refused("inspect", whole, "--i2s", "x86")


# Bad folders.


def damage_tensor(change):
    def damage(folder, name="model.layers.1.mlp.up_proj.weight"):
        tensors = load_file(folder / "model.safetensors")
        change(tensors, name)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return damage


def set_scale(value):
    def change(tensors, name):
        tensors[name.replace(".weight", ".weight_scale")] = torch.tensor(value)
    return damage_tensor(change)


def set_weight(make_new):
    def change(tensors, name):
        tensors[name] = make_new(tensors[name])
    return damage_tensor(change)


BAD = {
    "no scale": (damage_tensor(lambda t, n: t.pop(n.replace(".weight", ".weight_scale"))), "weight_scale is missing"),
    "zero scale": (set_scale([0.0]), "positive"),
    "negative scale": (set_scale([-1.0]), "positive"),
    "NaN scale": (set_scale([float("nan")]), "positive"),
    "infinite scale": (set_scale([float("inf")]), "positive"),
    "two scales": (set_scale([1.0, 2.0]), "one float"),
    "a whole number": (set_scale([1]), "one float"),
    "code 3": (set_weight(lambda w: w | 3), "code 3"),
    "fewer columns": (set_weight(lambda w: w[:, :-64].contiguous()), "expected [80, 128]"),
    "fewer rows": (set_weight(lambda w: w[:-1].contiguous()), "expected [80, 128]"),
    "not packed": (set_weight(lambda w: w.to(torch.int8)), "type I8"),
    "floats, not ternary": (set_weight(lambda w: torch.full((320, 128), 0.5)), "expected -1, 0 or 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folder(name, tmp_path):
    damage, expected = BAD[name]
    make(tmp_path / "m", seed=11)
    damage(tmp_path / "m")
    error = refused("convert", tmp_path / "m", "-o", tmp_path / "no.gguf")
    assert expected in error and "up_proj" in error
    assert not (tmp_path / "no.gguf").exists()


def test_unpacked_ternary_floats(tmp_path):
    """Offline weights may lie there unpacked, as transformers reads them."""
    model = make(tmp_path / "m", seed=12)
    codes = ternary_tensors(tmp_path / "m")
    tensors = load_file(tmp_path / "m/model.safetensors")
    for name, (values, _) in codes.items():
        tensors[name] = torch.from_numpy(values.astype(np.float32))
    save_file(tensors, tmp_path / "m/model.safetensors", {"format": "pt"})
    check_logits(tmp_path / "m", model, tmp_path)


def test_biases(tmp_path):
    """Offline AutoBitLinear multiplies them by the scale: neither read nor written by mistake."""
    make(tmp_path / "offline", seed=16, attention_bias=True)
    error = refused("inspect", tmp_path / "offline")
    assert "_proj.bias" in error and "weight_scale" in error
    make(tmp_path / "legacy", seed=16, packing="legacy", attention_bias=True)
    assert ".gguf" in refused("convert", tmp_path / "legacy", "-o", tmp_path / "back")


@pytest.mark.parametrize("shape, expected", [
    (dict(intermediate_size=352), "rows of 352 ternary weights, expected a multiple of 256 or 64"),
    (dict(vocab_size=7, head_dim=14, hidden_size=64, num_attention_heads=1, num_key_value_heads=1), "multiple of 4"),
])
def test_shapes_that_do_not_fit(shape, expected, tmp_path):
    family = "llama" if "head_dim" in shape else "bitnet"
    make(tmp_path / "m", family=family, seed=13, packing="online", **shape)
    if family == "llama":  # 14 rows fit no packed folder, and so say so: they are packed by hand as transformers would not
        tensors = load_file(tmp_path / "m/model.safetensors")
        for name in list(tensors):
            if name.endswith("_proj.weight"):
                rows, columns = tensors[name].shape
                tensors[name] = torch.full(((rows + 3) // 4, columns), 0b01010101, dtype=torch.uint8)
                tensors[name.replace(".weight", ".weight_scale")] = torch.ones(1)
        save_file(tensors, tmp_path / "m/model.safetensors", {"format": "pt"})
        edit(tmp_path / "m", quantization_config=PACKINGS["offline"])
    error = refused("inspect", tmp_path / "m")
    assert expected in error and "_proj" in error


def test_bad_gguf_scales(tmp_path):
    _, file = make_gguf(tmp_path, seed=14, **WIDE)
    for value in (0.0, -1.0, float("nan")):
        shutil.copy(file, tmp_path / "bad.gguf")
        for tensor in gguf.GGUFReader(tmp_path / "bad.gguf", "r+").tensors:
            if tensor.name == "blk.1.attn_k.scale":
                tensor.data[0] = value
        assert "blk.1.attn_k.scale" in refused("inspect", tmp_path / "bad.gguf")
    lonely = rewrite(file, tmp_path / "lonely.gguf", "bitnet", leave_out_tensors=lambda name: name == "blk.0.attn_q.weight")
    assert "blk.0.attn_q" in refused("inspect", lonely)


# Files of llama.cpp's quantizer: no scales beside the weights, and blocks of zeros whose scale is 0.


def zero_blocks(tensor):
    """Numbers of the TQ2_0 blocks whose scale is 0."""
    scales = tensor.data.reshape(-1, 66)[:, 64:].copy().view(np.float16)[:, 0]
    return np.flatnonzero(scales == 0)


@pytest.mark.parametrize("family", ["bitnet", "llama"])
def test_blocks_of_scale_zero(family, tmp_path):
    """They are zeros whatever their codes, and say nothing about the scale of the others."""
    make(tmp_path / "m", family=family, seed=18, **WIDE)
    packed = load_file(tmp_path / "m/model.safetensors")
    zeros = 0b01010101
    packed["model.layers.0.self_attn.v_proj.weight"][0] = zeros  # the first block among them
    packed["model.layers.1.mlp.down_proj.weight"][3, 256:] = zeros
    packed["model.layers.1.mlp.up_proj.weight"][:] = zeros
    for name in packed:
        if name.endswith("weight_scale"):  # what a block's scale can be
            packed[name] = packed[name].half().float()
    packed["model.layers.1.mlp.up_proj.weight_scale"][:] = 1  # of zeros alone: any, and nothing else is known
    save_file(packed, tmp_path / "m/model.safetensors", {"format": "pt"})
    pare("convert", tmp_path / "m", "-o", tmp_path / "m.gguf", "-q")
    pare("convert", tmp_path / "m", "--type", "f32", "-o", tmp_path / "f32.gguf", "-q")
    theirs = rewrite(tmp_path / "m.gguf", tmp_path / "theirs.gguf", family,
                     leave_out_tensors=lambda name: name.endswith(".scale"))
    assert stock_llama_cpp.quantize_over(theirs, tmp_path / "f32.gguf") > 1000  # bytes
    changed = 0
    for tensor in gguf.GGUFReader(theirs, "r+").tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.TQ2_0:
            blocks = zero_blocks(tensor)
            tensor.data.reshape(-1, 66)[blocks, :64] = 0xFF  # codes of 3
            changed += len(blocks)
    assert changed == 4 + 4 + 512
    expected = pare_logits(tmp_path / "m.gguf", short_sequences(), tmp_path)
    pare("convert", theirs, "-o", tmp_path / "back", "-q")
    after = load_file(tmp_path / "back/model.safetensors")
    for name, tensor in packed.items():
        assert torch.equal(after[name].to(tensor.dtype), tensor), name
    file = theirs
    for kind in (None, "q2_0", "tq2_0", "tq1_0"):  # blocks of zeros become parts of larger ones, and the other way round
        if kind:
            others = ("--embedding", "f32", "--output-matrix", "f32")
            pare("quantize", file, "--weights", kind, *others, "-o", tmp_path / f"{kind}.gguf", "-q")
            file = tmp_path / f"{kind}.gguf"
        for a, b in zip(expected, pare_logits(file, short_sequences(), tmp_path), strict=True):
            np.testing.assert_array_equal(a, b)


# Stock llama.cpp, which quantizes activations in its own way: near, not equal.


def with_tokenizer(folder, tmp_path):
    pare("quantize", STORIES, "--weights", "f16", "-o", tmp_path / "stories", "-q")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "stories" / file, folder)


@pytest.mark.reference
@pytest.mark.parametrize("family, change", [("bitnet", dict(hidden_act="silu")), ("llama", {})], ids=["bitnet", "llama"])
def test_stock_llama_cpp(family, change, tmp_path):
    # A small embedding: log probabilities that are told, not zeros.
    make(tmp_path / "m", family=family, seed=15, vocab_size=512, tie_word_embeddings=True, max_position_embeddings=128,
         embedding=0.1, **WIDE, **change)
    with_tokenizer(tmp_path / "m", tmp_path)
    file = tmp_path / "m.gguf"
    pare("convert", tmp_path / "m", "--for", "llama.cpp", "-o", file, "-q")
    ids = tokens(24, 3, 512)
    logits = pare_logits(file, [ids], tmp_path)[0]
    theirs = stock_llama_cpp.logprobs(stock_llama_cpp.server(file), ids, top=512, sampled=403)
    ours = stock_llama_cpp.log_softmax(logits)
    differences = [abs(value - row[token]) for given, row in zip(theirs, ours, strict=True)
                   for token, value in list(given.items())[:64]]
    assert np.mean(differences) <= 0.05 * ours.std()


@pytest.mark.parametrize("change, expected", [
    ({}, "squared ReLU"),
    (dict(hidden_act="silu", tie_word_embeddings=False), "output matrix"),
    (dict(hidden_act="silu", packing="online", attention_bias=True), "biases"),
])
def test_what_stock_llama_cpp_cannot_run(change, expected, tmp_path):
    make(tmp_path / "m", seed=17, **{"tie_word_embeddings": True, **change})
    error = refused("convert", tmp_path / "m", "--for", "llama.cpp", "-o", tmp_path / "m.gguf")
    assert expected in error
    pare("convert", tmp_path / "m", "-o", tmp_path / "m.gguf", "-q")
    keys = inspect(tmp_path / "m.gguf")["layers"][0]["mlp"]["activation"]
    assert keys == ("SiLU" if change else "squared ReLU")


# The bundled model.


def mean_loss(logits, ids):
    rows = stock_llama_cpp.log_softmax(logits[:-1])
    return -float(rows[np.arange(len(ids) - 1), ids[1:]].mean())


@pytest.mark.reference
def test_story_ternary_in_transformers(tmp_path):
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a dog."
    done = subprocess.run([PARE, "tokenize", STORY], input=text, capture_output=True, text=True, check=True)
    ids = [int(token) for token in done.stdout.split()]
    [ours], [theirs] = pare_logits(STORY, [ids], tmp_path), reference(stored_model(STORY), [ids])
    assert np.mean(ours.argmax(-1) == theirs.argmax(-1)) >= 0.95
    assert abs(mean_loss(ours, ids) - mean_loss(theirs, ids)) <= 2e-3
    # Unless an activation next to a half rounds differently, they are as near as floats are.
    alone = [[token] for token in sorted(set(ids))]
    near = [difference([a], [b]) <= 1e-5 for a, b in zip(pare_logits(STORY, alone, tmp_path), reference(stored_model(STORY), alone))]
    assert np.mean(near) >= 0.5


def greedy(model, *arguments, **environment):
    done = subprocess.run([PARE, "run", str(model), "--greedy", "-n", "200", "-p", "Once upon a time", "-q", *arguments],
                          capture_output=True, text=True, timeout=300, check=True, env={**os.environ, **environment})
    return done.stdout


def test_story_ternary_greedy_text(tmp_path):
    """The same 200 tokens from every packing, storage type, kernel, instruction set and number of threads."""
    text = greedy(STORY)
    assert len(text) > 400
    pare("convert", STORY, "-o", tmp_path / "m.gguf", "-q")
    assert (tmp_path / "m.gguf").stat().st_size <= 12_000_000
    pare("convert", tmp_path / "m.gguf", "-o", tmp_path / "back", "-q")
    for kind in ("tq1_0", "q2_0"):
        pare("quantize", tmp_path / "m.gguf", "--weights", kind, "--embedding", "bf16", "-o", tmp_path / f"{kind}.gguf", "-q")
    for name in ("m.gguf", "back", "tq1_0.gguf", "q2_0.gguf"):
        assert greedy(tmp_path / name) == text, name
    known = pare("run", STORY, "--kernel", "none", "-n", "1", code=1).stderr.strip().rsplit(": ", 1)[1].split(", ")
    assert len(known) >= 2
    for kernel in known:
        assert greedy(STORY, "--kernel", kernel) == text, kernel
    for isa in ("generic", "avx2") if platform.machine() == "x86_64" else ("generic", "neon"):
        assert greedy(STORY, PARE_ISA=isa) == text, isa
    assert greedy(STORY, "--threads", "1") == greedy(STORY, "--threads", "2") == text


# kernels


def kernels_of(model, cache, *arguments, program=PARE):
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([program, "inspect", str(model), "--kernels", "--json", "--threads", "2", *arguments], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done
    return json.loads(done.stdout)["kernels"]


def test_inspect_says_which_kernels_run_and_which_others_there_are(tmp_path):
    first = kernels_of(STORY, tmp_path)
    ternary = [group for group in first["matrices"] if group["ternary"]]
    plain = [group for group in first["matrices"] if not group["ternary"]]
    assert {kind for group in ternary for kind in group["kinds"]} == {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}
    assert {kind for group in plain for kind in group["kinds"]} <= {"token_embd", "embedding", "output"} and plain
    config = json.loads((STORY / "config.json").read_text())
    assert sum(group["count"] for group in ternary) == 7 * config["num_hidden_layers"]
    for group in ternary:
        names = [time["kernel"] for time in group["timed"]]
        speeds = [time["weights_per_second"] for time in group["timed"]]
        assert group["kernel"] in names and sorted(group["others"] + [group["kernel"]]) == sorted(names)
        assert group["kernel"] == f"{group['layout']}.{group['isa']}" + (" in one stream" if group["one_stream"] else "")
        assert speeds == sorted(speeds, reverse=True) and speeds[-1] > 0
        assert not any(time["remembered"] for time in group["timed"])
        # Layouts of 1.67 and 2 bits a weight, and rows filled up to whole strips.
        assert 0.2 < group["bytes_per_weight"] < 0.5
    for group in plain:  # one packing, read in one way or in two
        names = {time["kernel"] for time in group["timed"]}
        assert names in (set(), {group["kernel"].removesuffix(" in one stream") + way for way in ("", " in one stream")})
        assert all(time["weights_per_second"] > 0 and time["columns"] > 0 for time in group["timed"])
    assert Path(first["cache"]) == tmp_path / "pare" / "kernels.json"
    # Remembered times choose the same again.
    second = kernels_of(STORY, tmp_path)
    assert all(time["remembered"] for group in second["matrices"] for time in group["timed"])
    assert [group["kernel"] for group in second["matrices"]] == [group["kernel"] for group in first["matrices"]]
    # A forced one is what runs; the others are timed all the same.
    for layout in {time["layout"] for time in ternary[0]["timed"]}:
        forced = [group for group in kernels_of(STORY, tmp_path, "--kernel", layout)["matrices"] if group["ternary"]]
        assert all(group["layout"] == layout and group["why"] == "forced by --kernel" for group in forced)
        assert [group["timed"] for group in forced] == [group["timed"] for group in second["matrices"] if group["ternary"]]


def test_times_of_another_build_are_not_believed(tmp_path):
    other = shutil.copy2(PARE, tmp_path / "other")
    os.utime(other, ns=(0, os.stat(PARE).st_mtime_ns + 1))
    kernels_of(STORY, tmp_path)
    for program, remembered in ((other, False), (other, True), (PARE, True)):
        matrices = kernels_of(STORY, tmp_path, program=program)["matrices"]
        assert {time["remembered"] for group in matrices for time in group["timed"]} == {remembered}


def test_inspect_shows_kernels_to_people(tmp_path):
    (tmp_path / "file").touch()
    for cache, what in ((tmp_path, "are remembered in"), (tmp_path / "file", "are not remembered, as")):
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        done = subprocess.run([PARE, "inspect", str(STORY), "--kernels"], capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done
        for words in ("chosen", "measured now", "Gweights/s", "i2.", "kernels.json", what):
            assert words in done.stdout, words
    assert "tl9" in refused("inspect", STORY, "--kernels", "--kernel", "tl9")
