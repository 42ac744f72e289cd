"""Writes a checkpoint as a Hugging Face folder (plain LlamaForCausalLM, bfloat16).

    python export.py --checkpoint RUN/checkpoint.pt --tokenizer DATA/tokenizer.json --out models/story
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from prepare import END, SPECIAL


def config_json(config: dict, end: int, pad: int) -> dict:
    shape = {k: v for k, v in config.items() if k not in ("linear", "attention", "rope_theta")}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **shape,
        "rope_theta": config["rope_theta"],
        "rope_parameters": {"rope_type": "default", "rope_theta": config["rope_theta"]},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": pad,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    saved = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    tensors = {f"model.{k}": v.to(torch.bfloat16).contiguous() for k, v in saved["model"].items()}
    save_file(tensors, args.out / "model.safetensors", metadata={"format": "pt"})

    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id("<|pad|>")
    shutil.copyfile(args.tokenizer, args.out / "tokenizer.json")
    documents = {
        "config.json": config_json(saved["config"], end, pad),
        "generation_config.json": {
            "bos_token_id": end, "eos_token_id": end, "pad_token_id": pad,
            "do_sample": True, "temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.1,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": True, "add_eos_token": False,
            "bos_token": END, "eos_token": END, "pad_token": "<|pad|>",
            "additional_special_tokens": SPECIAL[2:],
            "model_max_length": saved["config"]["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
        },
    }  # fmt: skip
    for name, document in documents.items():
        (args.out / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (args.out / "loss_curve.json").write_text(json.dumps(saved["curve"]) + "\n")
    size = sum(t.numel() for t in tensors.values())
    print(f"{args.out}: {size / 1e6:.2f} M parameters, {len(tensors)} tensors")


if __name__ == "__main__":
    main()
