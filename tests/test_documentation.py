"""The documentation is true: figures are the results files', and links, files and modules that are named exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md", "CONTRIBUTING.md", "deployments/README.md", "deployments/demo/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]  # fmt: skip
WORDS = 1800  # of the README, as `wc -w` counts them


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= WORDS


def test_the_figures_are_those_of_the_results_files() -> None:
    from benchmarks.readme import PAGES, RESULTS, filled

    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert filled(page, text, RESULTS) == text, "run python -m benchmarks.readme"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{page} links to {target}"


def defined(module: Path) -> set[str]:
    """The names that a module's top level defines."""
    names = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {
                child.id for child in ast.walk(node) if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)
            }
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a package, a module, or something that a module defines."""
    path = ROOT / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    module = path.parent.with_suffix(".py")
    return module.is_file() and path.name in defined(module)


@pytest.mark.parametrize("page", PAGES)
def test_modules_and_files_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    tops = "flows|tasks|storage|tests|benchmarks|deployments|docs"
    for name in re.findall(rf"(?<![\w/.-])(?:{tops})/[\w./-]*\w", text):
        assert (ROOT / name).exists(), f"{page} names {name}"
    for dotted in re.findall(r"(?<![\w/.])(?:flows|tasks|storage|benchmarks)(?:\.[a-zA-Z_]\w*)+(?![\w/])", text):
        assert is_there(dotted), f"{page} names {dotted}"
    for module, names in re.findall(r"^from ((?:flows|tasks|storage)[\w.]*) import (.+)$", text, flags=re.M):
        assert all(is_there(f"{module}.{name.strip()}") for name in names.split(",")), f"{page} imports {names}"


def test_the_tree_of_the_architecture_names_what_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page.split("## The folders")[1].split("```text\n")[1].split("```")[0]
    parents: list[str] = []
    named = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.split(r" {2,}", line.strip())[0].split():
            path = "/".join([*parents[:depth], name.rstrip("/")])
            assert (ROOT / path).exists(), path
            named.add(path)
        parents[depth:] = [name.rstrip("/")]
    parts = [ROOT / part for part in ("flows", "tasks", "tasks/core")]
    folders = {init.parent.relative_to(ROOT).as_posix() for part in parts for init in part.glob("*/__init__.py")}
    assert folders <= named, f"not in the tree: {sorted(folders - named)}"
