"""How far the clocks of vantages are apart: bounds, and where a clock was stepped."""
