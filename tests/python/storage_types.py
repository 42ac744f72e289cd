"""The storage types as gguf-py names them, and the tool that encodes and decodes them."""

import os
import pathlib
import subprocess

import numpy as np
from gguf import GGMLQuantizationType as GgmlType

TOOL = pathlib.Path(os.environ["PARE_TOOLS"]) / "tool_formats"
TYPES = {name: GgmlType[name.upper()] for name in (
    "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
    "iq4_nl", "iq4_xs", "tq1_0", "tq2_0")}  # gguf-py 0.19 lacks q2_0


def tool(*args, stdin=b""):
    done = subprocess.run([TOOL, *map(str, args)], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)
