"""Settings of every kind of flag backend, as they are written under `backends` in the configuration file.

To add a kind, add a struct with its own tag here, add it to `Backend`, and add an entry to `agent.backends.KINDS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from streams.settings import Seconds, seconds

Text = Annotated[str, Meta(min_length=1)]
Credentials = Annotated[
    Path | None,
    Meta(
        description="Key file of a service account (mode 0600) or of a workload identity; the application default "
        "credentials if absent."
    ),
]
Emulator = Annotated[
    Annotated[str, Meta(min_length=1)] | None,
    Meta(description="host:port of a fake or an emulator on loopback: plaintext, and no credentials."),
]


class FlagdFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="flagd-file"):
    """A file of flag definitions that flagd, or the OpenFeature provider inside an application, watches."""

    path: Annotated[Path, Meta(description="The file of flag definitions.")]


class Firestore(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="firestore"):
    """Cloud Firestore: a document for each flag, with the members of a flagd definition."""

    project: Annotated[Text, Meta(description="Id of the Google Cloud project.")]
    database: Annotated[Text, Meta(description="The database.")] = "(default)"
    collection: Annotated[Text, Meta(description="Path of the collection; the id of a document is the flag's key.")] = (
        "flags"
    )
    operations: Annotated[
        Text, Meta(description="Path of the collection that records each write in the same commit.")
    ] = "flag_ops"
    credentials: Credentials = None
    emulator: Emulator = None


class RealtimeDatabase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="rtdb"):
    """Firebase Realtime Database: a node for each flag, with the members of a flagd definition."""

    url: Annotated[
        Text, Meta(description="The database, such as https://PROJECT-default-rtdb.firebaseio.com without a path.")
    ]
    path: Annotated[Text, Meta(description="Path of the flags' parent node.")] = "flags"
    uid: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="User id that security rules see (auth.uid); if absent the rules do not apply."),
    ] = None
    credentials: Credentials = None
    emulator: Emulator = None


class RemoteConfig(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="remote-config"
):
    """Firebase Remote Config: a parameter for each flag, whose values are the variants."""

    project: Annotated[Text, Meta(description="Id of the Firebase project.")]
    template: Annotated[Literal["client", "server"], Meta(description="Which of the project's templates.")] = "client"
    parameters: Annotated[
        dict[str, str],
        Meta(description="Parameter of a flag; if absent its key, with _ for each character that is not allowed."),
    ] = field(default_factory=dict)
    publish_every: Annotated[
        Seconds, Meta(description="Least time between two publications, because only 300 versions are kept.")
    ] = seconds(5)
    credentials: Credentials = None
    emulator: Emulator = None


class Unleash(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="unleash"):
    """Unleash: its admin API. The variants are on (enabled) and off (the environment of the flag disabled)."""

    url: Annotated[Text, Meta(description="The server, such as https://unleash.example.org, without /api.")]
    project: Annotated[Text, Meta(description="The project that holds the flags.")] = "default"
    environment: Annotated[Text, Meta(description="Unleash's environment in which flags are switched.")] = "production"
    token_file: Annotated[Path, Meta(description="File (mode 0600) with an admin or personal access token.")]


class Webhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="webhook"):
    """Any system with an HTTP endpoint: a signed POST sets a flag, a signed GET reads its state."""

    url: Annotated[Text, Meta(description="Where writes are posted to.")]
    state_url: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="Where a flag's state is read, with {flag} and {environment} filled in; never if absent."),
    ] = None
    secret_file: Annotated[Path, Meta(description="File (mode 0600) with the secret that signs each request.")]


Backend = FlagdFile | Firestore | RealtimeDatabase | RemoteConfig | Unleash | Webhook
