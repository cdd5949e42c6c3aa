"""What gateways report of keys: their uses, digests under a new pepper, failed attempts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from headrace.bus.subjects import KEYS_TABLE
from headrace_control.base.published_rows import milliseconds
from headrace_control.base.records import SYSTEM, Digest, FailedAttempts, KeyUse
from headrace_control.store.database.records import digests_text, key_of
from headrace_control.store.database.tables import access_reports, keys
from headrace_control.store.database.transactions import Change, Database

_FORGET_GATEWAY = timedelta(days=7)
_MAX_FAILURES = 200
"""Most failed attempts of one report that get events of their own; the rest are one event."""


class Uses:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self,
        gateway_id: str,
        sequence: int,
        *,
        uses: Sequence[KeyUse] = (),
        failures: Sequence[FailedAttempts] = (),
        pepper_id: str,
    ) -> bool:
        """Record a gateway's report; False, and nothing recorded, if it was recorded before.

        A renewed digest is kept if it is of the current pepper, and the key has a digest of an
        older pepper that it can stand for without doubt.

        Args:
            sequence: grows from report to report of a gateway.
            pepper_id: the current one.
        """
        async with self._database.changing(SYSTEM) as change:
            if not await _is_new(change, gateway_id, sequence):
                return False
            for use in uses:
                await _record_use(change, use, pepper_id)
            for each in failures[:_MAX_FAILURES]:
                await _record_failures(change, each)
            if rest := failures[_MAX_FAILURES:]:
                details = {"addresses": len(rest), "attempts": sum(each.count for each in rest)}
                await change.record("access.failed", "gateways", details=details)
            return True


async def _is_new(change: Change, gateway_id: str, sequence: int) -> bool:
    is_gateway = access_reports.c.gateway_id == gateway_id
    last = await change.connection.scalar(sa.select(access_reports.c.sequence).where(is_gateway))
    if last is not None and sequence <= last:
        return False
    values = {"sequence": sequence, "time_ms": change.now_ms}
    if last is not None:
        await change.execute(sa.update(access_reports).where(is_gateway).values(values))
        return True
    forgotten = milliseconds(change.now - _FORGET_GATEWAY)
    await change.execute(sa.delete(access_reports).where(access_reports.c.time_ms < forgotten))
    await change.execute(sa.insert(access_reports).values(gateway_id=gateway_id, **values))
    return True


async def _record_use(change: Change, use: KeyUse, pepper_id: str) -> None:
    is_key = keys.c.key_id == use.key_id
    row = (await change.execute(sa.select(keys).where(is_key))).one_or_none()
    if row is None:
        return
    # A gateway's clock may be ahead, and its reports may come late.
    used_ms = min(milliseconds(use.last_use_time), change.now_ms)
    if row.last_use_ms is None or used_ms > row.last_use_ms:
        values = {"last_use_ms": used_ms, "last_use_client": use.client}
        await change.execute(sa.update(keys).where(is_key).values(values))
    key = key_of(row)
    if use.renewed is None or use.renewed.pepper_id != pepper_id or key.revoke_time is not None:
        return
    if (digests := renewed_digests(key.digests, use.renewed)) is not None:
        await change.execute(sa.update(keys).where(is_key).values(digests=digests_text(digests)))
        resource = f"tenants/{key.tenant}/keys/{key.key_id}"
        details = {"pepper": pepper_id}
        await change.record("keys.renew_digest", resource, tenant=key.tenant, details=details)
        await change.publish(KEYS_TABLE, [key.key_id])


def renewed_digests(digests: Sequence[Digest], renewed: Digest) -> tuple[Digest, ...] | None:
    """Return a key's digests with the renewed one in place of the old one that it stands for; None
    if it stands for none.

    While a rotation goes on, both secrets may have digests of an old pepper. The renewed one has
    the expiry of the one that the gateway found, which tells them apart.
    """
    old = [each for each in digests if each.pepper_id != renewed.pepper_id]
    meant = [each for each in old if each.expire_time == renewed.expire_time]
    if len(meant) != 1:
        return None
    return tuple(renewed if each is meant[0] else each for each in digests)


async def _record_failures(change: Change, failed: FailedAttempts) -> None:
    details = {
        "client": failed.client,
        "reason": failed.reason,
        "key": failed.key_id,
        "attempts": failed.count,
        "first_ms": milliseconds(failed.first_time),
        "last_ms": milliseconds(failed.last_time),
    }
    tenant = ""
    if failed.key_id:
        query = sa.select(keys.c.tenant).where(keys.c.key_id == failed.key_id)
        tenant = await change.connection.scalar(query) or ""
    name = f"tenants/{tenant}/keys/{failed.key_id}" if tenant else "gateways"
    await change.record("access.failed", name, tenant=tenant, details=details)
