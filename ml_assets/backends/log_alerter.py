"""Alerts that go to the log: the default, until a webhook or a mail server is configured."""

import logging

_LOGGER = logging.getLogger("ml_assets.alerts")


class LogAlerter:
    """Fulfils the Alerter port by writing one error line per alert."""

    def send(self, *, title: str, text: str) -> None:
        """Write the alert to the log."""
        _LOGGER.error("%s: %s", title, text)
