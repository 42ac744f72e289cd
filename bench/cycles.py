#!/usr/bin/env python3
"""Cycles of a kernel's innermost loop on a processor that is not at hand, as llvm-mca predicts them.

    bench/cycles.py SOURCE.cc FUNCTION CPU[,CPU...] WEIGHTS -- COMPILER [FLAGS...]

Compiles SOURCE.cc to assembly, takes of the functions whose demangled names match the regular expression FUNCTION the
longest loop without a loop in it (FUNCTION#2: the second longest), and prints for each CPU its cycles and cycles a
weight, of which a turn multiplies WEIGHTS. The model has first-level caches only and no branches: a bound, not a measurement.
"""
import re
import subprocess
import sys

ITERATIONS = 200


def run(command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def functions(assembly):
    """Pairs of a function's name and its lines."""
    name, lines = None, []
    for line in assembly.splitlines():
        label = re.match(r"([_A-Za-z][\w.$]*):", line)
        if label:
            if name:
                yield name, lines
            name, lines = label.group(1), []
        elif name:
            lines.append(line)
    if name:
        yield name, lines


def inner_loops(lines):
    """The instructions of each run from a label to a branch back to it that holds no other such run."""
    labels, loops = {}, []
    for i, line in enumerate(lines):
        label = re.match(r"(\.L\w+):", line)
        branch = re.match(r"\t(?:b\.?\w*|cbn?z|tbn?z|j\w+)\s+.*?(\.L\w+)$", line)
        if label:
            labels[label.group(1)] = i
        elif branch and branch.group(1) in labels:
            loops.append((labels[branch.group(1)], i))
    inner = [(a, b) for a, b in loops if not any(a <= c and d < b for c, d in loops)]
    return [[l for l in lines[a : b + 1] if l.startswith("\t") and not l.startswith("\t.")] for a, b in inner]


def main():
    if "--" not in sys.argv or sys.argv.index("--") != 5:
        sys.exit(__doc__)
    source, function, cpus, weights = sys.argv[1:5]
    compiler = sys.argv[6:]
    target = run([compiler[0], "-dumpmachine"]).strip()
    found = list(functions(run([*compiler, "-S", "-o", "-", source])))
    names = run(["c++filt"], input="\n".join(name for name, _ in found)).splitlines()
    function, _, rank = function.partition("#")
    loops = [loop for (_, lines), name in zip(found, names) if re.search(function, name) for loop in inner_loops(lines)]
    loops.sort(key=len, reverse=True)
    if len(loops) < int(rank or 1):
        sys.exit(f"{source}: {len(loops)} loops in functions that match '{function}', expected {rank or 1} or more")
    loop = loops[int(rank or 1) - 1]
    for cpu in cpus.split(","):
        mca = ["llvm-mca-16", f"-mtriple={target}", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"]
        done = subprocess.run(mca, input="\n".join(loop) + "\n", capture_output=True, text=True)
        # It leaves out instructions that the processor lacks.
        if done.returncode or "error" in done.stderr:
            sys.exit(f"llvm-mca-16 for {cpu}: {done.stderr.strip().splitlines()[0]}")
        cycles = int(re.search(r"Total Cycles:\s+(\d+)", done.stdout).group(1)) / ITERATIONS
        print(f"{cpu}: {len(loop)} instructions, {cycles:.1f} cycles, {cycles / float(weights):.4f} a weight")


if __name__ == "__main__":
    main()
