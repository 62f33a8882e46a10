"""What the numbers are worth: leave-one-corpus-out, shortcuts, calibration, robustness, seeds, long recordings."""
