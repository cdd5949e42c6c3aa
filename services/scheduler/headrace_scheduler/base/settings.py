"""Every knob of the scheduler, with its trade-off."""

from __future__ import annotations

from pydantic import Field, PositiveFloat
from pydantic_settings import SettingsConfigDict

from headrace.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    """Flags, then HEADRACE_SCHEDULER_*, then the file named by HEADRACE_SCHEDULER_CONFIG."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        env_parse_none_str="none",
        env_prefix="HEADRACE_SCHEDULER_",
    )

    lease_ttl_s: int = Field(default=2, ge=1)
    """Life of a leadership that is not renewed, in whole seconds. Too small: a pause of the
    broker or of this process costs a take-over. Too large: this long nothing is dispatched
    after a leader died."""
    lease_renew_s: float = Field(default=0.5, gt=0)
    """Time between renewals; a quarter of the life lets three of them fail."""
    lease_acquire_s: float = Field(default=0.25, gt=0)
    """How often a standby tries. Too small: load on the broker for each model and standby.
    Too large: this much is added to a take-over."""
    adoption_window_s: float = Field(default=1.5, ge=0)
    """Longest that a new leader waits for workers to say what they run before it dispatches
    what it has read; at least one heartbeat. Too small: what runs is run again elsewhere.
    Too large: a longer pause for what waits, after a take-over that lost a worker too."""

    max_waiting: int = Field(default=512, ge=0)
    """Requests that wait in one lane; the next is refused with LANE_FULL. Too small: bursts are
    refused that would have been served. Too large: callers wait for what they gave up on."""
    max_batch_requests: int = Field(default=64, ge=1)
    """Requests of one dispatch. Too small: more messages under load. Too large: one worker gets
    what another could have started."""
    max_batch_prefill_tokens: int = Field(default=8192, ge=1)
    """Prompt tokens of one dispatch; a longer prompt goes alone. Too small: more messages. Too
    large: running requests stand still for the prefill, and messages near the broker's bound."""
    max_batch_bytes: int = Field(default=1 << 19, ge=1)
    """Size of one dispatch; a larger request goes alone. Too large: the broker, with 1 MiB by
    default, does not take it."""
    max_batch_wait_s: float = Field(default=0.0, ge=0)
    """Longest that a request waits for company while its worker has nothing to do. Too small:
    one-shot engines compute batches of one. Too large: it is added to every first token when
    traffic is thin. Generating engines merge at each step and want 0."""
    ageing_s: float = Field(default=2.0, ge=0)
    """Wait after which the oldest of a less urgent lane may use its lane's share. Too small: the
    share is used in every burst. Too large: less urgent requests stall under endless load."""
    floor_share: float = Field(default=0.1, ge=0, le=1)
    """Part of the places that a lane gets under endless more urgent load. Too small: it starves.
    Too large: urgent requests wait behind it."""
    prefix_routing: bool = True
    """Requests are kept for the worker that holds the longest beginning of their prompt, such as a
    conversation's next turn. Off, the least loaded worker takes them: where prompts have nothing in
    common that is all the same, and this process computes no names of blocks."""
    prefix_load_slack: float = Field(default=0.25, ge=0, le=1)
    """Share of slots taken, beyond the fleet's, from which on that worker is not waited for. Too
    small: conversations move about and are computed anew. Too large: those with one popular
    beginning crowd on one worker."""
    prefix_wait_s_per_token: float = Field(default=0.0002, ge=0)
    """Longest wait for that worker, per token that it holds: about what a token's prefill takes.
    Too small: a slot that is free a moment later is not used. Too large: waiting costs more than
    is saved."""

    preemption: bool = True
    """Whether a worker is asked to park the newest bulk requests where interactive ones find no
    slot; they go on later, where they were. On: an interactive request waits for a step, not for
    the end of a bulk one, whose prompt and output so far are computed again. Off: bulk work runs
    through, and interactive requests wait for slots."""
    max_preemptions: int = Field(default=10, ge=0)
    """How often a request is parked for interactive ones, for each leader; then it keeps its slot.
    Each costs the computing of its prompt and its output so far. Too small: after as many waves of
    urgent requests, long bulk ones hold slots that the next wave waits for. Too large: in endless
    waves a bulk request is computed again and again before it ends."""

    tenant_weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Shares of tenants, as JSON, {"research": 3}, or as a table in the file: where several wait
    in a lane, the one that has had least by its weight goes first. A tenant not named has 1. Too
    far apart: the small ones wait for long wherever a large one has much to do."""
    prompt_token_weight: float = Field(default=1.0, ge=0)
    """Cost of a prompt token to its tenant's share, as the next of an output token: their ratio
    counts. Too small: tenants with long prompts get more of the workers than their share."""
    output_token_weight: float = Field(default=2.0, ge=0)
    """Cost of an output token. An output token takes a step, of which a prompt's share one:
    engines make prompts' keys and values several times as fast. Too small: tenants with long
    answers get more than their share."""
    max_tenants: int = Field(default=1024, ge=1)
    """Tenants with nothing waiting whose counters each lane of a leader keeps; those that wait are
    kept besides. Too small: one that is forgotten and comes back begins as a newcomer, and what it
    had beyond its share is forgiven. Too large: 0.3 KiB for each."""

    worker_silence_s: float = Field(default=3.0, gt=0)
    """Silence after which a worker is dead. Too small: a long pause of a live worker costs a
    second prefill of all it runs. Too large: its streams stand still for this long."""
    gateway_silence_s: float = Field(default=5.0, gt=0)
    """Silence after which a gateway is taken for gone, if nobody noticed before: its streams wait
    for their readers elsewhere, detached requests are given to other gateways, and what else it
    had is abandoned. Too small: a pause of a gateway
    breaks its streams. Too large: workers compute for nobody."""
    orphan_grace_s: float = Field(default=30.0, ge=0)
    """How long a stream whose gateway is gone waits for its reader to come to another. Too small:
    readers who come back late find nothing. Too large: this process holds what nobody wants."""
    max_orphans: int = Field(default=2048, ge=0)
    """Requests of a model without a gateway at once, streams and detached ones; what is more is
    abandoned, and if it is detached an error is kept as its result. Each holds its prompt and its
    output here, no slot and no place in a lane. Smaller than what `max_waiting` lets into three
    lanes, and what runs: a gateway loses some when it dies. Too large: memory."""
    max_attempts: int = Field(default=3, ge=1)
    """Losses and engine failures in a row, with hardly any output in between, after which a
    request is given up and kept as a dead letter. Too small: bad luck of workers ends requests.
    Too large: a request that kills workers kills more of them."""
    dispatch_timeout_s: float = Field(default=2.0, gt=0)
    """Longest wait for a worker's answer to a dispatch. Too small: a busy machine's answers are
    taken for losses. Too large: requests given to a dead worker wait for this long."""
    notice_timeout_s: float = Field(default=2.0, gt=0)
    """Longest wait for a gateway's answer to a notice; then it is asked again."""
    notice_repeat_s: float = Field(default=1.0, gt=0)
    """Time between repeats of a notice that has not led to its end. Too small: load on a gateway
    in trouble. Too large: an end that got lost is told late."""
    settle_grace_s: float = Field(default=5.0, gt=0)
    """Time from a request's end on its worker to its settlement, after which its gateway is asked
    where it stands. Too small: slow relays are asked in vain. Too large: a lost end stays so."""
    deadline_grace_s: float = Field(default=1.0, ge=0)
    """Time past its deadline after which a running request is ended from here, in case its worker
    did not. Too small: cuts off the worker's own, better ending."""
    lane_report_s: float = Field(default=0.25, gt=0)
    """Beat of the reports by which gateways refuse early. Too small: load for every gateway. Too
    large: they refuse by old figures."""
    drain_s: float = Field(default=1.0, ge=0)
    """Longest wait on shutdown for answers and acknowledgements that are on their way."""
