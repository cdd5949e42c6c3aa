"""All settings of the gateway."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from headrace.auth.settings import AccessSettings
from headrace.bus import RESULT_KEPT_AT_MOST_S
from headrace.bus.objects import CONVERSATION_KEPT_AT_MOST_S, RESPONSE_KEPT_AT_MOST_S
from headrace.rpc.delivery_secret import DeliverySettings
from headrace_gateway.base.moderation import check_labels


class GatewaySettings(AccessSettings, DeliverySettings):
    """Settings of a gateway; HEADRACE_GATEWAY_<NAME> in the environment."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_GATEWAY_")

    grpc_port: int = 0
    """Public gRPC, for Envoy and native clients, on `host`; 0 picks a free one."""
    delivery_port: int = 0
    """Where workers bring tokens, on `host`; 0 picks a free one."""
    advertised_host: str = ""
    """Name or address of this process as workers reach it; empty: `host`. Where that is 0.0.0.0
    or ::, the address from which this machine reaches the broker."""

    configured_models: tuple[str, ...] = ()
    """Models that the mesh is to serve, as JSON: each by its name and, after commas, its aliases,
    as ["qwen,gpt-4o"]. Until a worker has announced one, it is listed as not ready, and a request
    for it is refused with 503 and `Retry-After`. Empty: a model is unknown, 404, until then."""

    max_open_requests: int = Field(default=4096, gt=0)
    """Requests held at once, ended but unsettled ones included. Too small: refusals although
    lanes have room. Too large: memory, some 10 KiB and the output's ids for each."""
    submit_timeout_s: float = Field(default=5.0, gt=0)
    """Longest wait for the broker to store a request before its caller is refused. Too small:
    a restarting broker means errors. Too large: callers wait instead of trying elsewhere."""
    quota_refusal_kept_s: float = Field(default=1.0, ge=0)
    """How long the quota keeper's refusal of a request answers equal ones of the same key and
    model. Too small: a client that repeats without a pause costs a message each time. Too large:
    what ends meanwhile and returns tokens admits the next request that much later."""
    quota_ahead_tokens: int = Field(default=512, ge=16, le=1_000_000)
    """Output that a request of a caller with limits reserves before it is made, of all choices
    together. Too small: the keeper is asked again and again, and streams wait for its answers. Too
    large: a request keeps tokens from others that it may never make."""
    lane_report_max_age_s: float = Field(default=3.0, gt=0)
    """Reports of lanes older than this refuse no request. Too small: a late report admits beyond
    the lane's bound. Too large: a lane is refused long after it emptied, if its leader died."""
    queue_told_after_s: float = Field(default=0.5, ge=0)
    """Wait after which a stream is sent its position in its lane. Too small: events for requests
    that start at once. Too large: people take it for dead. A `/v1` stream with event ids has its
    head from then on, so what fails later has no HTTP status of its own, but is an event."""
    stream_head_after_s: float = Field(default=2.0, ge=0)
    """A `/v1` stream's head is sent after this time though nothing is known of its answer. Too
    small: what fails soon after, as in a full lane, has no HTTP status of its own, but is an event
    of its stream. Too large: clients and proxies that wait for a head give up."""
    stream_keepalive_s: float = Field(default=10.0, gt=0)
    """Longest silence of a stream of server-sent events, queued or running; then a comment is sent.
    Streams over gRPC are sent their position as often. Too small: comments in streams that are
    well. Too large: proxies cut streams that are silent for a minute, some sooner."""
    deadline_slack_s: float = Field(default=2.0, ge=0)
    """How long after its deadline a request is left to scheduler and worker to end. Too
    small: the gateway ends requests whose end is on its way. Too large: callers hang longer
    where the whole mesh is down."""

    reader_stall_s: float = Field(default=30.0, gt=0)
    """A caller that takes nothing of what waits for it for this long is cut with SLOW_READER, and
    its request cancelled; one that takes 64 KiB in that time is not. Too small: a phone in a
    tunnel loses its answer. Too large: a client that reads nothing keeps a place of
    `max_open_requests`, and its answer in memory."""
    worker_reconnect_grace_s: float = Field(default=0.3, ge=0)
    """How long a worker may take to reconnect after its stream broke, before its requests go
    to others. Too small: a dropped connection costs a second prefill. Too large: so much is
    added to every recovery from a dead worker."""
    leader_answer_timeout_s: float = Field(default=3.0, gt=0)
    """How long a leader may take to answer before it is sent the request again. A leader answers
    once the broker has confirmed. Too small: every request is sent twice if the broker is slow. Too
    large: a leader that dies while it answers delays the next request to its successor."""
    result_store_timeout_s: float = Field(default=10.0, gt=0)
    """How long the storing of one result is tried. Too small: a restarting broker loses
    results. Too large: settling waits for it."""

    attach_wait_s: float = Field(default=10.0, gt=0)
    """How long a client that resumes a request waits until it is known where that is. Less
    than the scheduler's `gateway_silence_s`: readers are refused while a frozen gateway is not
    yet taken for dead. Too large: they wait as long for what cannot be reached."""

    ready_window_s: float = Field(default=15.0, gt=0)
    """How long no scheduler may have reported before this gateway is unhealthy and Envoy leaves it.
    Too small: a change of leader makes all gateways unhealthy. Too large: a gateway that is cut
    off still gets requests."""
    canary_interval_s: float = Field(default=5.0, gt=0)
    """A canary flies where no token came for this long. Too small: an idle mesh works for
    nothing. Too large: a mesh that is stuck shows in its metric that late."""
    canary_timeout_s: float = Field(default=10.0, gt=0)
    """How long a canary's token may take; longer than a cold prefill of one token."""

    lame_duck_s: float = Field(default=3.0, ge=0)
    """After SIGTERM, health says NOT_SERVING at once, and requests are still taken for this
    long: until Envoy has noticed. Too small: refusals during a rolling restart. Too large:
    so much is added to every stop."""
    drain_s: float = Field(default=30.0, ge=0)
    """How long open streams may run after that before they get an error event. Too small:
    long answers are cut. Too large: beyond the supervisor's patience, which kills."""
    settle_s: float = Field(default=5.0, ge=0)
    """Longest wait, at the end, for schedulers to take note of what has ended here; what they
    have not, they settle by themselves when this gateway's reports stop."""

    max_body_bytes: int = Field(default=8 * 1024 * 1024, gt=0, le=16 * 1024 * 1024)
    """Largest JSON body. Parsing one blocks the event loop for about 10 ms a MiB, and so every
    stream of this gateway. Too small: prompts for a long context are refused as bodies, not
    as prompts. Above 16 MiB Envoy refuses first."""
    strict_fields: bool = False
    """Refuse fields of /v1 bodies that are not known. False: they are passed over, named in the
    answer's header `x-headrace-ignored` and counted; a caller requests the other by the header
    `x-headrace-strict-fields`. True: a misspelt field is found at once, and clients that send
    more than OpenAI's fields are refused."""
    max_prompt_characters_per_token: int = Field(default=64, gt=0)
    """A text longer than this times the model's context is refused without tokenising it.
    Real text has 1 to 8. Too small: long runs of equal characters are refused though they
    would fit. Too large: nonsense costs a thread a while before it is refused."""
    inline_text_characters: int = Field(default=2048, ge=0)
    """Texts up to this size are tokenised on the event loop, longer ones in a thread. Too
    small: a hand-over of 0.1 ms for each request. Too large: long prompts stall streams."""
    max_prompts: int = Field(default=1024, gt=0)
    """Prompts in one call of /v1/completions. Too small: clients that send many at once are
    refused. Too large: one call holds many prompts and their answers in memory."""
    prompts_at_once: int = Field(default=64, gt=0)
    """How many of one call's prompts wait in their lane or run at a time; the others are submitted
    as these end. Too small: workers with more slots idle. Too large: a single call fills its lane,
    and others are refused."""
    tenant_header: str = Field(default="", pattern=r"^([a-z][a-z0-9-]{0,63})?$")
    """Header, or gRPC metadata, whose value names the tenant of a call where no keys are required:
    1 to 64 of A-Z a-z 0-9 . _ -; itself in lower case, as "x-tenant". It is believed: let the proxy
    in front set it for callers that it knows, and strip it from all others, or any client can claim
    any tenant. Empty: every call is of the tenant "default", as is one without the header. Where
    keys are required it is ignored: a key is of one tenant."""
    moderation_model: str = ""
    """Model that answers /v1/moderations where a call names none, or one of OpenAI's. Empty: the
    only one that classifies."""
    moderation_threshold: float = Field(default=0.5, gt=0, le=1)
    """Score from which on a category is flagged. Too small: harmless texts are flagged. Too large:
    harmful ones pass."""
    moderation_labels: Annotated[str, AfterValidator(check_labels)] = ""
    """Which of OpenAI's categories of moderation a model's labels mean, with commas between:
    rude=harassment,fine= where nothing behind the = means harmless. They go before those that are
    known by themselves, as toxic and identity_hate. A model with a label of no category moderates
    nothing."""
    max_timeout_s: float = Field(default=600.0, gt=0)
    """Time for a whole generation where the caller names none, and the most one may name.
    Too small: long answers are cut. Too large: forgotten requests hold their slots."""
    max_patience_s: float = Field(default=60.0, gt=0)
    """Time in the lane where the caller names none, and the most one may name. Too small:
    refusals in bursts that would have passed. Too large: callers wait for nothing."""
    max_detached_s: float = Field(default=3600.0, gt=0)
    """In place of both for detached requests. Too small: a night's work ends unfinished. Too
    large: what is forgotten is computed, and waits in lanes until then."""
    detached_result_ttl_s: float = Field(default=3600.0, ge=1, le=RESULT_KEPT_AT_MOST_S)
    """How long the result of a detached request is kept after its end; others are for ten minutes.
    Too small: callers come for it in vain. Too large: results fill their GiB of the broker's disk,
    and the oldest go before their time."""

    stored_responses_ttl_s: float = Field(
        default=30 * 24 * 3600.0, ge=1, le=CONVERSATION_KEPT_AT_MOST_S
    )
    """How long responses of /v1/responses, and conversations, are stored after their last change.
    Too small: clients come for them in vain, and conversations end. Too large: outputs of tenants
    lie on the broker's disk for longer."""
    stored_responses_bytes: int = Field(default=256 * 1024 * 1024, gt=0)
    """Of one tenant; beyond it the oldest go, at the latest when a sixteenth more is stored. Too
    small: likewise. Too large: few tenants fill the broker's 4 GiB, and the oldest of all go."""
    stored_responses_parts: int = Field(default=20_000, gt=0)
    """Likewise, of parts: a response has two, its input and its output, a conversation one."""

    response_cache_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Memory for answers of calls that want the cache (header `x-headrace-cache`), of tenants that
    allow it. Too small: what was just answered is computed again, or read from the broker. Too
    large: memory that streams need. 0: no answer is cached or shared."""
    response_cache_ttl_s: float = Field(default=3600.0, ge=1, le=RESPONSE_KEPT_AT_MOST_S)
    """How long answers and vectors are cached, here and with the broker. Too small: few hits. Too
    large: outputs of tenants lie on the broker's disk for longer."""
    embedding_cache_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Memory for vectors, likewise; they are in this gateway alone. 0: no vector is cached."""
