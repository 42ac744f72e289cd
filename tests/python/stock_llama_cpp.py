"""Stock llama.cpp, as xllamacpp packs it: what it predicts, and how it reads text."""

import ctypes
import json
import urllib.request
from pathlib import Path

import gguf
import numpy as np


def server(model, context=1024):
    import xllamacpp
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.n_ctx = context
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1  # its threads wait spinning: with other tests beside it, two are slower
    parameters.warmup = False
    # Its own rounding off where it can be turned off; it still rounds activations to f16 for products with f16 weights.
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(parameters)


def quantize_over(model, base):
    """Replaces the weights of a quantized GGUF file by what ggml's own quantizers make of those of `base`."""
    import xllamacpp
    library = ctypes.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
    quantize = library.ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    originals = {tensor.name: tensor for tensor in gguf.GGUFReader(base).tensors}
    changed = 0
    for tensor in gguf.GGUFReader(model, "r+").tensors:
        kind = tensor.tensor_type
        if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
            continue
        values = np.ascontiguousarray(originals[tensor.name].data, np.float32)
        encoded = np.zeros(tensor.data.shape, np.uint8)
        rows, columns = values.shape
        assert quantize(kind, values.ctypes.data, encoded.ctypes.data, 0, rows, columns, None) == encoded.nbytes
        changed += int((tensor.data != encoded).sum())
        tensor.data[:] = encoded
    return changed


def logprobs(running, ids, top=64, sampled=None):
    """Teacher-forced: {id: log probability} of the `top` likeliest tokens after each of the ids.

    It tells nothing where it samples a token without text (the end, a part of a character): `sampled` is one that it
    is made to take instead. What it tells are the probabilities before that.
    """
    found = []
    for i in range(len(ids)):
        request = dict(prompt=list(ids[: i + 1]), n_predict=1, n_probs=top, temperature=0.0, cache_prompt=True)
        if sampled is not None:
            request["logit_bias"] = [[sampled, 1e6]]
        answer = running.handle_completions(request)
        entries = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        assert len(entries) == top
        found.append({entry["id"]: entry["logprob"] for entry in entries})
    return found


def tokenize(running, text):
    body = json.dumps(dict(content=text, add_special=True, parse_special=True)).encode()
    request = urllib.request.Request(running.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
    local = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with local.open(request, timeout=60) as answer:
        return json.load(answer)["tokens"]


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def worst_difference(theirs, logits):
    """The largest difference of a log probability that llama.cpp gave from ours; logits: [tokens, vocabulary]."""
    ours = log_softmax(logits)
    return max(abs(value - row[token]) for given, row in zip(theirs, ours, strict=True) for token, value in given.items())


def perplexity(rows, ids):
    """Of the ids but the first, by log probabilities (lists or dicts) after each id but the last."""
    return float(np.exp(-np.mean([row[token] for row, token in zip(rows, ids[1:])])))
