"""`--for llama.cpp`: models with dropped parts in stock llama.cpp, which gives what pare gives, and back in pare."""

import json
import shutil
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import stock_llama_cpp
from llama_models import PARE, SHARED, make, pare_logits, tokens

STORY = Path(__file__).parents[2] / "models" / "story"
STORIES = SHARED / "data/models/stories260K/stories260K.gguf"
TEXT = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big"


LILY = 403  # an ordinary word of that tokenizer


def pare(*arguments, code=0):
    done = subprocess.run([PARE, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done
    return done


def inspect(model):
    return json.loads(pare("inspect", model, "--json").stdout)


def parts(model):
    """(attention, MLP) of each layer: whether it is there."""
    return [(layer["attention"] is not None, layer["mlp"] is not None) for layer in inspect(model)["layers"]]


def drop(model, attention, mlp, folder, *more, name="dropped.gguf", weights="f16"):
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"version": 1, "drop": {"attention": attention, "mlp": mlp}, "store": [{"type": weights}]}))
    out = folder / name
    pare("drop", model, "--plan", plan, "-o", out, *more, "--quiet")
    return out


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """stories260K, and random models with its tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    pare("quantize", STORIES, "--weights", "f16", "-o", folder / "stories", "-q")
    made = {"stories": STORIES}
    scalings = {
        "linear": {"rope_type": "linear", "factor": 4.0},
        "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 32},
        "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        "dynamic": {"rope_type": "dynamic", "factor": 2.0},
        "yarn of its own": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0},
    }
    changes = {"random": {}, "tied": dict(tie_word_embeddings=True), "biases": dict(attention_bias=True, mlp_bias=True),
               "wide heads": dict(head_dim=32), **{name: dict(rope_scaling=scaling) for name, scaling in scalings.items()}}
    for seed, (name, change) in enumerate(changes.items()):
        made[name] = folder / name
        make(made[name], seed=seed, vocab_size=512, num_hidden_layers=5, max_position_embeddings=128, **change)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(folder / "stories" / file, made[name])
    return made


def ids_of(name):
    if name == "stories":
        return [int(i) for i in subprocess.run([PARE, "tokenize", STORIES], input=TEXT, capture_output=True, text=True,
                                               check=True).stdout.split()]
    return tokens(60, 3, 512)


def check_in_stock(model, ids, tmp_path, largest=1e-2):
    """The 64 likeliest tokens after each prefix have our log probabilities; the perplexity is ours."""
    logits = pare_logits(model, [ids], tmp_path)[0]
    theirs = stock_llama_cpp.logprobs(stock_llama_cpp.server(model), ids, top=512, sampled=LILY)
    worst = stock_llama_cpp.worst_difference([dict(list(given.items())[:64]) for given in theirs], logits)
    ours = stock_llama_cpp.perplexity(stock_llama_cpp.log_softmax(logits), ids)
    print("largest difference of a log probability:", worst, "perplexity:", ours)
    assert worst <= largest
    assert stock_llama_cpp.perplexity(theirs, ids) == pytest.approx(ours, rel=5e-3)


DROPS = {
    "attentions": ([2, 3], []),
    "the first attention": ([0], []),
    "the first two attentions": ([0, 1], []),
    "the last attention": ([4], []),
    "every attention": ([0, 1, 2, 3, 4], []),
    "an MLP": ([], [2]),
    "the first MLP": ([], [0]),
    "the last MLP": ([], [4]),
    "every MLP": ([], [0, 1, 2, 3, 4]),
    "a block": ([2], [2]),
    "the last block": ([4], [4]),
    "the first block and an attention": ([0, 1], [0]),
    "the last block and an MLP": ([4], [1, 4]),
    "jointly": ([0, 2, 4], [1, 2, 3]),
}


@pytest.mark.reference
@pytest.mark.parametrize("model", ["stories", "random"])
@pytest.mark.parametrize("what", DROPS)
def test_dropped_models_run_in_stock_llama_cpp(models, model, what, tmp_path):
    attention, mlp = DROPS[what]
    # llama.cpp rounds activations to f16 for products with f16 weights, which the model of 5 layers feels when it loses
    # one: it is compared in f32, where both round little.
    weights, largest = ("f32", 1e-3) if model == "stories" else ("f16", 1e-2)
    out = drop(models[model], attention, mlp, tmp_path, "--for", "llama.cpp", weights=weights)
    check_in_stock(out, ids_of(model), tmp_path, largest)
    # The same model comes back, without what stands in for dropped parts.
    kept = [(i not in attention, i not in mlp) for i in range(5)]
    assert parts(out) == [layer for layer in kept if any(layer)]
    plain = drop(models[model], attention, mlp, tmp_path, name="plain.gguf", weights=weights)
    ours, theirs = inspect(out), inspect(plain)
    assert ours["plan"] == theirs["plan"]
    assert [t | {"name": ""} for t in ours["tensors"]] == [t | {"name": ""} for t in theirs["tensors"]]
    ids = ids_of(model)
    np.testing.assert_array_equal(pare_logits(out, [ids], tmp_path)[0], pare_logits(plain, [ids], tmp_path)[0])
    # And it can be written on, in either form, with the same bytes as before.
    pare("quantize", out, "--weights", weights, "--for", "llama.cpp", "-o", tmp_path / "again.gguf", "-q")
    assert (tmp_path / "again.gguf").read_bytes() == out.read_bytes()


@pytest.mark.reference
@pytest.mark.parametrize("model", ["tied", "biases", "wide heads", "linear", "llama3", "yarn"])
def test_what_models_may_have_beside(models, model, tmp_path):
    # In f32 llama.cpp rounds as little as pare does, so small mistakes show.
    out = drop(models[model], [0, 3], [1], tmp_path, "--for", "llama.cpp", weights="f32")
    assert gguf.GGUFReader(out).fields["general.architecture"].contents() == "deci"
    check_in_stock(out, ids_of(model), tmp_path, largest=1e-3)


@pytest.mark.reference
def test_the_story_model_with_a_dozen_parts_dropped(tmp_path):
    out = tmp_path / "joint.gguf"
    # llama.cpp rounds activations to the type of the weights, which a damaged model feels: so f32.
    pare("drop", STORY, "--joint", "12", "--for", "llama.cpp", "-o", tmp_path / "bf16.gguf", "-q")
    pare("quantize", tmp_path / "bf16.gguf", "--weights", "f32", "--for", "llama.cpp", "-o", out, "-q")
    done = subprocess.run([PARE, "tokenize", STORY], input=TEXT, capture_output=True, text=True, check=True)
    ids = [int(i) for i in done.stdout.split()]
    theirs = stock_llama_cpp.logprobs(stock_llama_cpp.server(out), ids)
    worst = stock_llama_cpp.worst_difference(theirs, pare_logits(out, [ids], tmp_path)[0])
    print("largest difference of a log probability:", worst)
    assert worst <= 1e-3


def test_what_differs_decides_the_architecture(models, tmp_path):
    def architecture(path):
        return gguf.GGUFReader(path).fields["general.architecture"].contents()

    whole = [tmp_path / "for.gguf", tmp_path / "plain.gguf"]
    pare("quantize", models["random"], "-w", "f16", "--for", "llama.cpp", "-o", whole[0], "-q")
    pare("quantize", models["random"], "-w", "f16", "-o", whole[1], "-q")
    assert whole[0].read_bytes() == whole[1].read_bytes()
    assert architecture(drop(models["random"], [1, 4], [1, 4], tmp_path, "--for", "llama.cpp")) == "llama"
    assert architecture(drop(models["random"], [1], [], tmp_path)) == "llama"
    assert architecture(drop(models["random"], [1], [], tmp_path, "--for", "llama.cpp")) == "deci"


def test_remark_where_stock_llama_cpp_would_not_read_the_file(models, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text('{"version": 1, "drop": {"attention": [1]}}')
    command = ["drop", models["random"], "--plan", plan, "-o", tmp_path / "out.gguf"]
    assert "--for llama.cpp" in pare(*command).stderr
    assert "llama.cpp" not in pare(*command, "--for", "llama.cpp").stderr
    plan.write_text('{"version": 1, "drop": {"attention": [1], "mlp": [1]}}')
    assert "llama.cpp" not in pare(*command).stderr


def refused(done):
    assert done.stdout == "" and done.stderr.startswith("pare: ") and done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("model, says", [("dynamic", '"dynamic"'), ("yarn of its own", "beta_fast")])
def test_refuses_what_llama_cpp_computes_otherwise(models, model, says, tmp_path):
    out = tmp_path / "out.gguf"
    for command in (["drop", models[model], "--attention", 1], ["quantize", models[model], "-w", "f16"],
                    ["shrink", models[model], "--trials", 1]):
        said = refused(pare(*command, "--for", "llama.cpp", "-o", out, code=1))
        assert says in said and "leave out --for" in said
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_model_without_layers(models, tmp_path):
    everything = list(range(5))
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"version": 1, "drop": {"attention": everything, "mlp": everything}}))
    out = tmp_path / "out.gguf"
    assert "no layer is left" in refused(pare("drop", STORIES, "--plan", plan, "--for", "llama.cpp", "-o", out, code=1))
    assert not out.exists()


def test_wrong_use(tmp_path):
    out = tmp_path / "out"
    assert "not one of pare, llama.cpp" in refused(pare("drop", STORIES, "--attention", 1, "--for", "ollama", "-o", out, code=2))
    assert "writes a .gguf file" in refused(pare("drop", STORIES, "--attention", 1, "--for", "llama.cpp", "-o", out, code=2))
    assert list(tmp_path.iterdir()) == []


# ---- files of others

def copy_gguf(source, out, edit=lambda key, value: value, keep=lambda name: True):
    """The file again with keys and tensors changed, as another program might write it."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = edit(key, field.contents())
        if value is None:
            continue
        kind = field.types[0]
        writer.add_key_value(key, value, kind, sub_type=field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        if keep(tensor.name):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_reads_deci_files_that_pare_did_not_write(models, tmp_path):
    """What stands in is an ordinary part there, and layers may have sizes of their own."""
    ours = drop(models["random"], [0, 2], [1], tmp_path, "--for", "llama.cpp")
    foreign = tmp_path / "foreign.gguf"
    copy_gguf(ours, foreign, lambda key, value: None if key.startswith("pare.") else value)
    layers = inspect(foreign)["layers"]
    assert [layer["attention"] and layer["attention"]["heads"] for layer in layers] == [1, 6, None, 6, 6]
    assert [layer["mlp"]["width"] for layer in layers] == [176, 32, 176, 176, 176]
    ids = ids_of("random")
    np.testing.assert_array_equal(pare_logits(foreign, [ids], tmp_path)[0], pare_logits(ours, [ids], tmp_path)[0])
    out = tmp_path / "out.gguf"
    pare("quantize", foreign, "-w", "f16", "--for", "llama.cpp", "-o", out, "-q")
    assert gguf.GGUFReader(out).fields["general.architecture"].contents() == "deci"
    assert [layer["mlp"]["width"] for layer in inspect(out)["layers"]] == [176, 32, 176, 176, 176]
    assert "config.json cannot say" in refused(pare("quantize", foreign, "-w", "f16", "-o", tmp_path / "folder", code=1))


def changed(key, index, value):
    return lambda name, old: [value if i == index else x for i, x in enumerate(old)] if name == key else old


@pytest.mark.parametrize("edit, says", [
    (changed("deci.attention.head_count_kv", 3, 0), "head_count_kv[3] is 0 beside 6 heads: linear attention"),
    (changed("deci.feed_forward_length", 3, 0), "feed_forward_length[3] is 0, but the layer has attention"),
    (changed("deci.feed_forward_length", 1, 64), "drops the MLP of layer 1, but the file has one of width 64"),
    (changed("deci.attention.head_count", 0, 2), "drops the attention of layer 0, but the file has one of 2 heads"),
])
def test_refuses_deci_files_that_it_would_run_otherwise(models, edit, says, tmp_path):
    ours = drop(models["random"], [0, 2], [1], tmp_path, "--for", "llama.cpp")
    copy_gguf(ours, tmp_path / "edited.gguf", edit)
    assert says in refused(pare("inspect", tmp_path / "edited.gguf", code=1))
