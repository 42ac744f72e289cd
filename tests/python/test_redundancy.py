"""Scores and choices equal those of LLM-Drop's rule, computed with PyTorch on the same tokens."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scored_models import folder_model, stories260k, uneven_model
from scoring import (STORIES, calibration_windows, choose, importance, log_softmax64, pare, pare_json, sparsity)
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "data" / "calibration.txt").read_text()
BUNDLED = ROOT / "models" / "story"


class Case:
    """A model under test: for pare, for PyTorch, and the tokens both score it on."""

    def __init__(self, path, model, windows, tokens, requests):
        self.path, self.model, self.windows, self.tokens, self.requests = path, model, windows, tokens, requests


def stories_encode(text):
    done = pare("tokenize", STORIES, "--no-special", "--json", input=text)
    return json.loads(done.stdout)["ids"]


@pytest.fixture(scope="module")
def stories():
    windows = calibration_windows(stories_encode, 2, TEXT[:60_000], 512, 8192)
    requests = [dict(attention=2), dict(mlp=2), dict(block=1), dict(joint=4)]
    return Case(STORIES, stories260k(), windows, 8192, requests)


@pytest.fixture(scope="module", params=range(3))
def uneven(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"uneven{request.param}")
    changes = [dict(), dict(num_key_value_heads=6, num_hidden_layers=9), dict(head_dim=24, num_hidden_layers=6)]
    model, tokenizer = uneven_model(folder, request.param, **{"num_hidden_layers": 7, **changes[request.param]})
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    windows = calibration_windows(encode, 0, TEXT[:20_000], 64, 2048)
    requests = [dict(attention=3), dict(mlp=3), dict(block=2), dict(joint=5)]
    return Case(folder, model, windows, 2048, requests)


@pytest.fixture(scope="module")
def bundled():
    tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    windows = calibration_windows(encode, tokenizer.token_to_id("<|endoftext|>"), TEXT[:80_000], 1024, 8192)
    requests = [dict(attention=8), dict(mlp=4), dict(block=4), dict(joint=12)]
    return Case(BUNDLED, folder_model(BUNDLED), windows, 8192, requests)


def check_scores(layers, scores):
    for kind, expected in scores.items():
        ours = np.array([layer[kind] for layer in layers])
        # Both sum a float32 stream, whose rounding moves 1 - cos by about 1e-9 whatever its size.
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=4e-9, err_msg=kind)


def check_choices(case, scores, tmp_path):
    for request in case.requests:
        (kind, count), = request.items()
        arguments = [f"--{kind}", count, "--tokens", case.tokens, "-o", tmp_path / f"{kind}.gguf"]
        dropped = pare_json("drop", case.path, *arguments)["dropped"]
        attention, mlp = choose(scores, **request)
        assert dropped["attention"] == attention, kind
        assert dropped["mlp"] == mlp, kind


def check_case(case, tmp_path):
    result = pare_json("analyze", case.path, "--tokens", case.tokens)
    assert result["tokens"] == sum(map(len, case.windows))
    scores, largest = importance(case.model, case.windows)
    check_scores(result["layers"], scores)
    check_choices(case, scores, tmp_path)
    for layer, expected in zip(result["layers"], largest, strict=True):
        assert layer["top1_activation"] == pytest.approx(expected[0], rel=1e-4)
        assert layer["top10_activation"] == pytest.approx(expected[9], rel=1e-4)
    # The classic mistake: the module's output without the stream it is added to. These scores must not pass.
    wrong, _ = importance(case.model, case.windows[:2], residual=False)
    with pytest.raises(AssertionError):
        check_scores(result["layers"], {"attention": wrong["attention"]})
    with pytest.raises(AssertionError):
        check_scores(result["layers"], {"mlp": wrong["mlp"]})
    return result


@pytest.mark.reference
def test_stories(stories, tmp_path):
    check_case(stories, tmp_path)


@pytest.mark.reference
def test_uneven_models(uneven, tmp_path):
    check_case(uneven, tmp_path)
    scores, _ = importance(uneven.model, uneven.windows)
    assert max(scores["attention"]) > 30 * min(scores["attention"]), "the parts should differ, or choices prove little"


@pytest.mark.reference
def test_bundled_model(bundled, tmp_path):
    check_case(bundled, tmp_path)


@pytest.mark.reference
def test_attention_sparsity(stories):
    layers = pare_json("analyze", STORIES, "--tokens", 2048)["layers"]
    expected = sparsity(stories.model, stories.windows[:4])
    # A weight at the very edge may fall on either side, so the share is compared absolutely.
    np.testing.assert_allclose([layer["attention_sparsity"] for layer in layers], expected, atol=2e-4)
    assert expected.max() > 0.1


def kl_of_drop(model, windows, attention):
    """Mean KL over every predicted token between the model and itself without one attention, in float64."""
    def log_probabilities():
        with torch.no_grad():
            return np.concatenate([log_softmax64(model(torch.tensor([w])).logits[0, :-1].numpy()) for w in windows])

    base = log_probabilities()
    module = model.model.layers[attention].self_attn
    original = module.forward
    module.forward = lambda hidden_states, **_: (torch.zeros_like(hidden_states), None)
    variant = log_probabilities()
    module.forward = original
    return float((np.exp(base) * (base - variant)).sum(-1).mean())


@pytest.mark.reference
def test_greedy_takes_what_diverges_least(stories, tmp_path):
    result = pare_json("drop", STORIES, "--attention", 1, "--greedy", "--shortlist", 0, "--tokens", 8192,
                       "--trial-tokens", 2048, "-o", tmp_path / "greedy.gguf")
    trials = [stories.windows[i * len(stories.windows) // 4] for i in range(4)]
    divergences = [kl_of_drop(stories.model, trials, layer) for layer in range(5)]
    assert result["dropped"]["attention"] == [int(np.argmin(divergences))]
    assert result["greedy"]["kl"] == pytest.approx(min(divergences), rel=5e-3)
    assert result["greedy"]["steps"][0]["tried"] == 5


@pytest.mark.parametrize("request_", [("--attention", 3), ("--mlp", 2), ("--block", 2), ("--joint", 4)])
@pytest.mark.parametrize("shortlist", [2, 0])
def test_greedy_is_never_worse_than_one_shot(request_, shortlist, tmp_path):
    common = [STORIES, *request_, "--tokens", 4096]
    greedy = pare_json("drop", *common, "--greedy", "--shortlist", shortlist, "--trial-tokens", 2048, "-o",
                       tmp_path / "greedy.gguf")
    one_shot = pare_json("drop", *common, "-o", tmp_path / "one_shot.gguf")
    assert sum(map(len, greedy["dropped"].values())) == sum(map(len, one_shot["dropped"].values()))
    assert greedy["greedy"]["kl"] <= greedy["greedy"]["one_shot_kl"]
    # On text that the search did not use in just this way the order holds too, up to noise.
    kl = {name: pare_json("eval", tmp_path / f"{name}.gguf", "--against", STORIES, "--tokens", 8192)["against"]["mean_kl"]
          for name in ("greedy", "one_shot")}
    assert kl["greedy"] <= kl["one_shot"] * 1.05


def test_dropped_parts_can_be_analyzed_again(tmp_path):
    pare("drop", STORIES, "--attention", 2, "--mlp", 1, "--tokens", 2048, "-o", tmp_path / "once.gguf")
    layers = pare_json("analyze", tmp_path / "once.gguf", "--tokens", 2048)["layers"]
    assert sum(layer["attention"] is None for layer in layers) == 2
    assert sum(layer["mlp"] is None for layer in layers) == 1
    done = pare("drop", tmp_path / "once.gguf", "--attention", 4, "-o", tmp_path / "twice.gguf", check=False)
    assert done.returncode == 1
    assert "cannot drop 4 attentions: the model has 3" in done.stderr
    assert not (tmp_path / "twice.gguf").exists()


def test_self_calibration_repeats_and_follows_its_seed():
    analyze = lambda *more: pare_json("analyze", STORIES, "--calibration", "self", "--tokens", 1536, *more)
    first = analyze()
    assert first["tokens"] == 1536
    assert analyze("--threads", 1) == first
    assert analyze("--seed", 7)["layers"] != first["layers"]
    # What the model writes is near what it was trained on, so that scores are near those of real text.
    ours = pare_json("analyze", STORIES, "--tokens", 4096)["layers"]
    for written, read in zip(first["layers"], ours, strict=True):
        assert written["attention"] == pytest.approx(read["attention"], rel=0.5)


def test_short_text_is_one_window(tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("Once upon a time there was a frog.\n<|endoftext|>\n\n<|endoftext|>\nThe end.")
    result = pare_json("analyze", STORIES, "--calibration", text)
    ids = stories_encode("Once upon a time there was a frog.") + [2] + stories_encode("The end.") + [2]
    assert result["tokens"] == len(ids)


def test_report_is_one_file_that_needs_no_network(tmp_path):
    page = tmp_path / "report.html"
    pare("analyze", STORIES, "--tokens", 1024, "--html", page)
    html = page.read_text()
    assert html.count("<svg") == 4
    assert "layer 4 attention: " in html
    assert "prefers-color-scheme: dark" in html
    for outside in ("http:", "https:", "src=", "<script", "@import", "nan", "inf\""):
        assert outside not in html


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--calibration", "/no/such/file"], "/no/such/file"),
        (["--calibration", "."], "."),
        (["--calibration", "{empty}"], "holds no text"),
        (["--calibration", "{binary}"], "not UTF-8 text (at byte 3)"),
        (["--html", "/no/such/folder/report.html", "--tokens", "512"], "/no/such/folder/report.html"),
    ],
)
def test_one_line_for_what_cannot_be_read(arguments, message, tmp_path):
    (tmp_path / "empty").write_text(" \n\n")
    (tmp_path / "binary").write_bytes(b"abc\xff\xfe\x00")
    arguments = [a.format(empty=tmp_path / "empty", binary=tmp_path / "binary") for a in arguments]
    done = pare("analyze", STORIES, *arguments, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr.splitlines()[-1]


def test_nan_weights_are_named(tmp_path):
    model, _ = uneven_model(tmp_path, 5)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 4:7] = float("nan")
    model.save_pretrained(tmp_path)
    for command in (["analyze", tmp_path], ["drop", tmp_path, "--mlp", "1", "-o", tmp_path / "out.gguf"],
                    ["eval", tmp_path, "--perplexity", ROOT / "data" / "README.md"]):
        done = pare(*command, check=False)
        assert done.returncode == 1
        assert "model.layers.1.mlp.down_proj.weight holds 3 NaN or infinite values" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to drop"),
        (["--plan", "p.json", "--mlp", "1"], "--plan says what to drop already"),
        (["--plan", "p.json", "--greedy"], "--greedy chooses itself"),
        (["--attention", "-1"], "--attention"),
    ],
)
def test_drop_usage(arguments, message, tmp_path):
    done = pare("drop", STORIES, *arguments, "-o", tmp_path / "out.gguf", check=False)
    assert done.returncode == 2
    assert message in done.stderr


def test_drop_follows_a_plan(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text('{"version": 1, "drop": {"attention": [2], "mlp": [1, 3]}}')
    result = pare_json("drop", STORIES, "--plan", plan, "-o", tmp_path / "out.gguf")
    assert result["dropped"] == {"attention": [2], "mlp": [1, 3]}
    assert result["before"]["kv_bytes_per_token"] == 5 * 2 * 4 * 8 * 2
    assert result["after"]["kv_bytes_per_token"] == 4 * 2 * 4 * 8 * 2
    assert result["before"]["parameters"] - result["after"]["parameters"] == 64 * (64 + 64 + 32 + 32 + 1) + 2 * 64 * (
        3 * 172 + 1)
