"""Does value training find the right values? Chains of sentences whose values are known, learned in a table.

    python -m benchmarks.value_chain            writes benchmarks/results/value_chain.json and .svg

A chain's answers are listed in proportion to their probabilities, so its exact values are those of a linear system, and what
a fit misses is the fit's own error. Two chains:

    answers     ends after two to four sentences. What is to come depends on the sentence alone, so all three targets of
                `ValueFit` have one solution in every terminal mode (but `bootstrap_forever`, where each has its own end).
    circle      never ends: three sentences are seen of it. Here the released update is set against TD(0) with the same
                terminal mode, so that the broadcast is all that differs.

Batches, target network, optimizer and the fall of the learning rate are the same in all fits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.measured import RESULTS
from tasks.core.value.fit import METHODS, ValueFit, run_fit
from tasks.core.value.td import TERMINAL_MODES, Transition, mc_returns, reward_share, transitions
from tasks.report.figures import ACCENT, MUTED, SECOND, STYLE, WARM, encode

# optimal_stopping takes a maximum: its values solve no linear system.
LINEAR_MODES = tuple(mode for mode in TERMINAL_MODES if mode != "optimal_stopping")
GAMMA, TRACE = 0.8, 0.7
TRACES = {"td0": 0.0, "td_lambda": TRACE, "mc": 1.0}
NAMES = {"td0": "TD(0)", "td_lambda": f"TD({TRACE:g})", "mc": "Monte Carlo", "published": "TD(0), released broadcast"}

ONE, HALF, QUARTER = Fraction(1), Fraction(1, 2), Fraction(1, 4)


@dataclass(frozen=True)
class Chain:
    """Sentences, what each is worth, and what follows each how often; nothing follows a last one."""

    rewards: dict[str, float]
    starts: dict[str, Fraction]
    follows: dict[str, dict[str, Fraction]]
    length: int | None = None  # sentences that are seen of an answer without an end

    @property
    def states(self) -> list[str]:
        """The sentences, as the table's rows."""
        return list(self.rewards)

    def answers(self) -> list[tuple[int, list[str], list[float]]]:
        """Answers (image, sentences, rewards), in proportion to their probabilities."""
        complete: list[tuple[list[str], Fraction]] = []
        unfinished = [([sentence], chance) for sentence, chance in self.starts.items()]
        while unfinished:
            answer, chance = unfinished.pop()
            after = self.follows.get(answer[-1], {}) if len(answer) != self.length else {}
            unfinished += [([*answer, sentence], chance * more) for sentence, more in after.items()]
            if not after:
                complete.append((answer, chance))
        count = lcm(*(chance.denominator for _, chance in complete))
        return [
            (0, answer, [self.rewards[sentence] for sentence in answer])
            for answer, chance in sorted(complete)
            for _ in range(int(chance * count))
        ]

    def sentences_from(self, state: str) -> int:
        """How many sentences an answer has from this state on; the same whichever way it goes."""
        after = {self.sentences_from(sentence) for sentence in self.follows.get(state, {})}
        if len(after) > 1:
            raise ValueError(f"answers go on from {state!r} for different lengths")
        return 1 + max(after, default=0)

    def exact(self, mode: str, trace: float) -> dict[str, float]:
        """The values of the sentences that are trained, the solution of V = b + A V.

        `trace` matters without an end only: a last sentence is then worth `trace` times its reward for ever, and for the rest
        its own value, which stays at the table's 0.
        """
        at = {sentence: row for row, sentence in enumerate(self.states)}
        b, a = np.zeros(len(at)), np.zeros((len(at), len(at)))
        for state, reward in self.rewards.items():
            after = self.follows.get(state, {})
            if not after:
                b[at[state]] = trace * reward / (1 - GAMMA) if mode == "bootstrap_forever" else reward
            for following, chance in after.items():
                share, more = 1.0, GAMMA
                if mode == "mean_to_go":
                    share = reward_share(1 + self.sentences_from(following), GAMMA)
                    more = 1 - share
                b[at[state]] += float(chance) * share * reward
                a[at[state], at[following]] = float(chance) * more
        values = np.linalg.solve(np.eye(len(at)) - a, b)
        trained = [state for state in self.states if mode != "bootstrap_forever" or state in self.follows]
        return {state: float(values[at[state]]) for state in trained}


ANSWERS = Chain(
    rewards={"a": 0.3, "b": -0.2, "c": 0.9, "d": -0.6, "e": 0.5, "f": -1.0, "g": 1.0, "h": -0.4},
    starts={"a": HALF, "b": HALF},
    follows={
        "a": {"c": HALF, "e": QUARTER, "h": QUARTER},
        "b": {"d": HALF, "f": QUARTER, "g": QUARTER},
        "c": {"e": ONE},
        "d": {"e": HALF, "f": HALF},
        "e": {"g": HALF, "h": HALF},
        "f": {"h": ONE},
    },
)
CIRCLE = Chain(
    rewards={"a": 1.0, "b": 0.5, "c": 0.0, "d": -0.5},
    starts={"a": QUARTER, "b": QUARTER, "c": QUARTER, "d": QUARTER},
    follows={
        "a": {"a": HALF, "b": HALF},
        "b": {"a": HALF, "c": HALF},
        "c": {"b": HALF, "d": HALF},
        "d": {"c": HALF, "d": HALF},
    },
    length=3,
)


@dataclass(frozen=True)
class Curve:
    """How far a table was from the exact values while it was fitted."""

    values: dict[str, float]  # at the end
    exact: dict[str, float]
    steps: list[int]
    errors: list[float]  # root mean square over the sentences that are trained
    losses: list[float]  # of every step
    returns: list[float]  # Monte Carlo, of every transition


def learned(
    chain: Chain,
    mode: str,
    method: str,
    *,
    epochs: int,
    batch_size: int | None = None,
    lr: float = 0.05,
    every: int = 10,
) -> Curve:
    """Fit a table by `method`, or by `published`; the learning rate falls to nothing, linearly.

    `batch_size` None: all answers in every batch. The error is taken every so many steps.
    """
    table = torch.nn.Parameter(torch.zeros(len(chain.states)))
    at = {state: row for row, state in enumerate(chain.states)}
    published = method == "published"
    fit = ValueFit(
        value=lambda pairs: table[[at[text] for _, text in pairs]],
        parameters={"table": table},
        gamma=GAMMA,
        mode=mode,
        lr=lr,
        target_decay=0.5,
        method="td0" if published else method,
        trace=TRACE,
        published=published,
    )
    data: Sequence[Transition] = transitions(chain.answers(), state="sentence", mode=mode)
    exact = chain.exact(mode, TRACES["td0" if published else method])
    plan = fit.plan(data, batch_size or len(data), epochs, seed=0)
    steps, errors = [0], [_error(table, at, exact)]

    def after_step(done: int, loss: float) -> None:
        fit.optimizer.param_groups[0]["lr"] = lr * (1 - done / len(plan))
        if done % every == 0 or done == len(plan):
            steps.append(done)
            errors.append(_error(table, at, exact))

    losses = run_fit(fit, data, plan=plan, after_step=after_step)
    returns = [mc_returns(step.rewards, gamma=GAMMA, mode=mode)[0] for step in data]
    return Curve(dict(zip(at, table.tolist(), strict=True)), exact, steps, errors, losses, returns)


def _error(table: torch.Tensor, at: dict[str, int], exact: dict[str, float]) -> float:
    values = table.detach()
    return float(np.sqrt(np.mean([(float(values[at[state]]) - value) ** 2 for state, value in exact.items()])))


def measure(epochs: int) -> dict[str, dict[str, Curve]]:
    """Every target in every mode on the chain that ends; the released update and TD(0) on the one that does not.

    All answers are in every batch: with small ones the values go on to tremble about the same points.
    """
    answers = {
        mode: {method: learned(ANSWERS, mode, method, epochs=epochs) for method in METHODS} for mode in LINEAR_MODES
    }
    circle = {method: learned(CIRCLE, "bootstrap_forever", method, epochs=epochs) for method in ("td0", "published")}
    return {**answers, "circle": circle}


def figure(fits: dict[str, dict[str, Curve]]) -> bytes:
    """One panel a chain and mode: the error over the steps, on a logarithmic scale."""
    colours = {"td0": ACCENT, "td_lambda": SECOND, "mc": MUTED, "published": WARM}
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(2.55 * len(fits), 2.9), layout="constrained")
        handles = {}
        for axes, (title, curves) in zip(drawn.subplots(1, len(fits), sharey=True), fits.items(), strict=True):
            axes.set_title("circle, without an end" if title == "circle" else title)
            for name, curve in curves.items():
                (handles[NAMES[name]],) = axes.plot(curve.steps, curve.errors, color=colours[name], linewidth=1.6)
            axes.set_yscale("log")
            axes.set_xlabel("steps")
        drawn.axes[0].set_ylabel("distance to the exact values")
        drawn.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
        return encode(drawn, "svg")


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    fits = measure(options.epochs)
    results: dict[str, Any] = {
        chain: {
            name: {key: getattr(curve, key) for key in ("values", "exact", "steps", "errors")}
            for name, curve in curves.items()
        }
        for chain, curves in fits.items()
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "value_chain.json").write_text(
        json.dumps({"gamma": GAMMA, "trace": TRACE, **_rounded(results)}) + "\n", encoding="utf-8"
    )
    (options.out / "value_chain.svg").write_bytes(figure(fits))
    ends = {f"{chain} {name}": curve.errors[-1] for chain, curves in fits.items() for name, curve in curves.items()}
    print(json.dumps(_rounded(ends)))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
