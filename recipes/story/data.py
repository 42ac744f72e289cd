"""Rows of tokens to train on and to score, from the files that prepare.py writes."""

import lzma
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sources import SOURCES

END = 0  # the id of <|endoftext|>


def read_tokens(folder: Path, name: str) -> np.ndarray:
    """[tokens] uint16, from `name.bin` or `name.bin.xz`."""
    path = folder / f"{name}.bin"
    if path.exists():
        return np.fromfile(path, dtype=np.uint16)
    return np.frombuffer(lzma.decompress(path.with_suffix(".bin.xz").read_bytes()), dtype=np.uint16)


class TrainingRows:
    """Endless batches of a mix, in rounds. In each round every source occurs as often as its share
    says, its documents in a new order, cut into rows at new places; all rows are shuffled.

    The place reached is (round, row), so training can be resumed with no row seen twice.
    """

    def __init__(self, folder: Path, mix: str, context: int, seed: int, device: str, place: tuple[int, int] = (0, 0)):
        with ThreadPoolExecutor() as pool:
            arrays = pool.map(lambda name: read_tokens(folder, name), SOURCES)
        self.documents = {}
        for name, tokens in zip(SOURCES, arrays, strict=True):
            starts = np.flatnonzero(tokens == END)  # the last is the end of the file
            self.documents[name] = [tokens[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
        self.shares = {name: getattr(source, mix) for name, source in SOURCES.items()}
        self.context, self.seed, self.device = context, seed, device
        self.pool = ThreadPoolExecutor(1)
        self.seek(*place)

    def seek(self, round_: int, row: int) -> None:
        self.round, self.row = round_, row
        self.tokens, self.starts = self.make_round(round_)
        self.next_round: Future = self.pool.submit(self.make_round, round_ + 1)

    def make_round(self, round_: int) -> tuple[Tensor, Tensor]:
        """The round's tokens, and the first token of each row in them."""
        random = np.random.default_rng([self.seed, round_])
        parts = []
        for name, documents in self.documents.items():
            share = self.shares[name]
            while share > 0:
                order = random.permutation(len(documents))
                if share < 1:
                    order = order[: round(share * len(order))]
                parts += [documents[i] for i in order]
                share -= 1
        tokens = np.concatenate(parts)
        rows = (len(tokens) - 1) // self.context - 1
        starts = random.integers(self.context) + random.permutation(rows) * self.context
        return (
            torch.from_numpy(tokens.astype(np.int32)).to(self.device),
            torch.from_numpy(starts).to(self.device),
        )

    def next(self, rows: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, each [rows, context]."""
        if self.row + rows > len(self.starts):
            self.round, self.row = self.round + 1, 0
            self.tokens, self.starts = self.next_round.result()
            self.next_round = self.pool.submit(self.make_round, self.round + 1)
        starts = self.starts[self.row : self.row + rows]
        self.row += rows
        index = starts[:, None] + torch.arange(self.context + 1, device=self.device)
        batch = self.tokens[index].long()
        return batch[:, :-1], batch[:, 1:]


def heldout_rows(folder: Path, context: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Per held-out set inputs and targets, each [rows, context]; targets are -100 past the end.

    The set `seen_fairytales` is the start of a training text: its distance from the held-out fairy
    tales shows how much has been learnt by heart.
    """
    sets = {}
    names = sorted({p.name.split(".")[0] for p in folder.glob("heldout_*.bin*")})
    for name in [*names, "fairytaleqa_stories"]:
        tokens = torch.from_numpy(read_tokens(folder, name).astype(np.int64))
        if name not in names:
            name, tokens = "seen_fairytales", tokens[: 64 * context]
        rows = -(-(len(tokens) - 1) // context)
        inputs = torch.full((rows * context,), END)
        targets = torch.full((rows * context,), -100)
        inputs[: len(tokens) - 1] = tokens[:-1]
        targets[: len(tokens) - 1] = tokens[1:]
        sets[name.removeprefix("heldout_")] = (inputs.view(rows, context), targets.view(rows, context))
    return sets
