"""The emulated CUDA driver finds what it is there to find: bugs are planted in programs on the real bindings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from tests.emulation.bindings import BINDINGS, Binding
from tests.emulation.driver import MIB, Emulation, load
from tests.emulation.library import NoCompilerError
from tests.emulation.ring import ORDER, TILE, WAITS, Ring, array_at, expected, tiles

DELAY_S = 0.005
SEEDS = 20
RELEASES = ("cuMemFree", "cuMemFreeHost", "cuStreamDestroy", "cuEventDestroy", "cuDevicePrimaryCtxRelease")


@pytest.fixture
def emulation() -> Emulation:
    try:
        emulation = load()
    except NoCompilerError as error:
        pytest.skip(str(error))
    emulation.reset()
    return emulation


@pytest.fixture(params=BINDINGS)
def binding(request, emulation) -> Iterator[Binding]:
    try:
        binding = BINDINGS[request.param]()
    except ImportError as error:
        pytest.skip(f"{request.param} is not there: {error}")
    yield binding
    with suppress(binding.failure):  # pycuda ends the process if a test that failed leaves a context current
        binding.close()


def kinds(emulation: Emulation) -> set[str]:
    return {violation.kind for violation in emulation.violations()}


def run_ring(emulation: Emulation, binding: Binding, count: int = 6, **bug) -> bool:
    """Whether the results are right; everything is released."""
    images = tiles(count)
    binding.open()
    try:
        results = Ring(emulation, binding, **bug).run(images)
    finally:
        binding.close()
    return all(map(np.array_equal, results, expected(images)))


def test_a_right_program_is_reported_clean(emulation, binding):
    """Without delays and with those of many seeds: the right pixels, no violation, no leak."""
    for seed in range(SEEDS):
        emulation.reset(seed=seed, max_delay_s=DELAY_S * bool(seed))
        assert run_ring(emulation, binding)
        assert emulation.violations() == []
        assert emulation.leaks() == []
        assert emulation.errors == []


@pytest.mark.parametrize("wait", WAITS)
def test_a_missing_wait_is_a_race_whatever_the_timing(emulation, binding, wait):
    """The detector needs no luck: it names both operations with no delays at all."""
    run_ring(emulation, binding, without=wait)
    assert kinds(emulation) == {"race"}
    first = emulation.violations()[0].message
    assert " without waiting for that" in first
    assert any(f"on {stream}" in first for stream in ("copy in", "compute", "copy out"))
    assert emulation.leaks() == []


@pytest.mark.parametrize("wait", WAITS)
def test_a_missing_wait_gives_wrong_pixels_under_delays(emulation, binding, wait):
    """The same bugs show in the results, which needs no detector and no declared access of the host."""
    for seed in range(1, SEEDS + 1):
        emulation.reset(seed=seed, max_delay_s=DELAY_S)
        if not run_ring(emulation, binding, 10, without=wait):
            return
    pytest.fail(f"{SEEDS} seeds did not show that {wait!r} was left out")


def test_a_slot_used_again_before_its_output_was_taken_gives_wrong_pixels(emulation, binding):
    """The host then takes what belongs to a later tile."""
    assert not run_ring(emulation, binding, without=ORDER)


def test_a_wrong_crop_pitch_gives_wrong_pixels(emulation, binding):
    """Rows that are believed to be shorter than they are."""
    assert not run_ring(emulation, binding, pitch=TILE[1] - 4)
    assert emulation.violations() == []


def test_a_crop_beyond_the_buffer_is_out_of_bounds(emulation, binding):
    """Rows that are believed to be longer run past the end; the copy is refused."""
    with pytest.raises(binding.failure, match="invalid value"):
        run_ring(emulation, binding, pitch=2 * TILE[1])
    assert kinds(emulation) == {"out of bounds"}
    assert emulation.leaks() == []


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda binding: binding.stream(), "stream"),
        (lambda binding: binding.event(), "event"),
        (lambda binding: binding.memory(100), "device"),
        (lambda binding: binding.pinned(100), "pinned"),
    ],
    ids=["stream", "event", "device", "pinned"],
)
def test_what_is_not_released_is_a_leak(emulation, binding, make, kind):
    """Before the context goes, and after it: that it went down with its context does not hide it."""
    binding.open()
    make(binding)
    planted = binding.kept.pop()
    assert [leak.kind for leak in emulation.leaks()] == ["context", kind]
    binding.close()
    (leak,) = emulation.leaks()
    assert leak.kind == kind
    assert leak.what.endswith("lost with its context")
    del planted


def test_a_context_that_is_not_released_is_a_leak(emulation, binding):
    """As often as it was retained it must be released."""
    binding.open()
    assert [leak.what for leak in emulation.leaks()] == ["primary context of device 0, retained 1 times"]
    binding.close()
    assert emulation.leaks() == []


def test_memory_is_not_used_after_it_was_freed(emulation, binding):
    """A copy from a freed buffer is refused and reported, although the address is still mapped."""
    binding.open()
    stream, target, address = binding.stream(), binding.pinned(100), binding.memory(100)
    binding.release(binding.kept.pop())
    with pytest.raises(binding.failure, match="invalid value"):
        binding.copy_out(target, address, stream)
    assert kinds(emulation) == {"use after free"}


@pytest.mark.parametrize("kind", ["device", "pinned"])
def test_memory_is_not_freed_while_a_stream_may_use_it(emulation, binding, kind):
    """Either side of a copy, freed before anybody waited for it: reported with no delays as well."""
    binding.open()
    stream, target, address = binding.stream(), binding.pinned(100), binding.memory(100)
    binding.copy_out(target, address, stream)
    early = next(held for held in binding.kept if held.kind == kind)
    binding.kept.remove(early)
    binding.release(early)
    assert kinds(emulation) == {"freed in use"}
    assert f"{kind} buffer 1 (100 bytes)" in emulation.violations()[0].message
    assert "the host, freeing it" in emulation.violations()[0].message


def test_asynchronous_copies_want_pinned_memory(emulation, binding):
    """Both ways; as with the real driver the copies still work, synchronously."""
    binding.open()
    stream, address = binding.stream(), binding.memory(100)
    source, target = np.arange(100, dtype=np.uint8), np.zeros(100, np.uint8)
    binding.copy_in(address, source, stream)
    source[...] = 0
    binding.copy_out(target, address, stream)
    assert target.tolist() == list(range(100))
    assert [violation.kind for violation in emulation.violations()] == ["unpinned", "unpinned"]


def test_a_call_without_a_context_is_refused(emulation, binding):
    """In a thread of its own, which has none."""
    binding.open()
    failures = []

    def allocate() -> None:
        try:
            binding.memory(100)
        except binding.failure as error:
            failures.append(str(error))

    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
    assert len(failures) == 1
    assert "invalid context" in failures[0] or "invalid device context" in failures[0]
    assert kinds(emulation) == {"wrong context"}


def test_a_stream_of_another_device_is_refused(emulation, binding):
    """A copy on a stream of device 0 while device 1 is current."""
    emulation.reset(devices=2)
    binding.open(0)
    stream, source, address = binding.stream(), binding.pinned(100), binding.memory(100)
    binding.open(1)
    with pytest.raises(binding.failure, match="invalid"):
        binding.copy_in(address, source, stream)
    assert kinds(emulation) == {"wrong context"}
    binding.leave()
    binding.close()
    assert emulation.leaks() == []


def test_memory_runs_out_where_the_device_ends(emulation, binding):
    """A real out-of-memory error, the free bytes before and after, and a buffer that fits again."""
    emulation.reset(memory_bytes=8 * MIB)
    binding.open()
    binding.memory(6 * MIB)
    assert binding.free_bytes() == 2 * MIB
    with pytest.raises(binding.failure, match="out of memory"):
        binding.memory(3 * MIB)
    binding.release(binding.kept.pop())
    assert binding.free_bytes() == 8 * MIB
    binding.memory(8 * MIB)
    binding.close()
    assert emulation.violations() == []
    assert emulation.leaks() == []


def test_fresh_memory_is_not_zero(emulation, binding):
    """Neither on the device nor pinned: a program that relies on it fails."""
    binding.open()
    address, pinned = binding.memory(1000), binding.pinned(1000)
    assert array_at(address, (1000,)).all()
    assert pinned.all()


def test_a_write_beside_a_buffer_is_found(emulation, binding):
    """By work on a stream, whose every byte nobody sees."""
    binding.open()
    stream, address = binding.stream(), binding.memory(1000)

    def overrun() -> None:
        array_at(address, (1001,))[1000] = 0

    emulation.enqueue(binding.handle(stream), overrun, writes=[(address, 1000)])
    binding.synchronize(stream)
    assert kinds(emulation) == {"out of bounds"}


def test_every_failing_call_is_told_and_leaves_nothing(emulation, binding):
    """Each call of the program fails in turn: an exception, no crash, no leak, and nothing that the program did wrong.

    What winds up is left out here: its failures are heard of elsewhere.
    """
    assert run_ring(emulation, binding, 3)
    calls = emulation.calls()
    assert calls["cuLaunchKernel"] == 3
    for name, count in calls.items():
        for n in {1, count} if name not in {*RELEASES, "cuCtxSynchronize", "cuCtxPopCurrent", "cuInit"} else ():
            emulation.reset()
            emulation.fail_at(n, name, status=999)
            with pytest.raises((binding.failure, RuntimeError), match=r"unknown|999"):
                run_ring(emulation, binding, 3)
            assert emulation.leaks() == [], name
            assert emulation.violations() == [], name


def test_a_failing_release_releases_all_the_same(emulation, binding, capfd):
    """As the real driver does when it hands on an earlier error: it is told, by pycuda on stderr, and nothing leaks."""
    for name in RELEASES:
        emulation.reset()
        emulation.fail_at(1, name, status=999)
        try:
            assert run_ring(emulation, binding, 2)
            told = capfd.readouterr().err
        except binding.failure as error:
            told = str(error)
        assert f"{name} failed: unknown" in told
        assert emulation.leaks() == []


def test_work_that_fails_breaks_the_context(emulation, binding):
    """Told by whatever call comes next, and by all that follow, until the context is gone."""
    binding.open()
    stream, target, address = binding.stream(), binding.pinned(100), binding.memory(100)
    binding.copy_out(target, address, stream)

    def fail() -> None:
        raise ValueError("planted")

    emulation.enqueue(binding.handle(stream), fail)
    for _ in range(2):
        with pytest.raises(binding.failure, match="launch failed"):
            binding.synchronize(stream)
    assert [str(error) for error in emulation.errors] == ["planted"]
    with pytest.raises(binding.failure, match="launch failed"):
        binding.memory(100)
    with suppress(binding.failure):
        binding.close()
    assert emulation.leaks() == []
    assert emulation.violations() == []  # it is over, although nobody could wait for it: "freed in use" would be wrong
    emulation.reset()
    assert run_ring(emulation, binding)


def test_an_operation_fails_where_a_test_says_so(emulation, binding):
    """The fourth copy in, and nothing before it."""
    emulation.fail_operation(4, "copy_in")
    with pytest.raises((binding.failure, RuntimeError), match=r"launch failed|719"):
        run_ring(emulation, binding)
