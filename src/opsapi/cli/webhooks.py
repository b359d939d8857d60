"""`opsapi webhooks`: who is told of events, and how the deliveries went."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from opsapi.cli.context import ConfigOption, JsonOption, operator, with_state
from opsapi.cli.output import err, fail, out, show_json, show_table
from opsapi.kit.secret import Secret
from opsapi.webhooks.administration import NewWebhook
from opsapi.webhooks.model import Attempt, Delivery, DeliveryState, Webhook
from opsapi.webhooks.ports import DeliveryFilter
from opsapi.wiring import State, sealer_of
from opsapi.wiring.webhooks import Webhooks, opened_webhooks

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, help="Create, list, ping and delete webhooks; see their deliveries.")
WebhookArgument = Annotated[str, typer.Argument(help="The webhook's id, `wh-…`.", show_default=False)]


def _with_webhooks(config: Path | None, work: Callable[[Webhooks], Awaitable[T]]) -> T:
    async def opened(state: State) -> T:
        async with opened_webhooks(state, sealer_of(state.settings)) as webhooks:
            return await work(webhooks)

    return with_state(config, opened)


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="Where events are sent to; https.", show_default=False)],
    event: Annotated[
        list[str] | None,
        typer.Option("--event", "-e", help="An event type, like internal.operation.failed; repeatable; none: all."),
    ] = None,
    workspace: Annotated[
        list[str] | None, typer.Option("--workspace", "-w", help="Only of this workspace; repeatable; none: all.")
    ] = None,
    description: Annotated[str, typer.Option(help="What people know it by.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a webhook; its signing secret is shown once.

    Example: opsapi webhooks create https://hooks.example.com/opsapi --event internal.operation.failed
    """

    async def work(webhooks: Webhooks) -> tuple[Webhook, Secret]:
        new = NewWebhook(url=url, description=description, event_types=event or [], workspaces=workspace or [])
        return await webhooks.administration.create(operator("webhooks create"), new)

    webhook, secret = _with_webhooks(config, work)
    if as_json:
        show_json({"webhook": webhook, "secret": secret.reveal()})
        return
    out.print(f"webhook  {webhook.id}  ({webhook.url})", markup=False)
    out.print(f"secret   {secret.reveal()}", markup=False)
    err.print("The secret is shown here once; receivers verify signatures with it (docs/webhooks.md).")
    err.print(f"Try it: opsapi webhooks ping {webhook.id}")


@app.command("list")
def list_webhooks(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the webhooks and how they are."""

    async def work(webhooks: Webhooks) -> list[Webhook]:
        found: list[Webhook] = []
        while page := await webhooks.store.webhooks(after=found[-1].id if found else "", limit=200):
            found += page
        return found

    rows = _with_webhooks(config, work)
    if as_json:
        show_json(rows)
        return
    show_table(
        ("id", "url", "events", "workspaces", "state"),
        [(one.id, one.url, " ".join(one.event_types) or "all", " ".join(one.workspaces) or "all", _state(one))
         for one in rows],
        empty="No webhooks yet. Create one: opsapi webhooks create https://…",
    )  # fmt: skip


def _state(webhook: Webhook) -> str:
    if not webhook.enabled:
        return f"disabled ({webhook.disabled_because or 'from the start'})"
    if webhook.failing_since is not None:
        return f"failing since {webhook.failing_since:%Y-%m-%d %H:%M}"
    return "well" if webhook.last_success_at is not None else "not tried yet"


@app.command()
def ping(webhook: WebhookArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Send internal.webhook.ping now and say how it went."""

    async def work(webhooks: Webhooks) -> Attempt:
        return await webhooks.administration.ping(webhook)

    attempt = _with_webhooks(config, work)
    if as_json:
        show_json(attempt)
    if attempt.error is not None:
        fail(f"not delivered: {attempt.error}", then=f"opsapi webhooks deliveries {webhook}")
    if not as_json:
        out.print(f"delivered: {attempt.status} in {attempt.duration_ms} ms", markup=False)


@app.command()
def deliveries(
    target: Annotated[str, typer.Argument(help="A webhook's id, or a channel like slack:#ops.", show_default=False)],
    dead: Annotated[bool, typer.Option("--dead", help="Only dead letters.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest deliveries with their last attempt."""

    async def work(webhooks: Webhooks) -> list[Delivery]:
        await webhooks.administration.target(target)
        wanted = DeliveryFilter(target=target, state=DeliveryState.DEAD if dead else None, limit=limit)
        return await webhooks.deliveries.deliveries(wanted)

    rows = _with_webhooks(config, work)
    if as_json:
        show_json(rows)
        return
    show_table(
        ("id", "event", "state", "attempts", "last", "next"),
        [(one.id, one.event_type, one.state, one.attempts, _last(one),
          "" if one.next_attempt_at is None else f"{one.next_attempt_at:%Y-%m-%d %H:%M:%S}") for one in rows],
        empty="No deliveries.",
    )  # fmt: skip


def _last(delivery: Delivery) -> str:
    if not delivery.history:
        return ""
    last = delivery.history[-1]
    return last.error or f"answered {last.status}"


@app.command()
def delete(
    webhook: WebhookArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
) -> None:
    """Delete a webhook with its secrets, its delivery log and what waits for it."""
    if not yes:
        typer.confirm(f"Delete {webhook} and what waits for it", abort=True)

    async def work(webhooks: Webhooks) -> None:
        await webhooks.administration.remove(operator("webhooks delete"), webhook)

    _with_webhooks(config, work)
    out.print(f"webhook {webhook} is deleted", markup=False)
