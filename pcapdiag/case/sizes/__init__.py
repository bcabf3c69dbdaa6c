"""Path MTU: which packet sizes pass, who was told of it, and what that costs."""
