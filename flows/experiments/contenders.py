"""Who takes part in a comparison: strategies as the command line names them, checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from flows.profiles.errors import explain
from flows.profiles.loading import Profile, ProfileError
from tasks.configs.search import SearchConfig
from tasks.report.comparison import Contender, contenders
from tasks.search.search import search_needs
from tasks.stage.quarantine import StageInputError

# The other built-in ones are for short answers (majority_vote) or for a policy that writes tagged stages.
STRATEGIES = ("greedy", "sample", "best_of_n", "clip_prm", "visvm", "vimar", "beam", "diverse_beam", "contrastive")
BUDGETS = (1, 2, 4, 8, 16)


def enter(profile: Profile, strategies: Sequence[str] = (), budgets: Sequence[int] = ()) -> list[Contender]:
    """Every strategy (NAME, or NAME:key=value,key=value) at every width; what is left out is as the command's help says.

    Raises:
        ProfileError: a strategy or a setting of it that there isn't.
    """
    widths = budgets or (*BUDGETS, profile.search.candidates)
    try:
        entered = contenders(profile.search, strategies or STRATEGIES, widths)
        for one in entered:
            search_needs(one.config)  # checks its own options
        return entered
    except ValidationError as error:
        raise ProfileError(explain(error, SearchConfig, "--strategies")) from None
    except (ValueError, StageInputError) as error:
        raise ProfileError(f"--strategies {error}") from None
