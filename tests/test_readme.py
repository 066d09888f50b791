"""The commands of the documentation work: every line of the `sh` blocks of README.md and docs/command-line.md runs, in
order, in one checkout, and so does the README's Python.

Lines run as they stand, but for this, so that all of it takes a minute on two cores:

- `make demo` and `make test` are read, not executed (this test is part of `make test`): they must be targets, and the
  loop that `make demo` ends with is run.
- `visloop run`, `plan` and `compare` of a shipped profile get SMALL numbers in front of their own settings. The 7B run,
  which needs a GPU and COCO, is planned: on the demo's models and a demo data set in COCO's layout.
- `prefect server start` and `prefect worker start` stay up, must say that they are ready, and are ended at the end. The
  server's address has another port.

`visloop` runs inside this process (`flows.cli.command.main`), everything else in a shell.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visloop"  # as in conftest.py
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN = {page: (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/command-line.md")}
BLOCKS = [block for text in RUN.values() for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S)]
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line and not line.startswith("#")]
PYTHON = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)

SMALL = [
    "rounds=1", "sample.images=12", "rollout.temperatures=[0.8]", "value.epochs=1", "value.min_spearman=-1",
    "search.candidates=2", "search.max_sentences=4", "finetune.epochs=1", "evaluate.images=8", "evaluate.bootstrap=100",
    "health.images=4", "health.action=warn", "runtime.shards=1", "data.benchmark.images=100",
]  # fmt: skip
DRAWN = [*SMALL, "data.train.images=100"]
SMALL_OF = {
    "demo": DRAWN,
    "demo-vimar": DRAWN,
    "demo-fisao": DRAWN,
    "demo-cot": DRAWN,
    "folder": SMALL,
    "visvm-llava-next-7b": [
        "policy.checkpoint=deployments/demo/policy", "policy.dtype=float32", "scorer.checkpoint=deployments/demo/scorer",
        "data.train.split=train", "data.benchmark.split=test", "runtime.device=cpu",
    ],
}  # fmt: skip


def wait_until(what: str, ready, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what}: not after {seconds} s"
        time.sleep(0.2)


class Reader:
    """Somebody who types the README's lines, one after another, in a checkout of their own."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.home = folder / "visloop", folder / "home"
        self.checkout.mkdir()
        self.home.mkdir()
        for entry in ROOT.iterdir():
            if entry.name not in {".git", "artifacts", "scenes"}:
                (self.checkout / entry.name).symlink_to(entry)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.running: list[subprocess.Popen[bytes]] = []
        self.environment = {
            "HOME": str(self.home),
            "PREFECT_HOME": str(self.home / ".prefect"),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "VISLOOP_HOME": str(self.checkout / "artifacts"),
            "VISLOOP_CHECKOUT": str(self.checkout),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def own_images(self) -> None:
        """A folder of pictures, one of them broken, and a data set in COCO's layout."""
        import PIL.Image

        from tasks.demo.dataset import write_demo_dataset

        write_demo_dataset(self.home / "coco", 60, 1)
        (self.home / "pictures").mkdir()
        for path in sorted((self.home / "coco" / "train").glob("*.png"))[:16]:
            PIL.Image.open(path).convert("RGB").save(self.home / "pictures" / f"{path.stem}.jpg")
        (self.home / "pictures" / "notes.png").write_text("no picture at all")

    def use_template(self, template: Path) -> None:
        """A database that is migrated already saves the server half a minute."""
        if template.exists():
            (self.home / ".prefect").mkdir()
            shutil.copy(template, self.home / ".prefect" / "prefect.db")
            self.environment["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = "false"

    def shell(self, line: str) -> None:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.checkout,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"

    def keep_running(self, line: str) -> Path:
        """Start what is to stay up; returns the file with its output."""
        output = self.home / f"output-{len(self.running)}.txt"
        with output.open("wb") as out:
            self.running.append(
                subprocess.Popen(
                    shlex.split(line), cwd=self.checkout, env={**os.environ, **self.environment}, stdout=out,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )
            )  # fmt: skip
        return output

    def visloop(self, line: str) -> None:
        from flows.cli.command import main

        words = [part for word in shlex.split(line)[1:] for part in self.expanded(word)]
        try:
            main(words)
        except SystemExit as end:
            assert not end.code, f"{line}: exit code {end.code}"

    def expanded(self, word: str) -> list[str]:
        """As a shell does with `~/pictures/*.jpg`."""
        return sorted(map(str, self.home.glob(word[2:]))) if word.startswith("~/") else [word]

    def printed(self, output: Path, word: str) -> bool:
        """Whether the process that was started last has printed this; it must not have ended."""
        assert self.running[-1].poll() is None, output.read_text()
        return word in output.read_text()

    def server_answers(self) -> bool:
        assert self.running[0].poll() is None, (self.home / "output-0.txt").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def end(self) -> None:
        for process in reversed(self.running):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        for process in reversed(self.running):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Reader]:
    """The server comes first, wherever the README starts it: all runs report to it."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    reader = Reader(tmp_path_factory.mktemp("reader"))
    template = CACHE / f"prefect-{importlib.metadata.version('prefect')}.db"
    if not template.exists():
        request.getfixturevalue("prefect_server")  # leaves a template
    reader.use_template(template)
    with pytest.MonkeyPatch.context() as patch, temporary_settings(
        {PREFECT_API_URL: reader.url, PREFECT_HOME: reader.home / ".prefect"}
    ):  # fmt: skip
        for name, value in reader.environment.items():
            patch.setenv(name, value)
        patch.chdir(reader.checkout)
        try:
            reader.keep_running("prefect server start")
            reader.own_images()
            import tasks.core.train.sft  # noqa: F401  seconds of imports, while the server starts

            wait_until("prefect server start", reader.server_answers)
            reader.environment["PREFECT_API_URL"] = reader.url
            yield reader
        finally:
            reader.end()


def small(line: str, home: Path) -> str:
    """A run or plan with SMALL numbers in front of its own settings; what needs a GPU is planned."""
    verb, profile, rest = re.fullmatch(r"visloop (run|plan|compare) (\S+)(.*)", line).groups()
    verb = "plan" if profile == "visvm-llava-next-7b" else verb
    settings = " ".join(f"--set {shlex.quote(setting)}" for setting in SMALL_OF[profile])
    return f"visloop {verb} {profile} {settings}{rest}".replace("/data/coco", str(home / "coco"))


def make_prints(target: str) -> list[str]:
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_works(line: str, reader: Reader) -> None:
    if line == "make demo":
        assert make_prints("demo")[-1].endswith(".venv/bin/visloop run demo")
        reader.visloop(small("visloop run demo", reader.home))
    elif line == "make test":
        assert "-m pytest" in make_prints("test")[-1]
    elif line == ". .venv/bin/activate":
        makefile = (ROOT / "Makefile").read_text()
        assert "VENV = .venv\n" in makefile and "-m venv --clear $(VENV)" in makefile
    elif line.startswith(("visloop run ", "visloop plan ", "visloop compare ")):
        reader.visloop(small(line, reader.home))
    elif line.startswith("visloop"):
        reader.visloop(line)
    elif line.startswith("export PREFECT_API_URL="):
        assert "http://127.0.0.1:4200/api" in line and "VISLOOP_CHECKOUT=$PWD" in line
    elif line == "prefect server start":
        assert reader.server_answers()
    elif line.startswith("prefect worker start"):
        output = reader.keep_running(line)
        wait_until(line, lambda: reader.printed(output, "started"))
    else:
        reader.shell(line)


@pytest.mark.slow
@pytest.mark.parametrize("source", PYTHON)
def test_the_python_of_the_readme_runs(source: str, reader: Reader) -> None:
    line = 'load_profile("demo", ['
    assert line in source
    exec(compile(source.replace(line, f"{line}*{DRAWN!r}, "), "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("page", RUN)
def test_every_block_of_commands_is_executed(page: str) -> None:
    opening = re.findall(r"^```(\w*)$", RUN[page], flags=re.M)[::2]
    assert set(opening) <= {"sh", "text", "python"}, "commands go into sh blocks, where they are tested"
    assert len(COMMANDS) > 10 and PYTHON


def test_the_lock_pins_everything_the_project_requires() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert not [line for line in lines if "+" in line or "@" in line], "no local labels, no addresses"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text
