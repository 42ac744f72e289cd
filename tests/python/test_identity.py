"""Ten greedy continuations are the same alone, in one batch, with 1 and 2 threads, and on every instruction set."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from llama_models import PARE, TOOLS

STORY = Path(__file__).parents[2] / "models" / "story"
PROMPTS = [
    "Once upon a time", "The old king had three daughters", "A fox", "It was a dark night, and the wind howled in the trees.",
    "\"Where are you going?\" asked the bear.", "In the middle of the forest there stood a little house", "One day Tom",
    "The ship sailed", "Grandmother sat by the fire and told the children about the winter when the river froze", "She",
]


def isas():
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features")))
    have = set(flags.split())
    names = ["generic"]
    if {"avx2", "fma", "f16c"} <= have:
        names.append("avx2")
        if "avx_vnni" in have:
            names.append("avxvnni")
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= have:
        names.append("avx512")
        if "avx512_vnni" in have:
            names.append("avx512vnni")
    return names


def greedy(model, prompts, *arguments, isa=None, count=24):
    environment = {**os.environ, **({"PARE_ISA": isa} if isa else {})}
    done = subprocess.run([TOOLS / "tool_greedy", model, "--prompts", prompts, "-n", str(count), *arguments],
                          capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    ids = []
    for prompt in PROMPTS:
        done = subprocess.run([PARE, "tokenize", STORY, "--json"], input=prompt, capture_output=True, text=True, check=True)
        parsed = json.loads(done.stdout)
        ids.append(parsed["ids"] if isinstance(parsed, dict) else parsed)
    path = tmp_path_factory.mktemp("prompts") / "prompts.json"
    path.write_text(json.dumps(ids))
    return path


@pytest.mark.parametrize("weights", ["bf16", "q8_0", "q4_0"])
def test_same_tokens_every_way(weights, prompts, tmp_path):
    model = STORY
    if weights != "bf16":
        model = tmp_path / "m.gguf"
        subprocess.run([PARE, "quantize", STORY, "--weights", weights, "-o", model, "--quiet"], check=True)
    expected = greedy(model, prompts)
    assert len(expected) == 10 and all(len(ids) == 24 for ids in expected)
    assert len({tuple(ids) for ids in expected}) == 10  # different prompts, different stories
    assert greedy(model, prompts, "--threads", "2") == expected
    assert greedy(model, prompts, "--batch", "--threads", "2") == expected
    for isa in isas():
        count = 6 if isa == "generic" else 24  # scalar code is slow
        assert greedy(model, prompts, "--batch", isa=isa, count=count) == [ids[:count] for ids in expected], isa
