"""Every block type of llama.cpp, made by pare: both engines must predict the same from it."""

from pathlib import Path

import numpy as np
import pytest
import stock_llama_cpp
from llama_models import pare_logits
from test_partners import STORY, pare, text_ids  # noqa: F401

TYPES = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "q4_k_m"]


def divergence(theirs, ours):
    """Mean KL of llama.cpp's predictions from ours, in nats: over its 64 likeliest tokens, and the rest as one."""
    total = 0.0
    for given, row in zip(theirs, ours, strict=True):
        p = np.array(list(given.values()))
        q = row[list(given)]
        rest = [max(1e-12, 1 - np.exp(each).sum()) for each in (p, q)]
        total += float(np.sum(np.exp(p) * (p - q)) + rest[0] * np.log(rest[0] / rest[1]))
    return total / len(theirs)


@pytest.mark.reference
@pytest.mark.parametrize("weights", TYPES)
def test_stock_llama_cpp_predicts_the_same(weights, text_ids, tmp_path):  # noqa: F811
    model = tmp_path / "m.gguf"
    pare("quantize", STORY, "--weights", weights, "-o", model)
    ids = text_ids[:500]
    theirs = stock_llama_cpp.logprobs(stock_llama_cpp.server(model), ids)
    ours = stock_llama_cpp.log_softmax(pare_logits(model, [ids], tmp_path, kv="f32")[0])
    kl = divergence(theirs, ours)
    both = [(given[token], row[token]) for given, row, token in zip(theirs, ours, text_ids[1:]) if token in given]
    their_mean, our_mean = np.mean(both, axis=0)
    print(f"{weights}: KL {kl:.2e}, perplexities {np.exp(-their_mean):.4f} {np.exp(-our_mean):.4f}")
    assert len(both) > 400
    assert kl <= 1e-3
    assert abs(np.exp(our_mean - their_mean) - 1) <= 0.005
