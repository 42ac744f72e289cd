"""Held-out loss and sample texts of an exported model, through transformers.

    python evaluate.py --model models/story --data DATA [--samples 1] [--out scores.json]

Each held-out set is one stream of documents, each preceded by <|endoftext|> and the last followed by it, cut
into windows of the model's context that do not overlap (`--stride` shortens the step between
windows: then only the new tokens of each are scored). Every token but the stream's first counts,
the <|endoftext|> between documents too; bytes are those of the text alone.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = (
    "Once upon a time",
    "The little rabbit was hungry, so",
    "There was once a king who had three daughters.",
    '"Mother," said the boy, "may I',
    "One day, Anna and her brother went to the river.",
)


@torch.no_grad()
def score(model, tokens: torch.Tensor, stride: int) -> tuple[float, int]:
    """Sum of nats, and how many tokens it is over."""
    context, total, count, done = model.config.max_position_embeddings, 0.0, 0, 0
    for start in range(0, len(tokens) - 1, stride):
        window = tokens[start : start + context + 1]
        logits = model(window[None, :-1]).logits[0].float()
        loss = torch.nn.functional.cross_entropy(logits, window[1:], reduction="none")
        new = loss[max(0, done - start) :]
        total, count, done = total + new.double().sum().item(), count + len(new), start + len(loss)
        if done == len(tokens) - 1:
            break
    return total, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="where heldout_*.txt lie")
    parser.add_argument("--stride", type=int, help="default: the context")
    parser.add_argument("--samples", type=int, default=1, help="texts a prompt, one greedy first")
    parser.add_argument("--tokens", type=int, default=160, help="length of a sample")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    result = {"sets": {}, "samples": []}
    for path in sorted(args.data.glob("heldout_*.txt")):
        records = [r.strip() for r in path.read_text(encoding="utf-8").split(tokenizer.eos_token)]
        records = [r for r in records if r]
        ids = [np.array(tokenizer(r).input_ids) for r in records] + [np.array([tokenizer.eos_token_id])]
        tokens = torch.from_numpy(np.concatenate(ids))
        nats, count = score(model, tokens, args.stride or model.config.max_position_embeddings)
        size = sum(len(r.encode()) for r in records)
        result["sets"][path.stem.removeprefix("heldout_")] = row = {
            "tokens": count, "bytes": size, "nats_per_token": round(nats / count, 4),
            "perplexity": round(math.exp(nats / count), 2),
            "bits_per_byte": round(nats / math.log(2) / size, 4),
        }  # fmt: skip
        print(path.stem, row, flush=True)

    torch.manual_seed(1)
    for prompt in PROMPTS:
        for i in range(args.samples):
            how = {"do_sample": False, "temperature": None, "top_p": None, "repetition_penalty": 1.0} if i == 0 else {"do_sample": True}
            ids = model.generate(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False),
                                 max_new_tokens=args.tokens, **how)  # fmt: skip
            text = tokenizer.decode(ids[0], skip_special_tokens=True)
            result["samples"].append({"prompt": prompt, "greedy": i == 0, "text": text})
            print(f"--- {'greedy' if i == 0 else 'sampled'}\n{text}", flush=True)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
