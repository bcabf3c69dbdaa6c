"""What makes packets and flows the same ones at another place."""
