"""Rewrite a network's graph so that rules know its operators, without changing what it computes."""
