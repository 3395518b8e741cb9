"""Plan a run of one image within the memory budget, and predict what it needs.

::

    wish      the request for a plan
    fit       whether an image fits the model, and a label its result
    planner   the plan, and its memory
    speed     the speed by which times of plans are predicted
    one_pass  the only plan of a model with obstacles to tiling
    result    the specification of a plan's result
"""

from exactile.planning.planner import PASSES_MARGIN_BYTES, PROCESS_MARGIN_BYTES, Planner
from exactile.planning.wish import PLAN_NAMES, PlanName, Wish

__all__ = ["PASSES_MARGIN_BYTES", "PLAN_NAMES", "PROCESS_MARGIN_BYTES", "PlanName", "Planner", "Wish"]
