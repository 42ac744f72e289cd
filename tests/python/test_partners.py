"""What pare writes, read by the programs and libraries that others use."""

import json
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import stock_llama_cpp
import torch
from llama_models import PARE, difference, pare_logits, remove_parts
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM

STORY = Path(__file__).parents[2] / "models" / "story"
TEXT = (Path(__file__).parents[2] / "data" / "calibration.txt").read_text()[20000:24000]


def pare(*arguments):
    subprocess.run([PARE, *map(str, arguments), "--quiet"], check=True)


@pytest.fixture(scope="module")
def text_ids():
    ids = AutoTokenizer.from_pretrained(STORY)(TEXT)["input_ids"]
    assert len(ids) >= 501
    return ids[:501]


@pytest.mark.reference
def test_stock_llama_cpp_gives_our_logprobs(text_ids, tmp_path):
    """Teacher-forced over 500 tokens: llama.cpp's 64 likeliest tokens after each prefix have our log probabilities."""
    model = tmp_path / "story-f16.gguf"
    pare("quantize", STORY, "--weights", "f16", "-o", model)
    theirs = stock_llama_cpp.logprobs(stock_llama_cpp.server(model), text_ids[:500])
    logits = pare_logits(model, [text_ids[:500]], tmp_path, kv="f32")[0]
    worst = stock_llama_cpp.worst_difference(theirs, logits)
    print("largest difference of a log probability:", worst)
    assert worst <= 1e-2


@pytest.mark.reference
@pytest.mark.parametrize("weights", ["q8_0", "q4_0"])
def test_gguf_py_reads_quantized_files(weights, tmp_path):
    """Dequantized by gguf-py, every tensor is the original rounded as gguf-py itself rounds."""
    model = tmp_path / "m.gguf"
    pare("quantize", STORY, "--weights", weights, "-o", model)
    reader = gguf.GGUFReader(model)
    original = load_file(STORY / "model.safetensors")
    assert reader.fields["general.architecture"].contents() == "llama"
    by_name = {t.name: t for t in reader.tensors}
    kind = gguf.GGMLQuantizationType[weights.upper()]
    for ours, theirs in (("token_embd.weight", "model.embed_tokens.weight"),
                         ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight"),
                         ("blk.31.attn_v.weight", "model.layers.31.self_attn.v_proj.weight")):
        tensor = by_name[ours]
        assert tensor.tensor_type == kind
        expected = gguf.quants.quantize(original[theirs].float().numpy(), kind)
        np.testing.assert_array_equal(tensor.data, expected)
    assert by_name["blk.3.attn_norm.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    assert json.loads(reader.fields["pare.plan"].contents())["store"] == [{"type": weights}]


@pytest.mark.reference
def test_dropped_folder_in_pytorch_gives_our_logits(text_ids, tmp_path):
    out = tmp_path / "dropped"
    pare("drop", STORY, "--joint", "12", "-o", out)
    config = json.loads((out / "config.json").read_text())
    attention, mlp = config.get("drop_attn_list", []), config.get("drop_mlp_list", [])
    assert len(attention) + len(mlp) == 12
    weights = load_file(out / "model.safetensors")
    for layer in attention:
        assert not any(f"layers.{layer}.self_attn" in name or f"layers.{layer}.input_layernorm" in name for name in weights)
    for layer in mlp:
        assert not any(f"layers.{layer}.mlp" in name or f"layers.{layer}.post_attention" in name for name in weights)
    model = LlamaForCausalLM.from_pretrained(STORY, dtype=torch.float32, attn_implementation="eager").eval()
    remove_parts(model, attention, mlp)
    with torch.no_grad():
        theirs = model(torch.tensor([text_ids])).logits[0].numpy()
    assert difference(pare_logits(out, [text_ids], tmp_path), [theirs]) <= 1e-5
