"""Makes backends, the ledger and an executor from the configuration."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from agent import backends
from agent.backends.contract import FlagBackend
from agent.backends.google import refuse_emulators
from agent.backends.settings import Firestore, RealtimeDatabase, RemoteConfig
from agent.commands.keys import PublicKey
from agent.config.flags import Flag
from agent.config.model import Config
from agent.events.cloudevents import Event
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from agent.state.allowlist import ManagedFlag
from agent.state.flags import FlagWatch

LEDGER = "ledger"
"""The directory of the ledger, in the state directory. It exists as soon as an executor has started once."""


def make_backends(config: Config, names: Collection[str] | None = None) -> dict[str, FlagBackend]:
    """Make the backends of the configuration, by name: all of them, or those in `names`.

    Raises ConfigError if a file that the settings name cannot be used, or if a variable of an emulator is set and a
    backend is the real one.
    """
    wanted = {name: settings for name, settings in config.backends.items() if names is None or name in names}
    google = (
        settings for settings in wanted.values() if isinstance(settings, Firestore | RealtimeDatabase | RemoteConfig)
    )
    if any(settings.emulator is None for settings in google):
        refuse_emulators()
    return {name: backends.make(settings) for name, settings in wanted.items()}


def managed(flag: Flag) -> ManagedFlag:
    return ManagedFlag(flag.flag, flag.environment, flag.service, flag.backend, flag.safe, tuple(flag.together))


def open_ledger(config: Config) -> Ledger:
    return Ledger(config.state_dir / LEDGER)


def make_executor(
    config: Config,
    ledger: Ledger,
    watch: FlagWatch,
    made: Mapping[str, FlagBackend],
    publics: Collection[PublicKey],
    emit: Callable[[Event], Awaitable[None]] | None,
) -> Executor:
    """Make the executor of a configuration: a running process and a person's command line use the same."""
    flags = [managed(flag) for flag in config.flags]
    most = config.automation.most(len({flag.ref for flag in flags}))
    return Executor(
        Permissions(flags, made, {key.id: key for key in publics}),
        ledger,
        Automation(config.state_dir),
        FlipPace(FlipRate(most, config.automation.within), config.command.cooldown),
        watch=watch,
        emit=emit,
        now=time.time,
    )
