"""Judge networks of other people's packages by both exporters of PyTorch.

``python -m benchmarks.zoo [NETWORK ...]`` (``make test-all`` installs the packages). Small networks with random weights
from a seed; images of random samples, of an odd size that holds several tiles. ``tiles`` and ``strips``: the largest
difference from one pass of plain ONNX Runtime, relative to its largest value. ``local``: what runs at several sizes and
shifts show of a network that is refused, without any rule.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, fields
from importlib.metadata import version
from itertools import product
from pathlib import Path

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.zoo.apart import Apart
from benchmarks.zoo.judged import EXPORTERS, Judged
from benchmarks.zoo.member import Member
from benchmarks.zoo.networks import BY_NAME, ZOO

FORMS = {"tiles": "|.1e", "strips": "|.1e"}
QUICK = 8
"""Every so many networks are judged by ``--quick``."""


def rows(members: list[Member]) -> Iterator[tuple[str, str, Judged]]:
    with Apart() as apart:
        for member, exporter in product(members, EXPORTERS):
            with tempfile.TemporaryDirectory() as folder:
                found = apart.judged(member.name, exporter, Path(folder))
            print(member.name, exporter, *filter(None, asdict(found).values()), sep=" | ", file=sys.stderr, flush=True)
            yield member.name, exporter, found


def measure(options: argparse.Namespace) -> Iterator[Record]:
    members = [BY_NAME[name] for name in options.networks] or list(ZOO[:: QUICK if options.quick else 1])
    titles = [f"{one.name}{FORMS.get(one.name, '')}" for one in fields(Judged)]
    used = sorted({member.package for member in members})
    table = Table(
        title="Verdicts",
        columns=("network", "exporter", *titles),
        note="Packages: " + ", ".join(f"{name} {version(name)}" for name in used) + ".",
    )
    for name, exporter, found in rows(members):
        table.add(name, exporter, *asdict(found).values())
    yield Record(
        part="zoo",
        title="Networks of other people's packages",
        tables=[table],
        remarks=__doc__.split("\n\n", 1)[1].strip(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=[], choices=[*BY_NAME, []], metavar="NETWORK")
    run_part(measure, parser)


if __name__ == "__main__":
    main()
