"""Blinded A/B sheets: which pairs, which side, and the ratings in the raters' files.

The protocol is VisVM's human evaluation: random pairs, blind, in random order, -1/0/+1. A rating is -1 (left is better), 0 or
+1 (right is better).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from tasks.core.seeds import seed_for

COLUMNS = ("sheet", "rater", "pair", "rating")
_RATINGS = {"-1": -1, "\N{MINUS SIGN}1": -1, "0": 0, "1": 1, "+1": 1}
Key = tuple[str, int]  # rater, pair


class Problem(NamedTuple):
    """A row of a rater's file that does not count, or counts once only."""

    item_id: str
    reason: str
    detail: str


def sheet_id(digest: str) -> str:
    """What a sheet is called in its files, from the digest of its key: it does not reveal whose captions it holds."""
    return digest[:12]


def draw_pairs(ids: Iterable[str], count: int, seed: int) -> list[tuple[str, bool]]:
    """(id, whether A stands left) of `count` items by seed, in the sheet's order; A stands left in half of them.

    Of an odd number, A stands left in the smaller half.

    Raises:
        ValueError: fewer items than pairs.
    """
    known = sorted(ids, key=lambda item: seed_for("sheet", seed, item))
    if len(known) < count:
        raise ValueError(f"{count} pairs of {len(known)} items")
    drawn = known[:count]
    left = set(sorted(drawn, key=lambda item: seed_for("sheet side", seed, item))[: count // 2])
    return [(item, item in left) for item in drawn]


def blank_ratings(sheet: str, pairs: Iterable[int]) -> str:
    """The file that a rater without the page fills in: one row a pair, rater and rating empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((sheet, "", pair, "") for pair in pairs)
    return text.getvalue()


def read_ratings(
    name: str, text: str, *, sheet: str, pairs: Collection[int]
) -> tuple[list[tuple[Key, int]], list[Problem]]:
    """((rater, pair), rating) of one file's filled-in rows, and the rows that are none.

    Columns are separated by commas, semicolons or tabs, as spreadsheets write them. A row without a rater is its file's.

    Args:
        name: of the file, for what is refused and for rows without a rater.
        text: what it holds.
        sheet: the sheet's identity.
        pairs: the sheet's.

    Raises:
        ValueError: a column is missing.
    """
    head = text.lstrip("\ufeff").partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff")), delimiter=max(",;\t", key=head.count))
    missing = set(COLUMNS) - {str(column).strip() for column in reader.fieldnames or ()}
    if missing:
        raise ValueError(f"{name}: no column {', '.join(sorted(missing))}; a file of ratings has {', '.join(COLUMNS)}")
    ratings: list[tuple[Key, int]] = []
    problems: list[Problem] = []
    for number, row in enumerate(reader, start=2):
        cells = {str(column).strip(): (value or "").strip() for column, value in row.items() if isinstance(column, str)}
        if not cells["rating"]:
            continue  # not rated: counted as missing, whether the row is there or not
        reason = _refusal(cells, sheet, pairs)
        if reason:
            problems.append(Problem(f"{name}:{number}", *reason))
        else:
            ratings.append(((cells["rater"] or name, int(cells["pair"])), _RATINGS[cells["rating"]]))
    return ratings, problems


def settle(ratings: Iterable[tuple[Key, int]]) -> tuple[dict[Key, int], list[Problem]]:
    """One rating a rater and pair: repeats count once, contradictions not at all; both are problems."""
    given_by: dict[Key, list[int]] = {}
    for key, rating in ratings:
        given_by.setdefault(key, []).append(rating)
    problems = []
    for (rater, pair), given in sorted(given_by.items()):
        if len(given) > 1:
            reason = "duplicate" if len(set(given)) == 1 else "contradiction"
            counts = "counted once" if reason == "duplicate" else "not counted"
            detail = f"rated {len(given)} times ({', '.join(f'{rating:+d}' for rating in given)}), {counts}"
            problems.append(Problem(f"{rater} pair {pair}", reason, detail))
    return {key: given[0] for key, given in sorted(given_by.items()) if len(set(given)) == 1}, problems


def _refusal(cells: Mapping[str, str], sheet: str, pairs: Collection[int]) -> tuple[str, str] | None:
    """(reason, detail) why a filled-in row can't count; None if it can."""
    if cells["sheet"] != sheet:
        return "other_sheet", f"of sheet {cells['sheet']!r}, these are ratings of {sheet!r}"
    if not cells["pair"].isdecimal() or int(cells["pair"]) not in pairs:
        return "unknown_pair", f"pair {cells['pair']!r}, the sheet has 1 to {max(pairs)}"
    if cells["rating"] not in _RATINGS:
        return "bad_rating", f"rating {cells['rating']!r}, one of -1 (left), 0 (equal), 1 (right) was needed"
    return None
