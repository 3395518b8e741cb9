"""Does a GPU compute what the CPU computes, whatever the plan, and does a run end well whatever happens?

``reference.py`` is one pass by plain ONNX Runtime on the CPU; it shares no code with what it judges.
"""
