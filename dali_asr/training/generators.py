"""The states of torch's random generators, which dropout draws from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from dali_asr.training.distributed import World

States = dict[str, list[torch.Tensor]]  # by kind of device, then by rank


def generator_states(world: World) -> States:
    """Return the states of all ranks."""
    states = {"cpu": world.gather(torch.get_rng_state())}
    if world.device.type == "cuda":
        states["cuda"] = world.gather(torch.cuda.get_rng_state(world.device))
    return states


def restore_generators(states: States, world: World) -> None:
    """Restore this rank's generators; a rank that there was not keeps its own."""
    if world.rank < len(states["cpu"]):
        torch.set_rng_state(states["cpu"][world.rank])
    if world.device.type == "cuda" and world.rank < len(states.get("cuda", [])):
        torch.cuda.set_rng_state(states["cuda"][world.rank], world.device)
