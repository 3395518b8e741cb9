"""How much memory a placed Resize takes beside its operand."""

from __future__ import annotations

from exactile_converters.placed.resampling import Resampling


def scratch_values(how: Resampling, operand: int, between: int, result: int) -> int:
    """Values that live at most at once beside the operand; those of the result are among them where they count.

    ``between`` are the values of the map between the axes: columns resized, rows not yet.

    Counted for ONNX Runtime on a CPU, which cannot compute in place here: it does not know that the shapes are equal.
    The columns are transposed, gathered, added up and transposed back, then rows are gathered and added up.
    Channels-last maps take less, as they are not transposed. Weighted sums have float32 values; of float16 maps there
    are float32 copies besides. What an allocator rounds up is not counted.
    """
    while_read, afterwards = _maps(how)
    columns = max(operand + while_read * between, max(afterwards, 2) * between)
    rows = max(between + while_read * result, afterwards * result)
    return max(columns, rows)


def _maps(how: Resampling) -> tuple[int, int]:
    """Maps of an axis' result: while what it is made of is still read, and when it has been read."""
    if how.antialias:
        return 4, 4  # in a loop: the sum before and after, the entries, their products
    return {"nearest": (1, 1), "linear": (2, 3), "cubic": (3, 3)}[how.kind]
