"""Data that does not change: recordings, images, videos, synthetic scenes, sampled as `Batch`. No running agent."""

from datasets.episodes import Episodes, EpisodeSampler

__all__ = ["EpisodeSampler", "Episodes"]
