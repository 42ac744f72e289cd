"""Every block type of llama.cpp, made by pare and by llama.cpp: both engines must predict the same from it."""

import json
from pathlib import Path

import numpy as np
import pytest
import stock_llama_cpp
from llama_models import pare_logits
from test_partners import STORY, pare, text_ids  # noqa: F401

# Rounding the whole model to these destroys it, and what is left magnifies any rounding of activations: they are tried
# where it can bear them.
TERNARY = ["tq1_0", "tq2_0", "q2_0"]
# Of these pare's encoder writes the bytes that ggml's does (test_storage_types.py), so one file stands for both.
SAME = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", *TERNARY]
OWN = ["q2_k_s", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs"]
LIMIT = 1e-3  # nats
# llama.cpp rounds activations for the K types in blocks of 256, pare in blocks of 32. In the most damaged model what
# both round adds up to more than the limit, so there each engine is held to it alone, against exact activations.
ROUNDING_ADDS_UP = {("q2_k_s", "llama.cpp")}


def divergence(theirs, ours):
    """Mean KL of other predictions from ours, in nats: over the 64 tokens of theirs, and the rest as one.

    theirs: one {id: log probability} a token; ours: [tokens, vocabulary] log probabilities.
    """
    total = 0.0
    for given, row in zip(theirs, ours, strict=True):
        p = np.array(list(given.values()))
        q = row[list(given)]
        rest = [max(1e-12, 1 - np.exp(each).sum()) for each in (p, q)]
        total += float(np.sum(np.exp(p) * (p - q)) + rest[0] * np.log(rest[0] / rest[1]))
    return total / len(theirs)


def likeliest(rows, top=64):
    """The {id: log probability} that llama.cpp would tell; rows: [tokens, vocabulary]."""
    return [{int(token): row[token] for token in np.argsort(-row)[:top]} for row in rows]


def exact_logprobs(model, ids, tmp_path):
    """What the stored weights predict where no activation is rounded: the same values as float32."""
    exact = tmp_path / "f32.gguf"
    pare("convert", model, "--type", "f32", "-o", exact)
    return stock_llama_cpp.log_softmax(pare_logits(exact, [ids], tmp_path, kv="f32")[0])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    model = tmp_path_factory.mktemp("original") / "f16.gguf"
    pare("convert", STORY, "--type", "f16", "-o", model)
    return model


@pytest.mark.reference
@pytest.mark.parametrize(("weights", "maker"), [*[(weights, "pare") for weights in [*SAME, *OWN, "q2_k", "q4_k_m"]],
                                                *[(weights, "llama.cpp") for weights in OWN]])
def test_stock_llama_cpp_predicts_the_same(weights, maker, original, text_ids, tmp_path):  # noqa: F811
    model = tmp_path / "m.gguf"
    if weights in TERNARY:
        plan = tmp_path / "plan.json"
        kinds = ["attn_q", "attn_k"]
        plan.write_text(json.dumps({"version": 1, "store": [{"type": "q8_0"}, *[{"tensor": kind, "type": weights} for kind in kinds]]}))
        pare("quantize", original, "--plan", plan, "-o", model)
    else:
        pare("quantize", original, "--weights", weights, "-o", model)
    if maker == "llama.cpp":
        assert stock_llama_cpp.quantize_over(model, original) > 1000  # bytes
    ids = text_ids[:500]
    theirs = stock_llama_cpp.logprobs(stock_llama_cpp.server(model), ids)
    ours = stock_llama_cpp.log_softmax(pare_logits(model, [ids], tmp_path, kv="f32")[0])
    kl = divergence(theirs, ours)
    both = [(given[token], row[token]) for given, row, token in zip(theirs, ours, text_ids[1:]) if token in given]
    their_mean, our_mean = np.mean(both, axis=0)
    print(f"{weights} by {maker}: KL {kl:.2e}, perplexities {np.exp(-their_mean):.4f} {np.exp(-our_mean):.4f}")
    assert len(both) > 350
    if (weights, maker) in ROUNDING_ADDS_UP:
        exact = exact_logprobs(model, ids, tmp_path)
        own, their_own = divergence(likeliest(ours), exact), divergence(theirs, exact)
        print(f"from exact activations: llama.cpp {their_own:.2e}, pare {own:.2e}")
        assert own < their_own <= LIMIT
        assert kl <= 2 * LIMIT  # independent errors add: nothing but both roundings lies between the engines
    else:
        assert kl <= LIMIT
    assert abs(np.exp(our_mean - their_mean) - 1) <= 0.005
