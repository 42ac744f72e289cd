"""The command line as a user meets it: help, exit codes, one-line errors, streaming, Ctrl-C, JSON, completion."""

import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import gguf
import numpy as np
import pytest

PARE = os.environ["PARE"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("PARE_SHARED", ROOT.parent / "shared"))
STORIES = SHARED / "data/models/stories260K/stories260K.gguf"


def pare(*args, stdin="", check=None, **more):
    """Runs pare; check is the exit code expected."""
    done = subprocess.run([PARE, *map(str, args)], input=stdin, capture_output=True, text=True, timeout=300, **more)
    if check is not None:
        assert done.returncode == check, done
    return done


def commands():
    """Every command, as `pare --help` lists them."""
    text = pare("--help", check=0).stdout
    found = re.findall(r"^  ([a-z]+) {2,}\S", text, re.MULTILINE)
    assert {"inspect", "tokenize", "run", "quantize", "bench", "completion"} <= set(found)
    return found


def one_line(done, code):
    """The refusal that every wrong use ends in: nothing on standard output, one line on standard error."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.startswith("pare: ") and done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    return done.stderr


# Help


def test_help_lists_commands_and_examples():
    text = pare("--help", check=0).stdout
    assert "Usage: pare COMMAND [OPTIONS]" in text
    assert "Examples:\n  pare " in text
    assert pare("-h", check=0).stdout == text


def test_no_arguments_print_help_as_usage_error():
    done = pare(check=2)
    assert done.stdout == "" and "Usage: pare COMMAND" in done.stderr


def test_version():
    version = re.search(r"project\(pare VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
    assert pare("--version", check=0).stdout == f"pare {version}\n"


def test_every_command_has_help_with_examples_that_name_known_options():
    for command in commands():
        text = pare(command, "--help", check=0).stdout
        assert f"Usage: pare {command}" in text, command
        for option in ("--threads", "--ctx", "--json", "--quiet"):
            assert option in text, (command, option)
        examples = text.split("Examples:\n")[1].strip().splitlines()
        assert examples
        for line in examples:
            assert f"pare {command}" in line, line
            used = line.split("|")
            used = next(part for part in used if f"pare {command}" in part).split("  #")[0]
            for option in re.findall(r"\s(--?[a-z][a-z-]*)", used.split(f"pare {command}")[1]):
                assert re.search(rf"(^|[\s,]){option}\b", text.split("Examples:")[0], re.MULTILINE), (line, option)


def test_help_fits_the_width_of_a_terminal():
    for command in commands():
        for line in pare(command, "--help").stdout.split("Examples:")[0].splitlines():
            assert len(line) <= 100, line


# Wrong use


@pytest.mark.parametrize(
    "args, says",
    [
        (["inpsect", "x"], "did you mean 'inspect'"),
        (["tok", "x"], "did you mean 'tokenize'"),
        (["xyzzy"], "unknown command 'xyzzy'"),
        (["inspect"], "missing MODEL"),
        (["inspect", "a", "b"], "unexpected argument 'b'"),
        (["inspect", "--tensor", "x"], "did you mean --tensors"),
        (["--jsn"], "unknown option --jsn"),
        (["run", "x", "--threads", "0"], "--threads"),
        (["run", "x", "--threads", "many"], "--threads"),
        (["run", "x", "--threads"], "--threads needs a value"),
        (["run", "x", "--kv", "q4_0"], "not one of f16, f32, q8_0"),
        (["run", "x", "-p", "a", "--file", "b"], "excludes"),
        (["quantize", "x", "-o", "y", "--weights", "q5"], "'q5' is not one of f32, f16"),
        (["quantize", str(STORIES), "-o", "y"], "nothing to do"),
        (["bench"], "give either a MODEL or --shape"),
        (["bench", "--shape", "llama-9"], "known are llama-2-7b"),
        (["completion", "tcsh"], "bash"),
    ],
)
def test_usage_errors(args, says):
    assert says in one_line(pare(*args), 2)


def test_bad_models_give_one_line(tmp_path):
    assert "no/such/file" in one_line(pare("inspect", "no/such/file"), 1)
    data = STORIES.read_bytes()
    for name, content in {"empty": b"", "text": b"hello\nworld\n", "cut": data[:5000], "half": data[: len(data) // 2]}.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        for command in ("inspect", "tokenize", "run"):
            if (command, name) == ("tokenize", "half"):
                continue  # its header is whole
            assert f"{name}.gguf" in one_line(pare(command, path), 1)
    (tmp_path / "folder").mkdir()
    one_line(pare("inspect", tmp_path / "folder"), 1)


def test_names_from_files_cannot_reach_the_terminal(tmp_path):
    evil = tmp_path / "a\x1b[31m\nb.gguf"
    assert "\x1b" not in one_line(pare("inspect", evil), 1)
    shutil.copy(STORIES, evil)
    assert "\x1b" not in pare("inspect", evil, check=0).stdout


def test_a_path_with_blanks(tmp_path):
    path = tmp_path / "two words.gguf"
    shutil.copy(STORIES, path)
    assert "two words" in pare("inspect", path, check=0).stdout


def test_a_full_disk_is_told():
    with open("/dev/full", "w") as full:
        done = subprocess.run([PARE, "inspect", STORIES], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr == "pare: standard output: cannot write: No space left on device\n"


def test_a_reader_that_leaves_is_no_error():
    process = subprocess.Popen([PARE, "run", STORIES, "--ignore-eos", "-n", "0", "--ctx", "100000", "--quiet"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""


# inspect


def test_inspect_shows_what_is_there():
    text = pare("inspect", STORIES, check=0).stdout
    for words in ("llama", "8 heads of 8, 4 KV heads", "172 wide", "512 tokens", "32.00 bits per weight", "attn_q"):
        assert words in text, words
    assert "blk.4.ffn_down.weight" in pare("inspect", STORIES, "--tensors", check=0).stdout
    assert "llama.block_count" in pare("inspect", STORIES, "--metadata", check=0).stdout


def test_inspect_json():
    model = json.loads(pare("inspect", STORIES, "--json", check=0).stdout)
    assert model["hidden"] == 64 and model["vocabulary"] == 512 and len(model["layers"]) == 5
    assert model["layers"][0]["attention"]["kv_heads"] == 4
    assert model["kv_bytes_per_token"] == {"f16": 5 * 2 * 4 * 8 * 2, "f32": 5 * 2 * 4 * 8 * 4}
    assert sum(t["bytes"] for t in model["tensors"]) == model["bytes"]
    assert model["parameters"] == sum(t["shape"][0] * (t["shape"] + [1])[1] for t in model["tensors"])
    assert model["bits_per_weight"] == 32 and model["tokenizer"]["tokens"] == 512 and model["plan"] is None


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def write_large_header(path):
    """The header of a Llama of 70B parameters (723 tensors, 128k tokens) before data that is a hole in the file."""
    hidden, mlp, layers, heads, kv_heads, vocabulary = 8192, 28672, 80, 64, 8, 128256
    tensors = [("token_embd.weight", [hidden, vocabulary], 1)]
    for i in range(layers):
        for name, rows in {"attn_q": hidden, "attn_k": 128 * kv_heads, "attn_v": 128 * kv_heads, "attn_output": hidden,
                           "ffn_gate": mlp, "ffn_up": mlp}.items():
            tensors.append((f"blk.{i}.{name}.weight", [hidden, rows], 1))
        tensors.append((f"blk.{i}.ffn_down.weight", [mlp, hidden], 1))
        tensors += [(f"blk.{i}.{name}.weight", [hidden], 0) for name in ("attn_norm", "ffn_norm")]
    tensors += [("output_norm.weight", [hidden], 0), ("output.weight", [hidden, vocabulary], 1)]
    assert len(tensors) == 723
    # Made-up words, each of a kind that merges of two earlier ones can make: bytes first, then pairs.
    characters = sorted(byte_characters())
    pieces = list(characters)
    merges = []
    for a in characters:
        for b in characters:
            if len(pieces) == vocabulary - 2:
                break
            pieces.append(a + b)
            merges.append(f"{a} {b}")
    pairs = pieces[256:]
    for i in range(vocabulary):
        if len(pieces) == vocabulary - 2:
            break
        pieces.append(pairs[i] + pairs[i + 1])
        merges.append(f"{pairs[i]} {pairs[i + 1]}")
    pieces += ["<|begin|>", "<|end|>"]
    types = [1] * (vocabulary - 2) + [3, 3]

    def key(name, kind, data):
        return string(name) + struct.pack("<I", kind) + data

    def strings(values):
        return struct.pack("<IQ", 8, len(values)) + b"".join(map(string, values))

    meta = [key("general.architecture", 8, string("llama")), key("general.name", 8, string("large"))]
    for name, value in {"context_length": 8192, "embedding_length": hidden, "block_count": layers,
                        "feed_forward_length": mlp, "attention.head_count": heads,
                        "attention.head_count_kv": kv_heads, "vocab_size": vocabulary,
                        "rope.dimension_count": 128}.items():
        meta.append(key(f"llama.{name}", 4, struct.pack("<I", value)))
    meta.append(key("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)))
    meta.append(key("llama.rope.freq_base", 6, struct.pack("<f", 500000)))
    meta.append(key("tokenizer.ggml.model", 8, string("gpt2")))
    meta.append(key("tokenizer.ggml.pre", 8, string("llama-bpe")))
    meta.append(key("tokenizer.ggml.tokens", 9, strings(pieces)))
    meta.append(key("tokenizer.ggml.merges", 9, strings(merges)))
    meta.append(key("tokenizer.ggml.token_type", 9, struct.pack(f"<IQ{vocabulary}i", 5, vocabulary, *types)))
    meta.append(key("tokenizer.ggml.bos_token_id", 4, struct.pack("<I", vocabulary - 2)))
    meta.append(key("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", vocabulary - 1)))
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta)) + b"".join(meta)
    at = 0
    for name, dims, kind in tensors:
        header += string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, at)
        count = dims[0] * (dims[1] if len(dims) > 1 else 1)
        at += count * (2 if kind == 1 else 4)
    start = (len(header) + 31) // 32 * 32
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(start + at)


def byte_characters():
    """The 256 printable characters that stand for bytes in byte-level BPE (GPT-2)."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]


def test_inspect_reads_only_the_header_of_a_large_model(tmp_path):
    path = tmp_path / "large.gguf"
    write_large_header(path)
    assert path.stat().st_size > 140e9
    # Linux counts what a process held before exec, so a small interpreter starts it rather than this large one.
    measure = (
        "import os, subprocess, sys\n"
        "process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)\n"
        "out = process.stdout.read()\n"
        "_, status, usage = os.wait4(process.pid, 0)\n"
        "print(status, usage.ru_maxrss, usage.ru_utime + usage.ru_stime, flush=True)\n"
        "sys.stdout.buffer.write(out)\n"
    )
    done = subprocess.run([sys.executable, "-S", "-c", measure, PARE, "inspect", path, "--json"], capture_output=True, check=True)
    figures, _, listing = done.stdout.decode().partition("\n")
    status, peak, seconds = figures.split()
    model = json.loads(listing)
    assert int(status) == 0
    assert model["parameters"] == pytest.approx(70.55e9, rel=1e-3) and len(model["tensors"]) == 723
    assert int(peak) * 1024 < 100e6
    assert float(seconds) < 1, "seconds of processor time"


# tokenize


def test_tokenize_and_back():
    text = "Once upon a time, there was a naïve girl 🙂\n"
    ids = pare("tokenize", STORIES, stdin=text, check=0).stdout
    assert ids.startswith("1 403 ") and ids.endswith("\n")
    assert pare("tokenize", STORIES, "--decode", "--no-special", stdin=ids, check=0).stdout == text
    assert pare("tokenize", STORIES, "--no-special", stdin=text, check=0).stdout == ids.removeprefix("1 ")
    as_json = json.loads(pare("tokenize", STORIES, "--json", "--pieces", stdin=text, check=0).stdout)
    assert as_json["ids"] == [int(i) for i in ids.split()] and len(as_json["pieces"]) == len(as_json["ids"])
    assert pare("tokenize", STORIES, "--decode", "--no-special", stdin=json.dumps(as_json["ids"]), check=0).stdout == text
    assert pare("tokenize", STORIES, "--count", stdin=text, check=0).stdout == f"{len(as_json['ids'])}\n"
    pieces = pare("tokenize", STORIES, "--pieces", stdin="Once upon", check=0).stdout.splitlines()
    assert [line.split()[0] for line in pieces] == ["1", "403", "407"]


def test_tokenize_refuses_what_is_no_id():
    assert "'4x' is not a token id" in one_line(pare("tokenize", STORIES, "--decode", stdin="1 4x"), 1)
    one_line(pare("tokenize", STORIES, "--decode", stdin="99999"), 1)
    one_line(pare("tokenize", STORIES, "--decode", stdin="-1"), 1)
    one_line(pare("tokenize", STORIES, "--decode", stdin="99999999999999999999"), 1)


# run

STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."


def test_run_from_nothing_writes_the_known_story():
    done = pare("run", STORIES, "--greedy", "-n", "60", check=0)
    assert done.stdout.startswith(STORY) and done.stdout.endswith("\n")
    assert "tok/s" in done.stderr and done.stderr.count("\n") == 1


def test_run_continues_a_prompt_from_anywhere(tmp_path):
    prompt = "Once upon a time, there was"
    expected = pare("run", STORIES, "--greedy", "-n", "40", "-p", prompt, check=0).stdout
    assert prompt + expected.rstrip("\n") in pare("run", STORIES, "--greedy", "-n", "80", check=0).stdout
    assert pare("run", STORIES, "--greedy", "-n", "40", "-p", "-", stdin=prompt, check=0).stdout == expected
    file = tmp_path / "prompt.txt"
    file.write_text(prompt)
    assert pare("run", STORIES, "--greedy", "-n", "40", "--file", file, check=0).stdout == expected


def test_run_json_holds_what_was_printed():
    args = ("run", STORIES, "-p", "Once upon", "-n", "50", "--seed", "7")
    text = pare(*args, "--quiet", check=0)
    assert text.stderr == ""
    done = pare(*args, "--json", check=0)
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["text"] == text.stdout.removesuffix("\n") and len(result["tokens"]) == 50
    assert result["prompt_tokens"] == [1, 403, 407] and result["reason"] == "length" and result["seed"] == 7
    assert result["timings"]["decode_tokens_per_second"] > 0
    assert json.loads(pare(*args[:-1], 8, "--json", check=0).stdout)["tokens"] != result["tokens"]


def test_run_writes_whole_characters_whatever_bytes_the_model_chooses():
    wild = ("--temp", "50", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--ignore-eos", "-n", "400")
    done = subprocess.run([PARE, "run", STORIES, *wild, "--seed", "1"], capture_output=True, timeout=300)
    text = done.stdout.decode("utf-8")  # strict: raises for a broken character
    assert "\ufffd" in text, "the test needs a model that writes broken characters"


def test_run_stops_where_the_context_ends():
    done = pare("run", STORIES, "--ignore-eos", "-n", "0", "--ctx", "30", "--json", check=0)
    result = json.loads(done.stdout)
    assert result["reason"] == "context" and len(result["tokens"]) + len(result["prompt_tokens"]) in (30, 31)
    assert "context of 4" in one_line(pare("run", STORIES, "-p", "a b c d e f g", "--ctx", "4"), 1)


def test_run_streams_text_as_it_comes():
    process = subprocess.Popen([PARE, "run", STORIES, "--greedy", "--ignore-eos", "-n", "0", "--ctx", "100000"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    got = b""
    while len(got) < len(STORY):
        piece = os.read(process.stdout.fileno(), 4096)
        assert piece, "the program ended"
        got += piece
    assert process.poll() is None, "the text came before the program ended"
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (got + rest).decode().startswith(STORY)  # whole characters only
    assert (got + rest).endswith(b"\n")
    note, speed = errors.decode().splitlines()
    assert "made for 512 tokens" in note and "interrupted" in speed


def test_interrupted_json_is_whole():
    process = subprocess.Popen([PARE, "run", STORIES, "--ignore-eos", "-n", "0", "--ctx", "100000", "--json"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    if out:  # the model may still have been loading
        assert json.loads(out)["reason"] == "cancelled"
    assert process.returncode == 130 and errors == b""


def test_interrupted_while_it_writes_or_reads():
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen([PARE, "run", STORIES, "--ignore-eos", "-n", "0", "--ctx", "100000"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    deadline = time.monotonic() + 60
    while struct.unpack("i", fcntl.ioctl(reading, termios.FIONREAD, bytes(4)))[0] < 4096 - 64 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)  # now it waits for somebody to read
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    with os.fdopen(reading, "rb") as pipe:
        assert len(pipe.read()) >= 4096 - 64
    assert process.wait(60) == 130 and b"interrupted" in process.stderr.read().splitlines()[-1]

    process = subprocess.Popen([PARE, "tokenize", STORIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and process.stdout.read() == b""


def on_terminal(*args, rows=40, columns=90, interrupt_after=None, **environment):
    """Runs pare on a pseudo-terminal; returns its exit code and everything it showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm", "LANG": "C.UTF-8", **environment})
        os.execv(PARE, [PARE, *map(str, args)])
    shown = b""
    while True:
        try:
            if not select.select([terminal], [], [], 60)[0]:
                break
            piece = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
        if interrupt_after and interrupt_after in shown:
            os.write(terminal, b"\x03")
            interrupt_after = None
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_ctrl_c_on_a_terminal_ends_cleanly():
    code, shown = on_terminal("run", STORIES, "--ignore-eos", "-n", "0", "--ctx", "100000", interrupt_after=b"Once")
    assert code == 130
    assert "interrupted" in shown.splitlines()[-1] and "tok/s" in shown.splitlines()[-1]


def test_colours_only_on_a_terminal():
    assert "\x1b[1m" in on_terminal("inspect", STORIES)[1]
    assert "\x1b" not in on_terminal("inspect", STORIES, NO_COLOR="1")[1]
    assert "\x1b" not in on_terminal("inspect", STORIES, TERM="dumb")[1]
    assert "\x1b" not in on_terminal("inspect", STORIES, "--json")[1]
    assert "\x1b" not in pare("inspect", STORIES).stdout


# quantize


def test_quantize_makes_a_smaller_model_that_still_writes(tmp_path):
    small = tmp_path / "small.gguf"
    done = pare("quantize", STORIES, "--weights", "f16", "-o", small, check=0)
    assert "before" in done.stdout and "2.0" in done.stdout
    model = json.loads(pare("inspect", small, "--json", check=0).stdout)
    assert {t["type"] for t in model["tensors"] if len(t["shape"]) == 2} == {"f16"}
    assert model["plan"]["store"] == [{"type": "f16"}] and model["source"]
    assert pare("run", small, "--greedy", "-n", "60", check=0).stdout.startswith(STORY)


def test_quantize_says_which_rows_do_not_fit(tmp_path):
    small = tmp_path / "small.gguf"
    result = json.loads(pare("quantize", STORIES, "--weights", "q8_0", "-o", small, "--json", check=0).stdout)
    assert result["ratio"] > 2 and any("ffn_down" in note for note in result["notes"])
    types = {(t["kind"], t["type"]) for t in json.loads(pare("inspect", small, "--json").stdout)["tensors"]}
    assert ("attn_q", "q8_0") in types and ("ffn_down", "f16") in types and ("attn_norm", "f32") in types


def test_quantize_takes_a_plan_that_the_command_line_overrides(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text('{"version": 1, "store": [{"type": "q8_0"}, {"tensor": "attn_q", "layers": [0, 1], "type": "q4_0"}]}')
    out = tmp_path / "out.gguf"
    pare("quantize", STORIES, "--plan", plan, "--embedding", "f16", "-o", out, "-q", check=0)
    tensors = json.loads(pare("inspect", out, "--json").stdout)["tensors"]
    types = {(t["kind"], t["layer"]): t["type"] for t in tensors}
    assert types["attn_q", 1] == "q4_0" and types["attn_q", 2] == "q8_0" and types["embedding", None] == "f16"
    plan.write_text('{"version": 1, "stor": []}')
    assert "stor" in one_line(pare("quantize", STORIES, "--plan", plan, "-o", tmp_path / "no.gguf"), 1)


def test_quantize_does_not_quantize_twice_unasked(tmp_path):
    small, smaller = tmp_path / "small.gguf", tmp_path / "smaller.gguf"
    pare("quantize", STORIES, "--weights", "q8_0", "-o", small, "-q", check=0)
    assert "already quantized to q8_0" in one_line(pare("quantize", small, "--weights", "q4_0", "-o", smaller), 1)
    assert not smaller.exists()
    done = pare("quantize", small, "--weights", "q4_0", "--requantize", "-o", smaller, check=0)
    assert "warning" in done.stderr and smaller.exists()
    up = pare("quantize", small, "--weights", "f32", "-o", tmp_path / "up.gguf", check=0)
    assert "larger and nothing better" in up.stderr


def test_a_refused_output_leaves_nothing(tmp_path):
    done = pare("quantize", STORIES, "--weights", "q8_0", "-o", tmp_path / "folder")
    assert "q8_0" in one_line(done, 1)
    one_line(pare("quantize", STORIES, "--weights", "f16", "-o", tmp_path / "no/such/place.gguf", "-q"), 1)
    assert list(tmp_path.iterdir()) == []


def test_nan_weights_are_named_and_counted(tmp_path):
    data = bytearray(STORIES.read_bytes())
    data[-8:] = struct.pack("<ff", float("nan"), float("inf"))
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(data)
    said = one_line(pare("quantize", bad, "--weights", "f16", "-o", tmp_path / "out.gguf"), 1)
    assert "NaN" in said and " 2 " in said
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("scale", [0x7E00, 0xFC00])
def test_scales_that_are_no_numbers_are_named(scale, tmp_path):
    bad = tmp_path / "bad.gguf"
    pare("quantize", STORIES, "--weights", "q8_0", "-o", bad, check=0)
    tensor = next(t for t in gguf.GGUFReader(bad, "r+").tensors if t.name == "blk.2.attn_q.weight")
    tensor.data[3, :2] = np.array([scale], np.uint16).view(np.uint8)
    for command in (["run", bad, "-p", "Once", "-n", "4"], ["eval", bad, "--perplexity", __file__],
                    ["convert", bad, "--type", "f32", "-o", tmp_path / "out.gguf"]):
        said = one_line(pare(*command, "-q"), 1)
        assert "blk.2.attn_q.weight" in said and "32" in said and "NaN or infinite" in said, said
    assert not (tmp_path / "out.gguf").exists()


# bench


def test_bench_reports_every_run(tmp_path):
    args = ("bench", "--shape", "story-27m", "--prompt", "16", "--gen", "4", "--runs", "2", "--threads-list", "1,2")
    done = pare(*args, "--json")
    assert done.returncode in (0, 1), done  # on a busy machine a measurement may not count
    result = json.loads(done.stdout)
    assert result["valid"] == (done.returncode == 0)
    assert [r["threads"] for r in result["reports"]] == [1, 2]
    prefill, decode = result["reports"][0]["results"]
    assert (prefill["run"], prefill["tokens"], decode["run"], decode["tokens"]) == ("prefill", 16, "decode", 4)
    assert len(decode["samples"]) == 2 and decode["tokens_per_second"] > 0
    # Every matrix is read once a token; embedding and output are one: 24.1M weights in blocks of 34 bytes. But of the
    # output, 8 of them hold what only a few rows need for the likeliest token.
    output = 8192 * 256
    matrices = output + 32 * (256 * (256 + 128 + 128 + 256) + 3 * 256 * 768)
    assert decode["weight_bytes_per_token"] == matrices * 34 / 32 - output * 8 / 32
    all_logits = json.loads(pare(*args, "--top-k", "0", "--json").stdout)
    assert (result["top_k"], all_logits["top_k"]) == (1, 0)
    for report in all_logits["reports"]:
        assert report["results"][1]["weight_bytes_per_token"] == matrices * 34 / 32
    assert decode["kv_bytes_per_token"] == pytest.approx(32 * 2 * 128 * 2 * 2.5, rel=0.01)
    assert decode["int8_multiply_adds_per_token"] == matrices
    assert result["peak_memory_bytes"] > 20e6


def test_bench_of_a_file_in_another_type():
    result = json.loads(pare("bench", STORIES, "--weights", "f16", "--prompt", "8", "--gen", "2", "--runs", "1", "--json").stdout)
    assert result["types"] == "f16"
    assert result["parameters"] == 292_800 and [r["run"] for r in result["reports"][0]["results"]] == ["prefill", "decode"]


def test_bench_refuses_a_shape_that_memory_cannot_hold():
    available = int(re.search(r"MemAvailable: +(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) * 1024
    if available < 276e9:  # a larger machine would just begin
        assert "only" in one_line(pare("bench", "--shape", "llama-2-70b", "--weights", "f32"), 1)


def test_bench_of_a_paper(tmp_path):
    args = ("bench", "--paper", "bitnet", "--shapes", "125m", "--prompt", "4", "--gen", "2", "--runs", "1", "--threads-list", "2", "--json")
    done = pare(*args)
    assert done.returncode in (0, 1), done  # on a busy machine a measurement may not count
    f16, ternary = json.loads(done.stdout)["rows"]
    assert (f16["size"], f16["weights"], f16["left_out"]) == ("125M", "f16", None)
    assert (ternary["size"], ternary["shape"], ternary["weights"]) == ("125M", "bitnet-125m", "ternary")
    # 11 layers of hidden size 768 and MLP 3072, the embedding of 32002 tokens shared with the output.
    matrices = 11 * (4 * 768 * 768 + 3 * 768 * 3072)
    decode = [row["reports"][0]["results"][1] for row in (f16, ternary)]
    assert decode[0]["weight_bytes_per_token"] == 2 * (matrices + 32002 * 768)
    # 1.6 to 2 bits a weight and the head in Q6_K, of which all rows need 5 bits of 6.
    head = 32002 * 768 * (210 - 32) / 256
    assert matrices * 1.6 / 8 < decode[1]["weight_bytes_per_token"] - head < matrices * 2.1 / 8
    assert decode[0]["times_f16"] is None
    ratio = decode[1]["tokens_per_second"] / decode[0]["tokens_per_second"]
    assert decode[1]["times_f16"] == pytest.approx(ratio)
    joules = [row["joules_per_token"] for row in decode]
    assert all(j is None or j > 0 for j in joules)


@pytest.mark.parametrize(
    "args, says",
    [
        (["--paper", "bitnet", "--shapes", "9B"], "125M, 350M, 700M"),
        (["--paper", "bitnet", "--shape", "bitnet-7b"], "--shape does not go with --paper"),
        (["--paper", "bitnet", "--gen", "0"], "--gen 0"),
        (["--paper", "attention"], "bitnet"),
        (["--shape", "bitnet-7b", "--shapes", "7B"], "--shapes is for --paper"),
    ],
)
def test_bench_of_a_paper_refuses(args, says):
    assert says in one_line(pare("bench", *args), 2)


def test_bench_of_a_paper_leaves_out_what_memory_cannot_hold():
    available = int(re.search(r"MemAvailable: +(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) * 1024
    if available < 20e9:  # a larger machine would just begin
        args = ("bench", "--paper", "bitnet", "--shapes", "100B", "--threads-list", "1", "--kernel", "i2", "--json")
        rows = json.loads(pare(*args, check=0).stdout)["rows"]
        assert [row["weights"] for row in rows] == ["f16", "ternary"]
        for row in rows:
            assert "bitnet-100b" in row["left_out"] and "available" in row["left_out"] and row["reports"] == []


# completion


def test_completion_scripts_parse_and_complete():
    script = pare("completion", "bash", check=0).stdout
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0

    def complete(*words):
        ask = f"{script}\nCOMP_WORDS=(pare {' '.join(words)}); COMP_CWORD={len(words)}; _pare; echo ${{COMPREPLY[@]}}"
        return subprocess.run(["bash", "-c", ask], capture_output=True, text=True).stdout.split()

    assert complete("insp") == ["inspect"]
    assert complete("run", "model", "--see") == ["--seed"]
    assert complete("completion", "'z'") == ["zsh"]
    for command in commands():
        assert f"    {command}) " in script
        for shell in ("zsh", "fish"):
            assert command in pare("completion", shell, check=0).stdout
