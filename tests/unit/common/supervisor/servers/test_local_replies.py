"""What Envoy answers by itself, in the error format of the path."""

from __future__ import annotations

import json
import re

from headrace.supervisor.servers.local_replies import Timeouts, mappers


def test_openai_errors_are_the_servers_fault_from_500_on_and_the_callers_below() -> None:
    seen = set()
    for mapper in mappers([], Timeouts()):
        text = json.dumps(mapper)
        if not (kind := re.search(r'"type": "(server_error|invalid_request_error)"', text)):
            continue
        status = int(re.findall(r'"default_value": (\d+)', text)[0])
        seen.add(status)
        assert kind[1] == ("server_error" if status >= 500 else "invalid_request_error"), status
    assert {404, 413, 500} <= seen
