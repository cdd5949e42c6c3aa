"""The page docs/architecture_states.md, made of the table of transitions. A test checks it.

python tests/helpers/states_page.py docs/architecture_states.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from headrace_scheduler.state import transitions
from headrace_scheduler.state.transitions import markdown_table


def page() -> str:
    """Return the whole page."""
    diagram = (transitions.__doc__ or "").split("\n\n")[1]
    return f"""# States of a request in the scheduler

{diagram}

An event is a class of `headrace_scheduler.state.events`; `Time` is what the leader decides
without one. A request that is *gone* has been acknowledged: its message is removed from its lane.

{markdown_table()}
"""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
