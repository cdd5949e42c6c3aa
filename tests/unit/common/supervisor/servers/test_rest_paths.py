"""The REST paths, read from the descriptors."""

from __future__ import annotations

import pytest

from headrace.supervisor.servers import assets
from headrace.supervisor.servers.rest_paths import RestPath, read_paths

EVERY = read_paths(assets.descriptor_set().read_bytes())
PATHS = {path.rpc: path for path in reversed(EVERY)}
"""By RPC the first path of each."""


@pytest.mark.parametrize(
    ("rpc", "method", "path"),
    [
        ("headrace.v1.OpenAIService.GetModel", "GET", "/v1/models/{model}"),
        ("headrace.admin.v1.KeyService.CreateKey", "POST", "/v2/admin/tenants/{tenant}/keys"),
        (
            "headrace.admin.v1.KeyService.UpdateKey",
            "PATCH",
            "/v2/admin/tenants/{tenant}/keys/{key}",
        ),
        (
            "headrace.admin.v1.PersonService.DeactivatePerson",
            "POST",
            "/v2/admin/people/{person}:deactivate",
        ),
        (
            "headrace.admin.v1.OperationService.ResendDeadLetter",
            "POST",
            "/v2/admin/deadLetters/{dead_letter}:resend",
        ),
    ],
)
def test_a_path_names_its_variables_as_the_documentation_does(
    rpc: str, method: str, path: str
) -> None:
    assert (PATHS[rpc].method, PATHS[rpc].path) == (method, path)


def test_a_path_knows_which_fields_it_gives_and_which_the_body_gives() -> None:
    update: RestPath = PATHS["headrace.admin.v1.KeyService.UpdateKey"]
    assert (update.fields, update.body) == (("key.name",), "key")
    get = PATHS["headrace.v1.OpenAIService.GetModel"]
    assert (get.fields, get.body) == (("model",), "")


def test_no_path_shows_the_pattern_of_a_variable() -> None:
    assert not [str(path) for path in EVERY if "*" in path.path or "=" in path.path]
