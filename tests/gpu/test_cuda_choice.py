"""Which binding is used, and what ``--device`` means."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactile.cuda.choice import VARIABLE, chosen_devices, open_driver, parse_devices
from exactile.cuda.status import REMEDIES
from exactile.errors import DeviceError, OptionError
from tests.support.gpu_driver import BINDINGS, emulation


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("cpu", "cpu"),
        ("auto", "auto"),
        ("cuda", (0,)),
        ("cuda:0", (0,)),
        ("cuda:3", (3,)),
        ("cuda:1,cuda:0", (1, 0)),
        ("cuda:0, cuda:12", (0, 12)),
        ("cuda:all", "all"),
    ],
)
def test_devices_are_named_so(text, choice):
    """Each documented form."""
    assert parse_devices(text) == choice


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpu",
        "CUDA",
        "cuda:",
        "cuda:-1",
        "cuda:x",
        "cuda:0,1",
        "cuda:0,cuda",
        "cpu,cuda:0",
        "cuda:0,",
        "cuda:all,cuda:0",
    ],
)
def test_other_names_are_an_option_error_with_the_forms(text):
    """It repeats what was given."""
    with pytest.raises(OptionError, match=r"--device takes cpu, auto, cuda, .*cuda:all; got") as error:
        parse_devices(text)
    assert repr(text) in str(error.value)


def test_a_gpu_is_named_once():
    """Twice the same one is a mistake."""
    with pytest.raises(OptionError, match="twice"):
        parse_devices("cuda:1,cuda:1")


@given(st.text(max_size=20))
def test_any_text_is_a_choice_or_an_option_error(text):
    """Never another exception."""
    try:
        choice = parse_devices(text)
    except OptionError:
        return
    assert choice in {"cpu", "auto", "all"} or all(ordinal >= 0 for ordinal in choice)


@pytest.mark.parametrize("binding", BINDINGS)
def test_the_binding_that_is_asked_for_is_used(binding, monkeypatch):
    """By argument, or by the environment where the argument leaves it open."""
    pytest.importorskip(binding)
    emulation()
    monkeypatch.delenv(VARIABLE, raising=False)
    assert open_driver(binding).name.startswith(binding)
    monkeypatch.setenv(VARIABLE, binding)
    assert open_driver().name.startswith(binding)


def test_pycuda_comes_first():
    """Where both work."""
    pytest.importorskip("pycuda")
    emulation()
    assert open_driver().name.startswith("pycuda")


def test_without_one_binding_the_other_is_used(monkeypatch):
    """As if pycuda were not installed."""
    pytest.importorskip("cuda.bindings")
    emulation()
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert open_driver().name.startswith("cuda.bindings")


def test_without_any_binding_it_says_what_to_install(monkeypatch):
    """For each of them."""
    for name in ("pycuda", "cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeviceError, match=r"pycuda: .*'exactile\[gpu\]'; cuda.bindings: .*'exactile\[gpu\]'"):
        open_driver()


def test_a_binding_that_does_not_exist_is_an_option_error(monkeypatch):
    """It names the variable it came from."""
    monkeypatch.setenv(VARIABLE, "cupy")
    with pytest.raises(OptionError, match=f"{VARIABLE} is auto, pycuda or cuda.bindings; got 'cupy'"):
        open_driver()


def test_without_a_driver_each_binding_says_so():
    """In a process without the emulation; where there is an NVIDIA driver it opens, or says what is wrong with it."""
    code = (
        "from exactile.cuda.choice import open_driver\n"
        "from exactile.errors import DeviceError\n"
        "try: print('opened', open_driver().name)\n"
        "except DeviceError as error: print('refused', error)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    state, words = done.stdout.split(maxsplit=1)
    assert state == "opened" or ("pycuda: " in words and "cuda.bindings: " in words and "driver" in words)


def test_ordinals_are_checked_against_what_is_there():
    """In the user's order, all of them, or an error that lists them."""
    emulation()
    driver = open_driver()
    assert [device.name for device in chosen_devices(driver, (1, 0))] == ["Second", "First"]
    assert [device.name for device in chosen_devices(driver, "all")] == ["First", "Second"]
    with pytest.raises(DeviceError, match=r"cuda:2 was requested.*cuda:0 \(First\), cuda:1 \(Second\)"):
        chosen_devices(driver, (0, 2))


def test_a_driver_without_gpus_is_an_error():
    """As CUDA_VISIBLE_DEVICES makes it."""
    machine = emulation()
    machine.reset(devices=0)
    with pytest.raises(DeviceError, match=r"no GPU is visible|No GPU is visible"):
        chosen_devices(open_driver(), "all")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("out of memory", "smaller tiles"),
        ("CUDA driver is a stub library", "take folders named stubs out of LD_LIBRARY_PATH"),
        ("CUDA-capable device(s) is/are busy or unavailable", "has this GPU for itself"),
        ("no CUDA-capable device is detected", "containers need --gpus all"),
        ("uncorrectable ECC error encountered", "memory is faulty"),
        ("an illegal memory access was encountered", "start the process anew"),
        ("unspecified launch failure", "start the process anew"),
        ("system not yet initialized", "nvidia-fabricmanager"),
        ("system has unsupported display driver / cuda driver combination", "update it"),
        ("forward compatibility was attempted on non supported HW", "cuda-compat"),
        ("initialization error", "by spawn"),
        ("unknown error", "see dmesg"),
    ],
)
def test_a_drivers_words_come_with_what_to_do(words, remedy):
    """The words are those of CUDA 13's own libraries; no other remedy matches as well."""
    found = [text for part, text in REMEDIES.items() if part in words]
    assert len(found) == 1
    assert remedy in found[0]
