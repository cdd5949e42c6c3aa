"""The store: all that control keeps, in one database."""

from __future__ import annotations

from datetime import datetime

from headrace.clock import Clock, SystemClock
from headrace.database.failures import unavailable
from headrace_control.store.audit import Audit
from headrace_control.store.batches.store import Batches
from headrace_control.store.billing.prices import Prices
from headrace_control.store.billing.statements import Statements
from headrace_control.store.database.opening import SCHEMA, open_engine
from headrace_control.store.database.transactions import Database
from headrace_control.store.files.rows import Files
from headrace_control.store.keys import Keys
from headrace_control.store.members import Invitations, Members
from headrace_control.store.outbox import Outbox
from headrace_control.store.people import People
from headrace_control.store.sessions import Sessions
from headrace_control.store.sign_ins import SignIns
from headrace_control.store.tenants import Plans, Tenants
from headrace_control.store.usage.checks import UsageChecks
from headrace_control.store.usage.ledger import Ledger
from headrace_control.store.usage.old_rows import OldRows
from headrace_control.store.usage.rows import UsageRows
from headrace_control.store.usage.sums import UsageSums
from headrace_control.store.uses import Uses
from headrace_control.store.webhooks.deliveries import WebhookDeliveries
from headrace_control.store.webhooks.endpoints import WebhookEndpoints


class Store:
    """What control keeps, by kind. Every change is one transaction: it writes its rows, an audit
    event, and to the outbox what follows for the tables on the bus.

    Errors are those of `headrace.errors`; a database that cannot be reached, or that is broken, is
    ControlUnavailable.

        store = await Store.open("sqlite:///var/lib/headrace/headrace.db", upgrade=True)
        tenant = await store.tenants.create(Tenant("acme"), by=Actor("people/8f3c"))
        await store.close()
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.tenants = Tenants(database)
        self.plans = Plans(database)
        self.prices = Prices(database)
        self.statements = Statements(database)
        self.keys = Keys(database)
        self.people = People(database)
        self.members = Members(database)
        self.invitations = Invitations(database)
        self.sessions = Sessions(database)
        self.sign_ins = SignIns(database)
        self.uses = Uses(database)
        self.webhook_endpoints = WebhookEndpoints(database)
        self.webhook_deliveries = WebhookDeliveries(database)
        self.usage = Ledger(database)
        self.usage_checks = UsageChecks(database)
        self.old_usage_rows = OldRows(database)
        self.usage_rows = UsageRows(database)
        self.usage_sums = UsageSums(database)
        self.audit = Audit(database)
        self.outbox = Outbox(database)
        self.files = Files(database)
        self.batches = Batches(database)

    @classmethod
    async def open(cls, url: str, *, upgrade: bool = False, clock: Clock | None = None) -> Store:
        """Open a database: sqlite:///PATH, made if there is none, or postgresql://...

        Args:
            upgrade: bring its schema to that of this version first, as `headrace db upgrade` does.

        Raises:
            InvalidRequest: the URL is of neither kind.
            SchemaMismatch: its schema is older, and `upgrade` is not set, or newer.
            MissingExtra: PostgreSQL's driver is not installed.
            ControlUnavailable: it cannot be reached.
        """
        engine = open_engine(url)
        try:
            async with unavailable():
                await (SCHEMA.upgrade(engine) if upgrade else SCHEMA.check(engine))
        except BaseException:
            await engine.dispose()
            raise
        return cls(Database(engine, clock or SystemClock()))

    def now(self) -> datetime:
        """Return the time to the millisecond, which is what the database keeps."""
        return self._database.now()

    async def integrity_faults(self) -> tuple[str, ...]:
        """Return what the database itself finds wrong with its files, and rows that refer to none.

        PostgreSQL looks after both itself; of it only the connection is checked.
        """
        pragmas = ("integrity_check", "foreign_key_check")
        async with self._database.reading() as connection:
            if connection.dialect.name != "sqlite":
                return ()
            found = [await connection.exec_driver_sql(f"PRAGMA {name}") for name in pragmas]
            rows = [row for each in found for row in each]
            return tuple(" ".join(map(str, row)) for row in rows if tuple(row) != ("ok",))

    async def close(self) -> None:
        await self._database.engine.dispose()
