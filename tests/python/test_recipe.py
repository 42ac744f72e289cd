"""recipes/story: what it exports is, to transformers, the model that was trained."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from llama_models import difference, reference, tokens
from ternary_models import check_near, stored_model
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "recipes/story"))
import export  # noqa: E402
from model import MODELS, Config, Llama  # noqa: E402

TOKENIZER = ROOT / "models/story/tokenizer.json"
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "head_dim": 16, "max_position_embeddings": 64}


def random_model(model_type):
    """With weights that bfloat16 holds, so that exporting rounds nothing but what is meant to be rounded."""
    torch.manual_seed(1)
    model = Llama(Config(**TINY, **MODELS[model_type]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1 if "norm" in name else 0, 0.3)
            parameter.copy_(parameter.bfloat16())
    return model.eval()


def export_folder(model, folder, *options):
    state = {"config": dataclasses.asdict(model.config), "model": model.state_dict(), "curve": []}
    torch.save(state, folder / "checkpoint.pt")
    export.main(["--checkpoint", str(folder / "checkpoint.pt"), "--tokenizer", str(TOKENIZER), "--out", str(folder), *options])


@pytest.mark.reference
@pytest.mark.parametrize(
    ("model_type", "options"), [("llama", []), ("bitnet", []), ("bitnet", ["--online"]), ("diffllama", [])]
)
@torch.no_grad()
def test_logits_are_those_of_the_training_model(model_type, options, tmp_path):
    model = random_model(model_type)
    sequences = [tokens(1 + n % 4, seed=n, vocabulary=8192) for n in range(24)]
    sequences.append(tokens(40, seed=24, vocabulary=8192))
    trained = [model.logits(model.hidden(torch.tensor([ids]), torch.float32))[0].numpy() for ids in sequences]
    export_folder(model, tmp_path, *options)
    if model_type == "bitnet":
        check_near(trained, reference(stored_model(tmp_path), sequences))
        return
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert loaded.config.model_type == model_type
    assert difference(trained, reference(loaded, sequences)) <= 1e-5
