"""Models that scoring is tested on, as transformers models and as what pare reads."""

import gguf
import numpy as np
import torch
from llama_models import make
from scoring import STORIES
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


def halves(weight, heads):
    """Rows of q or k from GGUF's interleaved rotation to the halves of Hugging Face."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def stories260k():
    reader = gguf.GGUFReader(STORIES)
    field = lambda key: reader.fields[f"llama.{key}"].contents()
    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=field("vocab_size"),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        attn_implementation="eager",
    )
    names = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = {}
    for tensor in reader.tensors:
        data = np.array(tensor.data, np.float32)
        if tensor.name.startswith("blk."):
            _, layer, name, _ = tensor.name.split(".")
            if name in ("attn_q", "attn_k"):
                data = halves(data, heads if name == "attn_q" else kv_heads)
            state[f"model.layers.{layer}.{names[name]}.weight"] = torch.tensor(data)
        else:
            name = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
            state[name[tensor.name.removesuffix(".weight")] + ".weight"] = torch.tensor(data)
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(state)
    return model


def folder_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def byte_tokenizer(folder):
    """A tokenizer whose tokens are bytes (and the end), saved as tokenizer.json."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0, **{piece: i + 1 for i, piece in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "add_bos_token": false}'
    )
    return tokenizer


def uneven_model(folder, seed, **changes):
    """A random model whose parts do very different amounts: what each adds is scaled by a factor over three decades."""
    model = make(folder, seed, **changes)
    random = np.random.default_rng(seed)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= float(10 ** random.uniform(-2.5, 0.5))
            layer.mlp.down_proj.weight *= float(10 ** random.uniform(-2.5, 0.5))
    model.save_pretrained(folder)
    return model, byte_tokenizer(folder)
