"""pare shrink from the command line, on stories260K: the file, the numbers, the report, stopping and going on."""

import contextlib
import html.parser
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import time

import gguf
import pytest

PARE = os.environ["PARE"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("PARE_SHARED", ROOT.parent / "shared"))
STORIES = SHARED / "data/models/stories260K/stories260K.gguf"
SMALL = ["--tokens", "4096", "--ctx", "256", "--trials", "50"]


def pare(*args, check=0):
    done = subprocess.run([PARE, *map(str, args)], capture_output=True, text=True, timeout=600)
    assert done.returncode == check, done
    return done


def refused(*args, code=1):
    done = pare(*args, check=code)
    assert done.stdout == "" and done.stderr.startswith("pare: ") and done.stderr.count("\n") == 1, done
    return done.stderr


def shrink_json(*args):
    return json.loads(pare("shrink", STORIES, *SMALL, "--json", *args).stdout)


class Page(html.parser.HTMLParser):
    """Checks that every element is closed in turn and nothing comes from elsewhere; gathers text and data."""

    VOID = {"meta", "br", "i_", "link", "img", "hr"}

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.text, self.data, self.tags = [], "", None, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert not {"src", "href"} & {name for name, _ in attributes}, (tag, attributes)
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][1].get("id") == "data":
            self.data = json.loads(data)
        elif self.open and self.open[-1][0] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shrunk")
    out = folder / "small.gguf"
    result = shrink_json("-o", out, "--quality", "90%", "--report", folder / "report", "--against-random")
    return folder, out, result


def test_the_file_is_what_the_json_says(shrunk):
    _, out, result = shrunk
    assert out.stat().st_size == result["result"]["bytes"] < result["base"]["bytes"]
    assert result["result"]["quality"] >= 0.9
    assert result["smaller"] == pytest.approx(result["base"]["bytes"] / result["result"]["bytes"])
    field = gguf.GGUFReader(out).get_field("pare.plan")
    assert json.loads(field.contents()) == result["result"]["plan"]
    assert result["output"] == str(out)


def test_steps_alone_and_together(shrunk):
    _, _, result = shrunk
    steps = {step["name"]: step for step in result["steps"]}
    assert list(steps) == ["as it is", "drops alone", "types alone", "drops and types"]
    assert "store" not in steps["drops alone"]["plan"] and "drop" not in steps["types alone"]["plan"]
    assert steps["drops and types"]["plan"]["drop"] == steps["drops alone"]["plan"]["drop"]
    assert steps["drops and types"]["plan"]["store"] == steps["types alone"]["plan"]["store"]
    assert steps["as it is"]["quality"] == 1 and steps["as it is"]["kl"] == 0
    for step in result["steps"]:
        assert step["decode_tokens_per_second"] > 0 and step["decode_speed"] > 0


def test_two_sizes_with_and_without_drops(shrunk):
    _, _, result = shrunk
    assert len(result["comparisons"]) == 2
    for comparison in result["comparisons"]:
        with_drops, without = comparison["with_drops"], comparison["without_drops"]
        assert with_drops["plan"]["drop"] and with_drops["bytes"] <= comparison["bytes"]
        assert without is None or ("drop" not in without["plan"] and without["bytes"] <= comparison["bytes"])


def test_the_search_beats_chance(shrunk):
    _, _, result = shrunk
    assert [at["bytes"] for at in result["random"]] == sorted({at["bytes"] for at in result["random"]})
    assert result["result"]["bytes"] in [at["bytes"] for at in result["random"]]
    for at in result["random"]:
        found = [t["kl"] for t in result["trials"] if t["bytes"] <= at["bytes"]]
        assert at["searched_kl"] == min(found)
        assert at["random_kl"] is None or at["searched_kl"] <= at["random_kl"]
        assert at["searched_kl"] != at["random_kl"] or at["bytes"] >= result["base"]["bytes"]


def test_the_front_is_a_front(shrunk):
    _, _, result = shrunk
    front = [t for t in result["trials"] if t["on_front"]]
    assert len(front) >= 3
    for trial in result["trials"]:
        better = [t for t in front if t["bytes"] <= trial["bytes"] and t["kl"] <= trial["kl"] and t["speed"] >= trial["speed"]]
        assert better, trial


def test_the_report_is_one_page_with_the_numbers(shrunk):
    folder, _, result = shrunk
    files = [path.name for path in (folder / "report").iterdir()]
    assert files == ["index.html"]
    text = (folder / "report/index.html").read_text()
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    page = Page(text)
    chosen = result["result"]
    for number in [f"{result['smaller']:.2f}×", f"{100 * chosen['quality']:.2f}%", f"{100 * chosen['top1']:.1f}%",
                   f"{chosen['kl']:.4f}", f"{chosen['perplexity']:.2f}"]:
        assert number in page.text, number
    for step in result["steps"]:
        assert step["name"] in page.text and f"{100 * step['quality']:.2f}%" in page.text
    assert page.data["result"]["bytes"] == chosen["bytes"]
    assert len(page.data["trials"]) == len(result["trials"])
    assert sum(trial["chosen"] for trial in page.data["trials"]) == 1
    assert len(page.data["layers"]) == 5
    assert sum(e["bytes"] for e in page.data["sizes"]["base"]) <= result["base"]["bytes"]
    charts = {a.get("id") for tag, a in page.tags if a.get("class") == "chart"}
    assert charts == {"front", "grid", "importance", "sizes", "speed"}


def test_eval_agrees_that_it_is_close_to_the_base(shrunk):
    _, out, result = shrunk
    measured = json.loads(pare("eval", out, "--against", STORIES, "--tokens", "2048", "--json").stdout)
    assert measured["against"]["mean_kl"] == pytest.approx(result["result"]["kl"], rel=0.5)


def test_the_table_for_people(shrunk, tmp_path):
    folder, _, result = shrunk
    # The trials are all there: only the file is made again.
    done = pare("shrink", STORIES, *SMALL, "--quality", "0.9", "-o", tmp_path / "s.gguf", "--db", folder / "small.gguf.trials.db")
    text = done.stdout
    assert f"{result['smaller']:.2f}x smaller" in text
    assert f"quality {100 * result['result']['quality']:.2f}% of the original's" in text
    assert "What each step costs and gains, alone and together" in text
    assert "At two sizes, the best plan with drops and the best without" in text
    assert "drops alone (" in text and text.count("(wins)") == 2


def test_interrupted_and_started_again(tmp_path):
    out = tmp_path / "small.gguf"
    command = [PARE, "shrink", STORIES, "--tokens", "8192", "--ctx", "256", "--trials", "80", "--quality", "90%", "-o", out, "--json"]
    database = tmp_path / "small.gguf.trials.db"
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def trials():
        try:
            with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
                return connection.execute("SELECT count(*) FROM trials").fetchone()[0]
        except sqlite3.OperationalError:
            return 0

    deadline = time.time() + 120
    while trials() < 5 and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130 and stdout == "", (process.returncode, stderr)
    assert "goes on from there" in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [database.name]
    kept = trials()
    assert kept >= 5
    rest = json.loads(pare(*command[1:]).stdout)
    whole = json.loads(pare(*command[1:-2], tmp_path / "other.gguf", "--json").stdout)
    assert rest["search"]["scores_remembered"] >= kept
    assert rest["search"]["scores_remembered"] + rest["search"]["scores_evaluated"] == whole["search"]["scores_evaluated"]
    assert rest["result"]["plan"] == whole["result"]["plan"] and rest["result"]["kl"] == whole["result"]["kl"]
    assert out.read_bytes() == (tmp_path / "other.gguf").read_bytes()


def test_a_budget_that_cannot_be_met(tmp_path):
    out = tmp_path / "small.gguf"
    line = refused("shrink", STORIES, *SMALL, "--quality", "99.9%", "--size", "300k", "-o", out, "-q")
    assert re.search(r"nothing was found within the budget \(quality 99\.9%, 0\.3 MB\); what came closest has "
                     r"[\d.]+ MB and quality [\d.]+%", line)
    assert not out.exists()


def test_a_database_of_somebody_else(tmp_path):
    other = tmp_path / "notes.db"
    other.write_text("these are notes of mine\n" * 100)
    line = refused("shrink", STORIES, *SMALL, "-o", tmp_path / "s.gguf", "--db", other, "--fresh", "-q")
    assert "notes.db" in line and "not a database" in line
    assert other.read_text() == "these are notes of mine\n" * 100


@pytest.mark.parametrize("arguments, expected", [
    (["--quality", "many"], "--quality: 'many' is not a quality such as 97%"),
    (["--quality", "120%"], "--quality: 120% is not between 0 and 100%"),
    (["--quality", "0"], "--quality: 0 is not between 0 and 100%"),
    (["--speed", "fast"], "--speed: 'fast' is not a factor such as 1.5x"),
    (["--speed", "0"], "--speed: '0' is not a factor"),
    (["--time", "5 minutes"], "--time: '5 minutes' is not a time"),
    (["--time", "0s"], "--time: '0s' is no time"),
    (["--size", "0"], "--size: '0' is not a size"),
    (["--trials", "0"], "--trials"),
])
def test_wrong_arguments(arguments, expected, tmp_path):
    assert expected in refused("shrink", STORIES, "-o", tmp_path / "s.gguf", *arguments, code=2)
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written(tmp_path):
    assert "writes a .gguf file" in refused("shrink", STORIES, "-o", tmp_path / "folder", code=2)
    assert "missing" in refused("shrink", STORIES, "-o", tmp_path / "missing/s.gguf")
    (tmp_path / "file").write_text("")
    assert "file" in refused("shrink", STORIES, "-o", tmp_path / "s.gguf", "--report", tmp_path / "file")
    assert not (tmp_path / "s.gguf").exists()


def test_size_and_speed_budgets(shrunk, tmp_path):
    folder, _, _ = shrunk
    database = ["--db", folder / "small.gguf.trials.db"]
    result = shrink_json("-o", tmp_path / "a.gguf", "--size", "400kB", *database)
    assert result["result"]["bytes"] <= 400_000 and result["budget"]["quality"] is None
    # What a busy machine always reaches: how the search trades speed is tested on made-up costs.
    result = shrink_json("-o", tmp_path / "b.gguf", "--speed", "0.2x", "--quality", "50%", *database)
    assert result["result"]["decode_speed"] >= 0.2 and result["result"]["quality"] >= 0.5


def test_the_model_writes_its_own_text(tmp_path):
    result = json.loads(pare("shrink", STORIES, "-o", tmp_path / "s.gguf", "--calibration", "self", "--tokens", "1024",
                             "--ctx", "128", "--trials", "20", "--quality", "80%", "--json").stdout)
    assert result["calibration"] == "text that the model wrote itself"
    assert result["result"]["quality"] >= 0.8
