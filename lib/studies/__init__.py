"""What the numbers are worth: leave-one-corpus-out, shortcuts, calibration, robustness, long recordings.

A study is a module with ``run(inputs) -> Result``, listed in `registry`: what each reads and writes.
"""
