"""A child of the fuzzer's harness that breaks as it is told."""

from __future__ import annotations

import os
import time

from fuzz.outcome import Outcome


def serve(connection, _folder) -> None:
    connection.send(None)
    while (recipe := connection.recv()) is not None:
        (what,) = recipe.mutations
        if what == "dies":
            os.abort()
        if what == "sleeps":
            time.sleep(60)
        held = bytearray(600 << 20) if what == "grows" else b""
        for start in range(0, len(held), 4096):
            held[start] = 1
        if held:
            time.sleep(60)
        connection.send(Outcome(verdict="right"))
