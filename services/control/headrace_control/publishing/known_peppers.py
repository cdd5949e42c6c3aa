"""Whether this process has the peppers that the database's keys were digested with."""

from __future__ import annotations

import logging
from typing import Protocol

from headrace.auth.peppers import Peppers

log = logging.getLogger(__name__)


class UnknownPeppers(ValueError):
    """No key of the database can be checked, so nobody could call this mesh."""


class Keys(Protocol):
    """Of the store."""

    async def pepper_ids(self) -> frozenset[str]: ...


async def require_known_peppers(keys: Keys, peppers: Peppers) -> None:
    """Check that keys of the database are of known peppers; warn of those that are not.

    Raises:
        UnknownPeppers: there are keys, and none is: the file is of another mesh, or it was made
            anew beside a database that was restored.
    """
    used = await keys.pepper_ids()
    unknown = used - peppers.ids
    if not unknown:
        return
    if unknown == used:
        raise UnknownPeppers(
            f"no key of the database could be used: their peppers are {_listed(used)}, and the file"
            f" of the peppers has {_listed(peppers.ids)} alone. Put the file of the mesh that made"
            " the keys (secrets/peppers of its state directory) in its place"
        )
    log.warning("peppers.unknown", extra={"peppers": sorted(unknown)})


def _listed(ids: frozenset[str]) -> str:
    return ", ".join(sorted(ids))
