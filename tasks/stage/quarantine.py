"""No row disappears: what went in came out, or is in quarantine with a reason."""

from __future__ import annotations


class StageInputError(ValueError):
    """A stage can't work with what it was given; running it again changes nothing."""


class TooManyQuarantined(StageInputError):
    """More rows were refused than the profile allows."""


def check_nothing_lost(
    stage: str, rows_in: int, rows_out: int, quarantined: int, max_share: float, *, unit: str = "rows"
) -> None:
    """Make sure that every row is accounted for and that not too many were refused.

    Args:
        stage: its name, for the message.
        rows_in: rows the stage was to process.
        rows_out: rows it processed.
        quarantined: rows it refused, with reason.
        max_share: largest share of refused rows that is acceptable.
        unit: what a row is.

    Raises:
        StageInputError: rows were lost or invented.
        TooManyQuarantined: more than `max_share` were refused.
    """
    if rows_in != rows_out + quarantined:
        raise StageInputError(
            f"{stage}: {rows_in} {unit} went in, but {rows_out} came out and {quarantined} are in quarantine: "
            f"{abs(rows_in - rows_out - quarantined)} {'lost' if rows_in > rows_out + quarantined else 'too many'}"
        )
    if rows_in and quarantined / rows_in > max_share:
        raise TooManyQuarantined(
            f"{stage}: {quarantined} of {rows_in} {unit} were refused ({quarantined / rows_in:.0%}; at most "
            f'{max_share:.0%} may be). See why: visloop query "SELECT reason, count(*) FROM quarantine '
            f"WHERE stage = '{stage}' GROUP BY reason\"; then repair the source or raise the profile's limit"
        )
