"""Draws loss_curve.json.    python plot_curve.py models/story/loss_curve.json models/story/loss_curve.png"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    curve = json.loads(source.read_text())
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot([p["tokens"] / 1e6 for p in curve], [p["train"] for p in curve], lw=0.8, color="0.6", label="training")
    scored = [p for p in curve if "heldout" in p]
    for name in scored[-1]["heldout"]:
        label = f"{name}: {scored[-1]['heldout'][name]:.3f}"
        axes.plot([p["tokens"] / 1e6 for p in scored], [p["heldout"][name] for p in scored], lw=1.4, label=label)
    anneal = [p["tokens"] / 1e6 for p in curve if p["stage"] == "anneal"]
    if anneal:
        axes.axvspan(anneal[0], anneal[-1], color="tab:blue", alpha=0.07, lw=0, label="learning rate to zero")
    low = min(min(p["heldout"].values()) for p in scored)
    axes.set(xlabel="million tokens", ylabel="nats a token", ylim=(low - 0.3, low + 2.2))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(target, dpi=120)


if __name__ == "__main__":
    main()
