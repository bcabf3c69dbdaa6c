"""Requests that got no answer, or the wrong one: how far they came, who turned them away."""
