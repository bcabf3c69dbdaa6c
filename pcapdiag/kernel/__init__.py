"""Pure models of what hosts do: kernels, tunnels, arithmetic, remedies. No captures in here."""
