"""Pure: pages of lists, as OpenAI has them."""

from __future__ import annotations

from typing import Any

from headrace.errors import InvalidRequest
from headrace.v1.responses_pb2 import ListConversationItemsRequest, ListInputItemsRequest
from headrace_gateway.base.quoting import quoted

Json = dict[str, Any]
_DEFAULT, _MOST = 20, 100


def page_of(
    items: list[Json], request: ListInputItemsRequest | ListConversationItemsRequest
) -> Json:
    """Return a page of items, which are given the first one first.

    Raises:
        InvalidRequest: the limit or the order is none, or no item has the id `after`.
    """
    limit = request.limit if request.HasField("limit") else _DEFAULT
    if not 1 <= limit <= _MOST:
        raise InvalidRequest(f"limit is {limit}; it may be 1 to {_MOST}", field="limit")
    if request.order not in ("", "asc", "desc"):
        raise InvalidRequest(
            f"order is {quoted(request.order)}; it may be asc or desc", field="order"
        )
    ordered = items if request.order == "asc" else items[::-1]
    if request.after:
        at = next((i for i, item in enumerate(ordered) if item["id"] == request.after), None)
        if at is None:
            raise InvalidRequest(
                f"after: no item has the id {quoted(request.after)}", field="after"
            )
        ordered = ordered[at + 1 :]
    return list_of(ordered[:limit], has_more=len(ordered) > limit)


def list_of(items: list[Json], *, has_more: bool = False) -> Json:
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else "",
        "last_id": items[-1]["id"] if items else "",
        "has_more": has_more,
    }
