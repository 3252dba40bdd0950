"""Recorded episodes, and every other source that `pretrain.py` and `probe.py` read."""
