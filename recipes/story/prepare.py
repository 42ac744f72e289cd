"""Makes the training data: cleans the texts, holds some out, trains the tokenizer, tokenises.

    python prepare.py --corpus CORPUS --heldout EVAL --out DATA

CORPUS holds one `<source>.txt` or `<source>.txt.xz` per source of `sources.py`, records separated
by a line `<|endoftext|>`; EVAL holds `heldout_<name>.txt` in the same form. DATA receives

    tokenizer.json                the byte-level BPE tokenizer
    <source>.bin                  uint16 tokens, every document preceded by <|endoftext|>
    heldout_<name>.bin, .txt      the same for the held-out texts (and the text itself)
    meta.json                     documents, bytes and tokens of each, and the held-out hashes
"""

import argparse
import hashlib
import json
import lzma
import re
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from sources import HOLD_OUT_FROM, SOURCES

# Both the token before every document (BOS) and the one after it (EOS).
END = "<|endoftext|>"
# The rest is for fine-tunes of this model: no training text holds them.
SPECIAL = [END, "<|pad|>", "<|im_start|>", "<|im_end|>", "<|image|>"] + [
    f"<|reserved_{i}|>" for i in range(3)
]

# Llama 3's pattern, so that a GGUF of this model can name the pre-tokenizer `llama-bpe`.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

HOLD_OUT_ONE_IN = 400

REPLACE = {
    "\ufb01": "fi", "\ufb02": "fl",  # ligatures of typeset text
    "\u2060": "", "\ufeff": "", "\u00ad": "", "\ufffd": "",  # invisible, or lost already
    "\u2028": "\n", "\u2029": "\n", "\u00a0": " ", "\u2003": " ", "\u200a": " ", "\t": " ",
    "\u2018": "'", "\u2019": "'", "\u00b4": "'", "\u201c": '"', "\u201d": '"', "\u2015": "—",
}  # fmt: skip


def clean(text: str) -> str:
    text = text.translate(str.maketrans(REPLACE)).replace("\r\n", "\n")
    text = re.sub(r" +", " ", text)
    text = re.sub(r" *\n *", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def read_records(path: Path) -> list[str]:
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        records = (clean(r) for r in re.split(r"(?:^|\n)<\|endoftext\|>(?:\n|$)", file.read()))
    return [r for r in records if r]


def find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.txt", folder / f"{name}.txt.xz"):
        if path.exists():
            return path
    raise SystemExit(f"{folder}: no {name}.txt or {name}.txt.xz")


def record_hash(record: str) -> str:
    return hashlib.sha256(record.encode()).hexdigest()[:16]


def long_lines(record: str) -> set[str]:
    """The lines that identify a text, without what editions differ in."""
    return {re.sub(r"[^a-z]", "", x.lower()) for x in record.split("\n") if len(x) >= 80}


def train_tokenizer(records: dict[str, list[str]], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def texts():  # stories several times, a third of the novels: the vocabulary should suit stories
        for name, source in SOURCES.items():
            for _ in range(source.tokenizer_copies):
                yield from records[name][:: source.tokenizer_every]

    tokenizer.train_from_iterator(texts(), trainer)
    # Encoding starts a document, as add_bos_token says; add_special_tokens=False leaves it out.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return tokenizer


def tokenise(tokenizer: Tokenizer, records: list[str]) -> np.ndarray:
    """[tokens] uint16: every record preceded by <|endoftext|>, and one more at the end."""
    parts = []
    for start in range(0, len(records), 256):
        for encoding in tokenizer.encode_batch(records[start : start + 256]):
            parts.append(np.array(encoding.ids, dtype=np.uint16))
    parts.append(np.array([tokenizer.token_to_id(END)], dtype=np.uint16))
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--heldout", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=8192)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    heldout = {p.stem: read_records(p) for p in sorted(args.heldout.glob("heldout_*.txt"))}
    heldout["heldout_novels"] = []
    train = {}
    for name in SOURCES:
        train[name] = read_records(find(args.corpus, name))
        if name in HOLD_OUT_FROM:
            chosen = [r for r in train[name] if int(record_hash(r), 16) % HOLD_OUT_ONE_IN == 0]
            heldout["heldout_novels"] += chosen
            train[name] = [r for r in train[name] if int(record_hash(r), 16) % HOLD_OUT_ONE_IN]

    # The same chapter may come from two collections: whatever shares lines with held-out text goes.
    seen = set().union(*(long_lines(r) for records in heldout.values() for r in records))
    dropped = {}
    for name, records in train.items():
        train[name] = [r for r in records if len(long_lines(r) & seen) < 2]
        dropped[name] = len(records) - len(train[name])

    tokenizer = train_tokenizer(train, args.vocabulary)
    tokenizer.save(str(args.out / "tokenizer.json"))

    meta = {"sets": {}, "heldout_novels_sha256_16": [record_hash(r) for r in heldout["heldout_novels"]]}
    for name, records in (train | heldout).items():
        tokens = tokenise(tokenizer, records)
        tokens.tofile(args.out / f"{name}.bin")
        size = sum(len(r.encode()) for r in records)
        meta["sets"][name] = {
            "documents": len(records),
            "bytes": size,
            "tokens": len(tokens),
            "dropped_for_overlap": dropped.get(name, 0),
        }
        print(f"{name}: {meta['sets'][name]}, {size / len(tokens):.3f} bytes a token", flush=True)
        if name in heldout:
            text = "".join(f"{r}\n{END}\n" for r in records)
            (args.out / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    (args.out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


if __name__ == "__main__":
    main()
