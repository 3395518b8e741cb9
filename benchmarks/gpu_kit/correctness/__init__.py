"""Check that a GPU computes what the CPU computes, whatever the plan, and that every run ends cleanly.

``reference.py`` is one pass by plain ONNX Runtime on the CPU; it shares no code with what it judges.
"""
