"""Step C: how fast, where the time goes, and beside what else one does on the same GPU."""

from __future__ import annotations

from benchmarks.gpu_kit.figures.file_to_file import Plan, trace_file
from benchmarks.gpu_kit.harness import Check
from benchmarks.gpu_kit.network_names import FLOATING, SLOW
from benchmarks.gpu_kit.sizes import sizes

ROOM = "benchmarks.gpu_kit.figures"
BINDING = "pycuda"
FIRST, LARGE = "U-Net 16", "U-Net 64"
CORES = (1, 4, 16)
AUTO: Plan = ("auto", None)


def checks() -> list[Check]:
    """Return the checks, the most important first: a step that runs out of time leaves out the rest."""
    own = sizes()
    others = [name for name in FLOATING if name not in {FIRST, *SLOW}]
    return [
        Check(
            name="slides",
            function="benchmarks.gpu_kit.pictures:make_slides",
            arguments={"sides": [own.figures, own.figures_slow, own.peers, own.peers_slow, own.free_engine]},
            seconds=40,
        ),
        Check(
            name="networks",
            function="benchmarks.gpu_kit.networks:make_all",
            arguments={"names": list(FLOATING), "outputs": ["labels"]},
            seconds=40,
        ),
        _file_to_file(FIRST, own.figures, [AUTO, *_tiles(), ("strip", None)]),
        _peers(FIRST, own.peers, own.rounds, 45),
        *(_file_to_file(name, own.figures, [AUTO]) for name in others),
        *(_file_to_file(name, own.figures_slow, [AUTO]) for name in SLOW),
        _check("free engine", "free_engine:on_cores", 35, counts=list(CORES)),
        _check("one pass", "one_pass:beside_one_pass", 30, networks=[FIRST, LARGE], binding=BINDING),
        _peers(LARGE, own.peers_slow, 1, 60),
    ]


def _file_to_file(name: str, side: int, plans: list[Plan]) -> Check:
    # The plan that is chosen by itself may be too large for a library; the figures are still measured then.
    arguments = {"name": name, "side": side, "binding": BINDING, "plans": plans, "otherwise": _tiles()[-1]}
    return Check(
        name=f"file to file, {name}",
        function=f"{ROOM}.file_to_file:network",
        arguments=arguments,
        seconds=45,
        keep=(trace_file(name),),
    )


def _peers(name: str, side: int, rounds: int, limit_s: float) -> Check:
    return _check(
        f"peers, {name}", "beside_peers:in_turns", limit_s, network=name, side=side, rounds=rounds, binding=BINDING
    )


def _tiles() -> list[Plan]:
    return [("tile", (tile, tile)) for tile in sizes().plans_tiles]


def _check(name: str, function: str, limit_s: float, **arguments: object) -> Check:
    return Check(name=name, function=f"{ROOM}.{function}", arguments=arguments, seconds=limit_s)
