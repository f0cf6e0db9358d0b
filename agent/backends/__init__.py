"""Flag systems, from flagd files to Firestore: a file or package each behind one contract, listed in `KINDS`.

A kind is imported only if it is configured: the Google clients alone cost a second and 60 MB.
It may import agent.storage, agent.logs, agent.errors and streams.settings.
"""

from __future__ import annotations

from importlib import import_module

from agent.backends.contract import FlagBackend
from agent.backends.settings import (
    Backend,
    Firestore,
    FlagdFile,
    RealtimeDatabase,
    RemoteConfig,
    Unleash,
    Webhook,
)

KINDS: dict[type[Backend], str] = {
    FlagdFile: "agent.backends.flagd.backend:FlagdFileBackend",
    Firestore: "agent.backends.firestore.backend:FirestoreBackend",
    RealtimeDatabase: "agent.backends.rtdb.backend:RealtimeDatabaseBackend",
    RemoteConfig: "agent.backends.remote_config.backend:RemoteConfigBackend",
    Unleash: "agent.backends.unleash.backend:UnleashBackend",
    Webhook: "agent.backends.webhook.backend:WebhookBackend",
}
"""`module:class` by the struct of its settings, which is the only argument of the class."""


def make(settings: Backend) -> FlagBackend:
    """Make a backend. Raises ConfigError if a file that the settings name cannot be used."""
    module, _, name = KINDS[type(settings)].partition(":")
    backend: FlagBackend = getattr(import_module(module), name)(settings)
    return backend
