"""Trains the model, in stages bounded by time; each goes on from where a checkpoint stopped.

    python train.py --data DATA --out RUN --stage main --minutes 7
    python train.py --data DATA --out RUN --stage anneal --minutes 3 --resume RUN/checkpoint.pt

`main` warms the learning rate up and holds it; `anneal` takes it to zero in a straight line. An
interrupted stage goes on when it is named again with --resume. RUN receives checkpoint.pt and
curve.json.
"""

import argparse
import dataclasses
import json
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from data import TrainingRows, heldout_rows
from model import Config, Llama
from muon import Muon
from sources import Source


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", choices=("main", "anneal"), required=True)
    parser.add_argument("--minutes", type=float, required=True, help="of the stage, compilation left out")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    mixes = [f.name for f in dataclasses.fields(Source) if not f.name.startswith("tokenizer")]
    parser.add_argument("--mix", choices=mixes, help="default: the stage's own")
    parser.add_argument("--batch-rows", type=int, default=128, help="rows of --context tokens a step")
    parser.add_argument("--micro-rows", type=int, default=128, help="rows of these at once")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.004)
    parser.add_argument("--weight-decay", type=float, default=0.1, help="of Muon's matrices")
    parser.add_argument("--warmup", type=int, default=150, help="steps")
    parser.add_argument("--layers", type=int, default=Config.num_hidden_layers)
    parser.add_argument("--sdpa", choices=("default", "flash", "cudnn"), default="default")
    parser.add_argument("--eval-every", type=int, default=250, help="steps")
    parser.add_argument("--save-every", type=float, default=60, help="seconds")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


@torch.no_grad()
def evaluate(model: Llama, sets: dict, rows: int, device: str) -> dict[str, float]:
    """Nats a token of each held-out set."""
    result = {}
    for name, (inputs, targets) in sets.items():
        total = 0.0
        for x, y in zip(inputs.split(rows), targets.split(rows), strict=True):
            total += model.losses(model.hidden(x.to(device)), y.to(device)).sum().item()
        result[name] = total / (targets != -100).sum().item()
    return result


class Run:
    """Everything a checkpoint holds."""

    def __init__(self, args: argparse.Namespace, device: str):
        torch.manual_seed(args.seed)
        self.args = args
        self.model = Llama(Config(num_hidden_layers=args.layers)).to(device)
        compiled = not args.no_compile
        matrices = [p for p in self.model.layers.parameters() if p.ndim == 2]
        vectors = [p for p in self.model.parameters() if p.ndim == 1]
        self.muon = Muon(matrices, args.muon_lr, momentum=0.95, decay=args.weight_decay, compiled=compiled)
        self.adam = torch.optim.AdamW(
            [
                {"params": [self.model.embed_tokens.weight], "weight_decay": 0.01},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=args.adam_lr, betas=(0.9, 0.95), eps=1e-10, fused=device == "cuda",
        )  # fmt: skip
        self.rows = TrainingRows(args.data, args.mix or args.stage, args.context, args.seed, device)
        self.step, self.tokens, self.seconds, self.curve = 0, 0, 0.0, []
        self.stage_seconds = 0.0
        if args.resume:
            self.load(args.resume, device)

    def load(self, path: Path, device: str) -> None:
        saved = torch.load(path, map_location=device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.muon.load_state_dict(saved["muon"])
        self.adam.load_state_dict(saved["adam"])
        for group in self.adam.param_groups:
            group["lr"] = self.args.adam_lr
        for name in ("step", "tokens", "seconds", "curve"):
            setattr(self, name, saved[name])
        if saved["stage"] == self.args.stage:
            self.stage_seconds = saved["stage_seconds"]
            self.rows.seek(*saved["rows"])
        else:
            self.rows.seek(1000, 0)  # rounds that the stage before did not reach

    def save(self, path: Path) -> None:
        state = {
            "config": dataclasses.asdict(self.model.config),
            "model": self.model.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "stage": self.args.stage,
            "stage_seconds": self.stage_seconds,
            "rows": (self.rows.round, self.rows.row),
        } | {name: getattr(self, name) for name in ("step", "tokens", "seconds", "curve")}
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.rename(path)

    def lr_factor(self) -> float:
        if self.args.stage == "anneal":
            return max(0.0, 1 - self.stage_seconds / (self.args.minutes * 60))
        return min(1.0, (self.step + 1) / self.args.warmup)


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    run = Run(args, device)
    model, sets = run.model, heldout_rows(args.data, args.context)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, "
          f"{len(run.rows.starts) * args.context / 1e6:.1f} M tokens a round", flush=True)  # fmt: skip

    def loss_of(x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return model.losses(x, targets).mean()

    if not args.no_compile:
        for layer in model.layers:  # one compilation serves all
            layer.compile(dynamic=False)
        loss_of = torch.compile(loss_of, dynamic=False)
    backend = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}.get(args.sdpa)
    parts = args.batch_rows // args.micro_rows

    def forward_backward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(backend) if backend else nullcontext():
            loss = loss_of(model.hidden(x), y) / parts
        loss.backward()
        return loss.detach()

    began = time.monotonic()
    blank = torch.zeros(args.micro_rows, args.context, dtype=torch.long, device=device)
    forward_backward(blank, blank).item()
    for p in model.parameters():
        p.grad.zero_()
    run.muon.step(0.0)  # compiles; at a learning rate of 0 it changes nothing: momenta are put back
    if args.resume:
        run.muon.load_state_dict(torch.load(args.resume, map_location=device, weights_only=True)["muon"])
    print(f"ready after {time.monotonic() - began:.1f} s of compilation", flush=True)

    clock = saved = time.monotonic()
    losses = []
    while run.stage_seconds < args.minutes * 60:
        factor = run.lr_factor()
        for group in run.adam.param_groups:
            group["lr"] = args.adam_lr * factor
        for p in model.parameters():
            p.grad.zero_()
        loss = 0
        for _ in range(parts):
            loss = loss + forward_backward(*run.rows.next(args.micro_rows))
        run.muon.step(factor)
        run.adam.step()
        run.step += 1
        run.tokens += args.batch_rows * args.context
        losses.append(loss)
        if run.step % 10 == 0 or device == "cpu":
            torch.cuda.synchronize() if device == "cuda" else None
        now = time.monotonic()
        run.seconds, run.stage_seconds, clock = run.seconds + now - clock, run.stage_seconds + now - clock, now

        last = run.stage_seconds >= args.minutes * 60
        if run.step % 50 == 0 or last:
            point = {
                "step": run.step, "tokens": run.tokens, "seconds": round(run.seconds, 2), "stage": args.stage,
                "lr_factor": round(factor, 4), "train": round(torch.stack(losses).mean().item(), 4),
            }  # fmt: skip
            losses = []
            if run.step % args.eval_every == 0 or last:
                with torch.compiler.set_stance("force_eager"):
                    scores = evaluate(model, sets, 64, device)
                point["heldout"] = {k: round(v, 4) for k, v in scores.items()}
                clock = time.monotonic()  # scoring does not count
            run.curve.append(point)
            print(json.dumps(point), flush=True)
        if now - saved > args.save_every and not last:
            run.save(args.out / "checkpoint.pt")
            clock = saved = time.monotonic()

    run.save(args.out / "checkpoint.pt")
    (args.out / "curve.json").write_text(json.dumps(run.curve) + "\n")
    if device == "cuda":
        print(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most", flush=True)


if __name__ == "__main__":
    main()
