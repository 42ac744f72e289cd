"""One process a GPU, as torchrun starts them; a single process where it did not."""

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Gpus:
    """The processes of a run: `count` of them, this one has number `rank` and computes on `device`."""

    def __init__(self):
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        self.device = "cpu"
        if torch.cuda.is_available():
            self.device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
            torch.cuda.set_device(self.device)
        if self.count > 1:
            dist.init_process_group("gloo" if self.device == "cpu" else "cpu:gloo,cuda:nccl")

    def first(self, value: Any) -> Any:
        """The first process's value, everywhere: clocks and choices must agree."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
        return values[0]

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of a batch, [rows / count, ...]."""
        return rows.chunk(self.count)[self.rank]

    def sum(self, x: Tensor) -> None:
        """x becomes its sum over all processes."""
        if self.count > 1:
            dist.all_reduce(x)

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def close(self) -> None:
        if self.count > 1:
            dist.destroy_process_group()
