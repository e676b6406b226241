"""``batch-llm batches`` and ``batch-llm collect``: the batches of a store, and their answers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import click

from .._lanes import BatchTicket, tickets
from .._shown import amount, line
from ..artifacts import store_at
from ..errors import BatchLLMError
from .collecting import collect as collect_all


@click.command()
@click.argument("store", type=click.Path(exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--cancel", is_flag=True, help="Cancel all open batches, and fetch the answers that they had by then.")
def batches(store: str, as_json: bool, cancel: bool) -> None:
    """List the batches of STORE: state, age, requests and cost.

    The list shows the state at the last poll of the provider, and works during a run. --cancel needs the
    API key in the environment, and a store that no run is using.
    """
    try:
        found = _collect(store, wait=True, cancel=True) if cancel else tickets(store)
    except (BatchLLMError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    _show(found, as_json)


@click.command()
@click.argument("store", type=click.Path(exists=True, dir_okay=False))
@click.option("--no-wait", is_flag=True, help="Fetch only from batches that have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def collect(store: str, no_wait: bool, as_json: bool) -> None:
    """Wait for the batches of STORE to end, and fetch their answers.

    The answers are written to STORE. The next run with this store takes them from there, without a request. Needs the
    API key in the environment. Works on any machine that has the file.
    """
    try:
        found = _collect(store, wait=not no_wait, cancel=False)
    except (BatchLLMError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted; the batches continue at the provider", err=True)
        raise
    _show(found, as_json)


def _collect(store: str, *, wait: bool, cancel: bool) -> list[BatchTicket]:
    def tell(note: str) -> None:
        click.echo(line(note), err=True)

    return asyncio.run(collect_all(store_at(store), wait=wait, cancel=cancel, tell=tell))


def _show(found: list[BatchTicket], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_plain(ticket) for ticket in found]))
        return
    if not found:
        click.echo("no batches")
        return
    for ticket in found:
        state = ticket.stage if ticket.stage != "open" else ticket.state or "open"
        counts = f"{ticket.requests:,} requests"
        if ticket.done is not None:
            counts += f", {ticket.done:,} answered"
        if ticket.failed:
            counts += f", {ticket.failed:,} failed"
        if ticket.waiting:
            counts += f", {ticket.waiting:,} to be taken by the next run"
        cost = f", ${amount(ticket.cost)}" if ticket.cost else ""
        name = ticket.batch_id or f"(no id yet, nonce {ticket.nonce})"
        click.echo(line(f"{name}  {ticket.provider}:{ticket.model}  {state}{_age(ticket)}: {counts}{cost}"))


def _age(ticket: BatchTicket) -> str:
    if ticket.submitted_at is None:
        return ""
    if ticket.ended_at is not None:
        return f" after {_time(ticket.ended_at - ticket.submitted_at)}"
    return f" for {_time(time.time() - ticket.submitted_at)}"


def _time(seconds: float) -> str:
    minutes = int(max(seconds, 0.0) // 60)
    if minutes < 1:
        return f"{max(seconds, 0.0):.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _plain(ticket: BatchTicket) -> dict[str, Any]:
    return dataclasses.asdict(ticket)
