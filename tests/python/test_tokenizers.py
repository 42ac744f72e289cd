"""Ids and text equal to those of tokenizers, transformers and sentencepiece, on the tokenizers of real models.

Those tokenizers lie in ../shared and under licences of their own: they are read from there and never copied here.
"""

import base64
import json
import lzma
import os
import random
import subprocess
import tarfile
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

SHARED = Path(os.environ.get("PARE_SHARED") or Path(__file__).parents[3] / "shared") / "data"
TOOL = Path(os.environ["PARE_TOOLS"]) / "tool_tokenize"

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)"
    r"|\s"
)
GPT4O_PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


class Tool:
    """Sends requests to tests/tools/tokenize.cc, all at once."""

    def __init__(self, model, *options):
        self.command = [str(TOOL), str(model), *options]

    def ask(self, lines):
        done = subprocess.run(self.command, input="\n".join(lines), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def encode(self, texts, special=True, parse=True):
        flags = "e" + "s" * special + "p" * parse
        raw = [text if isinstance(text, bytes) else text.encode() for text in texts]
        return [[int(i) for i in line.split()] for line in self.ask([f"{flags} {text.hex()}" for text in raw])]

    def decode(self, sequences, keep=False):
        flags = "d" + "k" * keep
        lines = self.ask([" ".join([flags, *map(str, ids)]) for ids in sequences])
        return [bytes.fromhex(line) for line in lines]

    def error(self):
        done = subprocess.run(self.command, input="", capture_output=True, text=True, check=False)
        assert done.returncode == 1, (done.returncode, done.stderr)
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.strip()


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    with lzma.open(SHARED / "models" / "tokenizers_and_adapters.tar.xz") as packed, tarfile.open(fileobj=packed) as tar:
        tar.extractall(folder, filter="data")
    return folder / "tokenizers"


def random_text(rng):
    """Characters from everywhere, with the neighbours that tokenizers treat differently more often than chance."""
    ranges = [
        (0x20, 0x7E), (0x20, 0x7E), (0x00, 0x1F), (0x7F, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x52F),
        (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1FFF),
        (0x2000, 0x206F), (0x20A0, 0x24FF), (0x2580, 0x2600), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
        (0xFB00, 0xFEFF), (0xFF00, 0xFFFD), (0x1F100, 0x1F1FF), (0x1F300, 0x1FAFF), (0x1D400, 0x1D7FF),
        (0x20000, 0x2FA1D), (0xE000, 0xE010), (0x10FFF0, 0x10FFFF),
    ]  # fmt: skip
    favourites = [
        " ", "  ", "\n", "\r\n", "\t", "'s", "'S", "'ll", "'RE", "\u017f", "'\u017f", "\u2581", "\u180e", "\u00a0", "\u3000",
        "\u0085", "\u200b", "\u200d", "\ufe0f", "\u0301", "e\u0301", "I\u0307", "\u0130", "\u1e9e", "1", "23", "456", "７", "²", "Ⅷ", "½",
        "<s>", "</s>", "<unk>", "<|endoftext|>", "[INST]", "<0x41>", "_", "-", "...", "\ufffd", "\ufeff",
    ]  # fmt: skip
    out = []
    for _ in range(rng.randrange(1, 30)):
        if rng.random() < 0.4:
            out.append(rng.choice(favourites))
            continue
        low, high = rng.choice(ranges)
        out.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randrange(1, 5))))
    # What a character is that Unicode 14 does not know yet depends on the age of each library.
    assert unicodedata.unidata_version == "14.0.0"
    return "".join(c for c in "".join(out) if unicodedata.category(c) not in ("Cn", "Cs"))


def written_texts():
    return [
        "",
        " ",
        "a",
        "\n",
        "\n\n\n",
        "\r\n\r\n",
        "\x00\x01\x7f\x80",
        "Hello world",
        " Hello world ",
        "   leading and trailing   ",
        "don't can't WE'LL I'VE they're it'd He'S",
        "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 0x1F 2e10",
        "١٢٣٤٥ १२३ ⅧⅨ ½¾ ²³¹ ①②",
        "if (x == 1) {\n\treturn\t\ty;\n    }\n\n\n        // done\n",
        "日本語のテキスト、漢字とかな。中文文本，没有空格。한국어 텍스트",
        "مرحبا بالعالم، كيف حالك؟ שלום עולם",
        "Привет, мир! Γειά σου Κόσμε",
        "👨‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ❤️ 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "e\u0301 \u00e9 a\u0323\u0307 a\u0307\u0323 \u1e69 s\u0323\u0307 \ufb01 \u212b \uac00 \u1100\u1161",
        "o\u0300" * 50,
        "a" + "\u0301\u0323" * 100,
        " " * 1000,
        "x" + " " * 257 + "y",
        "\t" * 33 + "z" + "\n" * 77,
        " \n \n\n \t\n x",
        "a" * 5000,
        "ab" * 3000,
        "=" * 777 + "-" * 555 + "." * 333,
        "\u2581\u2581x\u2581 \u2581",
        "<s>", "</s>", "<s></s>", "text <s> more</s>text", "<unk> <pad> <mask>",
        "<|endoftext|>", "a<|endoftext|>b", "a <|endoftext|> b", "<|endoftext|><|endoftext|>",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
        "[INST] Hello [/INST] there [IMG][/IMG]",
        "<|user|>\nQ<|end|>\n<|assistant|>   A  <|end|>   ",
        "  <mask>  <mask>x",
        "|||PHONE_NUMBER||| |||IP_ADDRESS|||x",
        ">>TITLE<<>>ABSTRACT<< >>QUESTION<<",
        "<0x0A><0x41>",
        "\u017f '\u017f K \u212a",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def texts():
    rng = random.Random(20240607)
    out = written_texts() + [random_text(rng) for _ in range(400)]
    evaluation = SHARED / "eval"
    wiki = (evaluation / "wiki.test.raw").read_text(encoding="utf-8")
    stories = (evaluation / "tinystories_1000.txt").read_text(encoding="utf-8")
    plays = (evaluation / "tiny_shakespeare.txt").read_text(encoding="utf-8")
    for text in (wiki, stories, plays):
        out.append(text[:40000])
        for _ in range(40):
            start = rng.randrange(len(text) - 500)
            out.append(text[start : start + rng.randrange(1, 500)])
    return out


INVALID = [
    b"\xff", b"a\xffb", b"\xc3", b"\xc3\x28", b"\xe2\x82", b"\xe2\x28\xa1", b"\xf0\x9f\x98", b"\xf0\x28\x8c\xbc", b"\xc0\xaf",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"ok \xe2\x96\x81 \xe2\x96", b"\x80\x80\x80 text \xbf",
    b"\xef\xbf\xbd\xff", b"\xf0\x80\x80\x80", b"\xe0\x80\x80",
]  # fmt: skip


def check_same(pairs):
    """pairs of (text, expected, got): shows the first difference."""
    for text, expected, got in pairs:
        assert got == expected, f"{text[:200]!r}: expected {expected[:40]}, got {got[:40]}"


def check_against_library(path, texts, *options, library=None):
    """Encoding with and without special tokens, special tokens as text, broken UTF-8, and decoding."""
    if library is None:
        library = tokenizers.Tokenizer.from_file(str(path))
    library.no_padding()
    library.no_truncation()
    tool = Tool(path, *options)
    expected = [e.ids for e in library.encode_batch(texts, add_special_tokens=True)]
    check_same(zip(texts, expected, tool.encode(texts)))
    plain = [e.ids for e in library.encode_batch(texts, add_special_tokens=False)]
    check_same(zip(texts, plain, tool.encode(texts, special=False)))
    library.encode_special_tokens = True
    unparsed = [e.ids for e in library.encode_batch(texts, add_special_tokens=False)]
    library.encode_special_tokens = False
    check_same(zip(texts, unparsed, tool.encode(texts, special=False, parse=False)))
    replaced = [raw.decode("utf-8", "replace") for raw in INVALID]
    broken = [e.ids for e in library.encode_batch(replaced, add_special_tokens=False)]
    check_same(zip(INVALID, broken, tool.encode(INVALID, special=False)))
    for keep in (False, True):
        decoded = library.decode_batch(expected, skip_special_tokens=not keep)
        got = [raw.decode("utf-8", "replace") for raw in tool.decode(expected, keep=keep)]
        check_same(zip(texts, decoded, got))


BYTE_LEVEL = [
    "olmo/allenai_dolma2.json",
    "olmo/allenai_eleuther-ai-gpt-neox-20b-pii-special.json",
    "olmo/allenai_gpt-neox-olmo-dolma-v1_5.json",
    "ort_ext/falcon-tokenizer/tokenizer.json",
    "ort_ext/phi-2/tokenizer.json",
    "ort_ext/roberta-base/tokenizer.json",
    "ort_ext/clip/tokenizer.json",
]
ALL_JSON = [*BYTE_LEVEL, "ort_ext/phi-3-mini/tokenizer.json"]


@pytest.mark.parametrize("name", ALL_JSON)
def test_tokenizer_json(archive, texts, name):
    check_against_library(archive / name, texts)
