"""docs/models.md has a measured row for each tiny architecture; its checks see what is wrong, and an error ends in exit 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import model_checks as checks
from benchmarks.models import COLUMNS, Failures, main, row, table
from tasks.core.models.policy import PolicyError
from tests.support.tiny_models import BUILDERS, REFUSED, save_tiny

PAGE = Path(__file__).parents[4] / "docs" / "models.md"


def lines() -> dict[str, list[str]]:
    """Name -> cells of the page's rows."""
    rows = [line.replace(r"\|", "/").split("|")[1:-1] for line in PAGE.read_text(encoding="utf-8").splitlines()]
    return {
        cells[0].strip().strip("`"): [cell.strip() for cell in cells] for cells in rows if cells and "`" in cells[0]
    }


@pytest.fixture
def case(tmp_path: Path) -> checks.Case:
    torch.set_num_threads(1)
    return checks.opened(save_tiny("llava", tmp_path))[0]


def test_the_page_has_a_row_of_every_architecture_and_no_error() -> None:
    rows = lines()
    assert set(rows) == set(BUILDERS), "run python -m benchmarks.models --out docs/models.md"
    assert len(rows) - len(REFUSED) >= 30
    assert all(len(cells) == 2 + len(COLUMNS) for cells in rows.values())
    assert not [name for name, cells in rows.items() if any(cell.startswith(("error", "no:")) for cell in cells)]
    assert {name for name, cells in rows.items() if cells[2].startswith("refused: ")} == set(REFUSED)
    adapted = [tuple(map(int, cells[7].split(" of "))) for name, cells in rows.items() if name not in REFUSED]
    assert all(0.8 <= moved / matrices <= 1 for moved, matrices in adapted), "routers and idle experts are the rest"


@pytest.mark.parametrize("name", ["llava_vicuna", "florence2"])
def test_a_row_measured_again_is_the_page_s(name: str) -> None:
    torch.set_num_threads(1)
    failures = Failures()
    assert table({name: row(name, failures)}).splitlines()[-1] in PAGE.read_text(encoding="utf-8").splitlines()
    assert failures == []


def test_decoding_that_differs_is_counted(case: checks.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    other = [checks.noise(9, *size) for size in checks.SIZES]
    start = type(case.decoder).start
    monkeypatch.setattr(type(case.decoder), "start", lambda self, images, prompts: start(self, other, prompts))
    assert checks.forked_exact(case) == "no: 0 of 4 continuations"
    assert checks.value_by_states(case) == "no: 0 of 4 values"
    assert checks.greedy_exact(case).startswith("no: ")


def test_sequences_that_differ_are_counted(case: checks.Case) -> None:
    training = checks.run_sft(case.fresh(), "full")
    good = checks.sequence_equal(training, checks.ANSWERS)
    assert good == "yes"
    first, second = training.read
    for odd in (first[1:], first[:-1], [*first[:-1], 5, first[-1]], [first[0], *first]):
        assert checks.sequence_equal(training._replace(read=[odd, second]), checks.ANSWERS) == "no: 1 of 2 rows"
    assert checks.sequence_equal(training._replace(read=[]), checks.ANSWERS) == "no: nothing was read"


def test_matrices_and_towers_are_those_that_moved(case: checks.Case) -> None:
    training = checks.run_sft(case.fresh(), "lora")
    assert checks.lora_coverage(training) == "21 of 21"
    fewer = training.changed - {next(name for name in training.changed if "q_proj" in name)}
    tower = next(name for name, _ in case.policy.model.named_parameters() if "vision_tower" in name)
    assert checks.lora_coverage(training._replace(changed=fewer | {tower})) == "20 of 21, and 1 of a tower"
    full = checks.run_sft(case.fresh(), "full")
    assert checks.towers_alone(full, case.fresh()) == "yes"
    moved = full._replace(changed=full.changed | {tower})
    assert checks.towers_alone(moved, case.fresh()).startswith("no: 1 of ")


def test_an_error_is_no_cell_and_ends_the_script(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    def fail(case: checks.Case) -> str:
        raise KeyError("layer")

    def refuse(case: checks.Case) -> str:
        raise PolicyError("too odd | to read")

    monkeypatch.setattr(checks, "greedy_exact", fail)
    monkeypatch.setattr(checks, "forked_exact", refuse)
    page = tmp_path / "models.md"
    with pytest.raises(SystemExit, match="not written:\nllava, greedy exact: error: KeyError: 'layer'"):
        main(["--only", "llava", "--out", str(page)])
    assert not page.exists()
    assert r"| engine | error | refused: too odd \| to read |" in capsys.readouterr().out
