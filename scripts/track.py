"""Follow a thing through a video by the colours that a pretraining learned to point at; nothing is trained for it.

    python pretrain.py aux=video_colorization source=videos grayscale=false encoder=control_fast run_dir=runs/colours
    python scripts/track.py run=runs/colours frame=0 box=20,20,24,24 out=tracked.mp4

`box` is top, left, height and width in pixels of the run's frames, `frame` the first of the held-out frames that are
shown, `length` how many. The video shows them beside what was followed.
"""

import logging
import re
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from analysis.picture import panel, side_by_side
from analysis.video import video_writer
from aux_tasks.video.video_colorization import DIM, VideoColorization
from configs.schema import PretrainConfig
from experiment.command_line.composition import read_config
from experiment.folders.foreign import check_paths
from experiment.pretraining.run import load_pretraining

PANEL = 256  # pixels a side


def main(argv: list[str]) -> None:
    """Write the video.

    Raises:
        ValueError: a key is missing or wrong, the run has no such task, or the box is not in the picture.
    """
    options = {"frame": "0", "length": "100", "out": "tracked.mp4"} | dict(word.partition("=")[::2] for word in argv)
    if wrong := options.keys() ^ {"run", "box", "frame", "length", "out"}:
        raise ValueError(f"{', '.join(sorted(wrong))}: run and box must be given, frame, length and out may be")
    run = Path(options["run"])
    check_paths(run, read_config(run / "config.yaml", PretrainConfig).source, "move the run there")
    parts = load_pretraining(run)
    task = dict(parts.suite).get("video_colorization")
    if not isinstance(task, VideoColorization):
        raise ValueError(f"{options['run']} was not pretrained by aux=video_colorization")
    height, width = parts.test.obs_shape[1:]
    top, left, rows, columns = parse_box(options["box"], height, width)
    frames = parts.test.episodes.rows()
    first = parse_number("frame", options["frame"], range(len(frames)))
    length = parse_number("length", options["length"], range(1, 1_000_000))
    mask = torch.zeros(1, 1, height, width, device=parts.test.device)
    mask[..., top : top + rows, left : left + columns] = 1

    begin = frames[first]
    end = parts.test.episodes.end[parts.test.episodes.end > begin][0]
    shown = np.arange(begin, min(begin + length, end))
    clip = parts.test.observe(shown)
    found = F.interpolate(task.track(mask, clip[None], parts.encoder)[0], (height, width))
    with video_writer(Path(options["out"]), fps=15) as add:
        for obs, share in zip(clip[:, -3:].float(), found, strict=True):
            pictures = {"frame": obs, "followed": obs * (DIM + (1 - DIM) * share)}
            rgb = {name: picture.byte().permute(1, 2, 0).cpu().numpy() for name, picture in pictures.items()}
            add(side_by_side([panel(pixels, PANEL, name) for name, pixels in rgb.items()]))


def parse_box(text: str, height: int, width: int) -> list[int]:
    """Top, left, height and width of a box within a picture."""
    if re.fullmatch(r"\d+(,\d+){3}", text):
        top, left, rows, columns = box = [int(number) for number in text.split(",")]
        if rows and columns and top + rows <= height and left + columns <= width:
            return box
    picture = f"the picture, which is {height} pixels high and {width} wide"
    raise ValueError(f"box={text}: must be top,left,height,width within {picture}")


def parse_number(name: str, text: str, possible: range) -> int:
    """A whole number of those that are possible."""
    if not text.isdecimal() or int(text) not in possible:
        raise ValueError(f"{name}={text}: must be a whole number from {possible[0]} to {possible[-1]}")
    return int(text)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main(sys.argv[1:])
    except (ValueError, OSError, IndexError) as error:
        sys.exit(f"error: {error}")
