"""Ask ONNX Runtime which nodes of a graph it would leave to the CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

from exactile.engines.cuda_provider import NOT_ON_GPU, PROVIDER

_MOST_NAMED = 5


def left_to_the_cpu(ort: Any, error: Exception, graph: bytes, options: Any, asked: dict[str, str]) -> str:
    """Return the message for a session that was refused with ``error``; "" if there was another reason.

    ``options`` and ``asked`` are those of the session; the former are changed. ONNX Runtime says only that there are
    such nodes: it is asked again, for the placement of each.
    """
    if NOT_ON_GPU not in str(error):
        return ""
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = ort.InferenceSession(graph, options, providers=[(PROVIDER, asked)], enable_fallback=0)
        if session.get_providers()[0] != PROVIDER:
            return ""  # the provider did not start
        parts = session.get_provider_graph_assignment_info()
    except Exception:  # noqa: BLE001  # older versions do not tell; the first error stands
        return ""
    left = [node for part in parts if part.ep_name != PROVIDER for node in part.get_nodes()]
    if not left:
        return ""
    return (
        f"ONNX Runtime's CUDA provider has no kernel for {_named(left)}, and nothing is left to the CPU. "
        "What to do: --engine tensorrt, with an engine built for it, or --device cpu"
    )


def _named(nodes: list[Any]) -> str:
    """Return operators, with the first node of each, and their number."""
    count = Counter(node.op_type for node in nodes)
    first = {node.op_type: node.name for node in reversed(nodes)}
    said = [f"{op} ({f'{number} nodes, ' if number > 1 else ''}{first[op]!r})" for op, number in count.items()]
    more = len(said) - _MOST_NAMED
    return ", ".join(said[:_MOST_NAMED]) + (f" and {more} more operators" if more > 0 else "")
