"""A call of every method: one about the tenant `acme`, and one about a resource of `other`.

A method without a sample fails the access matrix.
"""

from __future__ import annotations

from helpers.access_matrix import Json, Sample

CHAT: Json = {
    "model": "scripted",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 2,
}
COUNT: Json = {name: CHAT[name] for name in ("model", "messages")}
GENERATE: Json = {"model": "scripted", "prompt": "Hello", "parameters": {"max_tokens": 2}}
REST: Json = {"model": "scripted", "body": {"prompt": "Hello", "parameters": {"max_tokens": 2}}}
NOTHING = "00000000000"
"""An id that nothing has."""


def _public_samples(request: str) -> dict[str, Sample]:
    """Args:
    request: id of a background request of the tenant `other`.
    """
    mine, foreign = {"request_id": "never-sent"}, {"request_id": request}
    return {
        "OpenAIService/ChatCompletions": Sample(CHAT),
        "OpenAIService/Completions": Sample(
            {"model": "scripted", "prompt": "Hello", "max_tokens": 2}
        ),
        "OpenAIService/Embeddings": Sample({"model": "scripted", "input": "Hello"}),
        "OpenAIService/Rerank": Sample({"model": "scripted", "query": "a", "documents": ["b"]}),
        "OpenAIService/RerankV2": Sample({"model": "scripted", "query": "a", "documents": ["b"]}),
        "OpenAIService/Score": Sample({"model": "scripted", "text_1": "a", "text_2": "b"}),
        "OpenAIService/Embed": Sample({"inputs": "Hello"}),
        "OpenAIService/Classify": Sample({"model": "scripted", "input": "Hello"}),
        "OpenAIService/Pooling": Sample({"model": "scripted", "input": "Hello"}),
        "OpenAIService/Predict": Sample({"model": "scripted", "inputs": "Hello"}),
        "OpenAIService/Similarity": Sample(
            {"model": "scripted", "inputs": {"source_sentence": "a", "sentences": ["b"]}}
        ),
        "OpenAIService/EmbedAll": Sample({"inputs": "Hello"}),
        "OpenAIService/CreateModeration": Sample({"model": "scripted", "input": "Hello"}),
        "OpenAIService/Tokenize": Sample({"model": "scripted", "prompt": "Hello"}),
        "OpenAIService/Detokenize": Sample({"model": "scripted", "tokens": [72]}),
        "OpenAIService/ListModels": Sample({}),
        "OpenAIService/GetModel": Sample({"model": "scripted"}),
        "AnthropicService/CreateMessage": Sample(CHAT),
        "AnthropicService/CountMessageTokens": Sample(COUNT),
        "GenerationService/StreamGenerate": Sample(GENERATE),
        "GenerationService/Generate": Sample(GENERATE),
        "EmbeddingService/Embed": Sample({"model": "scripted"}),
        "EmbeddingService/Rerank": Sample({"model": "scripted"}),
        "ModelService/ListModels": Sample({}),
        "ModelService/GetModel": Sample({"model": "scripted"}),
        "ModelService/Tokenize": Sample({"model": "scripted", "text": "Hello"}),
        "RestService/StreamGenerate": Sample(REST),
        "RestService/Generate": Sample(REST),
        "RestService/AttachRequest": Sample(mine, foreign),
        "RestService/Embed": Sample({"model": "scripted", "body": {"inputs": ["Hello"]}}),
        "RestService/Rerank": Sample({"model": "scripted", "body": {"query": "a"}}),
        "RestService/Tokenize": Sample({"model": "scripted", "body": {"prompt": "Hello"}}),
        "RequestService/CreateRequest": Sample(GENERATE),
        "RequestService/GetRequest": Sample(mine, foreign),
        "RequestService/CancelRequest": Sample(mine, foreign),
        "RequestService/AttachRequest": Sample(mine, foreign),
        "OwnKeyService/GetOwnKey": Sample({}),
        "FleetService/ListWorkers": Sample({}),
        "FleetService/ListLanes": Sample({}),
        "ProbeService/GetHealth": Sample({}),
        "ProbeService/Ping": Sample({}),
        "ProbeService/GetVersion": Sample({}),
        "ProbeService/GetOpenApi": Sample({}),
    }


def _response_samples(request: str, conversation: str) -> dict[str, Sample]:
    """Args:
    request, conversation: id of the request of a response, and of a conversation, of `other`.
    """
    made: Json = {"model": "scripted", "input": "Hello", "max_output_tokens": 2}
    mine, foreign = {"response_id": "resp_none"}, {"response_id": f"resp_{request}"}
    own, others = {"conversation_id": "conv_none"}, {"conversation_id": conversation}
    item = {"item_id": "msg_none"}
    body: Json = {"body": {"metadata": {}}}
    items: Json = {"body": {"items": [{"role": "user", "content": "Hello"}]}}
    return {
        "ResponsesService/CreateResponse": Sample(
            made, {**made, "previous_response_id": f"resp_{request}"}
        ),
        "ResponsesService/CountInputTokens": Sample(made, {**made, "conversation": conversation}),
        "ResponsesService/CompactResponse": Sample(made),
        "ResponsesService/GetResponse": Sample(mine, foreign),
        "ResponsesService/DeleteResponse": Sample(mine, foreign),
        "ResponsesService/CancelResponse": Sample(mine, foreign),
        "ResponsesService/ListInputItems": Sample(mine, foreign),
        "ResponsesService/CreateConversation": Sample({}),
        "ResponsesService/GetConversation": Sample(own, others),
        "ResponsesService/UpdateConversation": Sample(own | body, others | body),
        "ResponsesService/DeleteConversation": Sample(own, others),
        "ResponsesService/CreateConversationItems": Sample(own | items, others | items),
        "ResponsesService/ListConversationItems": Sample(own, others),
        "ResponsesService/GetConversationItem": Sample(own | item, others | item),
        "ResponsesService/DeleteConversationItem": Sample(own | item, others | item),
    }


def _tenant_samples(key: str) -> dict[str, Sample]:
    """Args:
    key: id of a key of the tenant `other`.
    """
    own_key, other_key = f"tenants/acme/keys/{NOTHING}", f"tenants/other/keys/{key}"
    made = {"display_name": "sample", "scopes": ["generate"], "models": ["*"]}
    return {
        "TenantService/CreateTenant": Sample({"tenant_id": "acme", "tenant": {}}),
        "TenantService/GetTenant": Sample({"name": "tenants/acme"}, {"name": "tenants/other"}),
        "TenantService/ListTenants": Sample({}),
        "TenantService/UpdateTenant": Sample({"tenant": {"name": "tenants/nowhere"}}),
        "TenantService/DeleteTenant": Sample({"name": "tenants/nowhere"}),
        "PlanService/CreatePlan": Sample({"plan_id": "small", "plan": {}}),
        "PlanService/GetPlan": Sample({"name": "plans/nothing"}),
        "PlanService/ListPlans": Sample({}),
        "PlanService/UpdatePlan": Sample({"plan": {"name": "plans/nothing"}}),
        "PlanService/DeletePlan": Sample({"name": "plans/nothing"}),
        "KeyService/CreateKey": Sample(
            {"parent": "tenants/acme", "key": made}, {"parent": "tenants/other", "key": made}
        ),
        "KeyService/GetKey": Sample({"name": own_key}, {"name": other_key}),
        "KeyService/ListKeys": Sample({"parent": "tenants/acme"}, {"parent": "tenants/other"}),
        "KeyService/UpdateKey": Sample({"key": {"name": own_key}}, {"key": {"name": other_key}}),
        "KeyService/RotateKey": Sample({"name": own_key}, {"name": other_key}),
        "KeyService/RevokeKey": Sample({"name": own_key}, {"name": other_key}),
    }


def _billing_samples() -> dict[str, Sample]:
    return {
        "PriceService/CreatePrice": Sample({"price": {"model": "scripted", "input_nanos": 1}}),
        "PriceService/GetPrice": Sample({"name": "prices/nothing"}),
        "PriceService/ListPrices": Sample({}),
        "PriceService/DeletePrice": Sample({"name": "prices/nothing"}),
        "StatementService/GetStatement": Sample(
            {"name": "tenants/acme/statements/2026-01"},
            {"name": "tenants/other/statements/2026-01"},
        ),
        "StatementService/ListStatements": Sample(
            {"parent": "tenants/acme"}, {"parent": "tenants/other"}
        ),
        "StatementService/CloseStatement": Sample(
            {"name": "tenants/nowhere/statements/2026-01"},
        ),
        "StatementService/CorrectStatement": Sample(
            {"name": "tenants/nowhere/statements/2026-01", "amount": "1", "reason": "sample"},
        ),
    }


def _people_samples(person: str, session: str) -> dict[str, Sample]:
    """Args:
    person, session: ids of a person who is a member of `other` alone, and of a session there.
    """
    viewer = "ROLE_VIEWER"
    own, foreign = {"parent": "tenants/acme"}, {"parent": "tenants/other"}
    member = {"person": f"people/{person}", "member": {"role": viewer}}
    invited = {"invitation": {"email": "new@example.com", "role": viewer}}
    own_member = {"name": "tenants/acme/members/nobody"}
    foreign_member = {"name": f"tenants/other/members/{person}"}
    return {
        "PersonService/CreatePerson": Sample({"person": {"email": "sample@example.com"}}),
        "PersonService/GetPerson": Sample({"name": "people/nobody"}, {"name": f"people/{person}"}),
        "PersonService/ListPeople": Sample({}),
        "PersonService/DeactivatePerson": Sample({"name": "people/nobody"}),
        "PersonService/ActivatePerson": Sample({"name": "people/nobody"}),
        "MemberService/CreateMember": Sample(
            own | {"person": "people/nobody", "member": {"role": viewer}}, foreign | member
        ),
        "MemberService/ListMembers": Sample(own, foreign),
        "MemberService/UpdateMember": Sample(
            {"member": own_member | {"role": viewer}}, {"member": foreign_member | {"role": viewer}}
        ),
        "MemberService/DeleteMember": Sample(own_member, foreign_member),
        "MemberService/CreateInvitation": Sample(own | invited, foreign | invited),
        "MemberService/ListInvitations": Sample(own, foreign),
        "MemberService/DeleteInvitation": Sample(
            {"name": "tenants/acme/invitations/none"}, {"name": "tenants/other/invitations/none"}
        ),
        "MemberService/AcceptInvitation": Sample({"token": "not-a-token"}),
        "SessionService/CreateSession": Sample({"key": "hr_not_a_key"}),
        "SessionService/GetSession": Sample(
            {"name": "sessions/me"}, {"name": f"sessions/{session}"}
        ),
        "SessionService/ListSessions": Sample({}),
        "SessionService/DeleteSession": Sample(
            {"name": "sessions/none"}, {"name": f"sessions/{session}"}
        ),
        "SessionService/SwitchTenant": Sample({"tenant": "tenants/nowhere"}),
        "SessionService/BeginSignIn": Sample({}),
        "SessionService/FinishSignIn": Sample({"code": "1", "state": "2"}),
    }


def _operation_samples(request: str) -> dict[str, Sample]:
    """Args:
    request: id of a background request of the tenant `other`.
    """
    return {
        "OperationService/ListRequests": Sample({}, {"parent": "tenants/other"}),
        "OperationService/CancelRequest": Sample(
            {"name": "tenants/acme/requests/never-sent"},
            {"name": f"tenants/other/requests/{request}"},
        ),
        "OperationService/WatchFleet": Sample({}),
        "OperationService/DrainWorker": Sample({"name": "workers/nothing"}),
        "OperationService/UndrainWorker": Sample({"name": "workers/nothing"}),
        "OperationService/ListDeadLetters": Sample({}),
        "OperationService/ResendDeadLetter": Sample({"name": "deadLetters/999999"}),
        "AuditService/ListAuditEvents": Sample({}, {"parent": "tenants/other"}),
        "AuditService/ExportAuditEvents": Sample({}),
    }


def _webhook_samples() -> dict[str, Sample]:
    """Endpoints are refused: none is at an address that is allowed."""
    own, foreign = {"name": "tenants/acme/webhooks/none"}, {"name": "tenants/other/webhooks/none"}
    own_delivery = {"name": "tenants/acme/webhooks/none/deliveries/evt_none"}
    foreign_delivery = {"name": "tenants/other/webhooks/none/deliveries/evt_none"}
    made = {"webhook_endpoint": {"url": "https://10.0.0.1/"}}
    return {
        "WebhookService/CreateWebhookEndpoint": Sample(
            {"parent": "tenants/acme", **made}, {"parent": "tenants/other", **made}
        ),
        "WebhookService/GetWebhookEndpoint": Sample(own, foreign),
        "WebhookService/ListWebhookEndpoints": Sample(
            {"parent": "tenants/acme"}, {"parent": "tenants/other"}
        ),
        "WebhookService/UpdateWebhookEndpoint": Sample(
            {"webhook_endpoint": own}, {"webhook_endpoint": foreign}
        ),
        "WebhookService/RotateWebhookSecret": Sample(own, foreign),
        "WebhookService/DeleteWebhookEndpoint": Sample(own, foreign),
        "WebhookService/TestWebhookEndpoint": Sample(own, foreign),
        "WebhookService/GetWebhookDelivery": Sample(own_delivery, foreign_delivery),
        "WebhookService/ListWebhookDeliveries": Sample(
            {"parent": own["name"]}, {"parent": foreign["name"]}
        ),
        "WebhookService/ResendWebhookDelivery": Sample(own_delivery, foreign_delivery),
    }


def _file_samples(file: str) -> dict[str, Sample]:
    """Args:
    file: id of a file of the tenant `other`.
    """
    mine, foreign = {"file_id": "file-none"}, {"file_id": file}
    return {
        "FileService/UploadFile": Sample({}),
        "FileService/ListFiles": Sample({}),
        "FileService/GetFile": Sample(mine, foreign),
        "FileService/DeleteFile": Sample(mine, foreign),
        "FileService/GetFileContent": Sample(mine, foreign),
    }


def _batch_samples() -> dict[str, Sample]:
    none = {"batch_id": "batch_none"}
    return {
        "BatchService/CreateBatch": Sample({"input_file_id": "file-none"}),
        "BatchService/ListBatches": Sample({}),
        "BatchService/GetBatch": Sample(none),
        "BatchService/CancelBatch": Sample(none),
    }


def _usage_samples() -> dict[str, Sample]:
    own, foreign = {"parent": "tenants/acme"}, {"parent": "tenants/other"}
    return {
        "OrganizationService/GetUsage": Sample({"kind": "completions", "start_time": 1}),
        "OrganizationService/GetCosts": Sample({"start_time": 1}),
        "UsageService/GetUsage": Sample(own, foreign),
        "UsageService/ListUsageRows": Sample(own, foreign),
        "UsageService/ReconcileUsage": Sample({}),
    }


def samples(
    *, file: str, request: str, conversation: str, key: str, person: str, session: str
) -> dict[str, Sample]:
    """Return the samples by `Service/Method`; the arguments are ids of resources of `other`."""
    return (
        _public_samples(request)
        | _response_samples(request, conversation)
        | _tenant_samples(key)
        | _billing_samples()
        | _people_samples(person, session)
        | _operation_samples(request)
        | _webhook_samples()
        | _file_samples(file)
        | _batch_samples()
        | _usage_samples()
    )
