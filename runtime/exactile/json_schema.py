"""Make JSON Schemas from the types that are written."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any


def schema_of(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of ``kind`` (draft 2020-12), the same with every release of msgspec and Python.

    Descriptions are docstrings: msgspec before 0.23, with Python before 3.13, leaves their lines indented. It also
    omits that a mapping is empty by default.
    """
    import msgspec

    schema: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(kind)))
    for part in schema["$defs"].values():
        if "description" in part:
            part["description"] = cleandoc(part["description"])
        for member in part.get("properties", {}).values():
            if member.get("default") == {}:
                del member["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
