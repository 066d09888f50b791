"""Strategies over the same images and prompts, at several widths: what each reaches at equal measured work.

visloop compare demo --strategies best_of_n,visvm    is short for    visloop experiment compare --with best_of_n --with visvm
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError

from flows.experiments.bench import Arm, arm, evidence, prepare_bench, tokens_of, with_discount
from flows.experiments.contract import Experiment
from flows.experiments.controls import best_of_equal, split_gamma, with_controls
from flows.experiments.fronts import at_equal_work, front, note
from flows.profiles.errors import explain
from flows.profiles.loading import Profile, ProfileError
from flows.round.controls import CONTROLLED
from tasks.analysis.findings import Evidence, Findings, line_of, listed
from tasks.configs.search import SearchConfig, search_config
from tasks.report.experiment import Selection
from tasks.report.experiment_figures import Plot
from tasks.search.search import search_needs
from tasks.stage.quarantine import StageInputError

# The other built-in ones are for short answers (majority_vote) or for a policy that writes tagged stages.
STRATEGIES = ("greedy", "sample", "best_of_n", "clip_prm", "visvm", "vimar", "beam", "diverse_beam", "contrastive")
BUDGETS = (1, 2, 4, 8, 16)
# The setting that a width sets, if it is not `candidates`; None: the strategy has no width and runs once.
WIDENED: dict[str, str | None] = {
    "greedy": None,
    "sample": None,
    "contrastive": None,
    "stage_beam": "width",
    "swires": "captions",
}
LEAST = {"swires": 2, "diverse_beam": 2}  # SWIRES needs a second-best caption, diverse beam search a second group


class Entry(NamedTuple):
    """One search of a comparison."""

    name: str  # its spec and width: visvm@6
    width: float | None  # None: the strategy has no width
    config: SearchConfig
    gamma: float | None = None  # of a V beside the round's own
    beside: tuple[str, ...] = ()  # the specs whose control it is


class Request(NamedTuple):
    """What a comparison was asked for."""

    strategies: list[str]
    budgets: list[int]
    tokens: float | None  # decoded tokens per caption to compare at; None: those of visvm at the profile's candidates
    controls: bool = True  # beside visvm and vimar


def read_request(given: Sequence[str]) -> Request:
    """The request in a list of specs (NAME, or NAME:key=value,key=value), `budgets=1,2,4`, `tokens=100` and `controls=no`.

    Raises:
        ProfileError: budgets or tokens are not such numbers.
    """
    request = Request([], [], None)
    for text in given:
        key, _, value = text.partition("=")
        if key == "controls" and value not in ("yes", "no"):
            raise ProfileError(f"{text!r}: want controls=yes or controls=no")
        try:
            if key == "budgets":
                request.budgets.extend(int(part) for part in value.split(","))
            elif key == "tokens":
                request = request._replace(tokens=float(value))
            elif key == "controls":
                request = request._replace(controls=value == "yes")
            else:
                request.strategies.append(text)
        except ValueError:
            raise ProfileError(f"{text!r}: want budgets=1,2,4 (numbers of candidates) or tokens=100") from None
    if any(width < 1 for width in request.budgets):
        raise ProfileError(f"budgets {request.budgets}: want numbers of candidates, at least 1")
    if request.tokens is not None and not 1 <= request.tokens < float("inf"):
        raise ProfileError(f"tokens={request.tokens:g}: want decoded tokens a caption, at least 1")
    return request


def widened(spec: str, widths: Sequence[int]) -> list[tuple[str, str, float | None]]:
    """(name, spec with the width set, width) for each width; (spec, spec, None) if it has no width or sets it itself."""
    name, _, rest = spec.partition(":")
    key = WIDENED.get(name, "candidates")
    if key is None or any(part.partition("=")[0] == key for part in rest.split(",")):
        return [(spec, spec, None)]
    wide = sorted({max(width, LEAST.get(name, 1)) for width in widths})
    settings = [",".join(filter(None, (rest, f"{key}={width}"))) for width in wide]
    return [(f"{spec}@{width}", f"{name}:{more}", width) for width, more in zip(wide, settings, strict=True)]


def enter(
    profile: Profile, strategies: Sequence[str] = (), budgets: Sequence[int] = (), controls: bool = True
) -> list[Entry]:
    """Every strategy at every width it can have, those of visvm and vimar with their controls.

    Greedy is always the first: all are compared with it.

    Raises:
        ProfileError: a strategy, or one of its settings, does not exist.
    """
    widths = budgets or (*BUDGETS, profile.search.candidates)
    try:
        entries = {"greedy": Entry("greedy", None, search_config(profile.search, "greedy"))}
        for spec, beside in with_controls(profile, strategies or STRATEGIES, controls).items():
            plain, gamma = split_gamma(spec)
            for (name, *_), (_, wide, width) in zip(widened(spec, widths), widened(plain, widths), strict=True):
                entry = Entry(name, width, search_config(profile.search, wide), gamma, tuple(beside))
                entries.setdefault(name, entry)
        for entry in entries.values():
            needs = search_needs(entry.config)  # checks its own options
            if entry.gamma is not None and "value" not in needs:
                raise ValueError(f"{entry.name!r}: gamma is V's discount, and this search has no V")
        return list(entries.values())
    except ValidationError as error:
        raise ProfileError(explain(error, SearchConfig, "--strategies")) from None
    except (ValueError, StageInputError) as error:
        raise ProfileError(f"--strategies {error}") from None


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """All strategies that suit captions."""
    return run_with(profile, quick, ())


def run_with(profile: Profile, quick: bool, given: Sequence[str]) -> list[Evidence]:
    """Captions of the benchmark's images by every search, scored and paired with greedy."""
    request = read_request(given)
    widths = request.budgets or ([1, profile.search.candidates] if quick else [])
    entries = enter(profile, request.strategies, widths, request.controls)
    bench = prepare_bench(profile, needs=frozenset().union(*(search_needs(entry.config) for entry in entries)))
    benches = {gamma: with_discount(bench, gamma) for gamma in dict.fromkeys(entry.gamma for entry in entries)}
    arms = [arm(benches[entry.gamma], entry.name, x=entry.width, config=entry.config) for entry in entries]
    tokens = [tokens_of(measured) for measured in arms]
    budget = request.tokens or budget_of(arms, profile.search.candidates, tokens)
    beside = {entry.name: [named(spec, entry.width) for spec in entry.beside] for entry in entries}
    guided = dict.fromkeys(spec for entry in entries for spec in entry.beside)
    count = dict(zip([measured.name for measured in arms], tokens, strict=True))
    for spec in guided:  # of the widths that were asked for none need be at its tokens
        name = of_width(arms, spec, profile.search.candidates)
        equal = best_of_equal(bench, count[name] or 0.0, profile.search.candidates)  # not known in a plan: any n
        beside.setdefault(equal.name, []).append(name)
        arms += [equal] if all(measured.name != equal.name for measured in arms) else []
    results = [evidence(bench, measured, _against(arms, beside[measured.name])) for measured in arms]
    results[0] = evidence(bench, arms[0], facts={"budget": budget})
    return results


def named(spec: str, width: float | None) -> str:
    """What a search is called at a width."""
    return spec if width is None else f"{spec}@{width:g}"


def of_width(arms: Sequence[Arm], spec: str, width: int) -> str:
    """The name of a spec's search at a width, or at the next smaller one, or else at its smallest."""
    mine = sorted((measured.x or 0.0, measured.name) for measured in arms if line_of(measured.name) == spec)
    within = [name for x, name in mine if x <= width]
    return within[-1] if within else mine[0][1]


def _against(arms: Sequence[Arm], beside: Sequence[str]) -> list[Arm]:
    """Greedy, and the arms whose control it is."""
    return [arms[0], *(measured for measured in arms if measured.name in beside)]


def budget_of(arms: Sequence[Arm], width: int, tokens: Sequence[float | None]) -> float | None:
    """Decoded tokens per caption to compare at: those of visvm, or else of the first strategy with widths, at this width.

    If it was not searched at this width, the next smaller width counts, or else the smallest.
    """
    count = {measured.name: used for measured, used in zip(arms, tokens, strict=True)}
    lines = dict.fromkeys(line_of(measured.name) for measured in arms if measured.x)
    line = "visvm" if "visvm" in lines else next(iter(lines), None)
    return tokens[0] if line is None else count[of_width(arms, line, width)]


def answer(findings: Findings) -> str:
    """What each strategy reaches within the budget, and which arms are on the Pareto fronts."""
    budget = findings.value("greedy", "budget")
    reached = [
        f"{arm} {findings.text(arm, 'chair_i')} for {findings.text(arm, 'tokens')}"
        + (" (over the budget)" if findings.value(arm, "tokens") > budget else "")
        for arm in at_equal_work(findings)
    ]
    return (
        f"CHAIRi within {budget:.1f} decoded tokens a caption, each strategy with the most candidates (@K) that "
        f"fit: {'; '.join(reached)}. On the Pareto front over tokens for CHAIRi: "
        f"{listed(front(findings, 'chair_i'))}; for Recall: {listed(front(findings, 'recall'))}.{_held_against(findings)}"
    )


def _held_against(findings: Findings) -> str:
    """The searches by V within the budget against their controls; "" where none was compared with one."""
    changes = [
        f"{name} against {other} {findings.compared(name, other, 'chair_i')}"
        for name in at_equal_work(findings)
        if line_of(name).partition(":")[0] in CONTROLLED
        for other in findings.arms
        if other != "greedy" and findings.has(other, f"chair_i - {name}")
    ]
    return f" CHAIRi beside controls: {'; '.join(changes)}." if changes else ""


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=(
        "chair_s", "chair_i", "recall", "length", "tokens", "ms", "prefill_tokens", "value_tokens", "texts_scored",
    ),
    plot=Plot("lines", ("chair_i", "recall"), x="tokens", log=True, ringed=front),
    more_plots=(
        Plot("lines", ("chair_i", "recall"), x="ms", log=True, ringed=front),
        Plot("lines", ("chair_i", "recall"), x="candidates (K)"),
    ),
    selection=Selection("At equal work", at_equal_work, "Pareto front", note),
    method="All search the same images under the same prompts with the base policy; scorer, margin and value model are those "
    "of the loop's first round; gamma=0 is a second V. Beside a search by V stand controls: random numbers in its place, V "
    "of gamma 0, CLIP-PRM, greedy sentences with the same end, best of n at equal tokens. @K: candidates. Tokens are "
    "decoded by the policy, of all candidates. Rings: the Pareto front. Seconds are those of the run that searched, this "
    "one or an earlier one.",
    run_with=run_with,
)  # fmt: skip
