"""`pare convert`: Hugging Face folder to GGUF and back is the same model, for transformers, llama.cpp and pare."""

import json
import shutil
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import stock_llama_cpp
import torch
from llama_models import PARE, SHARED, difference, edit_config, make, pare_logits, tokens
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

STORY = Path(__file__).parents[2] / "models" / "story"
STORIES = SHARED / "data/models/stories260K/stories260K.gguf"
TEXTS = ["Once upon a time, there was a naïve girl 🙂\n", " two  spaces, numbers 1234567 and <|endoftext|>", "ünïcödé\t\ttabs", ""]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
CARD = """---
language:
- en
- "no"
license: cc-by-sa-4.0
license_name: 'it''s free'
tags: [story, "a, b"]
model_name: A story
model_author: "Somebody \\"else\\""
pipeline_tag: text-generation
---
# Nothing of this matters
license: not this
"""


def pare(*arguments, code=0, stdin=""):
    done = subprocess.run([PARE, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done
    return done


def there_and_back(folder, tmp_path):
    file, back = tmp_path / "model.gguf", tmp_path / "back"
    pare("convert", folder, "-o", file, "-q")
    pare("convert", file, "-o", back, "-q")
    return file, back


def same_tensors(folder, back):
    ours, theirs = load_file(back / "model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


def config_of(folder):
    return {k: v for k, v in AutoConfig.from_pretrained(folder).to_dict().items() if k != "_name_or_path"}


def same_tokenizer(folder, back):
    ours, theirs = AutoTokenizer.from_pretrained(back), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours(text)["input_ids"] == ids
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "model_max_length", "chat_template", "padding_side"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert sorted(ours.all_special_tokens) == sorted(theirs.all_special_tokens)
    return theirs


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The bundled model with all that a folder can say beside weights."""
    folder = tmp_path_factory.mktemp("story") / "story"
    shutil.copytree(STORY, folder)
    (folder / "README.md").write_text(CARD)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    edit_config(folder, initializer_range=0.015, use_cache=False, eos_token_id=[0, 1], something_of_mine={"a": [1, None]})
    return folder


@pytest.mark.reference
def test_a_folder_through_gguf_is_the_same(story, tmp_path):
    file, back = there_and_back(story, tmp_path)
    same_tensors(story, back)
    assert config_of(back) == config_of(story)
    assert json.loads((back / "config.json").read_text())["something_of_mine"] == {"a": [1, None]}
    assert GenerationConfig.from_pretrained(back).to_dict() == GenerationConfig.from_pretrained(story).to_dict()
    tokenizer = same_tokenizer(story, back)
    chat = [{"role": "user", "content": "Tell me a story"}]
    again = AutoTokenizer.from_pretrained(back)
    assert again.apply_chat_template(chat, tokenize=False) == tokenizer.apply_chat_template(chat, tokenize=False)
    ids = tokenizer(TEXTS[0] * 4)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(back, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    assert difference(pare_logits(story, [ids], tmp_path), [theirs]) <= 1e-5
    fields = {k: f.contents() for k, f in gguf.GGUFReader(file).fields.items()}
    assert fields["tokenizer.chat_template"] == TEMPLATE
    assert fields["general.name"] == "A story" and fields["general.author"] == 'Somebody "else"'
    assert fields["general.license"] == "cc-by-sa-4.0" and fields["general.license.name"] == "it's free"
    assert fields["general.languages"] == ["en", "no"]
    assert fields["general.sampling.temp"] == np.float32(0.8) and fields["general.sampling.top_p"] == np.float32(0.9)
    card = gguf.Metadata.load_model_card(back)
    expected = dict(model_name="A story", model_author='Somebody "else"', license="cc-by-sa-4.0", license_name="it's free",
                    language=["en", "no"])
    assert {key: card[key] for key in expected} == expected
    pare("convert", back, "-o", tmp_path / "again.gguf", "-q")
    again = {k: f.contents() for k, f in gguf.GGUFReader(tmp_path / "again.gguf").fields.items()}
    assert {k: v for k, v in again.items() if k.startswith(("general.", "tokenizer.", "llama."))} == {
        k: v for k, v in fields.items() if k.startswith(("general.", "tokenizer.", "llama."))}


@pytest.mark.reference
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", [
    dict(), dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True), dict(drop_attention=[0, 1], drop_mlp=[0, 2]),
    dict(rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0}),
], ids=["plain", "tied and biases", "dropped", "yarn"])
def test_random_models_through_gguf_are_the_same(dtype, change, tmp_path):
    folder = tmp_path / "model"
    make(folder, dtype=dtype, **{k: v for k, v in change.items() if not k.startswith("drop")})
    if "drop_mlp" in change:
        plan = tmp_path / "plan.json"
        plan.write_text(json.dumps({"version": 1, "drop": {"attention": change["drop_attention"], "mlp": change["drop_mlp"]}}))
        pare("drop", folder, "--plan", plan, "-o", tmp_path / "dropped", "-q")
        folder = tmp_path / "dropped"
    file, back = there_and_back(folder, tmp_path)
    ids = tokens(40)
    expected = pare_logits(folder, [ids], tmp_path)[0]
    np.testing.assert_array_equal(pare_logits(back, [ids], tmp_path)[0], expected)
    if "drop_mlp" not in change:  # there GGUF has no place for the empty block
        same_tensors(folder, back)
        ours, theirs = config_of(back), config_of(folder)
        if "rope_scaling" in change:  # written in full, with what transformers takes when nothing is said
            theirs["rope_parameters"] |= {"beta_slow": 1.0, "truncate": True}
        assert ours == theirs
        return
    config = json.loads((back / "config.json").read_text())
    assert config["num_hidden_layers"] == 2 and config["pare_original_layers"] == [1, 2]
    stock = tmp_path / "stock.gguf"
    pare("convert", back, "--for", "llama.cpp", "-o", stock, "-q")
    assert difference(pare_logits(stock, [ids], tmp_path), [expected]) <= 1e-5  # q and k in another order of rows


@pytest.mark.reference
def test_stock_llama_cpp_reads_and_tokenizes_the_same(story, tmp_path):
    file = tmp_path / "story.gguf"
    pare("convert", story, "--type", "f16", "-o", file, "-q")
    running = stock_llama_cpp.server(file)
    tokenizer = AutoTokenizer.from_pretrained(story)
    for text in TEXTS:
        assert stock_llama_cpp.tokenize(running, text) == tokenizer(text)["input_ids"]
    ids = tokenizer("Once upon a time, there was a little girl named Lily. She loved to play outside.")["input_ids"]
    theirs = stock_llama_cpp.logprobs(running, ids)
    assert stock_llama_cpp.worst_difference(theirs, pare_logits(file, [ids], tmp_path)[0]) <= 1e-2


@pytest.mark.reference
def test_a_gguf_file_of_others_becomes_a_folder_for_transformers(tmp_path):
    """stories260K: a SentencePiece tokenizer, and no key of pare's."""
    back = tmp_path / "stories"
    pare("convert", STORIES, "-o", back, "-q")
    ids = [int(i) for i in pare("tokenize", STORIES, stdin=TEXTS[0]).stdout.split()]
    assert AutoTokenizer.from_pretrained(back)(TEXTS[0])["input_ids"] == ids
    model = AutoModelForCausalLM.from_pretrained(back, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    assert difference(pare_logits(STORIES, [ids], tmp_path), [theirs]) <= 1e-5


def types_of(model):
    found = json.loads(pare("inspect", model, "--json").stdout)["tensors"]
    return {t["type"] for t in found if len(t["shape"]) == 2}


def test_block_types_become_floats_in_a_folder_only(tmp_path):
    small = tmp_path / "small.gguf"
    pare("quantize", STORY, "-w", "q8_0", "--embedding", "bf16", "-o", small, "-q")
    result = json.loads(pare("convert", small, "-o", tmp_path / "same.gguf", "--json").stdout)
    assert result["notes"] == [] and types_of(tmp_path / "same.gguf") == {"q8_0", "bf16"}
    assert result["bytes"] == (tmp_path / "same.gguf").stat().st_size and result["format"] == "gguf"
    done = pare("convert", small, "-o", tmp_path / "folder")
    assert "224 weights stored as f16 instead of q8_0" in done.stderr and "a Hugging Face folder" in done.stdout
    assert types_of(tmp_path / "folder") == {"f16", "bf16"}
    pare("convert", small, "--type", "f32", "-o", tmp_path / "f32", "-q")
    assert types_of(tmp_path / "f32") == {"f32"}


def test_wrong_use(tmp_path):
    for arguments, code, says in ((["--type", "q8_0"], 2, "'q8_0' is not one of f32, bf16, f16"),
                                  (["--for", "llama.cpp"], 2, "writes a .gguf file")):
        done = pare("convert", STORIES, *arguments, "-o", tmp_path / "out", code=code)
        assert says in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
    assert "no/such" in pare("convert", "no/such", "-o", tmp_path / "out", code=1).stderr
    assert list(tmp_path.iterdir()) == []
