"""The store: all that web keeps, in one database."""

from __future__ import annotations

from headrace.clock import Clock, SystemClock
from headrace.database.failures import unavailable
from headrace_web.store.conversations import Conversations
from headrace_web.store.database.opening import SCHEMA, open_engine
from headrace_web.store.database.transactions import Database
from headrace_web.store.turns import Turns


class Store:
    """What web keeps, by kind. Every query names the owner: what is another's is as good as absent.

    Errors are those of `headrace.errors`.

        store = await Store.open("sqlite:///var/lib/headrace/web.db", upgrade=True)
        await store.conversations.create(Conversation("…", owner))
        await store.close()
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.conversations = Conversations(database)
        self.turns = Turns(database)

    @classmethod
    async def open(cls, url: str, *, upgrade: bool = False, clock: Clock | None = None) -> Store:
        """Open a database: sqlite:///PATH, made if there is none, or postgresql://...

        Args:
            upgrade: bring its schema to that of this version first.

        Raises:
            InvalidRequest: the URL is of neither kind.
            SchemaMismatch: its schema is older, and `upgrade` is not set, or newer.
            ControlUnavailable: the database cannot be used now.
        """
        engine = open_engine(url)
        try:
            async with unavailable():
                await (SCHEMA.upgrade(engine) if upgrade else SCHEMA.check(engine))
        except BaseException:
            await engine.dispose()
            raise
        return cls(Database(engine, clock or SystemClock()))

    async def close(self) -> None:
        await self._database.engine.dispose()
