"""The tutorials are typed as they stand, and lead to what they say; each compares its labels with one pass."""

from __future__ import annotations

import shutil

import pytest

from tests.support.documents import blocks, code
from tests.support.folders import ROOT
from tests.support.tutorial import run_tutorial

FOLDER = ROOT / "docs" / "tutorials"
NAMES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "README")
MODEL = "stain_unet.onnx"


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_does_what_it_says(name, tmp_path):
    document = FOLDER / f"{name}.md"
    if MODEL in document.read_text(encoding="utf-8"):
        shutil.copy(ROOT / "models" / MODEL, tmp_path)
    done = run_tutorial(document, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_compares_its_labels_with_one_pass(name):
    """Of plain ONNX Runtime, over the whole image, label by label."""
    written = "".join(code(FOLDER / f"{name}.md", "python"))
    assert "ort.InferenceSession(" in written
    assert "assert np.array_equal(" in written


def test_every_tutorial_is_in_their_list():
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(NAMES) == 5
    assert [name for name in NAMES if f"]({name}.md)" not in listed] == []


RIGHT = """
```python title="module.py"
VALUE = 3
```

```sh
python -c 'import module; print(module.VALUE)' > value.txt
```

```python
import module
value = int(open("value.txt").read())
print("the value", value)
```

```text
the value 3
```

```python
assert value == module.VALUE
```
"""


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("assert value ==", "assert value !=", "AssertionError"),
        ("the value 3", "the value 4", "'the value 4' was not printed"),
        ("print(module.VALUE)", "print(module.OTHER)", "status 1"),
        ("```text", "```yaml", "blocks of 'yaml' cannot be run"),
    ],
)
def test_a_tutorial_that_is_wrong_fails(right, wrong, said, tmp_path):
    """Code that fails, output that differs, a command that fails, a block that nothing runs."""
    (tmp_path / "right").mkdir()
    (tmp_path / "wrong").mkdir()
    document = tmp_path / "tutorial.md"
    document.write_text(RIGHT, encoding="utf-8")
    done = run_tutorial(document, tmp_path / "right")
    assert done.returncode == 0, done.stderr
    assert [block.language for block in blocks(document)] == ["python", "sh", "python", "text", "python"]
    document.write_text(RIGHT.replace(right, wrong, 1), encoding="utf-8")
    done = run_tutorial(document, tmp_path / "wrong")
    assert done.returncode == 1
    assert said in done.stderr
