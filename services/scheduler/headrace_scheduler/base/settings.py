"""Settings of a scheduler, HEADRACE_SCHEDULER_*, each with its trade-off."""

from __future__ import annotations

from pydantic import Field
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
    """Life of a lease that is not renewed, in whole seconds. Too small: a pause of the broker or
    of this process costs a take-over. Too large: nothing is dispatched for this long after a
    leader died."""
    lease_renew_s: float = Field(default=0.5, gt=0)
    """Time between renewals; a quarter of the life lets three of them fail."""
    lease_acquire_s: float = Field(default=0.25, gt=0)
    """How often a standby tries. Too small: load on the broker for each model and standby.
    Too large: this much is added to a take-over."""
    adoption_window_s: float = Field(default=1.5, ge=0)
    """Longest that a new leader waits for workers to report what they run before it dispatches
    what it has read; at least one report interval. Too small: running requests are run again
    elsewhere. Too large: requests wait longer after a take-over that lost a worker too."""

    quota_lease_ttl_s: int = Field(default=3, ge=3)
    """Life of the lease of the quota keeper, in whole seconds. Too small: pauses of the broker
    change the keeper. Too large: for this long after a keeper died, callers with limits get
    QUOTA_UNAVAILABLE."""

    max_waiting: int = Field(default=512, ge=0)
    """Requests that wait in one lane; the next is refused with LANE_FULL. Too small: bursts are
    refused that would have been served. Too large: requests wait whose callers have given up."""
    max_batch_requests: int = Field(default=64, ge=1)
    """Requests of one dispatch. Too small: more messages under load. Too large: one worker gets
    requests that another could have started."""
    max_batch_prefill_tokens: int = Field(default=8192, ge=1)
    """Prompt tokens of one dispatch; a longer prompt goes alone. Too small: more messages. Too
    large: running requests pause during the prefill, and messages near the broker's limit."""
    max_batch_bytes: int = Field(default=1 << 19, ge=1)
    """Size of one dispatch; a larger request goes alone. Too large: the broker, with a limit of
    1 MiB by default, refuses it."""
    max_batch_wait_s: float = Field(default=0.0, ge=0)
    """Longest that a request waits for others to share its batch while its worker is idle. Too
    small: engines that make vectors compute batches of one. Too large: it is added to every
    first token when there is little traffic. Generating engines batch at each step and need 0."""
    ageing_s: float = Field(default=2.0, ge=0)
    """Wait after which the oldest request of a less urgent lane may use its lane's share. Too
    small: the share is used in every burst. Too large: less urgent requests stall under endless
    load."""
    floor_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the places that a lane gets under endless more urgent load. Too small: it starves.
    Too large: urgent requests wait behind it."""
    prefix_routing: bool = True
    """Whether requests are held back for the worker with the longest cached prefix of their prompt,
    such as a conversation's next turn. Off, the least loaded worker gets them: where prompts have
    nothing in common that makes no difference, and this process computes no block names."""
    prefix_load_slack: float = Field(default=0.25, ge=0, le=1)
    """Load of that worker, above the fleet's, from which on requests do not wait for it; both are
    shares of taken slots. Too small: conversations move between workers and are computed again.
    Too large: requests with one popular prefix pile up on one worker."""
    prefix_wait_s_per_token: float = Field(default=0.0002, ge=0)
    """Longest wait for that worker, per token that it holds: about the prefill time of a token. Too
    small: a slot that is free a moment later is not used. Too large: waiting costs more than it
    saves."""

    preemption: bool = True
    """Whether the newest bulk requests are parked where more urgent ones find no slot; they are
    resumed later. On: an urgent request waits for a step, not for the end of a bulk one, whose
    prompt and output so far are computed again; and bulk requests leave `floor_share` of the slots,
    at least one, free on workers that cannot park them. Off: bulk requests run to their end, and
    others wait for slots."""
    max_preemptions: int = Field(default=10, ge=0)
    """How often a bulk request is parked for more urgent ones, per leader, until it keeps its slot;
    of such requests so many do as have `floor_share` of the slots, and at least one. Each time its
    prompt and its output so far are computed again. Too small: these slots are seldom there for
    urgent requests. Too large: in endless waves a bulk request is computed again and again before
    it ends."""

    prompt_token_weight: float = Field(default=1.0, ge=0)
    """Cost of a prompt token to its tenant's share. Only the ratio to the cost of an output token,
    the next setting, counts. Too small: tenants with long prompts get more of the workers than
    their share."""
    output_token_weight: float = Field(default=2.0, ge=0)
    """Cost of an output token. Engines compute prompt tokens several times as fast, because those
    share a step. Too small: tenants with long answers get more than their share."""
    max_tenants: int = Field(default=1024, ge=1)
    """Tenants without waiting requests whose counters each lane of a leader keeps, besides those
    with some. Too small: a tenant that is dropped and returns starts anew, and what it received
    beyond its share is forgotten. Too large: 0.3 KiB for each."""

    worker_silence_s: float = Field(default=3.0, gt=0)
    """Silence after which a worker counts as dead. Too small: a long pause of a live worker costs a
    second prefill of all that it runs. Too large: its streams pause for this long."""
    gateway_silence_s: float = Field(default=5.0, gt=0)
    """Silence after which a gateway counts as dead, unless that was noticed before: its streams
    wait for their clients at other gateways, detached requests are assigned to those, and its other
    requests are abandoned. Too small: a pause of a gateway breaks its streams. Too large: workers
    compute output that has no reader."""
    orphan_grace_s: float = Field(default=30.0, ge=0)
    """How long a stream whose gateway is gone waits for its client to connect to another. Too
    small: clients that reconnect late find nothing. Too large: this process holds abandoned
    requests."""
    max_orphans: int = Field(default=2048, ge=0)
    """Most requests of a model without a gateway at once, streams and detached ones. Further ones
    are abandoned; if they are detached, an error is stored as their result. Each holds its prompt
    and its output here, no slot and no place in a lane. Smaller than the number of requests that
    run and wait in three lanes: some are lost when a gateway dies. Too large: memory."""
    max_attempts: int = Field(default=3, ge=1)
    """Losses and engine failures in a row, with hardly any output in between, after which a
    request ends and is stored as a dead letter. Too small: failing workers end requests. Too
    large: a request that kills workers kills more of them."""
    dispatch_timeout_s: float = Field(default=2.0, gt=0)
    """Longest wait for a worker's answer to a dispatch; then its next report shows what it runs.
    Too small: a busy worker's requests count as lost. Too large: a request whose dispatch was lost
    on its way waits for this long."""
    notice_timeout_s: float = Field(default=2.0, gt=0)
    """Longest wait for a gateway's answer to a notice; then the notice is repeated."""
    notice_repeat_s: float = Field(default=1.0, gt=0)
    """Time between repeats of a notice whose request is not settled. Too small: load on a gateway
    in trouble. Too large: an end that got lost arrives late."""
    settle_grace_s: float = Field(default=5.0, gt=0)
    """Time from a request's end on its worker to its settlement, after which its gateway is sent a
    fence. Too small: slow gateways are disturbed in vain. Too large: a lost end is noticed late."""
    deadline_grace_s: float = Field(default=1.0, ge=0)
    """Time past its deadline after which the scheduler ends a running request, in case its worker
    did not. Too small: it precedes the worker's own, better ending."""
    lane_report_s: float = Field(default=0.25, gt=0)
    """Interval of the reports by which gateways refuse early. Too small: load for every gateway.
    Too large: they refuse by outdated figures."""
    drain_s: float = Field(default=1.0, ge=0)
    """Longest wait on shutdown for acknowledgements that are not confirmed."""
