"""No name or sentence of this project has a word that says nothing or that only this project knew.

Definitions are what counts: what is assigned, a parameter, a function, a class, a field, an attribute of `self`, a variable of
a loop, a comprehension, an `as` or a pattern. Where a name is only used, the definition is reported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("flows", "tasks", "storage", "benchmarks", "tests", "visloop.py")

NAMELESS = ("one", "said", "told", "found", "few", "asked")  # fit anything, so they name nothing
PRIVATE = (  # words that only this project knew; docs/glossary.md has the field's
    "Desk", "Place", "Spoken", "Told", "Said", "Found", "Say", "Reply", "Split", "refill", "Ground", "lay_ground",
    "learn_guide", "tau", "weak_below", "by_captions", "by_groups", "by_words", "weigh", "Remembered", "tuned",
)  # fmt: skip
BANNED = frozenset((*NAMELESS, *PRIVATE))
BANNED_PREFIXES = ("tune_",)

EXEMPT = {
    ("tasks/configs/reward.py", "tau"): "a key of the profile, label.tau: changing it would break users' files",
}

Definition = tuple[int, str]  # line, name


def definitions(tree: ast.AST) -> Iterator[Definition]:
    """Every name that a module defines, with its line; names that it imports keep their own unless an `as` renames them."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield node.lineno, name
            case ast.Call(func=ast.Name(id="dict"), keywords=keywords):
                yield from ((keyword.value.lineno, keyword.arg) for keyword in keywords if keyword.arg)


def is_banned(name: str) -> bool:
    return name in BANNED or name.startswith(BANNED_PREFIXES)


def banned_in(path: Path, root: Path = ROOT) -> list[str]:
    """`file:line name` of every banned name that a file defines and that isn't exempt."""
    relative = path.relative_to(root).as_posix()
    return [
        f"{relative}:{line} {name}"
        for line, name in sorted(set(definitions(ast.parse(path.read_text(encoding="utf-8")))))
        if is_banned(name) and (relative, name) not in EXEMPT
    ]


def sources(*rooms: str) -> list[Path]:
    paths = (ROOT / room for room in rooms)
    return sorted(file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path]))


@pytest.mark.parametrize("room", SOURCES)
def test_no_banned_name_is_defined(room: str) -> None:
    files = sources(room)
    assert files, f"{room} has no source"
    problems = [problem for path in files for problem in banned_in(path)]
    assert not problems, "rename to the field's noun:\n" + "\n".join(problems)


@pytest.mark.parametrize(
    "planted",
    [
        "one = 1",
        "first, *(rest, one) = row",
        "one: int = 1",
        "one += 1",
        "if (one := row): pass",
        "for one in rows: pass",
        "[one for one in rows]",
        "{key: value for key, one in rows for value in one}",
        "with row as one: pass",
        "try: pass\nexcept ValueError as one: pass",
        "import json as one",
        "from json import loads as one",
        "def read(one): pass",
        "def read(*, one=1): pass",
        "def read(*one): pass",
        "def read(**one): pass",
        "lambda one: 1",
        "def one(): pass",
        "async def one(): pass",
        "class one: pass",
        "class Row:\n    one: int",
        "class Row:\n    def __init__(self):\n        self.one = 1",
        "match row:\n    case [1, *one]: pass",
        "match row:\n    case {'a': 1, **one}: pass",
        "match row:\n    case str() as one: pass",
        "dict(one=1)",
        "def outer():\n    def inner():\n        one = 1",
    ],
)
def test_a_planted_definition_is_caught(planted: str, tmp_path: Path) -> None:
    file = tmp_path / "planted.py"
    file.write_text(planted)
    assert [problem.rpartition(" ")[2] for problem in banned_in(file, tmp_path)] == ["one"]


@pytest.mark.parametrize("name", sorted([*BANNED, "tune_policy"]))
def test_every_word_of_the_list_is_caught(name: str, tmp_path: Path) -> None:
    file = tmp_path / "planted.py"
    file.write_text(f"{name} = 1")
    assert banned_in(file, tmp_path) == [f"planted.py:1 {name}"]


@pytest.mark.parametrize(
    "allowed", ["print(one)", "row.found", "read(one=1)", "'one'", "# one", "one_by_one = 1", "from json import one"]
)
def test_what_only_uses_or_contains_such_a_word_is_no_definition(allowed: str, tmp_path: Path) -> None:
    file = tmp_path / "planted.py"
    file.write_text(allowed)
    assert banned_in(file, tmp_path) == []


@pytest.mark.parametrize(("file", "name"), EXEMPT)
def test_an_exemption_is_still_needed(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {defined for _, defined in definitions(tree)}, f"{file} defines no {name}: remove the exemption"


PHRASES = (  # of messages and pages; the field says: rejected, drift limit exceeded, health check failed, trained, ...
    r"kept out", r"blinder", r"goes? blind", r"ground (of|is|was|that)", r"not firm", r"for it drifted", r"parts? best",
    r"words that may be said", r"(?<!fine-)(?<!fine)tun(ed|es) (by|on|with|its)", r"lay(s|ing)? the ground",
)  # fmt: skip
PROSE = re.compile("|".join(rf"\b{phrase}\b" for phrase in PHRASES), re.IGNORECASE)
HISTORY = ("CHANGELOG.md", "docs/decisions/")  # tell what things were called


def prose_files() -> list[str]:
    pages = (
        "*.md",
        "docs/**/*.md",
        "deployments/**/*.md",
        "deployments/**/*.yaml",
        "tasks/**/*.jinja",
        "pyproject.toml",
    )
    paths = [*sources(*SOURCES), *(path for pattern in pages for path in ROOT.glob(pattern))]
    names = (path.relative_to(ROOT).as_posix() for path in paths)
    return [name for name in names if not name.startswith(HISTORY) and name != "tests/test_words.py"]


def test_no_sentence_keeps_an_old_word() -> None:
    names = prose_files()
    assert len(names) > 400
    problems = [
        f"{name}:{number} {match.group()}"
        for name in names
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        for match in PROSE.finditer(line)
    ]
    assert not problems, "say it in the field's words (docs/glossary.md):\n" + "\n".join(problems)


@pytest.mark.parametrize(
    "sentence", ["round 2 is kept out", "It GOES BLIND.", "a policy tuned on captions", "the ground is"]
)
def test_an_old_word_in_a_sentence_is_seen(sentence: str) -> None:
    assert PROSE.search(sentence)


@pytest.mark.parametrize("sentence", ["fine-tuned on captions", "a background is blurred", "the champion stays"])
def test_the_fields_words_pass(sentence: str) -> None:
    assert not PROSE.search(sentence)
