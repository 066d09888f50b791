"""The front for plug-ins: its signatures, what importing it loads, and that the documented examples import nothing else."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import pytest

import visloop
from tests.support.paths import GOLDEN, ROOT

SIGNATURES = GOLDEN / "visloop.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def signatures() -> str:
    return "".join(f"{line}\n" for name in visloop.__all__ for line in described(name))


def described(name: str) -> Iterator[str]:
    """A public name as the file shows it: a class with fields and methods, a function with parameters, an alias in full."""
    member: Any = getattr(visloop, name)
    if name == "__version__":
        yield "__version__: str"
    elif inspect.isfunction(member):
        yield f"def {name}{unquoted(inspect.signature(member))}"
    elif not inspect.isclass(member):
        text = repr(member) if name == "Request" else repr(member).replace(repr(visloop.Request), "Request")
        yield f"{name} = {re.sub(r'(?:[A-Za-z_]+[.])+', '', text)}"
    elif issubclass(member, StrEnum):
        yield f"class {name}(StrEnum): " + ", ".join(member)
    else:
        yield f"class {name}" + (f"({member.__base__.__name__})" if issubclass(member, Exception) else "")
        for field in dataclasses.fields(member) if dataclasses.is_dataclass(member) else ():
            factory = field.default_factory
            default = f"{factory.__name__}()" if inspect.isclass(factory) else repr(field.default)
            optional = field.default is not dataclasses.MISSING or factory is not dataclasses.MISSING
            yield f"    {field.name}: {field.type}" + (f" = {default}" if optional else "")
        for method, function in vars(member).items():
            if isinstance(function, property):
                yield f"    {method}{unquoted(inspect.signature(function.fget))}"
            elif not method.startswith("_") and inspect.isfunction(function):
                yield f"    def {method}{unquoted(inspect.signature(function))}"


def unquoted(signature: inspect.Signature) -> str:
    """Annotations are texts; without their quotation marks."""
    return re.sub(r"""(: |-> )(['"])(.*?)\2""", r"\1\3", str(signature))


def test_what_plug_ins_rely_on_does_not_change_by_accident() -> None:
    """Other people's packages rely on every line of the file; what changes in it goes into the CHANGELOG."""
    assert signatures() == SIGNATURES.read_text()


def test_what_is_imported_is_public_and_in_order() -> None:
    tree = ast.parse((ROOT / "visloop.py").read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(visloop.__all__) == imported - {"annotations", "version"} | {"__version__"}
    assert visloop.__all__ == sorted(visloop.__all__, key=lambda name: (not name.isupper(), name))


def test_importing_it_loads_neither_models_nor_prefect() -> None:
    heavy = ["torch", "transformers", "open_clip", "prefect", "duckdb", "pyarrow", "openai"]
    script = f"import sys, visloop; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout == "[]\n", result.stderr


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


def test_the_examples_of_the_documentation_import_only_the_front() -> None:
    """That they run is tested beside the registry of strategies."""
    sources = [source for page in ("strategies.md", "rewards.md") for source in examples(page)]
    assert len(sources) == 2
    rooms = ("flows", "tasks", "storage")
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                assert not [alias.name for alias in node.names if alias.name.split(".")[0] in rooms]
            elif isinstance(node, ast.ImportFrom) and node.module == "visloop":
                assert {alias.name for alias in node.names} <= set(visloop.__all__)
            elif isinstance(node, ast.ImportFrom):
                assert str(node.module).split(".")[0] not in rooms


def test_an_editable_install_brings_it_and_the_package_cannot_be_uploaded() -> None:
    assert PROJECT["tool"]["setuptools"]["py-modules"] == ["visloop"]
    assert PROJECT["project"]["scripts"]["visloop"] == "flows.cli.command:main"
    assert "Private :: Do Not Upload" in PROJECT["project"]["classifiers"]


@pytest.mark.parametrize("page", ["strategies.md", "rewards.md"])
def test_the_documentation_says_how_plug_ins_are_installed(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert "checkout" in text and f"visloop.{page.removesuffix('.md')}" in text


if __name__ == "__main__":  # python -m tests.test_visloop: a deliberate change
    SIGNATURES.write_text(signatures())
