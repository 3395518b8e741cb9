"""Check that a graph was made for the contract."""

from __future__ import annotations

from collections.abc import Mapping

from exactile.errors import EngineError

LONGEST_CLAIM = 400
"""Characters of a claim that a message repeats."""


def check_claims(made_for: Mapping[str, str], claims: Mapping[str, str], graph: str) -> None:
    """Raise EngineError if ``made_for``, the metadata of ``graph``, does not hold the ``claims`` of the contract."""
    for key, claim in claims.items():
        if made_for.get(key) != claim:
            made = made_for.get(key, "no contract at all")[:LONGEST_CLAIM]
            raise EngineError(
                f"{graph} and the contract disagree about {key}: the graph was made for {made}, the contract says "
                f"{claim[:LONGEST_CLAIM]}; convert the model again"
            )
