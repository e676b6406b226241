"""Reports the start and the end of a run to its control from outside, and to its store. Used by ``_run.Run``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .mailbox import Mailbox
    from .protocols import Overseer


async def overseen(run: Any, mailbox: Mailbox, execute: Callable[[], Awaitable[None]]) -> None:
    """Execute a run under its overseer, if it has one."""
    overseer: Overseer | None = run.pipeline.overseer
    if overseer is None:
        await execute()
        return
    overseer.begin(run)
    raised: BaseException | None = None
    try:
        await execute()
    except BaseException as error:
        raised = error
        raise
    finally:
        if not mailbox.is_of_parent:
            overseer.ended(raised)
        raised = None


def ending(run: Any) -> None:
    """Have the overseer of a run, and the run itself, write their last into its store, and close it."""
    overseer: Overseer | None = run.pipeline.overseer
    if overseer is not None:
        overseer.ending()
    if run.run_store is not None:
        run.bound_over_time.write()
        run.run_store.close()
