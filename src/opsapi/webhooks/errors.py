"""What can be wrong with a webhook, as its callers are told."""

from opsapi.kit.errors import InvalidState, ResourceNotFound, StateDetails


class WebhookNotFound(ResourceNotFound):
    def __init__(self, webhook_id: str) -> None:
        super().__init__("webhook", webhook_id)


class DeliveryNotFound(ResourceNotFound):
    def __init__(self, delivery_id: str) -> None:
        super().__init__("webhook delivery", delivery_id)


class NoSigningKey(InvalidState):
    """The signing secrets are stored encrypted or not at all."""

    def __init__(self) -> None:
        super().__init__(
            "Webhooks cannot be created until `keys.encryption` is set in the configuration: without a key their "
            "signing secrets could not be stored",
            StateDetails(resource_id="webhooks", state="no_encryption_key"),
        )


class WebhookDisabled(InvalidState):
    def __init__(self, webhook_id: str) -> None:
        super().__init__(
            f"Webhook {webhook_id!r} is disabled; set `enabled` to true first",
            StateDetails(resource_id=webhook_id, state="disabled", allowed_from=["enabled"]),
        )


class NoSuchChannel(InvalidState):
    def __init__(self, channel: str) -> None:
        super().__init__(
            f"Channel {channel!r} is no longer in the configuration, under `webhooks.channels`",
            StateDetails(resource_id=channel, state="not_configured"),
        )
