"""Writes calibration.txt: a mix of public-domain stories, in an order that does not change from run to run.

    python3 make_calibration.py ../../shared/data/corpus > calibration.txt
"""

import hashlib
import lzma
import pathlib
import sys

SEPARATOR = "<|endoftext|>"
# Bytes taken of each source. All are in the public domain; README.md names where they come from.
SHARES = {"aesop_for_children": 60_000, "fairytaleqa_stories": 160_000, "children_classics": 200_000}
LONGEST = 6_000  # a chapter is cut at a paragraph after this, so that no book fills the text alone


def records(path):
    text = lzma.open(path, "rt", encoding="utf-8").read()
    return [record.strip() for record in text.split(f"\n{SEPARATOR}\n") if record.strip()]


def shorten(record):
    taken, size = [], 0
    for paragraph in record.split("\n\n"):
        taken.append(paragraph)
        size += len(paragraph.encode())
        if size >= LONGEST:
            break
    return "\n\n".join(taken)


def fingerprint(record):
    return hashlib.sha256(record.encode()).hexdigest()


def main(corpus):
    chosen = []
    for source, share in SHARES.items():
        size = 0
        for record in sorted(records(corpus / f"{source}.txt.xz"), key=fingerprint):
            record = shorten(record)
            if not 200 <= len(record.encode()) <= 2 * LONGEST:
                continue
            chosen.append(record)
            size += len(record.encode())
            if size >= share:
                break
    chosen.sort(key=fingerprint)
    sys.stdout.write(f"\n{SEPARATOR}\n".join(chosen) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
