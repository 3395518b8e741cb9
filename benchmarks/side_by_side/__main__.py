"""The contenders take turns; what comes out are the tables and the picture of the side by side."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.harness.part import run_part
from benchmarks.harness.plot import Bar, bars
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import floor_of, median_ratio, ratios, spread
from benchmarks.harness.worker import WorkerError
from benchmarks.side_by_side.asking import PEERS, Ask
from benchmarks.side_by_side.cases import Case, Entry, cases, entries
from benchmarks.side_by_side.comparison import EDGE_PX, NEAR_SEAM_PX, LabelError, ScoreError, label_error, score_error
from benchmarks.side_by_side.subject import write_image, write_network

MIB = 1 << 20
COLUMNS = (
    "way",
    "by",
    "time by the floor|.2f",
    "rounds",
    "peak MiB|.0f",
    "different labels|,d",
    "away from the edges|,d",
    "max-abs of scores|.2g",
    "max-abs at seams|.2g",
    "computed / wanted|.2f",
    "import s|.2f",
    "open s|.2f",
)
REMARKS = f"""\
The time runs from opening the image to the closed label TIFF, without importing libraries and opening the network,
which have columns of their own; every round it is divided by the fastest of one whole pass and naive tiles (tiles
without halo) in either library: the floor. Medians of all rounds; *rounds* has the least and the greatest.
*Peak* is the process's resident memory, libraries included. *Different labels* and scores are compared with one whole
pass of the same library (ORT is ONNX Runtime); *away from the edges* leaves out {EDGE_PX} pixels at the image's edges,
where peers that reflect the image there differ by choice; *at seams* is within {NEAR_SEAM_PX} pixels of where a tile's
or window's share begins or ends, away from the edges. Scores lie mostly between -1 and 1."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What was measured of one contender."""

    seconds: list[float] = field(default_factory=list)
    answers: list[dict] = field(default_factory=list)
    failed: str = ""
    different: LabelError | None = None
    error: ScoreError | None = None

    def peak_bytes(self) -> int:
        return max(answer["peak_bytes"] for answer in self.answers)


class Match:
    """One case: files, rounds, comparison."""

    def __init__(self, case: Case, place: Path, peers: Path, threads: int) -> None:
        self.case, self.place = case, place
        self.found = {entry.title: Found() for entry in case.entries}
        self.network = place / f"unet{case.features}"
        if not self.network.exists():
            write_network(self.network, case.features)
        self.image = place / f"image{case.side}.tif"
        if not self.image.exists():
            write_image(self.image, case.side)
        unused = place / "unused.tif"
        self.ask = Ask(network=self.network, image=self.image, output=unused, threads=threads, peers=peers)

    def play(self, rounds: int) -> None:
        for turn in range(rounds):
            for entry in self.case.entries:
                self._run(entry, turn, rounds)
        for entry in self.case.entries if self.case.scores else ():
            self._compare_scores(entry)

    def _run(self, entry: Entry, turn: int, rounds: int) -> None:
        found = self.found[entry.title]
        if found.failed:
            return
        output = self._labels_of(entry)
        try:
            answer = self.ask(entry, output=output)
        except WorkerError as error:
            found.failed = str(error)
            print(f"{entry.title} failed: {error}", file=sys.stderr)
            return
        found.seconds.append(answer["seconds"])
        found.answers.append(answer)
        if turn == 0:
            found.different = self._different(entry, output)
        print(
            f"{self.case.name}, round {turn + 1} of {rounds}: {entry.title}: {answer['seconds']:.2f} s, "
            f"{answer['peak_bytes'] / MIB:.0f} MiB, {found.different and found.different.all} labels differ",
            file=sys.stderr,
        )

    def _labels_of(self, entry: Entry) -> Path:
        return self.place / f"{self.case.features}-{self.case.side}-{self._number(entry)}.tif"

    def _number(self, entry: Entry) -> int:
        return [known.title for known in self.case.entries].index(entry.title)

    def _reference(self, entry: Entry) -> Entry | None:
        """Return the whole pass of the same library; without one, our strips."""
        wholes = {known.library: known for known in self.case.entries if known.family == "whole"}
        strips = [known for known in self.case.entries if known.options.get("plan") == "strip"]
        return wholes.get(entry.library) or next(iter(wholes.values()), strips[0] if strips else None)

    def _different(self, entry: Entry, output: Path) -> LabelError | None:
        """Count labels that differ from the reference's; None if it has not run yet, or failed."""
        reference = self._reference(entry)
        if reference is None or not self._labels_of(reference).exists():
            return None
        return label_error(tifffile.imread(output), tifffile.imread(self._labels_of(reference)))

    def compare_late(self) -> None:
        """Compare labels of those that ran before their reference did."""
        for entry in self.case.entries:
            found = self.found[entry.title]
            if found.answers and found.different is None:
                found.different = self._different(entry, self._labels_of(entry))

    def _compare_scores(self, entry: Entry) -> None:
        found, reference = self.found[entry.title], self._reference(entry)
        if found.failed or reference is None:
            return
        path = self.place / "scores.npy"
        known = self.place / f"whole-{reference.library}-{self.case.features}-{self.case.side}.npy"
        if not known.exists():
            self.ask(reference, scores=known)
        tiling = self.ask(entry, scores=path)["tiling"]
        found.error = score_error(np.load(path), np.load(known), tiling["seams_y"], tiling["seams_x"])
        path.unlink()

    def table(self) -> Table:
        floor = self.floor()
        compared = "one whole pass" if self.case.whole else "exactile's strips, as one pass does not fit the memory"
        table = Table(title=self.case.name, columns=COLUMNS, note=f"Labels are compared with {compared}.")
        for entry in self.case.entries:
            found = self.found[entry.title]
            if found.failed:
                table.add(entry.title, entry.library, None, "failed", *[None] * (len(COLUMNS) - 4))
                continue
            answers = found.answers
            table.add(
                entry.title,
                entry.library,
                median_ratio(found.seconds, floor),
                spread(ratios(found.seconds, floor)),
                found.peak_bytes() / MIB,
                found.different and found.different.all,
                found.different and found.different.inside,
                found.error and found.error.largest,
                found.error and found.error.at_seams,
                answers[-1]["tiling"]["computed_px"] / self.case.side**2,
                statistics.median(answer["import_s"] for answer in answers),
                statistics.median(answer["open_s"] for answer in answers),
            )
        return table

    def floor(self) -> list[float]:
        inexact = [entry.title for entry in self.case.entries if entry.family in {"whole", "naive"}]
        seconds = {title: self.found[title].seconds for title in inexact if not self.found[title].failed}
        return floor_of(seconds, seconds)

    def bars(self) -> list[Bar]:
        """Return bars for the picture: time by the floor, labels that differ, memory."""
        floor = self.floor()
        return [
            Bar(
                name=f"{entry.title}, ORT" if entry.library == "ORT" else entry.title,
                value=median_ratio(found.seconds, floor),
                told=f"{found.different.all:,} labels differ, {found.peak_bytes() / MIB:.0f} MiB",
                right=found.different.all == 0,
                ours=entry.ours,
            )
            for entry in self.case.entries
            if (found := self.found[entry.title]).different is not None and found.seconds
        ]


def measure(options: argparse.Namespace) -> Iterator[Record]:
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        for case in chosen_cases(options):
            match = Match(case, Path(folder), options.peers, options.threads)
            match.play(options.rounds or case.rounds)
            match.compare_late()
            raw = {title: vars_of(found) for title, found in match.found.items()}
            yield Record(
                part=f"side_by_side-{case.key}",
                module="side_by_side",
                arguments=f"--case {case.key}",
                title=f"Side by side: {case.name}",
                tables=[match.table()],
                raw=raw | {"floor_s": match.floor()},
                pictures={f"side_by_side-{case.key}.png": partial(draw, match)},
                remarks=REMARKS,
            )


def draw(match: Match, path: Path) -> None:
    title = f"{match.case.name}: time, labels that differ from one whole pass, peak memory"
    across = "time by the floor (the fastest of one whole pass and naive tiles); hatched: some labels differ"
    bars(path, title, match.bars(), x=across)


def vars_of(found: Found) -> dict:
    error = found.error
    return {
        "seconds": found.seconds,
        "runs": [{key: value for key, value in answer.items() if key != "tiling"} for answer in found.answers],
        "failed": found.failed,
        "different_labels": found.different and found.different.all,
        "different_labels_inside": found.different and found.different.inside,
        "max_abs": error and error.largest,
        "max_abs_at_seams": error and error.at_seams,
    }


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """Return those of the run, or one that the options describe."""
    if options.side is None and options.features is None:
        return [case for case in cases(quick=options.quick) if options.case in {None, case.key}]
    features = options.features or 16
    return [Case(features=features, side=options.side or 2048, rounds=1, entries=entries(features))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=[case.key for case in cases(quick=False)], help="only this one")
    parser.add_argument("--features", type=int, help="a trial: all peers, one round, this network")
    parser.add_argument("--side", type=int, help="a trial: all peers, one round, an image of this size")
    parser.add_argument("--rounds", type=int, help="in place of the case's own number")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--directory", type=Path, help="where files go meanwhile (default: a temporary folder)")
    run_part(measure, parser)


if __name__ == "__main__":
    main()
