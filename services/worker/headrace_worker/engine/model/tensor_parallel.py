"""Tensor parallelism: one model over several processes, each with a part of every matrix.

`torchrun` starts the processes and transformers shards the matrices. All processes hold the same
slots and blocks and run the same passes, each over its own heads. Rank 0, the leader, has the
engine and broadcasts every call of its model runner.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import cache, partial
from itertools import count
from typing import Any, cast

import torch
import torch.distributed as dist
from transformers import PreTrainedConfig

from headrace_worker.engine.base.model_runner import ModelRunner

log = logging.getLogger(__name__)

_loads = count()
_NO_TIMEOUT = timedelta(days=3650)
"""The followers wait this long for a call: a worker may be idle. If the leader dies, the wait
ends at once with an error."""

_BROADCAST = frozenset({"assign_slot", "allocate", "reserve", "run", "release"})
"""The calls that all processes make."""


def join() -> int:
    """Join the process group that torchrun started; return the rank of this process.

    Raises:
        ValueError: torchrun did not start this process.
    """
    if not dist.is_initialized():
        dist.init_process_group()
    return dist.get_rank()


def is_joined() -> bool:
    return bool(dist.is_initialized() and dist.get_world_size() > 1)


def sharding(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the arguments with which `from_pretrained` loads this process's shard.

    Raises:
        ValueError: the heads cannot be divided evenly.
        RuntimeError: a second load; the other processes follow the first only.
    """
    if not is_joined():
        return {}
    key_heads = getattr(config.get_text_config(), "num_key_value_heads", None)
    if key_heads is not None and key_heads % dist.get_world_size():
        raise ValueError(
            f"{key_heads} key heads do not go into {dist.get_world_size()} equal parts"
        )
    if next(_loads):
        raise RuntimeError("a model in parts is loaded once; restart all its processes")
    # Why here: it is where transformers keeps what is still on the move.
    from transformers.distributed import DistributedConfig  # type: ignore[attr-defined]  # theirs

    return {"distributed_config": DistributedConfig(tp_plan="auto")}


def smallest_of_all(amount: int) -> int:
    """Return the smallest amount of any process: all need the same slots and blocks."""
    if not is_joined():
        return amount
    found = torch.tensor([amount])
    dist.all_reduce(found, dist.ReduceOp.MIN, group=_control_group())
    return int(found)


def leading(forward: ModelRunner) -> ModelRunner:
    """Return the leader's model runner, which broadcasts its calls; elsewhere `forward` itself."""
    leads = is_joined() and dist.get_rank() == 0
    return cast(ModelRunner, LeaderModelRunner(forward)) if leads else forward


class LeaderModelRunner:
    """Broadcasts every call that changes or computes something before making it."""

    def __init__(self, own: ModelRunner) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return partial(self._call_all, name) if name in _BROADCAST else getattr(self._own, name)

    def _call_all(self, what: str, *arguments: object, **named: object) -> Any:
        dist.broadcast_object_list([(what, arguments, named)], src=0, group=_control_group())
        return getattr(self._own, what)(*arguments, **named)


def follow(own: ModelRunner) -> None:
    """Make the calls that the leader broadcasts, until the leader is gone."""
    while True:
        message: list[Any] = [None]
        try:
            dist.broadcast_object_list(message, src=0, group=_control_group())
        except RuntimeError as error:
            log.info("parallel.leader_gone", extra={"why": str(error).splitlines()[0]})
            return
        what, arguments, named = message[0]
        try:
            with torch.inference_mode():
                getattr(own, what)(*arguments, **named)
        except Exception as error:  # noqa: BLE001  # the first has it too, and decides
            log.warning("parallel.pass_failed", extra={"what": what, "error": repr(error)})


@cache
def _control_group() -> Any:
    """Return the group for calls, on the host; all processes must come here at the same time."""
    return dist.new_group(backend="gloo", timeout=_NO_TIMEOUT)
