"""Files to frames: where each frame starts, when it was taken, how much of it was kept."""
