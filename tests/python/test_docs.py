"""What the documents tell people to type exists: every pare command in them, and every option of it."""

import os
import pathlib
import re
import shlex
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def documented_commands():
    """(where, arguments) of every indented line that starts with pare, or with a pipe into it."""
    for document in DOCUMENTS:
        for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
            command = re.match(r"(?: {4}|\t)(?:echo [^|]*\| )?pare (.*)", line)
            if command:
                yield f"{document.relative_to(ROOT)}:{number}", shlex.split(command.group(1), comments=True)


def options_of(command):
    text = subprocess.run([os.environ["PARE"], command, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text))


@pytest.mark.parametrize(("where", "arguments"), list(documented_commands()))
def test_documented_command(where, arguments):
    if arguments[0].startswith("-"):
        return
    known = options_of(arguments[0])
    used = {a.split("=")[0] for a in arguments[1:] if re.match(r"--?[a-zA-Z]", a)}
    assert used <= known, f"{where}: pare {arguments[0]} has no {', '.join(sorted(used - known))}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
