"""Updates and actions as CUDA graphs: their kernels are recorded once and then replayed by one launch."""

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from replay import Batch

log = logging.getLogger(__name__)
R = TypeVar("R")

WARM_UP = 3  # eager calls before a recording: optimisers make their state, libraries choose their kernels


@dataclass
class Program(Generic[R]):
    """What a function does in one phase, on inputs of one shape."""

    inputs: tuple[Any, ...]  # on static memory
    calls: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    output: R | None = None  # of the newest replay


class Captured(Generic[R]):
    """A function of tensors, on static memory: on a CUDA device a graph, elsewhere the same without a recording.

    Inputs are copied into buffers that stay. In each phase and for each shape of the inputs the function runs `WARM_UP`
    times, is recorded, and from then on replayed: it is not called any more, and each replay overwrites its output. So
    it has to read all that changes from tensors, may change nothing but tensors, in place, and may decide by its phase
    alone. Nothing here waits for the device. If a recording fails, a warning says so once, and the function runs
    eagerly from then on.

    Args:
        function: of `Batch` and tensors; None stands for an input that is not there.
        device: where it computes.
        enabled: False calls the function as it is.
        generators: what it draws from.
        reset: undoes what a recording that failed may leave, such as gradients.
    """

    def __init__(
        self,
        function: Callable[..., R],
        device: torch.device,
        *,
        enabled: bool,
        generators: Sequence[torch.Generator] = (),
        reset: Callable[[], None] = lambda: None,
    ) -> None:
        self._function, self._reset, self._generators = function, reset, generators
        self._enabled, self._records = enabled, enabled and device.type == "cuda"
        self._programs: dict[Hashable, Program[R]] = {}
        self.phase: Hashable = None  # of the next call

    def __call__(self, *inputs: Batch | Tensor | None) -> R:
        """Run, record or replay."""
        if not self._enabled:
            return self._function(*inputs)
        program = self._program(inputs)
        for buffer, value in zip(leaves(program.inputs), leaves(inputs), strict=True):
            buffer.copy_(value, non_blocking=True)
        program.calls += 1
        if program.graph is None and self._records:
            if program.calls <= WARM_UP:
                return self._run_aside(program)
            self._record(program)
        if program.graph is None:
            return self._function(*program.inputs)
        program.graph.replay()
        assert program.output is not None
        return program.output

    def _program(self, inputs: tuple[Any, ...]) -> Program[R]:
        key = self.phase, *((value.shape, value.dtype) for value in leaves(inputs))
        if key not in self._programs:
            self._programs[key] = Program(tuple(map(static, inputs)))
        return self._programs[key]

    def _run_aside(self, program: Program[R]) -> R:
        """A call on another stream, as the work before a recording must be."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            output = self._function(*program.inputs)
        here.wait_stream(aside)
        return output

    def _record(self, program: Program[R]) -> None:
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        streams = [torch.cuda.default_generators[torch.cuda.current_device()], *self._generators]
        states = [stream.clone_state() for stream in streams]
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph):
                program.output = self._function(*program.inputs)
            program.graph = graph
        except RuntimeError as error:
            self._run_eagerly(str(error).strip().split("\n")[0])
            torch.cuda.set_stream(here)  # the recording leaves its own, and generators that wait for it to go on
            for stream, state in zip(streams, states, strict=True):
                stream.graphsafe_set_state(state)

    def _run_eagerly(self, reason: str) -> None:
        """From now on, in every phase."""
        log.warning("agent.capture: recording failed, running eagerly: %s", reason)
        self._records = False
        for program in self._programs.values():
            program.graph = None
        self._reset()


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Let the steps of an optimiser be recorded, and the steps before the recording give no warning."""
    for group in optimizer.param_groups:
        group["capturable"] = True
    optimizer._warned_capturable_if_run_uncaptured = True


def leaves(inputs: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors of the inputs, in a fixed order."""
    for value in inputs:
        if isinstance(value, Batch):
            yield from leaves([getattr(value, field.name) for field in fields(value)])
        elif value is not None:
            yield value


def static(value: Any) -> Any:
    """Memory of its own for an input."""
    if isinstance(value, Batch):
        return replace(value, **{field.name: static(getattr(value, field.name)) for field in fields(value)})
    return None if value is None else torch.empty_like(value)
