"""Trains a model, in stages bounded by time or steps; each goes on from where the last stopped.

    python train.py --data DATA --out RUN --stage main anneal --minutes 7 3
    torchrun --standalone --nproc-per-node 2 train.py ...   # the same batches, shared by two GPUs

`main` warms the learning rate up and holds it; `anneal` takes it to zero in a straight line. A stage
ends when its --minutes or its --steps are over, whichever comes first. --until bounds the whole
command: a stage leaves those after it their minutes, and `anneal` falls faster to be done in time.
With --resume, stages that the checkpoint has behind it are passed over and an interrupted one goes
on, so that a run can be cut into commands. RUN receives checkpoint.pt and curve.json.
"""

import argparse
import dataclasses
import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from data import TrainingRows, heldout_rows
from model import MODELS, Config, DifferentialAttention, Llama
from muon import Muon
from parallel import Gpus
from sources import Source
from wide_values import fastest_form

BEGAN = time.monotonic()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, default="llama")
    parser.add_argument("--stage", choices=("main", "anneal"), nargs="+", required=True)
    per_stage = {"nargs": "+", "metavar": "N"}
    parser.add_argument("--minutes", type=float, **per_stage, help="of each stage, compilation left out")
    parser.add_argument("--steps", type=int, **per_stage, help="of each stage")
    parser.add_argument("--weight-decay", type=float, **per_stage, help="of Muon's matrices, in each stage (0.1)")
    parser.add_argument("--until", type=float, default=math.inf, help="Unix time at which training ends (date +%%s)")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    mixes = [f.name for f in dataclasses.fields(Source) if not f.name.startswith("tokenizer")]
    parser.add_argument("--mix", choices=mixes, help="default: the stage's own")
    parser.add_argument("--batch-rows", type=int, default=128, help="rows of --context tokens a step")
    parser.add_argument("--micro-rows", type=int, default=128, help="rows of these at once on a GPU")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.004)
    parser.add_argument("--lambda-lr", type=float, default=0.0004, help="AdamW's, for differential attention's lambdas")
    parser.add_argument("--warmup", type=int, default=150, help="steps")
    parser.add_argument("--layers", type=int, default=Config.num_hidden_layers)
    parser.add_argument("--sdpa", choices=("default", "flash", "cudnn"), default="default")
    parser.add_argument("--eval-every", type=int, default=250, help="steps")
    parser.add_argument("--save-every", type=float, default=60, help="seconds")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for name, default in (("minutes", math.inf), ("steps", math.inf), ("weight_decay", 0.1)):
        values = getattr(args, name) or [default] * len(args.stage)
        if len(values) != len(args.stage):
            parser.error(f"--{name.replace('_', '-')}: {len(values)} values for {len(args.stage)} stages")
        setattr(args, name, values)
    if math.inf in (min(pair) for pair in zip(args.minutes, args.steps, strict=True)) and args.until == math.inf:
        parser.error("each stage needs a bound: --minutes, --steps or --until")
    return args


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


def make_adam(model: Llama, args: argparse.Namespace, fused: bool) -> torch.optim.AdamW:
    """For whatever is no matrix of a block. `base` is a group's learning rate before the schedule."""
    vectors = {name: p for name, p in model.named_parameters() if p.ndim == 1}
    lambdas = [p for name, p in vectors.items() if ".lambda_" in name]
    groups = [
        {"params": [model.embed_tokens.weight], "weight_decay": 0.01, "base": args.adam_lr},
        {"params": [p for name, p in vectors.items() if ".lambda_" not in name], "weight_decay": 0.0, "base": args.adam_lr},
    ]  # fmt: skip
    if lambdas:  # they stand in an exponent: the rate of the norms would throw them about
        groups.append({"params": lambdas, "weight_decay": 0.0, "base": args.lambda_lr})
    return torch.optim.AdamW(groups, lr=args.adam_lr, betas=(0.9, 0.95), eps=1e-10, fused=fused)


class Run:
    """Everything a checkpoint holds."""

    def __init__(self, args: argparse.Namespace, device: str):
        torch.manual_seed(args.seed)
        self.args, self.device = args, device
        self.model = Llama(Config(num_hidden_layers=args.layers, **MODELS[args.model])).to(device)
        matrices = [p for p in self.model.layers.parameters() if p.ndim == 2]
        self.muon = Muon(matrices, args.muon_lr, momentum=0.95, compiled=not args.no_compile)
        self.adam = make_adam(self.model, args, fused=device.startswith("cuda"))
        # Gradients are views of one buffer: one call clears them, one sums them over the GPUs.
        self.gradients = torch.zeros(sum(p.numel() for p in self.model.parameters()), device=device)
        start = 0
        for p in self.model.parameters():
            p.grad = self.gradients[start : start + p.numel()].view_as(p)
            start += p.numel()
        self.step, self.tokens, self.seconds, self.curve = 0, 0, 0.0, []
        self.stage, self.stage_seconds, self.stage_steps = 0, 0.0, 0  # the stage as an index of args.stage
        place = (0, 0)
        if args.resume:
            place = self.load(args.resume)
        self.start_rows(place)

    def start_rows(self, place: tuple[int, int]) -> None:
        args = self.args
        mix = args.mix or args.stage[self.stage]
        self.rows = TrainingRows(args.data, mix, args.context, args.seed, self.device, place)

    def next_stage(self) -> None:
        self.stage, self.stage_seconds, self.stage_steps = self.stage + 1, 0.0, 0
        self.start_rows((1000, 0))  # rounds that the stage before did not reach

    def load(self, path: Path) -> tuple[int, int]:
        """Returns the place that was reached in the rows."""
        saved = torch.load(path, map_location=self.device, weights_only=True)
        if saved["config"] != (mine := dataclasses.asdict(self.model.config)):
            raise SystemExit(f"{path}: holds a model of {saved['config']}, expected {mine}")
        self.model.load_state_dict(saved["model"])
        self.muon.load_state_dict(saved["muon"])
        bases = [group["base"] for group in self.adam.param_groups]
        self.adam.load_state_dict(saved["adam"])
        for group, base in zip(self.adam.param_groups, bases, strict=True):
            group["base"] = base
        for name in ("step", "tokens", "seconds", "curve"):
            setattr(self, name, saved[name])
        if saved["stage"] not in self.args.stage:
            return 1000, 0  # see next_stage
        self.stage = self.args.stage.index(saved["stage"])
        self.stage_seconds, self.stage_steps = saved["stage_seconds"], saved["stage_steps"]
        return saved["rows"]

    def save(self) -> None:
        state = {
            "config": dataclasses.asdict(self.model.config),
            "model": self.model.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "stage": self.args.stage[self.stage],
            "rows": (self.rows.round, self.rows.row),
        } | {name: getattr(self, name) for name in ("step", "tokens", "seconds", "curve", "stage_seconds", "stage_steps")}
        path = self.args.out / "checkpoint.pt"
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.rename(path)
        (self.args.out / "curve.json").write_text(json.dumps(self.curve) + "\n")

    def set_rates(self, progress: float) -> float:
        """Sets the learning rates of this step; returns the factor that is common to all."""
        anneal = self.args.stage[self.stage] == "anneal"
        factor = max(0.0, 1 - progress) if anneal else min(1.0, (self.step + 1) / self.args.warmup)
        for group in self.adam.param_groups:
            group["lr"] = group["base"] * factor
        self.muon.decay = self.args.weight_decay[self.stage]
        return factor


class Step:
    """Forward and backward passes over one batch, compiled."""

    def __init__(self, run: Run, gpus: Gpus):
        args, self.run, self.gpus = run.args, run, gpus
        model = run.model
        self.micro = min(args.micro_rows, args.batch_rows // gpus.count)
        self.parts = args.batch_rows // (self.micro * gpus.count)
        backend = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}.get(args.sdpa)
        self.kernel = lambda: sdpa_kernel(backend) if backend else nullcontext()
        self.loss_of = lambda x, targets: model.losses(x, targets).mean()
        if model.config.attention == "differential" and run.device != "cpu":
            with self.kernel():
                form = fastest_form(model.config, self.micro, args.context, run.device, not args.no_compile)
            DifferentialAttention.form = gpus.first(form)
        if not args.no_compile:
            for layer in model.layers:  # one compilation serves all
                layer.compile(dynamic=False)
            self.loss_of = torch.compile(self.loss_of, dynamic=False)

    def forward_backward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with self.kernel():
            loss = self.loss_of(self.run.model.hidden(x), y) / (self.parts * self.gpus.count)
        loss.backward()
        return loss.detach()

    def warm_up(self) -> None:
        """Compiles. Where that fails, goes on without."""
        run, args = self.run, self.run.args
        momenta = [m.clone() for m in run.muon.momenta]
        # Strides as those of real batches, for which a compilation holds.
        blank = torch.zeros(self.micro, args.context + 1, dtype=torch.long, device=run.device)
        for attempt in range(2):
            try:
                self.forward_backward(blank[:, :-1], blank[:, 1:]).item()
                run.gradients.zero_()
                run.muon.step(0.0)  # at a learning rate of 0 it changes nothing but the momenta
                break
            except Exception as error:
                if attempt or args.no_compile:
                    raise
                print(f"compilation failed, going on without: {error}", flush=True)
                torch.compiler.set_stance("force_eager")
        run.muon.load_state_dict({"momenta": momenta})
        run.gradients.zero_()

    def __call__(self, factor: float) -> torch.Tensor:
        """This GPU's share of the mean loss."""
        run, loss = self.run, 0
        run.gradients.zero_()
        for _ in range(self.parts):
            loss = loss + self.forward_backward(*map(self.gpus.share, run.rows.next(self.micro * self.gpus.count)))
        self.gpus.sum(run.gradients)
        run.muon.step(factor)
        run.adam.step()
        return loss


def train_stage(run: Run, step: Step, gpus: Gpus, sets: dict) -> bool:
    """Returns whether the next may follow: the stage was not cut off by --until."""
    args, model = run.args, run.model
    steps, minutes = args.steps[run.stage], args.minutes[run.stage]
    later = sum(m * 60 for m in args.minutes[run.stage + 1 :] if m < math.inf)
    clock = saved = gpus.first(time.monotonic())
    end = clock + args.until - gpus.first(time.time()) - later
    length = min(minutes * 60, run.stage_seconds + end - clock)
    losses = []

    def progress() -> float:
        return max(run.stage_steps / steps, run.stage_seconds / length if length > 0 else 1)

    while progress() < 1 and clock < end:
        factor = run.set_rates(progress())
        losses.append(step(factor))
        run.step += 1
        run.stage_steps += 1
        run.tokens += args.batch_rows * args.context
        if run.step % 10 == 0:
            gpus.wait()
        now = gpus.first(time.monotonic())
        run.seconds, run.stage_seconds, clock = run.seconds + now - clock, run.stage_seconds + now - clock, now
        last = progress() >= 1 or clock >= end
        if gpus.rank == 0 and (last or now - saved > args.save_every):  # before scoring, lest that fail
            run.save()
            saved = time.monotonic()
        if run.step % 50 == 0 or last:
            loss = torch.stack(losses).mean()
            gpus.sum(loss)
            losses = []
            point = {
                "step": run.step, "tokens": run.tokens, "seconds": round(run.seconds, 2), "stage": args.stage[run.stage],
                "lr_factor": round(factor, 4), "train": round(loss.item(), 4),
            }  # fmt: skip
            if gpus.rank == 0 and (run.step % args.eval_every == 0 or last):
                with torch.compiler.set_stance("force_eager"):
                    scores = evaluate(model, sets, 64, run.device)
                point["heldout"] = {k: round(v, 4) for k, v in scores.items()}
            run.curve.append(point)
            if gpus.rank == 0:
                print(json.dumps(point), flush=True)
        clock = gpus.first(time.monotonic())  # scoring and saving do not count
    return later > 0 or run.stage_steps >= steps or run.stage_seconds >= minutes * 60


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = True
    gpus = Gpus()
    run = Run(args, gpus.device)
    sets = heldout_rows(args.data, args.context)
    if gpus.rank == 0:
        print(f"{sum(p.numel() for p in run.model.parameters()) / 1e6:.3f} M parameters, "
              f"{len(run.rows.starts) * args.context / 1e6:.1f} M tokens a round, {gpus.count} devices", flush=True)  # fmt: skip
    step = Step(run, gpus)
    step.warm_up()
    print(f"ready after {time.monotonic() - BEGAN:.1f} s", flush=True)
    while train_stage(run, step, gpus, sets) and run.stage + 1 < len(args.stage):
        run.next_stage()
    if gpus.rank == 0:
        run.save()
    if gpus.device != "cpu":
        print(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most", flush=True)
    gpus.close()


if __name__ == "__main__":
    main()
