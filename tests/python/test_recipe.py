"""recipes/story: what it exports is, to transformers, the model that was trained."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "recipes/story"))
import export  # noqa: E402
from model import MODELS, Config, Llama  # noqa: E402

TOKENIZER = ROOT / "models/story/tokenizer.json"
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "head_dim": 16, "max_position_embeddings": 64}


def random_model(model_type: str) -> Llama:
    """With weights that bfloat16 holds, so that exporting rounds nothing but what is meant to be rounded."""
    torch.manual_seed(1)
    model = Llama(Config(**TINY, **MODELS[model_type]))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(1 if p.ndim == 1 and len(p) > 16 else 0, 0.3)
            p.copy_(p.bfloat16())
    return model.eval()


def exported(model: Llama, folder: Path, *options: str) -> torch.nn.Module:
    state = {"config": dataclasses.asdict(model.config), "model": model.state_dict(), "curve": []}
    torch.save(state, folder / "checkpoint.pt")
    export.main(["--checkpoint", str(folder / "checkpoint.pt"), "--tokenizer", str(TOKENIZER), "--out", str(folder), *options])
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for x in loaded.parameters():  # transformers unpacks ternary weights to bfloat16, exactly
        x.data = x.data.float()
    return loaded


@pytest.mark.parametrize(
    ("model_type", "options"), [("llama", []), ("bitnet", []), ("bitnet", ["--online"]), ("diffllama", [])]
)
@torch.no_grad()
def test_logits_are_those_of_the_training_model(model_type, options, tmp_path):
    model = random_model(model_type)
    tokens = torch.randint(0, 8192, (2, 40), generator=torch.Generator().manual_seed(2))
    expected = model.logits(model.hidden(tokens, torch.float32))
    loaded = exported(model, tmp_path, *options)
    assert loaded.config.model_type == model_type
    error = (loaded(tokens).logits - expected).abs().max() / expected.abs().max()
    assert error < 1e-5
