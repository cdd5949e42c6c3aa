"""The paths of Anthropic's API, which the proto gives, to their endpoints."""

from __future__ import annotations

from headrace.v1.anthropic_pb2_grpc import AnthropicServiceServicer
from headrace_gateway.api.anthropic import messages
from headrace_gateway.api.http.endpoint import post
from headrace_gateway.api.http.services import ApiServicer


class AnthropicService(ApiServicer, AnthropicServiceServicer):
    CreateMessage = post(messages.create, api="anthropic")
    CountMessageTokens = post(messages.count_tokens, api="anthropic")
