"""Random BitNet models in every packing that Hugging Face folders have, and GGUF files in I2_S."""

import json
import struct

import gguf
import numpy as np
import torch
from llama_models import BASE, difference, randomize
from safetensors.torch import load_file, save_file
from transformers import BitNetConfig, BitNetForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.bitnet import pack_weights, replace_with_bitnet_linear
from transformers.utils.quantization_config import BitNetQuantConfig

torch._dynamo.config.disable = True  # transformers compiles its linear layers, which takes longer than running them

SHAPE = {**BASE, "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 32}
WIDE = dict(hidden_size=256, intermediate_size=512, num_attention_heads=8, num_key_value_heads=4)  # rows that TQ2_0 divides

FAMILIES = {"bitnet": (BitNetConfig, BitNetForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
AUTO = dict(quant_method="bitnet", linear_class="autobitlinear")
PACKINGS = {
    "offline": {**AUTO, "quantization_mode": "offline"},
    "online": {**AUTO, "quantization_mode": "online"},
    "legacy": dict(quant_method="bitnet"),
}
OLD_NAMES = {"self_attn.attn_sub_norm": "self_attn.inner_attn_ln", "mlp.ffn_sub_norm": "mlp.ffn_layernorm"}


def is_linear(name):
    return name.endswith("_proj.weight")


def make(folder, family="bitnet", packing="offline", seed=0, dtype=torch.float32, not_converted=None, embedding=1.0, **changes):
    """A saved model; returns what transformers makes of it, in float32."""
    settings = {**SHAPE, **changes}
    settings["rope_parameters"] = {"rope_theta": settings.pop("rope_theta"), "rope_type": "default"}
    config_class, model_class = FAMILIES[family]
    config = config_class(**settings, attn_implementation="eager")
    torch.manual_seed(seed)
    model = randomize(model_class(config).eval(), seed).to(dtype)
    model.model.embed_tokens.weight.data *= embedding
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    model.float()
    quantization = {**PACKINGS[packing]}
    if not_converted is not None:
        quantization["modules_to_not_convert"] = not_converted
    arguments = {key: value for key, value in quantization.items() if key != "quant_method"}
    skip = not_converted if not_converted is not None else ["lm_head"]
    replace_with_bitnet_linear(model, skip, BitNetQuantConfig(**arguments))
    generator = torch.Generator().manual_seed(seed)
    for name in [name for name in tensors if is_linear(name)]:
        module = model.get_submodule(name.removesuffix(".weight"))
        if hasattr(module, "weight_scale") or getattr(module, "online_quant", False):
            fill(module, name, tensors, packing, generator)
    for name, tensor in model.state_dict().items():
        assert not tensor.is_meta, name
    folder.mkdir()
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model.config.save_pretrained(folder)
    edit(folder, architectures=[model_class.__name__], quantization_config=quantization)
    return model


def fill(module, name, tensors, packing, generator):
    """Gives a linear layer its weights, and the file what it has for them."""
    master = tensors[name]
    bias = tensors.get(name.replace(".weight", ".bias"))
    if bias is not None:
        module.bias = (torch.nn.Buffer if packing == "legacy" else torch.nn.Parameter)(bias.float())
    if packing == "online":
        module.weight = torch.nn.Parameter(master.float())
        return
    codes = (master.float() / master.float().abs().mean()).round().clamp(-1, 1)
    scale = (0.02 + 0.08 * torch.rand(1, generator=generator)).to(master.dtype)
    if packing == "legacy":
        scale = 1 / scale
    tensors[name] = pack_weights(codes.clone())
    tensors[name.replace(".weight", ".weight_scale")] = scale
    module.weight_scale = scale.float()
    if packing == "legacy":
        module.weight, module.dtype = tensors[name], torch.float32
    else:
        module.weight = torch.nn.Parameter(codes)


def edit(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
    path.write_text(json.dumps(config))


def as_1bitllm(folder):
    """An online model as 1bitLLM's first checkpoints say it: names and configuration of their own code."""
    tensors = load_file(folder / "model.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    edit(folder, architectures=["BitnetForCausalLM"], model_type="llama", quantization_config=None, weight_bits=1,
         input_bits=8)


def ternary_tensors(folder):
    """{name: (codes [rows, columns] of -1, 0, 1; scale)} of an offline folder."""
    tensors = load_file(folder / "model.safetensors")
    found = {}
    for name, packed in tensors.items():
        if packed.dtype == torch.uint8:
            codes = torch.cat([(packed >> 2 * i & 3) for i in range(4)]).to(torch.int8) - 1
            found[name] = (codes.numpy(), float(tensors[name.replace(".weight", ".weight_scale")]))
    return found


def stored_model(folder):
    """What transformers makes of a folder of autobitlinear weights, in float32: its own loader needs accelerate for them."""
    model = BitNetForCausalLM(BitNetConfig.from_pretrained(folder)).eval().float()
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    del quantization["quant_method"]
    replace_with_bitnet_linear(model, ["lm_head"], BitNetQuantConfig(**quantization))
    state = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    for name, (codes, _) in ternary_tensors(folder).items():
        state[name] = torch.from_numpy(codes.astype(np.float32))
    if model.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


def check_near(ours, theirs):
    """Logits of short sequences, lists of [tokens, vocabulary], of one model whose linear layers quantize their inputs.

    An activation whose product with its scale lies next to a half rounds differently after sums in another order: then a
    step of 1/127 of the row's largest apart. So most sequences agree as floats do, and none is farther off than steps.
    """
    off = [difference([a], [b]) for a, b in zip(ours, theirs, strict=True)]
    assert np.mean(np.array(off) <= 1e-5) >= 0.75, sorted(off)
    assert max(off) <= 5e-2


def pack_i2s(codes, scale, run):
    """The bytes of an I2_S tensor; run: 32 on x86, 16 on ARM."""
    quarters = (codes.reshape(-1, 4, run) + 1).astype(np.uint8)
    packed = quarters[:, 0] << 6 | quarters[:, 1] << 4 | quarters[:, 2] << 2 | quarters[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + bytes(28)


I2_S = 36


def rewrite(file, out, architecture, leave_out=(), leave_out_tensors=lambda name: False):
    """A GGUF file with another architecture, without some keys and tensors."""
    reader = gguf.GGUFReader(file)
    before = str(bytes(reader.fields["general.architecture"].parts[-1]), "utf-8")
    writer = gguf.GGUFWriter(out, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", *leave_out):
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name.replace(before + ".", architecture + ".", 1), field.contents(), kind, sub_type)
    for tensor in reader.tensors:
        if not leave_out_tensors(tensor.name):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def to_i2s(file, out, run, edit_tensor=lambda name, data: data):
    """A GGUF file with its ternary matrices in I2_S and no scales beside them."""
    reader = gguf.GGUFReader(file)
    scales = {tensor.name: float(tensor.data[0]) for tensor in reader.tensors if tensor.name.endswith(".scale")}
    entries, data = [], b""
    for tensor in reader.tensors:
        if tensor.name in scales:
            continue
        scale, kind, raw = scales.get(tensor.name.replace(".weight", ".scale")), int(tensor.tensor_type), tensor.data.tobytes()
        if scale is not None:
            codes = np.round(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).astype(np.int8)
            kind, raw = I2_S, pack_i2s(codes, scale, run)
        raw = edit_tensor(tensor.name, raw)
        name = tensor.name.encode()
        dims = [int(d) for d in tensor.shape]
        entries.append(struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data)))
        data += raw + bytes(-len(raw) % 32)
    whole = file.read_bytes()
    keys = whole[24 : reader.tensors[0].field.offset]
    count = struct.unpack("<Q", whole[16:24])[0]
    header = b"GGUF" + struct.pack("<IQQ", 3, len(entries), count) + keys + b"".join(entries)
    out.write_bytes(header + bytes(-len(header) % 32) + data)
    return out
