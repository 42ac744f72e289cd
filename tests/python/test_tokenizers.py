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

import gguf
import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

SHARED = Path(os.environ.get("PARE_SHARED") or Path(__file__).parents[3] / "shared") / "data"
TOOL = Path(os.environ["PARE_TOOLS"]) / "tool_tokenize"

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
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


class Requests:
    """Lines for tests/tools/tokenize.cc, asked all at once."""

    def __init__(self):
        self.lines = []

    def encode(self, texts, special=True, parse=True):
        flags = "e" + "s" * special + "p" * parse
        raw = [text if isinstance(text, bytes) else text.encode() for text in texts]
        return self.add([f"{flags} {text.hex()}" for text in raw])

    def decode(self, sequences, keep=False):
        return self.add([" ".join(["d" + "k" * keep, *map(str, ids)]) for ids in sequences])

    def decode_one(self, ids, keep=False):
        return self.add([f"o{'k' * keep} {i}" for i in ids])

    def add(self, lines):
        self.lines += lines
        return slice(len(self.lines) - len(lines), len(self.lines))


def run_tool(model, *options, lines=()):
    command = [str(TOOL), str(model), *map(str, options)]
    return subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)


def ask(model, requests, *options):
    done = run_tool(model, *options, lines=requests.lines)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == len(requests.lines)
    return answers


def encode(model, texts, *options, special=True, parse=True):
    requests = Requests()
    requests.encode(texts, special, parse)
    return [[int(i) for i in line.split()] for line in ask(model, requests, *options)]


def error_of(model, *options):
    done = run_tool(model, *options)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    with lzma.open(SHARED / "models" / "tokenizers_and_adapters.tar.xz") as packed, tarfile.open(fileobj=packed) as tar:
        if hasattr(tarfile, "data_filter"):  # Debian 12's own Python has not learnt it
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(folder)
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
    out = written_texts() + [random_text(rng) for _ in range(300)]
    evaluation = SHARED / "eval"
    wiki = (evaluation / "wiki.test.raw").read_text(encoding="utf-8")
    stories = (evaluation / "tinystories_1000.txt").read_text(encoding="utf-8")
    plays = (evaluation / "tiny_shakespeare.txt").read_text(encoding="utf-8")
    for text in (wiki, stories, plays):
        out.append(text[:15000])
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


def ids_of(answers):
    return [[int(i) for i in line.split()] for line in answers]


def bytes_of(answers):
    return [bytes.fromhex(line) for line in answers]


def check_against_library(path, texts, *options, library=None, special_ids=()):
    """Encoding with and without special tokens, special tokens as text, broken UTF-8, and decoding."""
    if library is None:
        library = tokenizers.Tokenizer.from_file(str(path))
    library.no_padding()
    library.no_truncation()
    encode_all = lambda texts, special: [e.ids for e in library.encode_batch(texts, add_special_tokens=special)]
    expected = encode_all(texts, True)
    requests = Requests()
    checks = [
        (requests.encode(texts), texts, expected),
        (requests.encode(texts, special=False), texts, encode_all(texts, False)),
        (requests.encode(INVALID, special=False), INVALID, encode_all([t.decode("utf-8", "replace") for t in INVALID], False)),
    ]  # fmt: skip
    library.encode_special_tokens = True
    checks.append((requests.encode(texts, special=False, parse=False), texts, encode_all(texts, False)))
    library.encode_special_tokens = False
    decodes = []
    decoded = [[i for i in ids if i not in special_ids] for ids in expected]
    for keep in (False, True):
        decodes.append((requests.decode(decoded, keep), library.decode_batch(decoded, skip_special_tokens=not keep)))
    answers = ask(path, requests, *options)
    for part, given, wanted in checks:
        check_same(zip(given, wanted, ids_of(answers[part])))
    for part, wanted in decodes:
        check_same(zip(texts, wanted, [raw.decode("utf-8", "replace") for raw in bytes_of(answers[part])]))


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


@pytest.mark.parametrize("through", ["gguf", "json"])
@pytest.mark.parametrize("name", ALL_JSON)
def test_written_and_read_back(archive, texts, name, through):
    library = tokenizers.Tokenizer.from_file(str(archive / name))
    expected = [e.ids for e in library.encode_batch(texts)]
    check_same(zip(texts, expected, encode(archive / name, texts, "--through", through)))


@pytest.mark.parametrize("name", ALL_JSON)
def test_written_json_reads_the_same_in_tokenizers(archive, texts, name, tmp_path):
    assert run_tool(archive / name, "--write-json", tmp_path).returncode == 0
    library = tokenizers.Tokenizer.from_file(str(archive / name))
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    expected = [e.ids for e in library.encode_batch(texts)]
    check_same(zip(texts, expected, [e.ids for e in written.encode_batch(texts)]))
    for ids, text in zip(expected[:100], texts):
        for skip in (True, False):
            decoded = library.decode(ids, skip_special_tokens=skip)
            assert written.decode(ids, skip_special_tokens=skip) == decoded, text
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    check_same(zip(texts, expected, [loaded(text)["input_ids"] for text in texts]))


def test_gpt2(archive, texts, tmp_path):
    model = models.BPE.from_file(str(archive / "gpt2/gpt2_vocab.json"), str(archive / "gpt2/gpt2_merges.txt"))
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|endoftext|>"])
    library.save(str(tmp_path / "tokenizer.json"))
    check_against_library(tmp_path / "tokenizer.json", texts)
    assert written_gguf(tmp_path / "tokenizer.json")["tokenizer.ggml.pre"] == "gpt-2"


def written_gguf(model):
    """What pare writes to GGUF metadata besides arrays."""
    done = run_tool(model, "--show-gguf", "all")
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def from_tiktoken(path, pattern, special, ignore_merges):
    """A vocabulary in tiktoken's form as a tokenizer of the tokenizers library, converted as transformers does it."""
    lines = [line.split() for line in path.read_bytes().splitlines() if line]
    ranks = {base64.b64decode(piece): int(rank) for piece, rank in lines}
    characters = {}
    others = 0
    for byte in range(256):
        printable = 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte
        characters[byte] = chr(byte if printable else 256 + others)
        others += not printable
    show = lambda piece: "".join(characters[b] for b in piece)
    merges = []
    for piece, _ in sorted(ranks.items(), key=lambda item: item[1]):
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        splits = [(left, right) for left, right in splits if left in ranks and right in ranks]
        splits.sort(key=lambda split: (ranks[split[0]], ranks[split[1]]))
        merges += [(show(left), show(right)) for left, right in splits]
    vocabulary = {show(piece): rank for piece, rank in ranks.items()}
    library = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(special)
    return library


def test_llama3(archive, texts, tmp_path):
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|start_header_id|>"]
    special += ["<|end_header_id|>", "<|eot_id|>"]
    library = from_tiktoken(archive / "llama3/tokenizer.model", LLAMA3_PATTERN, special, True)
    bos = ("<|begin_of_text|>", library.token_to_id("<|begin_of_text|>"))
    library.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing("<|begin_of_text|> $A", None, [bos])]
    )
    path = tmp_path / "tokenizer.json"
    library.save(str(path))
    check_against_library(path, texts)
    check_against_library(path, texts, "--through", "gguf", library=library)
    written = written_gguf(path)
    assert written["tokenizer.ggml.pre"] == "llama-bpe"
    assert written["tokenizer.ggml.add_bos_token"] == "true"
    assert "pare.tokenizer" not in written


def test_cl100k(archive, texts, tmp_path):
    special = ["<|endoftext|>", "<|fim_prefix|>"]
    path = archive / "ort_ext/phi-3-small/cl100k_base.tiktoken"
    library = from_tiktoken(path, LLAMA3_PATTERN, special, False)
    library.save(str(tmp_path / "tokenizer.json"))
    check_against_library(tmp_path / "tokenizer.json", texts)
    assert written_gguf(tmp_path / "tokenizer.json")["tokenizer.ggml.pre"] == "dbrx"


def test_llama2_with_its_merges_mended(archive, texts, tmp_path):
    """The archive's file has lost the difference between spaces and U+00A0, so that nothing can read it."""
    broken = archive / "ort_ext/llama2/tokenizer.json"
    with pytest.raises(Exception, match="invalid"):
        tokenizers.Tokenizer.from_file(str(broken))
    assert 'model.merges[18917]: expected two pieces' in error_of(broken)
    data = json.loads(broken.read_text(encoding="utf-8"))
    vocabulary = data["model"]["vocab"]
    data["model"]["merges"] = [m for m in data["model"]["merges"] if m.count(" ") == 1]
    assert len(vocabulary) == 32000
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    # Its special tokens are normalized ones, which this version of the library does not know again when it decodes.
    check_against_library(path, texts, special_ids=(0, 1, 2))
    check_against_library(path, texts, "--through", "gguf", special_ids=(0, 1, 2))


SENTENCEPIECE = [
    "llama2/tokenizer.model",
    "mistral/tokenizer.model.v1",
    "mistral/mistral_instruct_tokenizer_240216.model.v2",
    "mistral/mistral_instruct_tokenizer_240323.model.v3",
    "mistral/mistral_instruct_tokenizer_241114.model.v7",
    "mistral/mistral_instruct_tokenizer_241114.model.v7m1",
]


def check_against_sentencepiece(path, texts, *options, library=None):
    if library is None:
        library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    expected = library.encode(texts)
    requests = Requests()
    plain = requests.encode(texts, special=False, parse=False)
    special = requests.encode(texts, parse=False)
    # The library replaces each broken byte, Python and pare each broken character.
    replaced = [raw.decode("utf-8", "replace") for raw in INVALID]
    broken = requests.encode(INVALID, special=False, parse=False)
    decoded = requests.decode(expected)
    answers = ask(path, requests, *options)
    check_same(zip(texts, expected, ids_of(answers[plain])))
    bos = [library.bos_id()] if library.bos_id() >= 0 else []
    check_same(zip(texts, [bos + ids for ids in expected], ids_of(answers[special])))
    check_same(zip(INVALID, library.encode(replaced), ids_of(answers[broken])))
    for text, ids, raw in zip(texts, expected, bytes_of(answers[decoded])):
        # The library shows unknown tokens as " ⁇ ", and may strip more space symbols than the one it put first.
        if library.unk_id() not in ids and "\u2581" not in text:
            assert raw.decode() == library.decode(ids), text


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_sentencepiece_model(archive, texts, name):
    check_against_sentencepiece(archive / name, texts)


@pytest.mark.parametrize("name", SENTENCEPIECE[:1] + SENTENCEPIECE[4:5])
def test_sentencepiece_model_through_gguf(archive, texts, name):
    check_against_sentencepiece(
        archive / name, texts, "--through", "gguf", library=sentencepiece.SentencePieceProcessor(str(archive / name))
    )


def test_sentencepiece_model_as_tokenizer_json(archive, texts, tmp_path):
    """What pare writes of a SentencePiece model gives the same ids in tokenizers and transformers."""
    model = archive / "llama2/tokenizer.model"
    assert run_tool(model, "--write-json", tmp_path).returncode == 0
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    requests = Requests()
    parts = requests.encode(texts)
    expected = ids_of(ask(model, requests)[parts])
    check_same(zip(texts, expected, [e.ids for e in written.encode_batch(texts)]))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    check_same(zip(texts, expected, [loaded(text)["input_ids"] for text in texts]))


def test_stories260k(texts):
    """The pieces of the GGUF file in a SentencePiece model of our own making."""
    path = SHARED / "models/stories260K/stories260K.gguf"
    fields = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.remove_extra_whitespaces = False
    for piece, score, kind in zip(*(fields[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))):
        proto.pieces.add(piece=piece, score=score, type=kind)
    library = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    check_against_sentencepiece(path, texts, library=library)


# Small tokenizers, trained here, for what no tokenizer of the archive has.


@pytest.fixture(scope="session")
def byte_level_vocabulary():
    """A byte-level BPE trained without any splitting, so that where words are cut shows in the ids."""
    rng = random.Random(5)
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, show_progress=False, max_token_length=12)
    wiki = (SHARED / "eval" / "wiki.test.raw").read_text(encoding="utf-8")
    pieces = [wiki[i : i + 60] for i in range(0, 240000, 60)]
    pieces += [text for text in written_texts() if len(text) < 400] * 4 + [random_text(rng) for _ in range(1500)]
    pieces += ["".join(rng.choice("0123456789 .,'\n\r\t(){}<>") for _ in range(20)) for _ in range(1500)]
    pieces += ["".join(rng.choice("aBcDeFÄö's'T 'LL'd Re") for _ in range(20)) for _ in range(1500)]
    library.train_from_iterator(pieces, trainer)
    saved = json.loads(library.to_str())["model"]
    return saved["vocab"], [tuple(merge) for merge in saved["merges"]]


@pytest.fixture(scope="session")
def word_texts(texts):
    rng = random.Random(11)
    mixed = ["".join(rng.choice("aBcDeFÄö's'T 'LL'd Re12 3४Ⅷ½.,!?\n\r\t  日本語é\u0301") for _ in range(40)) for _ in range(150)]
    return texts[:160] + mixed


def byte_level_library(vocabulary, pre_tokenizer, normalizer=None, **options):
    library = tokenizers.Tokenizer(models.BPE(*vocabulary, **options))
    library.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        library.normalizer = normalizer
    library.decoder = decoders.ByteLevel()
    return library


def check_small(library, texts, folder):
    """Read, and read again through both formats."""
    path = folder / "tokenizer.json"
    library.save(str(path))
    expected = [e.ids for e in library.encode_batch(texts)]
    for options in ((), ("--through", "gguf"), ("--through", "json")):
        check_same(zip(texts, expected, encode(path, texts, *options)))


DEEPSEEK3 = [
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    + r"|\s*[\r\n]+|\s+(?!\S)|\s+",
]
PATTERNS = {
    "gpt2": [GPT2_PATTERN],
    "llama3": [LLAMA3_PATTERN],
    "qwen2": [LLAMA3_PATTERN.replace("{1,3}", "")],
    "gpt4o": [GPT4O_PATTERN],
    "tekken": [GPT4O_PATTERN.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("{1,3}", "")],
    "deepseek3": DEEPSEEK3,
    "possessive": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"],
    "groups": [r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|(\p{N})|(?>[^\s\p{L}]+)"],
    "thousands": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "boundary": [r"\d{1,3}(?=(?:\d{3})*\b)", r"\b", r"\B\w\B"],
    "classes": [r"[\w.-]+|[^\w\s]", r"\W+", r"\S+"],
    "lines": [r"^\s*\w", r"\s+$", r".+"],
    "dot_all": [r"(?m:..)", r".."],
    "options": [r"(?i)abc|d(?i)e|f", r"(?i:s|k|t|i)", r"(?i:x(?-i:A))"],
    "bounds": [r"a{2,}|b{,2}|c{1}|x{,}|y{z|\{\}", r"[\p{Lu}\p{Lt}]{2,3}?"],
    "scripts": [r"\p{Han}+|\p{Hiragana}+|\P{Latin}", r"\p{^L}+"],
    "escapes": [r"[\t\n\x0b\f\r\x{85}\u00a0]+|\v|\h+|\x41|\e|\a|\#|\-|\ "],
    "lookbehind": [r"(?<=[a-z])(?=[A-Z])|(?<!\p{L})\p{L}"],
    "empty": [r"x*"],
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(byte_level_vocabulary, word_texts, name, tmp_path):
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[name]]
    bytes_step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    check_small(byte_level_library(byte_level_vocabulary, pre_tokenizers.Sequence([*splits, bytes_step])), word_texts, tmp_path)


CLASSES = [r"\w", r"\W", r"\s", r"\S", r"\d", r"\h", r"[\w]", r"[^\s\d]"] + [
    rf"\p{{{name}}}"
    for name in "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf".split()
    + "White_Space Han Hiragana Katakana Latin Greek Cyrillic Hangul Arabic Thai".split()
]  # fmt: skip


def test_character_classes(byte_level_vocabulary, tmp_path):
    """Each class over every character, by taking what it matches out of the text."""
    everything = [chr(i) for i in range(0x30000) if unicodedata.category(chr(i)) not in ("Cn", "Cs", "Co")]
    # Of the long runs of ideographs and syllables one in 16 will do; U+1171E has another category since Unicode 14.
    runs = [(0x3400, 0x9FFF), (0xAC00, 0xD7A3), (0x17000, 0x18CD5), (0x20000, 0x30000)]
    thinned = lambda code: any(low < code < high for low, high in runs) and code % 16 > 0
    everything = [c for c in everything if c != "\U0001171e" and not thinned(ord(c))]
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for pattern in CLASSES:
        normalizer = normalizers.Replace(Regex(pattern), "")
        left = normalizer.normalize_str("".join(everything))
        library = byte_level_library(({c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []), pre_tokenizer, normalizer)
        library.save(str(tmp_path / "tokenizer.json"))
        requests = Requests()
        ids = requests.encode(["".join(everything)])
        answers = ids_of(ask(tmp_path / "tokenizer.json", requests)[ids])
        requests = Requests()
        decoded = requests.decode(answers)
        [got] = bytes_of(ask(tmp_path / "tokenizer.json", requests)[decoded])
        difference = set(got.decode()) ^ set(left)
        assert not difference, (pattern, sorted(f"{ord(c):04X}" for c in difference)[:20])


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("behavior", ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"])
def test_split_behaviors(byte_level_vocabulary, word_texts, behavior, invert, tmp_path):
    steps = [
        pre_tokenizers.Split(Regex(r"\p{P}|\d|\s"), behavior, invert),
        pre_tokenizers.Split("an", behavior, invert),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    check_small(byte_level_library(byte_level_vocabulary, pre_tokenizers.Sequence(steps)), word_texts, tmp_path)


BYTE_LEVEL_STEPS = {
    "prefix": [pre_tokenizers.ByteLevel(add_prefix_space=True)],
    "prefix_without_pattern": [pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)],
    "prefix_of_each_piece": [pre_tokenizers.Split("e", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=True)],
    "digits": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "digit_runs": [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "punctuation": [pre_tokenizers.Punctuation("merged_with_previous"), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "after_bytes": [
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Punctuation("isolated"),
    ],
}


@pytest.mark.parametrize("name", BYTE_LEVEL_STEPS)
def test_byte_level_steps(byte_level_vocabulary, word_texts, name, tmp_path):
    library = byte_level_library(byte_level_vocabulary, pre_tokenizers.Sequence(BYTE_LEVEL_STEPS[name]))
    check_small(library, word_texts, tmp_path)


NORMALIZERS = {
    "NFC": normalizers.NFC(),
    "NFD": normalizers.NFD(),
    "NFKC": normalizers.NFKC(),
    "NFKD": normalizers.NFKD(),
    "lowercase": normalizers.Lowercase(),
    "strip": normalizers.Strip(),
    "strip_left": normalizers.Strip(left=True, right=False),
    "prepend": normalizers.Prepend("ab"),
    "replace": normalizers.Replace("e", "<é>"),
    "replace_pattern": normalizers.Replace(Regex(r"\s+"), " "),
    "sequence": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("a", "")]),
}


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers(byte_level_vocabulary, word_texts, name, tmp_path):
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    check_small(byte_level_library(byte_level_vocabulary, pre_tokenizer, NORMALIZERS[name]), word_texts, tmp_path)


ADDED = [
    tokenizers.AddedToken("<left>", lstrip=True, special=True, normalized=False),
    tokenizers.AddedToken("<right>", rstrip=True, special=True, normalized=False),
    tokenizers.AddedToken("<both>", lstrip=True, rstrip=True, special=True, normalized=False),
    tokenizers.AddedToken("word", single_word=True, special=False, normalized=False),
    tokenizers.AddedToken("Normal", special=False, normalized=True),
    tokenizers.AddedToken("<plain>", special=False, normalized=False),
    tokenizers.AddedToken("<plain>2", special=False, normalized=False),
    tokenizers.AddedToken("  ", special=False, normalized=True),
    tokenizers.AddedToken(" x", special=False, normalized=False),
    tokenizers.AddedToken("日本", single_word=True, special=False, normalized=True),
]


@pytest.mark.parametrize("normalizer", [None, "lowercase", "prepend"])
def test_added_tokens(byte_level_vocabulary, normalizer, tmp_path):
    rng = random.Random(3)
    parts = [token.content for token in ADDED] + [" ", "\t ", "a", "WORD", "word", "normal", "é", "_", "1", "日", "\u0301", "."]
    mixed = ["".join(rng.choice(parts) for _ in range(rng.randrange(1, 9))) for _ in range(1500)]
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library = byte_level_library(byte_level_vocabulary, pre_tokenizer, NORMALIZERS.get(normalizer))
    library.add_tokens(ADDED)
    check_small(library, mixed, tmp_path)
    # Decoding to the normalized form of a token, as this version of the library does, loses what stood in the text.
    changed = [library.token_to_id(token.content) for token in ADDED if token.normalized and normalizer]
    check_against_library(tmp_path / "tokenizer.json", mixed, special_ids=changed)


def test_ignored_merges_unknown_bytes_and_suffixes(byte_level_vocabulary, word_texts, tmp_path):
    vocabulary, merges = byte_level_vocabulary
    words = {**vocabulary, "Ġuntouched": len(vocabulary), "xyzzy": len(vocabulary) + 1}
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    asked = [*word_texts, " untouched xyzzy", "xyzzyx"]
    for ignore in (False, True):
        check_small(byte_level_library((words, merges), pre_tokenizer, ignore_merges=ignore), asked, tmp_path)
    few = {piece: i for i, piece in enumerate(["<unk>", "a", "b", "e", "ab", "Ġ", "e</w>", "ab</w>"])}
    for options in ({}, {"unk_token": "<unk>"}, {"unk_token": "<unk>", "fuse_unk": True}):
        library = byte_level_library((few, [("a", "b")]), pre_tokenizer, **options)
        check_small(library, word_texts, tmp_path)
        library = byte_level_library((few, [("a", "b")]), pre_tokenizer, end_of_word_suffix="</w>", **options)
        check_small(library, word_texts, tmp_path)


def character_library(texts, pre_tokenizer=None, normalizer=None, **options):
    library = tokenizers.Tokenizer(models.BPE(**options))
    if pre_tokenizer is not None:
        library.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        library.normalizer = normalizer
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, limit_alphabet=150, show_progress=False, max_token_length=10)
    library.train_from_iterator(texts, trainer)
    # Only the first three are special.
    saved = json.loads(library.to_str())
    saved["added_tokens"] = saved["added_tokens"][:3]
    return tokenizers.Tokenizer.from_str(json.dumps(saved))


META = {
    "always": pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
    "first": pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
    "never": pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
    "words": pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
}


@pytest.mark.parametrize("name", META)
@pytest.mark.parametrize("fallback", [False, True])
def test_metaspace(texts, word_texts, name, fallback, tmp_path):
    options = {"byte_fallback": fallback, "unk_token": "<unk>", "fuse_unk": fallback}
    library = character_library(texts, META[name], **options)
    check_small(library, word_texts, tmp_path)


def test_prepended_and_replaced(texts, word_texts, tmp_path):
    """Llama 2's way to say it, and Gemma's."""
    options = {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    llama = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    check_small(character_library(texts, None, llama, **options), word_texts, tmp_path)
    split = pre_tokenizers.Split(" ", "merged_with_previous")
    gemma = character_library(texts, split, normalizers.Replace(" ", "\u2581"), **options)
    check_small(gemma, word_texts, tmp_path)


SENTENCEPIECE_OPTIONS = {
    "identity": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "removing": {"normalization_rule_name": "identity", "remove_extra_whitespaces": True},
    "nmt_nfkc": {"normalization_rule_name": "nmt_nfkc"},
    "nfkc_cf": {"normalization_rule_name": "nfkc_cf", "add_dummy_prefix": False},
    "symbols": {"user_defined_symbols": ["<sep>", "ab", "\u2581\u2581", "①"], "control_symbols": ["<ctl>"]},
    "bytes": {"byte_fallback": True, "character_coverage": 0.98, "remove_extra_whitespaces": False},
    "no_bos": {"bos_id": -1, "eos_id": 1, "pad_id": 2, "unk_id": 0},
    "across_words": {"split_by_whitespace": False},
}


@pytest.mark.parametrize("name", SENTENCEPIECE_OPTIONS)
def test_trained_sentencepiece_models(texts, word_texts, name, tmp_path):
    (tmp_path / "text").write_text("\n".join(text.replace("\0", "") for text in texts), encoding="utf-8")
    options = {"model_type": "bpe", "vocab_size": 5000, "hard_vocab_limit": False, **SENTENCEPIECE_OPTIONS[name]}
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "m"), minloglevel=2, **options
    )
    asked = [*word_texts, "<sep>ab<sep> abab  ①<ctl>x", "\u2581", " \u2581 ", "  \u3000 "]
    check_against_sentencepiece(tmp_path / "m.model", asked)
    library = sentencepiece.SentencePieceProcessor(str(tmp_path / "m.model"))
    check_against_sentencepiece(tmp_path / "m.model", asked, "--through", "gguf", library=library)


REFUSED = {
    "ort_ext/t5-small/tokenizer.json": "a tokenizer of type 'Unigram', which is not supported (only BPE is)",
    "llama3/tokenizer.model": "a tiktoken vocabulary, which has neither patterns nor special tokens; expected a tokenizer.json",
    "ort_ext/phi-3-small/cl100k_base.tiktoken": "a tiktoken vocabulary",
    "gpt2/gpt2_vocab.json": "model is missing",
    "gpt2/gpt2_merges.txt": "not a SentencePiece model",
    "llama2/tokenizer.bin": "not a SentencePiece model",
    "ort_ext/qwen3": "neither tokenizer.json nor tokenizer.model is there",
    "../lora_distilbert_imdb/tokenizer.json": "a tokenizer of type 'WordPiece'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_bpe_is_refused_by_name(archive, name):
    message = error_of(archive / name)
    assert REFUSED[name] in message
    assert Path(name).name in message


def test_every_tokenizer_of_the_archive_is_covered(archive):
    """Read, or refused by name: nothing in the archive is overlooked."""
    known = {archive / name for name in [*ALL_JSON, *SENTENCEPIECE, *REFUSED, "ort_ext/llama2/tokenizer.json"]}
    found = [p for p in archive.rglob("*") if p.name.startswith("tokenizer.") or ".model" in p.name or p.suffix == ".tiktoken"]
    found += [p for p in (archive / "olmo").iterdir()]
    assert len(found) > 15
    assert {p for p in found if p not in known} == set()


def test_unigram_and_word_models_are_refused(texts, tmp_path):
    (tmp_path / "text").write_text("\n".join(texts[-100:]).replace("\0", ""), encoding="utf-8")
    for kind in ("unigram", "word", "char"):
        options = {"model_type": kind, "vocab_size": 500, "hard_vocab_limit": False, "character_coverage": 0.99}
        sentencepiece.SentencePieceTrainer.train(
            input=str(tmp_path / "text"), model_prefix=str(tmp_path / kind), minloglevel=2, **options
        )
        assert f"a SentencePiece model of type {kind}, which is not supported" in error_of(tmp_path / f"{kind}.model")


def test_long_words_and_runs(archive):
    """A megabyte that is one word must take as long as one of prose: this would not end if anything were quadratic."""
    size = 1_000_000
    rng = random.Random(2)
    count = size // 4
    marks = "o" + "\u0301\u0323" * count  # NFC sorts them, and Python's is quadratic in that
    sorted_marks = "\u1ecd" + "\u0323" * (count - 1) + "\u0301" * count
    assert unicodedata.normalize("NFC", marks[:201]) == "\u1ecd" + "\u0323" * 99 + "\u0301" * 100
    long_texts = [
        "a" * size,
        " " * size,
        " " * size + "x",
        "\u2581" * (size // 3) + "x",
        "ab" * (size // 2),
        "日" * (size // 3),
        "\u0301" * (size // 2),
        marks,
        "1" * size,
        "\n " * (size // 2),
        "A" * size,
        "<" * size,
        "<|endoftext|" * (size // 12),
        "".join(rng.choice("ab") for _ in range(size)),
    ]
    for name in ("ort_ext/phi-2/tokenizer.json", "olmo/allenai_gpt-neox-olmo-dolma-v1_5.json", "llama2/tokenizer.model"):
        requests = Requests()
        ids = requests.encode(long_texts)
        answers = ids_of(ask(archive / name, requests)[ids])
        requests = Requests()
        decoded = requests.decode(answers)
        for text, raw in zip(long_texts, bytes_of(ask(archive / name, requests)[decoded])):
            # A SentencePiece model writes a blank as U+2581, so it cannot tell the two apart.
            expected = text.replace("\u2581", " ") if name.endswith(".model") else text
            if "olmo" in name:
                expected = sorted_marks if text is marks else unicodedata.normalize("NFC", text)
            assert raw.decode() == expected
    # The library agrees on a length that it can take.
    library = tokenizers.Tokenizer.from_file(str(archive / "ort_ext/phi-2/tokenizer.json"))
    shorter = [text[:20_000] for text in long_texts]
    expected = [e.ids for e in library.encode_batch(shorter)]
    check_same(zip(shorter, expected, encode(archive / "ort_ext/phi-2/tokenizer.json", shorter)))


HOSTILE_PATTERNS = [r"(?:a+)+b|a", r"(?:a|aa)+b|a", r"(?:a?){30}a{30}b|a", r"(?:(?=a*c)a|a)*b|a", r"(a*)*b", r"a(?=(?:a|b)*c)"]


@pytest.mark.parametrize("pattern", HOSTILE_PATTERNS)
def test_hostile_patterns_end(byte_level_vocabulary, pattern, tmp_path):
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    library = byte_level_library(byte_level_vocabulary, pre_tokenizers.Sequence(splits))
    library.save(str(tmp_path / "tokenizer.json"))
    done = run_tool(tmp_path / "tokenizer.json", lines=["e " + ("a" * 4000).encode().hex()])
    assert done.returncode in (0, 1)
    if done.returncode == 1:
        assert "takes too long" in done.stderr or "cannot be searched for" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["phi-2", "roberta-base", "falcon-tokenizer", "clip"])
def test_folders_against_transformers(archive, texts, name):
    folder = archive / "ort_ext" / name
    loaded = AutoTokenizer.from_pretrained(folder)
    some = texts[:150]
    check_same(zip(some, [loaded(text)["input_ids"] for text in some], encode(folder, some)))


CONFIGS = {
    "nothing": {},
    "both": {"add_bos_token": True, "add_eos_token": True},
    "neither": {"add_bos_token": False, "add_eos_token": False},
    "other": {"bos_token": "a", "eos_token": "b"},
}


@pytest.mark.parametrize("template", [None, "<bos> $A", "<bos> $A <eos>", "$A <eos>", "$A"])
@pytest.mark.parametrize("name", CONFIGS)
def test_who_adds_special_tokens(byte_level_vocabulary, name, template, tmp_path):
    library = byte_level_library(byte_level_vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False))
    library.add_special_tokens(["<bos>", "<eos>"])
    if template:
        special = [(token, library.token_to_id(token)) for token in ("<bos>", "<eos>")]
        library.post_processor = processors.TemplateProcessing(template, None, special)
    library.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": {"__type": "AddedToken", "content": "<eos>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, **CONFIGS[name]}), encoding="utf-8")
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["", "Hello world", "<bos>x<eos>"]
    expected = [loaded(text)["input_ids"] for text in texts]
    for options in ((), ("--through", "gguf"), ("--through", "json")):
        check_same(zip(texts, expected, encode(tmp_path, texts, *options)))


def test_gguf_py_reads_what_is_written(byte_level_vocabulary, tmp_path):
    library = byte_level_library(byte_level_vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC())
    library.add_special_tokens(["<bos>", "<eos>"])
    library.add_tokens([tokenizers.AddedToken("  ", normalized=True)])
    library.post_processor = processors.TemplateProcessing("<bos> $A", None, [("<bos>", library.token_to_id("<bos>"))])
    library.save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": "<bos>", "eos_token": "<eos>", "chat_template": "{{ 'é' }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3001, 3002]}', encoding="utf-8")
    assert run_tool(tmp_path, "--write-gguf", tmp_path / "written.gguf").returncode == 0
    fields = {key: field.contents() for key, field in gguf.GGUFReader(tmp_path / "written.gguf").fields.items()}
    vocabulary, merges = byte_level_vocabulary
    pieces = sorted(vocabulary, key=vocabulary.get) + ["<bos>", "<eos>", "  "]
    assert fields["tokenizer.ggml.tokens"] == pieces
    assert fields["tokenizer.ggml.token_type"] == [1] * len(vocabulary) + [3, 3, 4]
    assert fields["tokenizer.ggml.merges"] == [" ".join(merge) for merge in merges]
    count = len(vocabulary)
    for key, value in {
        "model": "gpt2", "pre": "gpt-2", "bos_token_id": count, "eos_token_id": count + 1, "eot_token_id": count + 2,
        "add_bos_token": True, "add_eos_token": False,
    }.items():  # fmt: skip
        assert fields[f"tokenizer.ggml.{key}"] == value, key
    assert fields["tokenizer.chat_template"] == "{{ 'é' }}"
    extra = json.loads(fields["pare.tokenizer"])
    assert extra["normalizer"] == {"type": "NFC"}
    assert [token["normalized"] for token in extra["added_tokens"]] == [False, False, True]
