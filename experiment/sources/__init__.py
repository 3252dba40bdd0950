"""Sources that `pretrain.py` and `probe.py` read: recordings of play, triplets of grasps, images and videos."""
