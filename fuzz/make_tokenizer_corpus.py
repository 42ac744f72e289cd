#!/usr/bin/env python3
"""Writes the hand-made part of fuzz/corpus/tokenizer_json and fuzz/corpus/sentencepiece: small tokenizers that use each part
that pare reads, and one for each way to be wrong.

    fuzz/make_tokenizer_corpus.py

What fuzzing found stands beside them under names of its own.
"""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"

SPLIT = {"type": "Split", "pattern": {"Regex": r"\s+(?!\S)|(?i:'s|x)| ?\p{L}+|[^\s\w]{1,3}"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [8], "tokens": ["<s>"]}},
}


def tokenizer(changes=(), model=(), config=None):
    base = {
        "version": "1.0",
        "added_tokens": [
            {"id": 8, "content": "<s>", "special": True, "normalized": False},
            {"id": 9, "content": "<mask>", "special": False, "lstrip": True, "rstrip": True, "single_word": True, "normalized": True},
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, BYTES]},
        "post_processor": TEMPLATE,
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {"a": 0, "b": 1, "l": 2, "\u0120": 3, "ab": 4, "aab": 5, "\u0120a": 6, "ll": 7},
            "merges": ["a b", ["a", "ab"], "\u0120 a", "l l"],
        },
    }  # fmt: skip
    base.update(dict(changes))
    base["model"].update(dict(model))
    text = json.dumps(base, ensure_ascii=False).encode()
    return text if config is None else text + b"\0" + json.dumps(config).encode()


def of_characters(changes=(), model=()):
    vocabulary = {"<unk>": 0, "<s>": 1, "\u2581": 2, "a": 3, "b": 4, "\u2581a": 5, "ab": 6}
    merges = ["\u2581 a", "a b"]
    strip = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    strip.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    own = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocabulary, "merges": merges, **dict(model)}
    prepend = [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]
    settings = {
        "added_tokens": [{"id": 1, "content": "<s>", "special": True}],
        "normalizer": {"type": "Sequence", "normalizers": prepend},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": strip},
        **dict(changes),
    }
    return tokenizer(settings, own)


def steps(*parts):
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [*parts, BYTES]}}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def tokenizer_json():
    yield "plain", tokenizer()
    yield "config", tokenizer(config={
        "bos_token": "<s>", "eos_token": {"content": "<mask>"}, "pad_token": "a", "add_bos_token": True,
        "chat_template": [{"name": "default", "template": "{{ x }}"}],
    })  # fmt: skip
    yield "config_wrong", tokenizer(config={"bos_token": 3})
    yield "config_template", tokenizer(config={"chat_template": "x", "eos_token": "b"})
    for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "BertNormalizer"):
        yield f"normalizer_{kind}", tokenizer({"normalizer": {"type": kind}})
    yield "replace", tokenizer({"normalizer": {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}})
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous", "Odd"):
        yield f"split_{behavior}", tokenizer(steps(split(r"\p{P}|\d", behavior, True)))
    yield "literal", tokenizer(steps({"type": "Split", "pattern": {"String": "a.b"}, "behavior": "Removed"}))
    yield "digits", tokenizer(steps({"type": "Digits", "individual_digits": True}, {"type": "Digits"}))
    yield "punctuation", tokenizer(steps({"type": "Punctuation", "behavior": "Contiguous"}, {"type": "Punctuation"}))
    yield "byte_level", tokenizer({"pre_tokenizer": {"type": "ByteLevel"}, "post_processor": {"type": "ByteLevel"}})
    after = {"type": "Sequence", "pretokenizers": [BYTES, {"type": "Digits"}]}
    yield "after_bytes", tokenizer({"pre_tokenizer": after})
    patterns = {
        "groups": r"(a)(?:b)(?=c)(?!d)(?<=e)(?<!f)(?>g)|(?i)h|(?m:.)|(?-i:j)",
        "escapes": r"\n\r\t\f\e\a\v\s\S\d\D\w\W\h\b\B\A\z\Z\.\\",
        "classes": r"[\s\S\d\D\w\h\n\x41\u0042\x{43}\p{L}\P{N}^a-z\]]|[^a]",
        "properties": r"\p{Lu}\p{^Ll}\P{Han}\p{White_Space}\p{Any}",
        "intervals": r"a{2}b{2,}c{,2}d{1,2}?e*?f+?g??h*+i++j?+{x",
        "hostile": r"(?:a+)+b|(?:a|aa)+c|(a*)*d",
        "lookahead": r"a(?=[^z]*z)|\d{1,3}(?=(?:\d{3})*\b)",
        "backreference": r"(a)\1",
        "nested_class": r"[a[b]&&c]",
        "folding": r"(?i:stra\u00dfe)",
        "open_group": r"(a",
        "open_class": r"[a",
        "unknown_script": r"\p{Nonsense}",
        "named_group": r"(?<x>a)",
        "deep": "(" * 400 + "a" + ")" * 400,
        "large": "(?:(?:(?:a{200}){200}){200})",
    }
    for name, pattern in patterns.items():
        yield f"pattern_{name}", tokenizer(steps(split(pattern)))
    yield "roberta", tokenizer({"post_processor": {"type": "RobertaProcessing", "sep": ["b", 1], "cls": ["<s>", 8]}})
    yield "processors", tokenizer({"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, TEMPLATE]}})
    twice = {**TEMPLATE, "single": [TEMPLATE["single"][0]] * 2}
    yield "template_twice", tokenizer({"post_processor": twice})
    after_text = {**TEMPLATE, "single": TEMPLATE["single"][::-1]}
    yield "template_eos", tokenizer({"post_processor": after_text})
    yield "template_wrong", tokenizer({"post_processor": {**TEMPLATE, "single": [3]}})
    yield "template_unlisted", tokenizer({"post_processor": {**TEMPLATE, "special_tokens": {}}})
    yield "processor_unknown", tokenizer({"post_processor": {"type": "Odd"}})
    yield "suffix", tokenizer(model={"end_of_word_suffix": "</w>", "vocab": {"a": 0, "b</w>": 1, "ab</w>": 2}, "merges": ["a b</w>"]})
    yield "unknown", tokenizer(model={"unk_token": "<s>x"})
    yield "whole_words", tokenizer(model={"ignore_merges": True})
    yield "fuse", tokenizer(model={"unk_token": "a", "fuse_unk": True})
    yield "gap", tokenizer(model={"vocab": {"a": 0, "b": 5}, "merges": []})
    yield "same_id", tokenizer(model={"vocab": {"a": 0, "b": 0}, "merges": []})
    yield "far_id", tokenizer(model={"vocab": {"a": 0, "b": 2000000000}, "merges": []})
    yield "merge_unknown", tokenizer(model={"merges": ["a x"]})
    yield "merge_makes_nothing", tokenizer(model={"merges": ["b a"]})
    yield "merge_triple", tokenizer(model={"merges": [["a", "b", "c"]]})
    yield "merge_spaces", tokenizer(model={"merges": ["a b c"]})
    yield "merge_nested", tokenizer(model={"merges": [["a", ["b"]]]})
    yield "unigram", tokenizer(model={"type": "Unigram", "vocab": [["a", -1.5]], "merges": None})
    yield "vocab_list", tokenizer(model={"vocab": [["a", -1.5]]})
    yield "wordpiece", tokenizer(model={"type": "WordPiece"})
    yield "dropout", tokenizer(model={"dropout": 0.5})
    yield "prefix", tokenizer(model={"continuing_subword_prefix": "##"})
    yield "decoder_unknown", tokenizer({"decoder": {"type": "Odd"}})
    yield "decoder_metaspace", of_characters({"decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never"}})
    yield "llama", of_characters()
    for scheme in ("first", "always", "never"):
        meta = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": scheme == "always"}
        yield f"metaspace_{scheme}", of_characters({"normalizer": None, "pre_tokenizer": meta})
    yield "metaspace_old", of_characters({"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": False}})
    yield "metaspace_other", of_characters({"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "_"}})
    bytes_too = {f"<0x{byte:02X}>": 10 + byte for byte in range(256)}
    yield "fallback", of_characters(model={"vocab": {"<unk>": 0, "<s>": 1, "\u2581": 2, "a": 3, **bytes_too}, "merges": []})
    yield "characters_only", of_characters({"normalizer": None})
    yield "empty", b""
    yield "array", b"[]"
    yield "deep", b"[" * 3000
    yield "deep_normalizer", b'{"normalizer":' + b'{"type":"Sequence","normalizers":[' * 40
    yield "twice", b'{"model": {"vocab": {"a": 0, "a": 1}}}'
    yield "not_utf8", tokenizer().replace(b"aab", b"a\xffb")
    reordered = json.loads(tokenizer())
    merges = reordered["model"].pop("merges")
    reordered["model"] = {"merges": merges, **reordered["model"]}
    yield "merges_first", json.dumps(reordered).encode()


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def raw(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def piece(text, score=0.0, kind=1):
    text = text if isinstance(text, bytes) else text.encode()
    return raw(1, raw(1, text) + varint(2 << 3 | 5) + struct.pack("<f", score) + number(3, kind))


def charsmap():
    """A trie of one key: U+FB01, written "fi". Units hold a label, a flag for a value, and the way to their children."""
    units = [0] * 768
    at = lambda offset, label: offset ^ label
    key, offsets = "\ufb01".encode(), [256, 300, 400, 700]
    units[0] = offsets[0] << 10
    for i, byte in enumerate(key):
        last = i == len(key) - 1
        place = at(offsets[i], byte)
        units[place] = (place ^ offsets[i + 1]) << 10 | last << 8 | byte
        if last:
            units[offsets[i + 1]] = 0x80000000
    # Offsets are relative: place ^ offset leads to the children.
    trie = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(trie)) + trie + b"fi\0"


def model(trainer=b"", normalizer=b"", more=b"", kind=2):
    base = piece("<unk>", kind=2) + piece("<s>", kind=3) + piece("</s>", kind=3)
    base += piece("\u2581a", -1) + piece("ab", -2) + piece("\u2581", -3) + piece("a", -4) + piece("b", -5) + piece("fi", -6)
    return base + more + raw(2, number(3, kind) + trainer) + raw(3, normalizer)


def sentencepiece():
    yield "plain", model(normalizer=number(4, 0))
    yield "removing", model(normalizer=number(3, 1) + number(4, 1) + number(5, 1))
    yield "no_prefix", model(normalizer=number(3, 0))
    yield "charsmap", model(normalizer=raw(2, charsmap()))
    yield "charsmap_short", model(normalizer=raw(2, b"ab"))
    yield "charsmap_lies", model(normalizer=raw(2, struct.pack("<I", 4000) + b"abcd"))
    yield "charsmap_noise", model(normalizer=raw(2, struct.pack("<I", 1024) + bytes(i * 37 % 256 for i in range(1024)) + b"xy"))
    bytes_too = b"".join(piece(f"<0x{byte:02X}>", kind=6) for byte in range(256))
    yield "bytes", model(trainer=number(35, 1) + number(40, 0) + number(41, 1) + number(42, 2) + number(43, 0), more=bytes_too)
    yield "bytes_missing", model(trainer=number(35, 1))
    yield "byte_wrong", model(more=piece("<0xZZ>", kind=6))
    yield "symbols", model(more=piece("1234", kind=4) + piece("ab\u2581", kind=4))
    yield "unused", model(more=piece("x", kind=5))
    yield "kind_7", model(more=piece("x", kind=7))
    yield "no_bytes_of_utf8", model(more=piece(b"\xff"))
    yield "empty_piece", model(more=piece(""))
    yield "two_unknown", model(more=piece("u", kind=2))
    yield "no_unknown", piece("a") + raw(2, number(3, 2))
    yield "twice", model(more=piece("a"))
    yield "nan", model(more=piece("x", float("nan")))
    yield "long", model(more=piece("x" * 3000))
    yield "unigram", model(kind=1)
    yield "kind_9", model(kind=9)
    yield "suffix", model(trainer=number(24, 1))
    yield "unescaped", model(normalizer=number(5, 0))
    yield "denormalizer", model(more=raw(5, raw(2, b"x")))
    yield "no_roles", model(trainer=number(41, (1 << 64) - 1) + number(42, 77))
    yield "unknown_fields", model(more=raw(99, b"x") + number(98, 5) + varint(97 << 3 | 1) + b"12345678" + varint(96 << 3 | 5) + b"1234")
    yield "extra_characters", model(more=piece("xy", -1) + piece("xyz", -1))
    yield "empty", b""
    yield "cut", model()[:-3]
    yield "field_0", b"\x00\x00"
    yield "group", b"\x0b"
    yield "overlong", b"\xff" * 11
    yield "tiktoken", b"IQ== 0\nIg== 1\n"


def main():
    for name, make in (("tokenizer_json", tokenizer_json), ("sentencepiece", sentencepiece)):
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for case, content in make():
            (folder / case).write_bytes(content)


if __name__ == "__main__":
    main()
