#!/usr/bin/env python3
"""Writes the hand-made part of fuzz/corpus/gguf, safetensors, config, blocks and bitnet: well-formed ones, and one for each way to lie.

    fuzz/make_corpus.py

What fuzzing found stands beside them under names of its own.
"""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def text(value):
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind, value):
    return text(value) if kind == STRING else struct.pack("<" + PACK[kind], value)


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + scalar(kind, value)


def array(name, kind, values, length=None):
    head = struct.pack("<IIQ", ARRAY, kind, len(values) if length is None else length)
    return text(name) + head + b"".join(scalar(kind, value) for value in values)


def tensor(name, dims, kind, offset):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(keys=(), tensors=(), data=b"", version=3, key_count=None, tensor_count=None, alignment=32):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if tensor_count is None else tensor_count,
                                 len(keys) if key_count is None else key_count)
    body = head + b"".join(keys) + b"".join(tensors)
    return body + bytes(-len(body) % alignment) + data if data else body


def gguf_files():
    every = [key(f"k{kind}", kind, "é" if kind == STRING else 1) for kind in [*PACK, STRING]]
    arrays = [array(f"a{kind}", kind, ["x", ""] if kind == STRING else [1, 0]) for kind in [*PACK, STRING]]
    five = [tensor("f32", [3, 2], 0, 0), tensor("f16", [5], 1, 32), tensor("bf16", [2, 1, 1, 2], 30, 64),
            tensor("q8_0", [32], 8, 96), tensor("q4_0", [32, 2], 2, 160)]
    whole = gguf(every, five, bytes(range(196)))
    yield "valid_empty", gguf()
    yield "valid_every_scalar", gguf(every)
    yield "valid_every_array", gguf(arrays)
    yield "valid_every_type", whole
    yield "valid_version_2", gguf(every, five, bytes(196), version=2)
    yield "valid_alignment_64", gguf([key("general.alignment", U32, 64)], [tensor("t", [1], 0, 64)], bytes(68), alignment=64)
    yield "valid_scalar_tensor", gguf((), [tensor("t", [], 0, 0)], bytes(4))
    yield "valid_large_u64", gguf([key("k", U64, 2**64 - 1), array("a", U64, [2**64 - 1])])
    yield "empty_file", b""
    yield "magic_cut", b"GGU"
    yield "magic_old", b"ggml" + bytes(32)
    yield "version_1", gguf(version=1)
    yield "version_big_endian", gguf(version=0x03000000)
    yield "truncated_in_data", whole[:-1]
    yield "truncated_in_tensor_entry", whole[:400]
    yield "truncated_in_value", gguf(every)[:-1]
    yield "tensor_count_2_63", gguf(tensor_count=2**63)
    yield "key_count_2_63", gguf(key_count=2**63)
    yield "key_length_2_63", gguf(key_count=1) + struct.pack("<Q", 2**63) + bytes(16)
    yield "key_empty", gguf([key("", U64, 1)])
    yield "key_control_characters", gguf([key("a\x1b[31m", U8, 1)])
    yield "key_not_utf8", gguf([key(b"\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80", U8, 1)])
    yield "key_utf8_of_every_length", gguf([key("aé€🙂", U8, 1)])
    yield "key_twice", gguf([key("k", U8, 1), key("k", U8, 2)])
    yield "value_type_unknown", gguf([text("k") + struct.pack("<I", 13)], key_count=1) + bytes(8)
    yield "value_string_length_2_64", gguf([text("k") + struct.pack("<IQ", STRING, 2**64 - 1)])
    yield "value_bool_of_2", gguf([text("k") + struct.pack("<IB", BOOL, 2)])
    yield "array_of_arrays", gguf([text("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1) + bytes(16)])
    yield "array_length_2_63", gguf([array("k", U32, [1], length=2**63)])
    yield "array_length_wraps_bytes", gguf([array("k", U32, [1], length=2**62 + 1)])
    yield "array_strings_2_60", gguf([array("k", STRING, ["a"], length=2**60)])
    yield "array_bool_of_255", gguf([text("k") + struct.pack("<IIQB", ARRAY, BOOL, 1, 255)])
    for alignment in (0, 12, 2**31):
        yield f"alignment_{alignment}", gguf([key("general.alignment", U32, alignment)], [tensor("t", [1], 0, 0)], bytes(64))
    yield "alignment_string", gguf([key("general.alignment", STRING, "32")])
    yield "split_model", gguf([key("split.count", U16, 3)])
    yield "split_count_negative", gguf([key("split.count", I16, -1)])
    yield "tensor_name_empty", gguf((), [tensor("", [1], 0, 0)], bytes(4))
    yield "tensor_name_65_bytes", gguf((), [tensor("n" * 65, [1], 0, 0)], bytes(4))
    yield "tensor_twice", gguf((), [tensor("t", [1], 0, 0), tensor("t", [1], 0, 32)], bytes(64))
    yield "tensor_rank_5", gguf((), [tensor("t", [1] * 5, 0, 0)], bytes(4))
    yield "tensor_rank_2_32", gguf((), [text("t") + struct.pack("<I", 2**32 - 1) + bytes(40)])
    yield "tensor_dimension_0", gguf((), [tensor("t", [2, 0], 0, 0)], bytes(4))
    yield "tensor_dimension_2_63", gguf((), [tensor("t", [2**63], 0, 0)], bytes(4))
    yield "tensor_product_overflows", gguf((), [tensor("t", [2**32, 2**32], 0, 0)], bytes(4))
    yield "tensor_bytes_overflow", gguf((), [tensor("t", [2**62], 0, 0)], bytes(4))
    yield "tensor_type_iq2_xxs", gguf((), [tensor("t", [256], 16, 0)], bytes(66))
    yield "tensor_type_i2_s", gguf((), [tensor("t", [64, 2], 36, 0)], bytes(range(32)) + struct.pack("<f", 0.5) + bytes(28))
    yield "tensor_type_i2_s_part_of_a_block", gguf((), [tensor("t", [63], 36, 0)], bytes(64))
    yield "tensor_type_i2_s_cut", gguf((), [tensor("t", [64], 36, 0)], bytes(47))
    yield "tensor_type_unknown", gguf((), [tensor("t", [1], 4711, 0)], bytes(4))
    yield "tensor_row_no_whole_block", gguf((), [tensor("t", [33, 32], 8, 0)], bytes(1122))
    yield "tensor_offset_unaligned", gguf((), [tensor("t", [1], 0, 4)], bytes(8))
    yield "tensor_offset_wraps", gguf((), [tensor("t", [16], 0, 2**64 - 32)], bytes(64))
    yield "tensor_past_end", gguf((), [tensor("t", [3], 0, 0)], bytes(8))
    yield "tensors_overlap", gguf((), [tensor("a", [9], 0, 0), tensor("b", [2], 0, 32)], bytes(64))


def safetensors(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype="F32", shape=(1,), begin=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def safetensors_files():
    types = {"a": entry("F32", [2], 0, 8), "b": entry("F16", [1, 3], 8, 14), "c": entry("BF16", [], 14, 16),
             "d": entry("I64", [1], 16, 24), "e": entry("F4", [2], 24, 25), "f": entry("F32", [0, 3], 25, 25)}
    whole = safetensors({"__metadata__": {"format": "pt"}, **types}, bytes(range(25)))
    yield "valid_empty", safetensors("{}")
    yield "valid_every_kind", whole
    yield "valid_padded_header", safetensors('{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}    ', bytes(4))
    yield "valid_offsets_backwards", safetensors({"b": entry(begin=4, end=8), "a": entry()}, bytes(8))
    yield "empty_file", b""
    yield "size_cut", b"\2\0\0"
    yield "size_past_end", safetensors("{}", length=3)
    yield "size_2_64", safetensors("{}", length=2**64 - 1)
    yield "size_over_limit", safetensors("{}", length=100_000_001)
    yield "truncated_in_data", whole[:-1]
    yield "truncated_in_header", whole[:60]
    yield "data_left_over", whole + b"x"
    yield "header_array", safetensors("[]")
    yield "header_space_first", safetensors(" {}")
    yield "header_not_json", safetensors('{"a"')
    yield "header_not_utf8", safetensors(b'{"a\xff":1}')
    yield "header_deep", safetensors('{"a":' * 300)
    yield "header_number_too_large", safetensors('{"a":{"shape":[1e999]}}')
    yield "key_twice", safetensors('{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":1}', bytes(4))
    yield "metadata_number", safetensors({"__metadata__": {"a": 1}})
    yield "metadata_array", safetensors({"__metadata__": []})
    yield "entry_null", safetensors({"t": None})
    yield "entry_without_shape", safetensors({"t": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4))
    yield "entry_unknown_member", safetensors({"t": {**entry(), "more": True}}, bytes(4))
    yield "name_empty", safetensors({"": entry()}, bytes(4))
    yield "name_control_characters", safetensors({"a\x1b[0m": entry()}, bytes(4))
    yield "dtype_unknown", safetensors({"t": entry("F33")}, bytes(4))
    yield "dtype_number", safetensors({"t": entry(32)}, bytes(4))
    yield "shape_negative", safetensors({"t": entry(shape=[-1])}, bytes(4))
    yield "shape_fraction", safetensors({"t": entry(shape=[1.0])}, bytes(4))
    yield "shape_2_64", safetensors({"t": entry(shape=[2**64])}, bytes(4))
    yield "shape_nested", safetensors({"t": entry(shape=[[1]])}, bytes(4))
    yield "shape_rank_6", safetensors({"t": entry(shape=[1] * 6)}, bytes(4))
    yield "shape_overflows", safetensors({"t": entry(shape=[2**32, 2**32])}, bytes(4))
    yield "shape_overflows_foreign", safetensors({"t": entry("I64", [2**61], 0, 8)}, bytes(8))
    yield "shape_ends_within_byte", safetensors({"t": entry("F4", [3], 0, 2)}, bytes(2))
    yield "offsets_three", safetensors({"t": {**entry(), "data_offsets": [0, 4, 8]}}, bytes(4))
    yield "offsets_one", safetensors({"t": {**entry(), "data_offsets": [0]}}, bytes(4))
    yield "offsets_negative", safetensors({"t": entry(end=-4)}, bytes(4))
    yield "offsets_wrap", safetensors({"t": entry(begin=2**64 - 4, end=0)}, bytes(4))
    yield "offsets_other_size", safetensors({"t": entry(end=8)}, bytes(8))
    yield "tensors_overlap", safetensors({"a": entry(shape=[2], end=8), "b": entry(begin=4, end=8)}, bytes(8))
    yield "hole_first", safetensors({"t": entry(begin=4, end=8)}, bytes(8))
    yield "hole_between", safetensors({"a": entry(), "b": entry(begin=8, end=12)}, bytes(12))
    for name, index in {
        "valid": {"metadata": {"total_size": 4, "more": [[{}]]}, "weight_map": {"a": "model-1.safetensors"}},
        "empty": {"weight_map": {}},
        "without_map": {"metadata": None},
        "map_is_array": {"weight_map": ["a"]},
        "map_nested": {"weight_map": {"a": {"b": "c"}}},
        "shard_is_number": {"weight_map": {"a": 1}},
        "shard_leaves_folder": {"weight_map": {"a": "../x.safetensors"}},
        "shard_is_parent": {"weight_map": {"a": ".."}},
    }.items():
        yield f"index_{name}.json", json.dumps(index).encode()
    yield "index_key_twice.json", b'{"weight_map":{"a":"x","a":"y"}}'
    yield "index_deep.json", b'{"x":' + b"[" * 300


def config_files():
    base = {
        "model_type": "llama", "hidden_size": 8, "vocab_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 8,
    }  # fmt: skip
    yield "valid", base
    yield "every_key", {
        **base, "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "head_dim": 4,
        "num_key_value_heads": 1, "tie_word_embeddings": True, "hidden_act": "silu", "attention_bias": True,
        "mlp_bias": True, "rope_theta": 5e5, "drop_attn_list": [0], "drop_mlp_list": [1],
    }  # fmt: skip
    scalings = {
        "none": {"rope_type": "default"},
        "linear": {"type": "linear", "factor": 2},
        "dynamic": {"rope_type": "dynamic", "factor": 2.5},
        "yarn": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32, "beta_fast": 16, "beta_slow": 2,
                 "attention_factor": 1.1, "mscale": 1, "mscale_all_dim": 0.5, "truncate": False},
        "longrope": {"rope_type": "longrope", "short_factor": [1, 1], "long_factor": [1, 2], "factor": 2,
                     "original_max_position_embeddings": 32, "attention_factor": 1.2},
        "llama3": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                   "original_max_position_embeddings": 32},
        "unknown": {"rope_type": "spiral"},
        "without_type": {"factor": 2},
        "wrong_lengths": {"rope_type": "longrope", "short_factor": [1], "long_factor": [1, 2, 3]},
        "text": {"rope_type": "linear", "factor": "two"},
        "negative": {"rope_type": "linear", "factor": -1},
    }  # fmt: skip
    for name, scaling in scalings.items():
        yield f"scaling_{name}", {**base, "rope_scaling": scaling}
        yield f"parameters_{name}", {**base, "rope_parameters": {"rope_theta": 1e4, **scaling}}
    for name, changes in {
        "family": {"model_type": "mamba"}, "no_family": {"model_type": None}, "layers_text": {"num_hidden_layers": "2"},
        "layers_many": {"num_hidden_layers": 10**9}, "layers_negative": {"num_hidden_layers": -1}, "heads_0": {"num_attention_heads": 0},
        "groups": {"num_key_value_heads": 3}, "odd_head": {"head_dim": 3}, "hidden_0": {"hidden_size": 0},
        "hidden_fraction": {"hidden_size": 8.5}, "hidden_2_63": {"hidden_size": 2**63}, "width_0": {"intermediate_size": 0},
        "act": {"hidden_act": "gelu"}, "drop_far": {"drop_mlp_list": [2]}, "drop_text": {"drop_attn_list": ["0"]},
        "drop_no_list": {"drop_attn_list": 1}, "eps_text": {"rms_norm_eps": "small"}, "tie_number": {"tie_word_embeddings": 1},
        "theta_0": {"rope_theta": 0}, "nulls": {"num_key_value_heads": None, "head_dim": None, "rope_scaling": None},
        "drop_all": {"drop_attn_list": [0, 1], "drop_mlp_list": [0, 1]}, "partial": {"partial_rotary_factor": 0.5},
        "architecture_only": {"model_type": None, "architectures": ["LlamaForCausalLM"]},
    }.items():  # fmt: skip
        yield name, {**base, **changes}
    bitnet = {**base, "model_type": "bitnet", "num_attention_heads": 2, "num_key_value_heads": 1}
    for name, changes in {
        "bitnet": {}, "bitnet_silu": {"hidden_act": "silu"}, "bitnet_gelu": {"hidden_act": "gelu"},
        "bitnet_head": {"head_dim": 64}, "bitnet_theta": {"rope_parameters": {"rope_theta": 1000, "rope_type": "default"}},
        "bitnet_dropped": {"drop_attn_list": [0], "drop_mlp_list": [0]},
        "bitnet_1bitllm": {"model_type": "llama", "architectures": ["BitnetForCausalLM"], "weight_bits": 1},
    }.items():  # fmt: skip
        yield name, {**bitnet, **changes}
    differential = {**base, "model_type": "diffllama", "num_attention_heads": 4, "num_key_value_heads": 2}
    for name, changes in {
        "diffllama": {}, "differential_v1": {"differential_form": "v1", "rope_interleaved": True, "rms_norm_eps": 1e-5},
        "differential_v2": {"differential_form": "v2"}, "differential_form_unknown": {"differential_form": "v3"},
        "differential_form_number": {"differential_form": 1}, "differential_odd": {"num_attention_heads": 3, "num_key_value_heads": 1},
        "differential_odd_kv": {"num_key_value_heads": 1}, "differential_v2_odd_group": {"differential_form": "v2", "num_key_value_heads": 4},
        "differential_dropped": {"drop_attn_list": [0]}, "differential_none": {"differential_form": "v2", "drop_attn_list": [0, 1]},
    }.items():  # fmt: skip
        yield name, {**differential, **changes}
    yield "missing", {"model_type": "llama"}
    yield "array", []
    name = "llama."
    metadata = [
        key("general.architecture", STRING, "llama"), key(name + "embedding_length", U32, 8), key(name + "context_length", U32, 64),
        key(name + "block_count", U32, 2), key(name + "attention.layer_norm_rms_epsilon", F32, 1e-5),
    ]  # fmt: skip
    heads = [key(name + "attention.head_count", U32, 2), key(name + "feed_forward_length", U32, 8)]
    yield "valid.gguf", gguf(metadata + heads)
    yield "every_key.gguf", gguf(metadata + [
        array(name + "attention.head_count", I32, [2, 0]), array(name + "attention.head_count_kv", I32, [1, 0]),
        array(name + "feed_forward_length", I32, [0, 8]), key(name + "vocab_size", U32, 16), key(name + "expert_count", U32, 0),
        key(name + "attention.key_length", U32, 4), key(name + "attention.value_length", U32, 4),
        key(name + "rope.dimension_count", U32, 4), key(name + "rope.freq_base", F32, 5e5),
        key(name + "rope.scaling.type", STRING, "yarn"), key(name + "rope.scaling.factor", F32, 2),
        key(name + "rope.scaling.original_context_length", U32, 32), key(name + "rope.scaling.yarn_beta_fast", F32, 16),
        key(name + "rope.scaling.yarn_beta_slow", F32, 2),
    ])  # fmt: skip
    for case, more in {
        "experts": [key(name + "expert_count", U32, 8)], "scaling": [key(name + "rope.scaling.type", STRING, "spiral")],
        "no_factor": [key(name + "rope.scaling.type", STRING, "linear")],
        "own_scaling": [key("pare.rope_scaling", STRING, json.dumps(scalings["llama3"]))],
        "own_scaling_array": [key("pare.rope_scaling", STRING, "[]")],
        "values_differ": [key(name + "attention.value_length", U32, 8)],
    }.items():  # fmt: skip
        yield case + ".gguf", gguf(metadata + heads + more)
    yield "per_layer.gguf", gguf(metadata + [heads[1], array(name + "attention.head_count", I32, [2])])
    name = "diffllama."
    metadata = [
        key("general.architecture", STRING, "diffllama"), key(name + "embedding_length", U32, 8), key(name + "context_length", U32, 64),
        key(name + "block_count", U32, 2), key(name + "attention.layer_norm_rms_epsilon", F32, 1e-5),
        key(name + "attention.head_count", U32, 4), key(name + "attention.head_count_kv", U32, 2), key(name + "feed_forward_length", U32, 8),
    ]  # fmt: skip
    form, init = name + "attention.differential_form", name + "attention.lambda_init"
    for case, more in {
        "": [array(init, F32, [0.2, 0.36])], "_v1": [key(form, STRING, "v1"), array(init, F32, [0.2, 0.36])],
        "_v2": [key(form, STRING, "v2")], "_no_init": [], "_init_short": [array(init, F32, [0.2])],
        "_init_large": [array(init, F32, [0.2, 1])], "_init_number": [key(init, F32, 0.2)], "_form": [key(form, STRING, "v3")],
    }.items():  # fmt: skip
        yield f"diffllama{case}.gguf", gguf(metadata + more)
    for name in ("bitnet", "bitnet-b1.58", "bitnet-25"):
        metadata = [
            key("general.architecture", STRING, name), key(name + ".embedding_length", U32, 8), key(name + ".context_length", U32, 64),
            key(name + ".block_count", U32, 2), key(name + ".attention.layer_norm_rms_epsilon", F32, 1e-5),
            key(name + ".attention.head_count", U32, 2), key(name + ".feed_forward_length", U32, 8),
            key(name + ".rope.scaling.type", STRING, "linear"), key(name + ".rope.scaling.factor", F32, 1.0),
        ]  # fmt: skip
        yield name + ".gguf", gguf(metadata)
        yield name + "_act.gguf", gguf([*metadata, key(name + ".hidden_activation", STRING, "relu2")])
        yield name + "_other_act.gguf", gguf([*metadata, key(name + ".hidden_activation", STRING, "gelu")])
    yield "unknown.gguf", gguf([key("general.architecture", STRING, "mamba")])


def bitnet_files():
    """A byte of kinds, one of rows - 1, one of columns / 32 - 1, a line of JSON, then a tensor's bytes."""
    offline = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
    online, legacy = {**offline, "quantization_mode": "online"}, {"quant_method": "bitnet"}
    scaled, floats, bfloats, foreign, two = 128, 2, 1, 3, 64
    ones, half = struct.pack("<2f", 1, -1), struct.pack("<f", 0.5)
    cases = {
        "offline": (scaled, offline, half), "no_scale": (0, offline, half), "legacy": (scaled, legacy, struct.pack("<f", 4)),
        "unpacked": (scaled | floats, offline, ones), "unpacked_half": (scaled | floats, offline, half),
        "online": (floats, online, ones), "online_bfloats": (bfloats, online, bytes(range(1, 64))), "online_packed": (0, online, half),
        "online_nan": (floats, online, struct.pack("<f", float("nan"))), "legacy_floats": (scaled | floats, legacy, ones),
        "foreign": (scaled | foreign, offline, half), "two_scales": (scaled | two, offline, half), "zero": (scaled, offline, bytes(4)),
        "code_3": (scaled, offline, struct.pack("<f", 3)), "empty": (scaled, offline, b""),
        "listed": (scaled, {**offline, "modules_to_not_convert": ["lm_head"]}, half),
        "left": (scaled, {**offline, "modules_to_not_convert": ["lm_head", "up_proj"]}, half),
        "regex": (scaled, {**offline, "modules_to_not_convert": ["lm_.*"]}, half),
        "head": (scaled, {**offline, "modules_to_not_convert": []}, half),
        "list_of_numbers": (scaled, {**offline, "modules_to_not_convert": [1]}, half),
        "no_list": (scaled, {**offline, "modules_to_not_convert": 1}, half),
        "class": (scaled, {**offline, "linear_class": "linear"}, half), "mode": (scaled, {**offline, "quantization_mode": "x"}, half),
        "norm": (scaled, {**offline, "use_rms_norm": True}, half), "method": (scaled, {"quant_method": "awq"}, half),
        "not_an_object": (scaled, 1, half),
    }  # fmt: skip
    for name, (kinds, config, data) in cases.items():
        line = json.dumps({"quantization_config": config}).encode()
        yield name, bytes([kinds, 7, 7]) + line + b"\n" + data
        if name == "offline":
            yield "rows_of_96", bytes([kinds, 7, 2]) + line + b"\n" + data
            yield "rows_of_64", bytes([kinds, 3, 1]) + line + b"\n" + data
            yield "five_rows", bytes([kinds, 4, 7]) + line + b"\n" + data
    own = {"architectures": ["BitnetForCausalLM"], "weight_bits": 1, "input_bits": 8}
    for name, config in {"own_code": own, "own_bits": {**own, "weight_bits": 2}, "plain": {}}.items():
        yield name, bytes([floats, 7, 7]) + json.dumps(config).encode() + b"\n" + ones
    for columns in (1, 3, 7):
        yield f"i2s_{columns}", bytes([32, 7, columns]) + half
    yield "i2s_code_3", bytes([32, 7, 7]) + struct.pack("<f", 3)
    yield "i2s_zero", bytes([32, 7, 7])


def block_files():
    """Bytes that are blocks of any type, and float32 to encode. Two of the largest type's blocks, or of its values."""
    for name, scale in {"zero": 0, "one": 0x3C00, "minus_two": 0xC000, "subnormal": 1, "largest": 0x7BFF, "infinite": 0x7C00,
                        "nan": 0x7E00}.items():  # fmt: skip
        yield f"scale_{name}", struct.pack("<H", scale) * 210
    yield "every_byte", bytes(range(256)) * 2
    wave = [(i * 37 % 101 - 50) / 25 for i in range(512)]
    for name, values in {
        "wave": wave, "positive": [abs(x) + 1 for x in wave], "negative": [-abs(x) - 1 for x in wave], "equal": [0.5] * 512,
        "huge": [x * 1e38 for x in wave], "beyond_f16": [x * 1e12 for x in wave], "tiny": [x * 1e-8 for x in wave],
        "subnormal": [x * 1e-40 for x in wave], "outlier": [1e6, *wave[1:]], "infinite": [*wave[1:], float("inf")],
        "nan": [*wave[1:], float("nan")], "groups_of_zeros": [x * (i // 16 % 2) for i, x in enumerate(wave)],
    }.items():  # fmt: skip
        yield f"values_{name}", struct.pack("<512f", *values)


def main():
    (CORPUS / "config").mkdir(parents=True, exist_ok=True)
    for name, content in config_files():
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (CORPUS / "config" / name).write_bytes(raw)
    for folder, files in (("gguf", gguf_files()), ("safetensors", safetensors_files()), ("blocks", block_files()),
                          ("bitnet", bitnet_files())):
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files:
            suffix = "" if "." in name or folder in ("blocks", "bitnet") else "." + folder
            (CORPUS / folder / (name + suffix)).write_bytes(content)


main()
