"""File formats against the libraries that define them: gguf-py and safetensors."""

import json
import os
import pathlib
import struct
import subprocess

import gguf
import numpy as np
import pytest
import safetensors
from gguf import GGUFValueType as ValueType
from storage_types import TOOL, TYPES, normal, tool

CORPUS = pathlib.Path(__file__).parents[2] / "fuzz" / "corpus"


def tool_json(*args):
    return json.loads(tool(*args))


# ---- GGUF

SCALARS = {
    ValueType.UINT8: [0, 255], ValueType.INT8: [-128, 127], ValueType.UINT16: [0, 65535],
    ValueType.INT16: [-32768, 32767], ValueType.UINT32: [0, 2**32 - 1], ValueType.INT32: [-2**31, 2**31 - 1],
    ValueType.UINT64: [0, 2**64 - 1], ValueType.INT64: [-2**63, 2**63 - 1],
    ValueType.FLOAT32: [0.1, -0.0, float("inf")], ValueType.FLOAT64: [0.1, 5e-324], ValueType.BOOL: [True, False],
    ValueType.STRING: ["", "naïve 🙂", "a\0b\nc"],
}


def write_gguf_py(path):
    """Every metadata type as scalar and array, every storage type at several ranks. Returns what was written."""
    rng = np.random.default_rng(2)
    writer = gguf.GGUFWriter(path, "llama")
    metadata = {"general.architecture": ("STRING", "llama")}
    for kind, values in SCALARS.items():
        for i, value in enumerate(values):
            key = f"scalar.{kind.name.lower()}.{i}"
            writer.add_key_value(key, value, kind)
            metadata[key] = (kind.name, value)
        key = f"array.{kind.name.lower()}"
        writer.add_key_value(key, values, ValueType.ARRAY, sub_type=kind)
        metadata[key] = ("array of " + kind.name, values)
    tensors = {}
    for name, kind in TYPES.items():
        block, size = gguf.GGML_QUANT_SIZES[kind]
        for shape in [(block,), (3, 2 * block), (2, 1, block), (2, 1, 3, block)]:
            tensor = f"{name}.{len(shape)}"
            stored = rng.integers(0, 256, (*shape[:-1], shape[-1] // block * size), np.uint8)
            writer.add_tensor(tensor, stored, raw_dtype=kind)
            tensors[tensor] = (name, list(shape), stored.tobytes())
    writer.add_tensor("scalar", np.float32(3).reshape(()))
    tensors["scalar"] = ("f32", [], np.float32(3).tobytes())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return metadata, tensors


def comparable(kind, value):
    """A value as tool_formats prints it."""
    if isinstance(value, list):
        return [comparable(kind, element) for element in value]
    if kind.endswith("STRING"):
        return value.encode().hex()
    if kind.endswith("FLOAT32"):
        return float(np.float32(value))
    return value


def printed(kind, value):
    if isinstance(value, list):
        return [printed(kind, element) for element in value]
    return float.fromhex(value) if "FLOAT" in kind else value


def check_gguf(read, metadata, tensors):
    assert list(read["metadata"]) == list(metadata)
    for key, (kind, value) in metadata.items():
        got = read["metadata"][key]
        assert got["type"] == kind, key
        assert repr(printed(kind, got["value"])) == repr(comparable(kind, value)), key  # repr tells -0.0 from 0.0
    assert [t["name"] for t in read["tensors"]] == list(tensors)
    for tensor in read["tensors"]:
        name, shape, stored = tensors[tensor["name"]]
        assert (tensor["type"], tensor["shape"]) == (name, shape)
        assert bytes.fromhex(tensor["bytes"]) == stored, tensor["name"]


def test_reads_what_gguf_py_writes(tmp_path):
    metadata, tensors = write_gguf_py(tmp_path / "theirs.gguf")
    read = tool_json("gguf", tmp_path / "theirs.gguf")
    assert (read["version"], read["alignment"]) == (3, 32)
    check_gguf(read, metadata, tensors)


def test_reads_version_2(tmp_path):
    metadata, tensors = write_gguf_py(tmp_path / "theirs.gguf")
    content = bytearray((tmp_path / "theirs.gguf").read_bytes())
    content[4:8] = struct.pack("<I", 2)  # the layout is that of version 3
    (tmp_path / "two.gguf").write_bytes(content)
    read = tool_json("gguf", tmp_path / "two.gguf")
    assert read["version"] == 2
    check_gguf(read, metadata, tensors)


def test_reads_other_alignments(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_custom_alignment(256)
    values = normal(np.random.default_rng(3), 3, 5)
    writer.add_tensor("a", values)
    writer.add_tensor("b", values + 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = tool_json("gguf", tmp_path / "theirs.gguf")
    assert read["alignment"] == 256
    assert bytes.fromhex(read["tensors"][1]["bytes"]) == (values + 1).tobytes()


def test_gguf_py_reads_what_we_write(tmp_path):
    metadata, tensors = write_gguf_py(tmp_path / "theirs.gguf")
    tool("gguf-copy", tmp_path / "theirs.gguf", tmp_path / "ours.gguf")
    check_gguf(tool_json("gguf", tmp_path / "ours.gguf"), metadata, tensors)
    reader = gguf.GGUFReader(tmp_path / "ours.gguf")
    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert list(fields) == list(metadata)
    for key, (kind, value) in metadata.items():
        names = [t.name for t in fields[key].types]
        assert names == (["ARRAY", kind.removeprefix("array of ")] if kind.startswith("array") else [kind])
        expected = value if not kind.endswith("FLOAT32") else np.float32(value).tolist()
        assert repr(fields[key].contents()) == repr(expected), key
    assert [t.name for t in reader.tensors] == list(tensors)
    for tensor in reader.tensors:
        name, shape, stored = tensors[tensor.name]
        assert tensor.tensor_type == TYPES[name]
        assert tensor.shape.tolist() == shape[::-1]
        assert tensor.data.tobytes() == stored


def test_gguf_copy_is_the_same_file_byte_for_byte(tmp_path):
    write_gguf_py(tmp_path / "theirs.gguf")
    tool("gguf-copy", tmp_path / "theirs.gguf", tmp_path / "ours.gguf")
    tool("gguf-copy", tmp_path / "ours.gguf", tmp_path / "again.gguf")
    theirs, ours = (tmp_path / "theirs.gguf").read_bytes(), (tmp_path / "ours.gguf").read_bytes()
    assert ours == theirs
    assert (tmp_path / "again.gguf").read_bytes() == ours


# ---- safetensors

FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def float_tensors(count=6):
    """name -> (safetensors dtype, shape, bytes), odd lengths that misalign what follows them in the file."""
    rng = np.random.default_rng(4)
    tensors = {}
    for i in range(count):
        for dtype in FLOATS:
            shape = [(7,), (3, 5), (), (0, 4), (1, 2, 3), (2, 1, 3, 1, 2)][i % 6]
            size = int(np.prod(shape)) * (4 if dtype == "F32" else 2)
            tensors[f"model.layers.{i}.{dtype}"] = (dtype, list(shape), rng.bytes(size))
    return tensors


def serialize(tensors, path, metadata=None):
    held = {name: np.frombuffer(stored, np.uint8) for name, (_, _, stored) in tensors.items()}
    specs = {name: safetensors.TensorSpec(dtype=FLOATS.get(dtype, dtype), shape=shape, data_len=len(stored),
                                          data_ptr=held[name].ctypes.data)
             for name, (dtype, shape, stored) in tensors.items()}
    safetensors.serialize_file(specs, path, metadata)


def deserialize(path):
    return {name: (tensor["dtype"], tensor["shape"], bytes(tensor["data"]))
            for name, tensor in safetensors.deserialize(path.read_bytes())}


def as_printed(read):
    return {t["name"]: (t["type"], t["shape"], bytes.fromhex(t["bytes"])) for t in read["tensors"]}


def test_reads_what_safetensors_writes(tmp_path):
    serialize(float_tensors(), tmp_path / "theirs.safetensors", {"format": "pt", "by": "naïve \"quotes\""})
    read = tool_json("safetensors", tmp_path / "theirs.safetensors")
    assert read["metadata"] == {"by": "naïve \"quotes\"", "format": "pt"}
    assert as_printed(read) == float_tensors()


def test_reads_types_that_are_not_ours(tmp_path):
    tensors = {"ids": ("int64", [2], bytes(16)), "mask": ("bool", [3], bytes(3)), "packed": ("uint8", [2, 2], b"abcd")}
    serialize(tensors, tmp_path / "theirs.safetensors")
    assert as_printed(tool_json("safetensors", tmp_path / "theirs.safetensors")) == {
        "ids": ("I64", [2], bytes(16)), "mask": ("BOOL", [3], bytes(3)), "packed": ("U8", [2, 2], b"abcd")}


def test_safetensors_reads_what_we_write(tmp_path):
    serialize(float_tensors(), tmp_path / "theirs.safetensors", {"format": "pt"})
    tool("safetensors-copy", tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors")
    assert deserialize(tmp_path / "ours.safetensors") == float_tensors()
    # Through its lazy reader too, which views tensors in place and so depends on their alignment.
    with safetensors.safe_open(tmp_path / "ours.safetensors", framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}
        for name, (dtype, shape, stored) in float_tensors().items():
            if dtype != "BF16":  # NumPy has no bfloat16
                tensor = opened.get_tensor(name)
                assert (list(tensor.shape), tensor.tobytes()) == (shape, stored)


def test_reads_a_sharded_folder(tmp_path):
    tensors = float_tensors()
    names = sorted(tensors)
    shards = {f"model-0000{i + 1}-of-00003.safetensors": names[i::3] for i in range(3)}
    for shard, held in shards.items():
        serialize({name: tensors[name] for name in held}, tmp_path / shard, {"format": "pt"})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    assert as_printed(tool_json("safetensors", tmp_path)) == tensors


def test_safetensors_reads_our_shards(tmp_path):
    tensors = float_tensors(12)
    serialize(tensors, tmp_path / "theirs.safetensors")
    tool("safetensors-shards", tmp_path / "theirs.safetensors", tmp_path / "folder", 100)
    index = json.loads((tmp_path / "folder" / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in (tmp_path / "folder").glob("*.safetensors"))
    assert len(shards) > 3 and sorted(set(index["weight_map"].values())) == shards
    assert index["metadata"]["total_size"] == sum(len(stored) for _, _, stored in tensors.values())
    read = {}
    for shard in shards:
        held = deserialize(tmp_path / "folder" / shard)
        assert sum(len(stored) for _, _, stored in held.values()) <= 100
        assert all(index["weight_map"][name] == shard for name in held)
        read.update(held)
    assert read == tensors
    assert as_printed(tool_json("safetensors", tmp_path / "folder")) == tensors


def test_what_we_open_safetensors_opens_too():
    accepted = 0
    for path in sorted((CORPUS / "safetensors").iterdir()):
        opened = subprocess.run([TOOL, "safetensors", path], capture_output=True, check=False)
        assert opened.returncode in (0, 1), path
        if opened.returncode == 0:
            accepted += 1
            safetensors.deserialize(path.read_bytes())
    assert accepted > 0


def test_what_we_open_gguf_py_opens_too():
    accepted = 0
    for path in sorted((CORPUS / "gguf").iterdir()):
        opened = subprocess.run([TOOL, "gguf", path], capture_output=True, check=False)
        assert opened.returncode in (0, 1), path
        if opened.returncode == 0:
            types = {tensor["type"] for tensor in json.loads(opened.stdout)["tensors"]}
            if types & {"i2_s", "q2_0"}:  # which it does not know
                continue
            accepted += 1
            gguf.GGUFReader(path)
    assert accepted > 0


# ---- large headers

LAYERS, HIDDEN, MLP, VOCABULARY = 80, 8192, 28672, 128256


def large_model():
    """Names and shapes of a model of 70 billion parameters: 723 tensors."""
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    for i in range(LAYERS):
        for name, shape in {"self_attn.q_proj": [HIDDEN, HIDDEN], "self_attn.k_proj": [1024, HIDDEN],
                            "self_attn.v_proj": [1024, HIDDEN], "self_attn.o_proj": [HIDDEN, HIDDEN],
                            "mlp.gate_proj": [MLP, HIDDEN], "mlp.up_proj": [MLP, HIDDEN],
                            "mlp.down_proj": [HIDDEN, MLP], "input_layernorm": [HIDDEN],
                            "post_attention_layernorm": [HIDDEN]}.items():
            yield f"model.layers.{i}.{name}.weight", shape
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCABULARY, HIDDEN]


def test_large_gguf_is_opened_in_100_megabytes(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "large.gguf", "llama")
    writer.add_token_list([f"token{i}" for i in range(VOCABULARY)])
    writer.add_token_types([1] * VOCABULARY)
    writer.add_token_merges([f"left{i} right{i}" for i in range(280_000)])
    size = 0
    for name, shape in large_model():
        nbytes = int(np.prod(shape)) * 2
        writer.add_tensor_info(name.removeprefix("model."), shape, np.dtype(np.float16), nbytes)
        size += -(-nbytes // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    path = tmp_path / "large.gguf"
    os.truncate(path, -(-path.stat().st_size // 32) * 32 + size)  # the data is one hole
    opened = tool_json("peak", path)
    path.unlink()
    assert opened["tensors"] == 723
    assert opened["peak_bytes"] < 100e6


def test_large_folder_is_opened_in_100_megabytes(tmp_path):
    names = list(large_model())
    weight_map = {}
    for shard in range(30):
        name = f"model-{shard + 1:05}-of-00030.safetensors"
        header, end = {}, 0
        for tensor, shape in names[shard::30]:
            begin, end = end, end + int(np.prod(shape)) * 2
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
            weight_map[tensor] = name
        text = json.dumps(header).encode()
        (tmp_path / name).write_bytes(struct.pack("<Q", len(text)) + text)
        os.truncate(tmp_path / name, 8 + len(text) + end)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    opened = tool_json("peak", tmp_path)
    assert opened["tensors"] == 723
    assert opened["peak_bytes"] < 100e6
