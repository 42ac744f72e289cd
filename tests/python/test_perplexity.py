"""Perplexity under both protocols, and divergence, against PyTorch and NumPy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from llama_models import SHARED, remove_parts
from scored_models import folder_model, stories260k, uneven_model
from scoring import (STORIES, chunked_perplexity, log_softmax64, pare, pare_json, strided_perplexity)
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
EVAL = SHARED / "data" / "eval"
BUNDLED = ROOT / "models" / "story"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    stories = (EVAL / "tinystories_1000.txt").read_text().replace("<|endoftext|>", "")
    path.write_text(stories[:6_000])
    return path


@pytest.fixture(scope="module")
def story_ids(text):
    done = pare("tokenize", STORIES, "--json", input=text.read_text())
    ids = json.loads(done.stdout)["ids"]
    assert ids[0] == 1, "text is tokenised with the beginning token that the model expects"
    return ids


def agree(ours, theirs):
    """To four digits."""
    assert ours == pytest.approx(theirs, rel=5e-5)


@pytest.mark.reference
@pytest.mark.parametrize("context, stride", [(512, 256), (512, 512), (200, 77), (24, 5)])
def test_strided(text, story_ids, context, stride):
    result = pare_json("eval", STORIES, "--perplexity", text, "--context", context, "--stride", stride, "--kv", "f32")
    agree(result["perplexity"], strided_perplexity(stories260k(), story_ids, context, stride))
    assert result["context"] == context


@pytest.mark.reference
def test_strided_default_is_the_models_context_and_half_of_it(text, story_ids):
    result = pare_json("eval", STORIES, "--perplexity", text, "--kv", "f32")
    agree(result["perplexity"], strided_perplexity(stories260k(), story_ids, 512, 256))
    assert result["tokens"] == len(story_ids) - 1


@pytest.mark.reference
@pytest.mark.parametrize("context", [512, 128, 33])
def test_chunked(text, story_ids, context):
    result = pare_json("eval", STORIES, "--perplexity", text, "--protocol", "chunked", "--context", context, "--kv", "f32")
    agree(result["perplexity"], chunked_perplexity(stories260k(), story_ids, context, 1))
    assert result["tokens"] == len(story_ids) // context * (context - context // 2 - 1)


@pytest.mark.reference
def test_without_a_beginning_token(tmp_path):
    """A tokenizer that adds none: chunks keep their own first token, and the text begins with its first word."""
    model, tokenizer = uneven_model(tmp_path, 11)
    path = tmp_path / "text.txt"
    path.write_text((EVAL / "heldout_pratham_storyweaver_en.txt").read_text()[:1500])
    ids = tokenizer.encode(path.read_text(), add_special_tokens=True).ids
    strided = pare_json("eval", tmp_path, "--perplexity", path, "--kv", "f32")
    agree(strided["perplexity"], strided_perplexity(model, ids, 64, 32))
    chunked = pare_json("eval", tmp_path, "--perplexity", path, "--protocol", "chunked", "--context", 48, "--kv", "f32")
    agree(chunked["perplexity"], chunked_perplexity(model, ids, 48, None))


@pytest.mark.reference
def test_bundled_model(tmp_path):
    path = tmp_path / "heldout.txt"
    path.write_text((EVAL / "heldout_fairytaleqa_test.txt").read_text().replace("<|endoftext|>", "")[:16_000])
    model = folder_model(BUNDLED)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    ids = tokenizer(path.read_text())["input_ids"]
    strided = pare_json("eval", BUNDLED, "--perplexity", path, "--kv", "f32")
    agree(strided["perplexity"], strided_perplexity(model, ids, 1024, 512))
    chunked = pare_json("eval", BUNDLED, "--perplexity", path, "--protocol", "chunked", "--kv", "f32")
    agree(chunked["perplexity"], chunked_perplexity(model, ids, 512, 0))


@pytest.mark.reference
def test_divergence_from_a_base(text, story_ids, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text('{"version": 1, "drop": {"attention": [2], "mlp": [4]}}')
    pare("drop", STORIES, "--plan", plan, "-o", tmp_path / "dropped.gguf")
    result = pare_json("eval", tmp_path / "dropped.gguf", "--against", STORIES, "--perplexity", text, "--kv", "f32",
                       "--context", 256, "--stride", 256)
    base, variant = stories260k(), stories260k()
    remove_parts(variant, [2], [4])
    kl, same, nats = [], [], {"base": [], "variant": []}
    for begin in range(0, len(story_ids), 256):
        window = torch.tensor([story_ids[begin : begin + 256]])
        with torch.no_grad():
            a, b = (log_softmax64(m(window).logits[0, :-1].numpy()) for m in (base, variant))
        kl += (np.exp(a) * (a - b)).sum(-1).tolist()
        same += (a.argmax(-1) == b.argmax(-1)).tolist()
        rows = np.arange(len(a)), window[0, 1:].numpy()
        nats["base"] += (-a[rows]).tolist()
        nats["variant"] += (-b[rows]).tolist()
    against = result["against"]
    assert result["tokens"] == len(kl)
    assert against["mean_kl"] == pytest.approx(np.mean(kl), rel=1e-3)
    assert against["p99_kl"] == pytest.approx(np.percentile(kl, 99, method="inverted_cdf"), rel=1e-3)
    assert against["top1_agreement"] == pytest.approx(np.mean(same), abs=2 / len(same))
    agree(result["perplexity"], np.exp(np.mean(nats["variant"])))
    agree(against["base"]["perplexity"], np.exp(np.mean(nats["base"])))
    agree(against["quality"], np.exp(np.mean(nats["base"]) - np.mean(nats["variant"])))
    assert result["standard_error"] == pytest.approx(np.std(nats["variant"], ddof=1) / len(kl) ** 0.5, rel=2e-3)


def test_smaller_caches_lose_little(text):
    def kl(kv):
        result = pare_json("eval", STORIES, "--against", STORIES, "--perplexity", text, "--kv", kv, "--against-kv", "f32")
        assert (result["kv"], result["against"]["kv"]) == (kv, "f32")
        return result["against"]["mean_kl"]

    # What is kept of the base's predictions is rounded: 1e-7 is none.
    none, f16, q8_0 = kl("f32"), kl("f16"), kl("q8_0")
    # Heads of 8 values in a model of 64: larger models lose a fiftieth of that (docs/benchmarks.md).
    assert none < f16 < 1e-5 < q8_0 < 3e-3, (none, f16, q8_0)


def test_a_model_against_itself():
    against = pare_json("eval", STORIES, "--against", STORIES, "--tokens", 4096)["against"]
    assert against["mean_kl"] < 1e-6
    assert against["top1_agreement"] == 1
    assert against["quality"] == 1


def test_plain_words(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text('{"version": 1, "drop": {"attention": [2]}}')
    pare("drop", STORIES, "--plan", plan, "-o", tmp_path / "dropped.gguf")
    shown = pare("eval", tmp_path / "dropped.gguf", "--against", STORIES, "--tokens", 2048).stdout
    for words in ("quality", "same next word", "KL divergence", "difference", "the stories that come with pare"):
        assert words in shown


def test_refusals(text, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("Hello")
    random = tmp_path / "random"
    random.mkdir()
    uneven_model(random, 3)
    cases = [
        (["eval", STORIES], 2, "nothing to measure"),
        (["eval", STORIES, "--perplexity", text, "--protocol", "sliding"], 2, "strided"),
        (["eval", STORIES, "--perplexity", text, "--protocol", "chunked", "--stride", "4"], 2, "--stride belongs"),
        (["eval", STORIES, "--perplexity", text, "--context", "64", "--stride", "65"], 1, "stride 65 is larger"),
        (["eval", STORIES, "--perplexity", short, "--protocol", "chunked"], 1, "the text is too short"),
        (["eval", STORIES, "--perplexity", tmp_path / "missing.txt"], 1, "missing.txt"),
        (["eval", random, "--against", STORIES], 1, "their predictions cannot be compared"),
    ]
    for arguments, code, message in cases:
        done = pare(*arguments, check=False)
        assert done.returncode == code, arguments
        assert message in done.stderr, arguments
        assert done.stdout == ""
