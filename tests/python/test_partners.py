"""What pare writes, read by the programs and libraries that others use."""

import json
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
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
    import xllamacpp
    model = tmp_path / "story-f16.gguf"
    pare("quantize", STORY, "--weights", "f16", "-o", model)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.n_ctx = 1024
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 2
    parameters.warmup = False
    # Its own rounding off where it can be turned off; it still rounds activations to f16 for products with f16 weights.
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(parameters)
    logits = pare_logits(model, [text_ids], tmp_path, kv="f32")[0].astype(np.float64)
    ours = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True)
    worst = 0.0
    for i in range(500):
        request = dict(prompt=text_ids[: i + 1], n_predict=1, n_probs=64, temperature=0.0, cache_prompt=True)
        answer = server.handle_completions(request)
        top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        assert len(top) == 64
        for entry in top:
            worst = max(worst, abs(entry["logprob"] - ours[i][entry["id"]]))
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
