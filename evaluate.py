"""Evaluate a trained agent: full episodes under a named protocol, a report, a video, and maps of what it looks at.

python evaluate.py checkpoint=zoo/pong-permutation
python evaluate.py checkpoint=zoo/pong-permutation protocol=ale_v5 json=out.json video=pong.mp4 attribution=maps
"""

import sys

from experiment.launch import check_words, launch

if __name__ == "__main__":
    check_words("evaluate", sys.argv[1:], __doc__)  # before torch loads


import logging
import shlex
from collections.abc import Iterator
from pathlib import Path

from analysis.attribution import write_maps
from analysis.evaluation import (
    PANEL,
    Moment,
    attribution_targets,
    evaluate,
    evenly_spaced,
    greedy,
    play_moments,
    write_report,
    write_video,
)
from analysis.video import VideoWriter
from configs.schema import EvaluateConfig
from experiment.build import load_agent
from experiment.composition import freeze
from experiment.zoo import locate
from harness.process import tune_process

log = logging.getLogger("sidequest")

MOMENTS = 8  # of an episode, for the attribution maps


def run(config: EvaluateConfig, argv: list[str]) -> int:
    """Evaluate, and write all that `config` asks for; returns the process exit code."""
    tune_process(config.threads)
    checkpoint = locate(config.checkpoint)
    trained, agent = load_agent(checkpoint, config.device)
    protocol, policy, frame_stack = trained.env.protocol(config.protocol), greedy(agent), trained.frame_stack
    video = VideoWriter(Path(config.video), protocol.env.fps) if config.video else None
    report = evaluate(policy, protocol, frame_stack, config.episodes, config.seed, config.num_envs)
    written = Path(config.json or checkpoint / f"report-{protocol.name}.json")
    write_report(report, written, checkpoint, f"python evaluate.py {shlex.join(argv)}")
    log.info("report: %s", written)

    def moments() -> Iterator[Moment]:
        return play_moments(policy, protocol, frame_stack, config.seed, PANEL)

    if video:
        write_video(moments(), attribution_targets(agent), frame_stack, video)
    if config.attribution:
        observations = [moment.obs for moment in evenly_spaced(moments(), MOMENTS)]
        write_maps(Path(config.attribution), observations, attribution_targets(agent), frame_stack)
    sys.stdout.write(f"mean {report.summary['mean']:.2f} over {config.episodes} episodes\n")
    return 0


def main(words: list[str]) -> int:
    """Run the command line; returns the exit code of the process."""
    return launch(lambda composed: run(freeze(composed.config, EvaluateConfig), words), "evaluate", words, __doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
