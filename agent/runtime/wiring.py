"""What a monitor's evaluations lead to: commands, checks after a flip, and events."""

from __future__ import annotations

import time
import uuid

from agent.after_flip.events import drift_event, inability_event, transition_event
from agent.after_flip.watch import AfterFlipWatch
from agent.commands.keys import load_private
from agent.config.load import rules_hash
from agent.decisions.blame import Blame, BlameRules
from agent.decisions.commander import Commander, CommanderOutputs
from agent.decisions.issuing import IssueSettings
from agent.decisions.peer_monitors import PeerMonitors, watched_services
from agent.decisions.ramp import Ramps
from agent.decisions.standing import standing_event
from agent.runtime.context import ProcessContext
from agent.runtime.publisher import Publisher
from agent.runtime.roles import ProcessRoles
from agent.state.state_tables import StateTables
from streams.condition import ShardCondition
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.handlers import Handlers


def monitor_handlers(
    context: ProcessContext, roles: ProcessRoles, state: StateTables, publisher: Publisher, ramps: Ramps
) -> Handlers:
    """The handlers of the monitor role. Raises KeyFileError if the signing key cannot be used."""
    config = context.config
    commander = _commander(context, roles, state, publisher)
    flags = {(flag.environment, flag.flag): flag for flag in config.flags}
    after_flip = AfterFlipWatch(flags, state, config.after_flip, publisher.after_flip)

    def inability(partition: int, condition: ShardCondition, begun: bool) -> None:
        at = time.time()
        publisher.event(inability_event(context.topics.partials, partition, condition, begun=begun, at=at))

    async def firing(second: EvaluatedSecond) -> None:
        await commander.firing(second.time, second.firing, second.ill)

    async def judged(second: EvaluatedSecond) -> None:
        if not second.muted:
            ramps.judged(second.time, second.observer.services)
            commander.expire()
        await after_flip.judged(second)

    return Handlers(
        firing=firing,
        transition=lambda *change: publisher.event(transition_event(*change)),
        inability=inability,
        drift=lambda target, found: publisher.event(drift_event(target, found)),
        judged=judged,
        standing=lambda change: publisher.event(standing_event(change)),
    )


def _commander(context: ProcessContext, roles: ProcessRoles, state: StateTables, publisher: Publisher) -> Commander:
    config, commands = context.config, publisher.commands
    flags = {(flag.environment, flag.flag): flag for flag in config.flags}

    async def command(key: bytes, value: bytes) -> None:
        with commands.command():
            await roles.send_command(context.topics.commands, key, value, commands.failed)

    return Commander(
        flags,
        state,
        IssueSettings(load_private(config.signing_key), rules_hash=rules_hash(config), lifetime=config.command.expires),
        outputs=CommanderOutputs(command=command, incident=publisher.incident, event=publisher.post),
        clock=time.time,
        blame=Blame(
            roles.judged,
            BlameRules.of(config),
            peers=PeerMonitors(
                watched_services(context.specs),
                state,
                publisher.ill,
                by=str(uuid.uuid4()),
                place=roles.first_shard,
            ),
        ),
    )
