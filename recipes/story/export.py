"""Writes a checkpoint as a Hugging Face folder, bfloat16: LlamaForCausalLM, BitNetForCausalLM or
DiffLlamaForCausalLM.

    python export.py --checkpoint RUN/checkpoint.pt --tokenizer DATA/tokenizer.json --out models/story

Ternary weights are packed as those of BitNet-b1.58-2B-4T are ("offline": four rows a byte, and a
scale); --online writes the weights that were trained instead, which whoever loads them rounds.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from model import MODELS, Config, ternary
from prepare import END, SPECIAL

# What each model_type has in config.json that a Llama has not, besides its quantization_config.
ARCHITECTURES = {
    "llama": {"architectures": ["LlamaForCausalLM"], "mlp_bias": False},
    "bitnet": {"architectures": ["BitNetForCausalLM"]},
    "diffllama": {"architectures": ["DiffLlamaForCausalLM"], "lambda_std_dev": 0.1},
}
TRAINING_ONLY = ("linear", "attention", "sub_norms", "hidden_act", "rope_theta")  # fields of Config


def model_type_of(config: dict) -> str:
    """The entry of MODELS that a checkpoint's configuration is of."""
    defaults = vars(Config())
    for name, differences in MODELS.items():
        expected = {key: (defaults | differences)[key] for key in ("linear", "attention", "hidden_act", "sub_norms")}
        if expected.items() <= (defaults | config).items():
            return name
    raise SystemExit(f"no model_type of transformers has the configuration {config}")


def pack(codes: torch.Tensor) -> torch.Tensor:
    """Codes in {-1, 0, 1}, [n_out, n_in] -> [n_out / 4, n_in] uint8: bits 2 i and 2 i + 1 hold row
    i * n_out / 4 + r, as transformers' integrations/bitnet.py unpacks them."""
    if codes.shape[0] % 4:
        raise SystemExit(f"a weight of {codes.shape[0]} rows cannot be packed: expected a multiple of 4")
    quarters = (codes + 1).to(torch.uint8).chunk(4)
    return quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6


def hugging_face_tensors(saved: dict, packed: bool) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, value in saved["model"].items():
        if packed and name.endswith("_proj.weight"):
            codes, scale = ternary(value.float())
            tensors[f"model.{name}"] = pack(codes).contiguous()
            tensors[f"model.{name}_scale"] = scale.reshape(1)
        else:
            tensors[f"model.{name}"] = value.to(torch.bfloat16).contiguous()
    return tensors


def config_json(config: dict, end: int, pad: int, online: bool) -> dict:
    shape = {k: v for k, v in config.items() if k not in TRAINING_ONLY}
    model_type = model_type_of(config)
    quantization = {
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "online" if online else "offline",
        }
    }
    return {
        "model_type": model_type,
        **ARCHITECTURES[model_type],
        **shape,
        "rope_theta": config["rope_theta"],
        "rope_parameters": {"rope_type": "default", "rope_theta": config["rope_theta"]},
        "hidden_act": config.get("hidden_act", "silu"),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": pad,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
        **(quantization if model_type == "bitnet" else {}),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--online", action="store_true", help="ternary weights as they were trained")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)

    saved = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    packed = saved["config"]["linear"] == "ternary" and not args.online
    tensors = hugging_face_tensors(saved, packed)
    save_file(tensors, args.out / "model.safetensors", metadata={"format": "pt"})

    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id("<|pad|>")
    shutil.copyfile(args.tokenizer, args.out / "tokenizer.json")
    documents = {
        "config.json": config_json(saved["config"], end, pad, args.online),
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
    size = sum(v.numel() for v in saved["model"].values())
    print(f"{args.out}: {size / 1e6:.2f} M parameters, {len(tensors)} tensors")


if __name__ == "__main__":
    main()
