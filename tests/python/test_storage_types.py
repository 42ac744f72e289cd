"""Storage types against gguf-py, which defines all but Q2_0; that one against ggml's rule evaluated with NumPy."""

import pathlib

import gguf
import numpy as np
import pytest
from storage_types import TYPES, normal, tool

BLOCK_FILES = pathlib.Path(__file__).parents[1] / "data" / "blocks"
# Those whose encoder is defined to the bit: by gguf-py, Q2_0 by ggml.
DEFINED = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "tq1_0", "tq2_0", "q2_0"]
QUANTIZED = sorted(path.name for path in BLOCK_FILES.iterdir() if not path.suffix)
BLOCKS = {name: gguf.GGML_QUANT_SIZES[kind] for name, kind in TYPES.items()} | {"q2_0": (64, 18)}


def quantized(values, name):
    """The bytes gguf-py stores."""
    if name == "q2_0":
        return quantized_q2_0(values)
    return gguf.quants.quantize(values, TYPES[name]).tobytes()


def dequantized_q2_0(stored):
    """ggml's rule: 64 values in an F16 scale d and 16 bytes, two bits each from the lowest up: value = (q - 1) * d."""
    blocks = stored.reshape(-1, 18)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    bits = np.unpackbits(blocks[:, 2:], axis=-1, bitorder="little").reshape(-1, 64, 2).astype(np.float32)
    return ((bits[..., 0] + 2 * bits[..., 1] - 1) * scale).reshape(-1)


def quantized_q2_0(values):
    """ggml's rule: d is the largest magnitude, q the nearest level, halves away from zero."""
    blocks = values.reshape(-1, 64)
    d = np.abs(blocks).max(axis=-1, keepdims=True)
    scaled = blocks * np.where(d == 0, np.float32(0), np.float32(1) / d)
    q = np.where(np.isfinite(scaled), np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5)), 0) + 1
    bits = np.stack([q % 2, q // 2], axis=-1).astype(np.uint8)
    packed = np.packbits(bits.reshape(-1, 128), axis=-1, bitorder="little")
    return np.concatenate([d.astype(np.float16).view(np.uint8), packed], axis=-1).tobytes()


def dequantized(stored, name):
    with np.errstate(all="ignore"):
        if name == "f32":
            return stored.view(np.float32)
        if name == "q2_0":
            return dequantized_q2_0(stored)
        return gguf.quants.dequantize(stored, TYPES[name]).reshape(-1)


def encode_cases():
    """float32 arrays, a multiple of 32 each, that reach every branch of an encoder."""
    rng = np.random.default_rng(0)
    tiny = np.float32(2.0**-149)
    cases = {
        "normal": normal(rng, 2000 * 32),
        "weights": normal(rng, 2000 * 32) * np.float32(0.02),
        "zeros": np.zeros(64, np.float32),
        "minus zeros": np.full(64, -0.0, np.float32),
        "huge": normal(rng, 64 * 32) * np.float32(5e37),
        "largest": np.where(np.arange(64) % 3 == 0, -1, 1).astype(np.float32) * np.finfo(np.float32).max,
        "scales beyond f16": normal(rng, 64 * 32) * np.float32(1e8),
        "scales subnormal in f16": normal(rng, 64 * 32) * np.float32(1e-4),
        "scales that f16 rounds to zero": normal(rng, 64 * 32) * np.float32(1e-8),
        "subnormal": (rng.integers(-2000, 2000, 64 * 32) * tiny).astype(np.float32),
        "least": (rng.integers(-2, 3, 64 * 32) * tiny).astype(np.float32),
        "near the least normal": normal(rng, 64 * 32) * np.float32(2.0**-126),
        # Scale exactly 1 for Q8_0: every half way between two steps, and the floats beside.
        "q8_0 ties": np.concatenate([np.r_[np.float32(127), x] for x in
                                     np.array_split(np.arange(-126.5, 127, 0.5, dtype=np.float32)[:31 * 16], 16)]),
        "just below ties": np.nextafter(np.tile(np.r_[127, np.arange(31) + 0.5].astype(np.float32), 4),
                                        np.float32(0)),
        # Scales 1 and -1 for Q4_0.
        "q4_0 ties": np.concatenate([np.r_[np.float32(sign * 8), (np.arange(31) - 15) / np.float32(2)]
                                     for sign in (1, -1)]).astype(np.float32),
        "equal magnitudes": np.where(rng.random(64 * 32) < 0.5, -1, 1).astype(np.float32),
        "many magnitudes": (normal(rng, 500 * 32) * 2.0 ** rng.integers(-140, 120, 500 * 32)).astype(np.float32),
    }
    for name, values in cases.items():
        assert values.dtype == np.float32 and values.size % 32 == 0 and np.isfinite(values).all(), name
    return cases


@pytest.mark.parametrize("name", DEFINED)
def test_encode_equals_the_definition_to_the_bit(name):
    with np.errstate(all="ignore"):
        for case, values in encode_cases().items():
            values = np.resize(values, -(-values.size // BLOCKS[name][0]) * BLOCKS[name][0])
            assert tool("encode", name, stdin=values.tobytes()) == quantized(values, name), case


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_encode_of_infinities_and_nan(name):
    values = np.array([np.inf, -np.inf, np.nan, 65519.99, 65520.0, -65520.0, 3.4e38, 3.39e38], np.float32)
    with np.errstate(all="ignore"):
        ours = np.frombuffer(tool("encode", name, stdin=values.tobytes()), np.uint16)
        theirs = np.frombuffer(quantized(values, name), np.uint16)
    is_nan = np.isnan(values)
    np.testing.assert_array_equal(ours[~is_nan], theirs[~is_nan])
    decoded = np.frombuffer(tool("decode", name, stdin=ours.tobytes()), np.float32)
    assert np.isnan(decoded[is_nan]).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_decode_equals_the_definition_to_the_bit(name):
    block, size = BLOCKS[name]
    # Among random bytes are scales of every kind: subnormal, infinite, NaN.
    stored = np.random.default_rng(1).integers(0, 256, 4000 * size, dtype=np.uint8)
    ours = np.frombuffer(tool("decode", name, stdin=stored.tobytes()), np.float32)
    theirs = dequantized(stored, name)
    assert ours.size == 4000 * block
    finite = np.isfinite(theirs)
    assert finite.any() and not finite.all()
    np.testing.assert_array_equal(ours[finite].view(np.uint32), theirs[finite].view(np.uint32))
    np.testing.assert_array_equal(ours, theirs)  # NaN and infinities in the same places


# ---- what ggml's quantizers made (tests/data/blocks)

def read_rows():
    return np.fromfile(BLOCK_FILES / "rows.f32", np.float32)


@pytest.mark.parametrize("name", QUANTIZED)
def test_decodes_what_ggml_encoded(name):
    stored = np.fromfile(BLOCK_FILES / name, np.uint8)
    ours = np.frombuffer(tool("decode", name, stdin=stored.tobytes()), np.float32)
    np.testing.assert_array_equal(ours.view(np.uint32), dequantized(stored, name).view(np.uint32))


@pytest.mark.parametrize("name", QUANTIZED)
def test_encodes_no_worse_than_ggml(name):
    values = read_rows()
    theirs = np.fromfile(BLOCK_FILES / name, np.uint8)
    ours = np.frombuffer(tool("encode", name, stdin=values.tobytes()), np.uint8)
    if name in DEFINED:
        np.testing.assert_array_equal(ours, theirs)
        return
    for rows in np.split(np.arange(values.size), 2):  # Gaussian, Laplacian
        error, allowed = (np.linalg.norm((dequantized(stored, name) - values)[rows]) for stored in (ours, theirs))
        assert error <= 1.01 * allowed, (error / allowed)


@pytest.mark.parametrize("name", QUANTIZED)
def test_encode_keeps_nan_and_infinity_visible(name):
    block, size = BLOCKS[name]
    for bad in (np.nan, np.inf, -np.inf):
        values = np.ones((3, block), np.float32)
        values[1, block // 2] = bad
        decoded = dequantized(np.frombuffer(tool("encode", name, stdin=values.tobytes()), np.uint8), name)
        decoded = decoded.reshape(3, block)
        assert not np.isfinite(decoded[1, block // 2])
        np.testing.assert_allclose(decoded[[0, 2]], 1, rtol=0.01)  # other blocks are not touched
