"""Numbers that densities share."""

LOG_2PI = 1.8378770664093453
