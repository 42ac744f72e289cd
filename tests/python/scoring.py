"""LLM-Drop's scores, its choice, and both perplexity protocols, computed with PyTorch alone."""

import json
import subprocess

import numpy as np
import torch
from llama_models import PARE, SHARED

STORIES = SHARED / "data" / "models" / "stories260K" / "stories260K.gguf"
SEPARATOR = "<|endoftext|>"


def pare(*arguments, check=True, **options):
    done = subprocess.run([PARE, *map(str, arguments)], capture_output=True, text=True, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"pare {arguments}: {done.stderr.strip()}")
    return done


def pare_json(*arguments):
    return json.loads(pare(*arguments, "--json").stdout)


def documents(text):
    """What stands between separator lines, without the space around it."""
    found, lines = [], []
    for line in text.split("\n"):
        if line == SEPARATOR:
            found.append("\n".join(lines))
            lines = []
        else:
            lines.append(line)
    found.append("\n".join(lines))
    return [document.strip(" \t\r\n") for document in found if document.strip(" \t\r\n")]


def calibration_windows(encode, end, text, window, tokens):
    """Documents each followed by the end token, nothing before them, cut into full windows."""
    ids = []
    for document in documents(text):
        ids += [*encode(document), end]
    count = min(len(ids), max(1, tokens // window) * window) // window
    return [ids[i * window : (i + 1) * window] for i in range(count)]


class Stream:
    """The residual stream before and after every part of every layer, caught with hooks."""

    def __init__(self, model):
        self.before, self.after, self.output = {}, {}, {}
        for i, layer in enumerate(model.model.layers):
            layer.register_forward_pre_hook(self.keep(self.before, ("block", i)), with_kwargs=True)
            layer.register_forward_hook(self.keep_output(self.after, ("block", i)))
            layer.input_layernorm.register_forward_pre_hook(self.keep(self.before, ("attention", i)), with_kwargs=True)
            layer.self_attn.register_forward_hook(self.keep_output(self.output, ("attention", i)))
            layer.post_attention_layernorm.register_forward_pre_hook(self.keep(self.before, ("mlp", i)), with_kwargs=True)
            layer.mlp.register_forward_hook(self.keep_output(self.output, ("mlp", i)))

    @staticmethod
    def keep(store, key):
        def hook(module, args, kwargs):
            store[key] = (args[0] if args else kwargs["hidden_states"]).detach()

        return hook

    @staticmethod
    def keep_output(store, key):
        def hook(module, args, output):
            store[key] = (output[0] if isinstance(output, tuple) else output).detach()

        return hook


def importance(model, windows, residual=True):
    """1 - mean cosine over tokens: {"block" | "attention" | "mlp": [layers]}, and largest activations per layer."""
    layers = len(model.model.layers)
    stream = Stream(model)
    sums = {kind: np.zeros(layers) for kind in ("block", "attention", "mlp")}
    largest = [np.zeros(0)] * layers
    tokens = 0
    for window in windows:
        with torch.no_grad():
            model.model(torch.tensor([window]))
        tokens += len(window)
        for i in range(layers):
            for kind in ("attention", "mlp"):
                x, out = stream.before[kind, i].float(), stream.output[kind, i].float()
                y = x + out if residual else out
                sums[kind][i] += torch.cosine_similarity(x, y, dim=-1).double().sum().item()
            x, y = stream.before["block", i].float(), stream.after["block", i].float()
            sums["block"][i] += torch.cosine_similarity(x, y, dim=-1).double().sum().item()
            largest[i] = np.sort(np.append(largest[i], y.abs().flatten().topk(10).values.numpy()))[::-1][:10]
    scores = {kind: (1 - total / tokens).tolist() for kind, total in sums.items()}
    return scores, largest


def sparsity(model, windows, rows=64):
    """Share of attention weights below a thousandth of their row's largest, over evenly spread rows of each window."""
    layers = len(model.model.layers)
    total, count = np.zeros(layers), 0
    for window in windows:
        length, k = len(window), min(rows, len(window))
        sampled = [i for i in range(length) if (i + 1) * k // length != i * k // length]
        with torch.no_grad():
            attentions = model.model(torch.tensor([window]), output_attentions=True).attentions
        for layer, weights in enumerate(attentions):
            for row in sampled:
                visible = weights[0, :, row, : row + 1].double()
                small = visible < 1e-3 * visible.max(-1, keepdim=True).values
                total[layer] += small.double().mean(-1).mean().item()
        count += len(sampled)
    return total / count


def choose(scores, attention=0, mlp=0, block=0, joint=0):
    """The published rule: one stable sort by similarity, nothing protected."""
    least = lambda values, n: sorted(range(len(values)), key=lambda i: values[i])[:n]
    if block:
        chosen = sorted(least(scores["block"], block))
        return chosen, chosen
    if joint:
        layers = len(scores["attention"])
        chosen = least(scores["attention"] + scores["mlp"], joint)
        return sorted(i for i in chosen if i < layers), sorted(i - layers for i in chosen if i >= layers)
    return sorted(least(scores["attention"], attention)), sorted(least(scores["mlp"], mlp))


def strided_perplexity(model, ids, context, stride):
    """The loop of transformers' guide (huggingface.co/docs/transformers/perplexity), its weights included."""
    nll_sum, counted, previous_end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + context, len(ids))
        targets = end - previous_end
        window = torch.tensor([ids[begin:end]])
        labels = window.clone()
        labels[:, :-targets] = -100
        with torch.no_grad():
            loss = model(window, labels=labels).loss.item()
        valid = int((labels != -100).sum()) - 1
        nll_sum += loss * valid
        counted += valid
        previous_end = end
        if end == len(ids):
            break
    return float(np.exp(nll_sum / counted))


def chunked_perplexity(model, ids, context, bos):
    """llama.cpp's: whole chunks that begin with BOS, logits of [context/2, context - 1) against the token after each."""
    nats = []
    for begin in range(0, len(ids) - context + 1, context):
        window = [bos if bos is not None else ids[begin], *ids[begin + 1 : begin + context]]
        with torch.no_grad():
            logits = model(torch.tensor([window])).logits[0].double()
        scores = torch.log_softmax(logits, -1)
        nats += [-scores[i, window[i + 1]].item() for i in range(context // 2, context - 1)]
    return float(np.exp(np.mean(nats)))


def log_softmax64(logits):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
