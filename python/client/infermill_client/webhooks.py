"""Webhooks of infermill are signed after Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Union

from .errors import InfermillError
from .types import Json


def verify_webhook(secret: Union[str, Sequence[str]], headers: Mapping[str, str], body: Union[bytes, str]) -> Json:
    """
    The event of a delivery, once its signature and its age (five minutes at most) are checked.

    :param secret: `whsec_…`, as `infermill webhooks secret` prints it, or several while one is changed
    :param headers: of the request, in any case
    :param body: of the request, as it came
    :raises InfermillError: where it is forged, changed or too old
    """
    try:
        from standardwebhooks.webhooks import Webhook, WebhookVerificationError
    except ImportError as error:
        raise ImportError(
            'verify_webhook needs standardwebhooks: pip install "infermill-client[webhooks]"'
        ) from error
    text = body.decode() if isinstance(body, bytes) else body
    lower = {key.lower(): value for key, value in headers.items()}
    reason: Exception | None = None
    for each in [secret] if isinstance(secret, str) else secret:
        try:
            return dict(Webhook(each).verify(text, lower))
        except WebhookVerificationError as error:
            reason = error
    raise InfermillError(f"the webhook can't be verified: {reason or 'no secret was given'}")
