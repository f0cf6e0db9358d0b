"""The documentation agrees with the code: names, configurations, examples and links are compared with it."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import click
import pytest

from agent.backends.flagd.text import FlagdDocument, all_to
from agent.cli import EXIT_STATUS, SUBCOMMANDS, main
from agent.cli.replay import FORMATS
from agent.commands.command import Command, Evidence, Reason
from agent.config.json_schema import schema
from agent.config.load import load
from agent.config.starter import Names, config_text
from agent.events import cloudevents as events
from agent.heartbeats.heartbeat import Heartbeat, Obstacle, TelemetryCount
from agent.offline.backtest import read_labels
from agent.offline.replay import Change, Evaluated, Line, replay
from agent.offline.trigger_tests import run as run_tests
from agent.state.flags import FlagStatus
from agent.state.incidents import AfterFlip, CommandResult, Ill, Incident
from detectors.triggers.state_machine import State
from streams.decoders.columns import RejectKind
from streams.decoders.counter_records import Counters
from streams.decoders.decoder import CONTENT_TYPES
from streams.kafka.topics import Topics
from streams.monitor.health import Health
from streams.monitor.health import decoder as health_decoder
from streams.monitor.observer import Exposure
from streams.settings import Format
from streams.telemetry.sample import Sample
from tests.support.fault_table import table as fault_table

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md")), *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md"))]
PICTURE = DOCS / "architecture.svg"

CONFIG = """\
apiVersion: flipback/v1
kafka: {brokers: [127.0.0.1:9092]}
telemetry:
  - {topic: requests, format: json}
backends:
  files: {kind: flagd-file, path: flags.json}
flags:
  - {flag: new-cart, service: shop, backend: files, safe: "off", triggers: [{name: it, when: WHEN}]}
"""
T0 = 1_700_000_000
FAULT = 100
"""The second of a recording in which the fault begins."""
GOOD: dict[str, object] = {"status": 200}
BAD: dict[str, object] = {"status": 500}


def commands() -> Iterator[str]:
    """Yield every command as a user types it; of a group its subcommands."""
    for name, subcommand in SUBCOMMANDS.items():
        module, _, attribute = subcommand.target.partition(":")
        command = getattr(import_module(module), attribute)
        if isinstance(command, click.Group):
            yield from (f"flipback {name} {member}" for member in command.commands)
        else:
            yield f"flipback {name}"


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def table(page: Path, heading: str) -> list[list[str]]:
    """Return the rows, as lists of cells, of the table whose first line is `heading`."""
    _, found, rest = page.read_text().partition(f"\n{heading}\n")
    assert found, f"{page.name} has no table {heading}"
    lines = rest.split("\n")[1:]
    rows = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_documentation_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_and_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"`((?:agent|streams|detectors|tests|compose)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    assert set(re.findall(r"`(test_\w+)`", text)) <= names_of_tests()


@cache
def names_of_tests() -> set[str]:
    """Return the names of all test functions."""
    paths = (ROOT / "tests").rglob("test_*.py")
    return {name for path in paths for name in re.findall(r"def (test_\w+)\(", path.read_text())}


def test_every_page_is_reached_from_the_readme() -> None:
    shown = "".join(page.read_text() for page in DOCS.glob("*.md"))
    for page in DOCS.iterdir():
        picture = page.suffix == ".svg" and f"]({page.name})" in shown
        assert picture or f"(docs/{page.name})" in README.read_text(), page.name


def test_the_configuration_that_is_shown_is_the_one_that_init_writes() -> None:
    (text,) = fenced(README, "yaml")
    assert text == config_text(Names())


def test_the_configuration_to_be_pasted_passes_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = fenced(README, "yaml")
    path = tmp_path / "flipback.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit) as exited:
        main(["config", "check", str(path)])
    assert (exited.value.code, capsys.readouterr().err) == (0, "")


def test_the_example_of_python_compiles_and_imports_what_exists() -> None:
    (text,) = fenced(README, "python")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            module = import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), node.module


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_is_in_the_readme(command: str) -> None:
    assert any(row[0].startswith(f"`{command}") for row in table(README, "| command | what |"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_command_that_is_not_there(page: Path) -> None:
    """A command is the word `flipback` in code, as opposed to prose, and the words after it."""
    known = set(commands()) | {f"flipback {name}" for name in SUBCOMMANDS}
    text = page.read_text()
    for code in re.findall(r"`([^`\n]+)`", text) + re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE):
        for words in re.findall(r"\bflipback [a-z]+(?: [a-z]+)?", code):
            name = " ".join(words.split()[:2])
            assert name in known, words
            group = any(command.startswith(f"{name} ") for command in known)
            assert not group or words == name or words in known, words


def test_every_exit_status_is_in_the_readme() -> None:
    wanted = set(re.findall(r"^  (\d+) ", EXIT_STATUS, re.MULTILINE))
    assert {row[0] for row in table(README, "| exit status | |")} == wanted


def test_every_topic_is_in_the_readme_and_among_the_records() -> None:
    names = {spec.name for spec in Topics().specs(8, 0)}
    for page, heading in (
        (README, "| topic | what | kept |"),
        (DOCS / "events.md", "| topic | key | value | partitions | kept |"),
    ):
        rows = {row[0].strip("`") for row in table(page, heading)}
        assert {row for row in rows if row.startswith("flipback.")} == names


def test_every_topic_but_telemetry_stands_in_the_rights_of_the_roles() -> None:
    rights = table(README, "| principal | Read | Write | Describe | group (Read) |")
    shorts = {spec.name.removeprefix("flipback.") for spec in Topics().specs(8, 0)} | {"telemetry"}
    for principal, *cells in rights:
        if principal in ("ingest", "monitor", "executor"):
            # At its start a role requests the partitions of every topic.
            named = {word for cell in cells[:3] for word in re.findall(r"[a-z]+", cell)}
            assert named == shorts, principal
            assert cells[3] == f"`flipback-{principal}`"


def test_every_setting_is_in_the_sample_or_in_operations() -> None:
    text = (ROOT / "compose" / "flipback.yaml").read_text() + (DOCS / "operations.md").read_text()
    for name, struct in schema()["$defs"].items():
        for setting in struct["properties"]:
            assert re.search(rf"\b{setting}\b", text), f"{name}.{setting}"


def test_every_field_of_a_sample_is_described() -> None:
    rows = {row[0] for row in table(DOCS / "telemetry-formats.md", "| field | type | meaning |")}
    assert rows == {f"`{name}`" for name in Sample.__struct_fields__}


def test_every_counter_is_described_and_no_other() -> None:
    rows = {row[0].strip("`") for row in table(DOCS / "telemetry-formats.md", "| counter | counts |")}
    assert rows == set(Counters.__struct_fields__)


def test_every_format_is_described_and_can_be_chosen() -> None:
    rows = {row[0].strip("`") for row in table(DOCS / "telemetry-formats.md", "| format | a record is |")}
    assert rows == set(get_args(Format)) == set(FORMATS)


def test_every_content_type_is_named() -> None:
    text = (DOCS / "telemetry-formats.md").read_text()
    assert all(f"`{name.decode()}`" in text for name in CONTENT_TYPES)


def test_every_kind_of_rejection_is_named() -> None:
    text = (DOCS / "telemetry-formats.md").read_text()
    assert all(f"`{kind}`" in text for kind in get_args(RejectKind))


def test_every_type_of_event_is_described_and_no_other() -> None:
    known = {value for value in vars(events).values() if isinstance(value, str) and value.startswith("flipback.")}
    known |= {events.trigger_type(state.name.lower()) for state in State}
    assert {row[0].strip("`") for row in table(DOCS / "events.md", "| type | when | data |")} == known


def test_every_reason_of_a_refusal_is_described_and_no_other() -> None:
    rows = {row[0].strip("`") for row in table(DOCS / "events.md", "| reason | |")}
    assert rows == {str(reason) for reason in Reason}


RECORDS = [
    Command, CommandResult, Evidence, FlagStatus, Incident, AfterFlip, Exposure, Health, Heartbeat, Obstacle,
    TelemetryCount, Ill,
]  # fmt: skip


@pytest.mark.parametrize("struct", RECORDS, ids=lambda kind: kind.__name__)
def test_every_field_of_a_record_is_named(struct: type[Command]) -> None:
    text = (DOCS / "events.md").read_text()
    for name in struct.__struct_fields__:
        assert f"`{name}`" in text or f'"{name}"' in text, name


def test_the_health_record_is_one_that_can_be_read() -> None:
    (text,) = fenced(DOCS / "events.md", "json")
    record = health_decoder.decode(text)
    sizes = {len(record.sources), *map(len, record.counts.values()), *map(len, record.latency.values())}
    assert sizes == {len(record.scopes)}
    assert set(json.loads(text)) == set(Health.__struct_fields__)


def test_every_event_of_the_log_is_described_and_no_other() -> None:
    written = set()
    for path in [*(ROOT / "agent").rglob("*.py"), *(ROOT / "streams").rglob("*.py")]:
        if {"bench", "demo"} & set(path.parts):
            continue
        called = r"\b(?:log_event\(\s*\w+, |_logger\.\w+\(|self\._log\()\"([a-z]+\.[a-z-]+)\""
        # Remove docstrings: an example in one is no call.
        written |= set(re.findall(called, re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)))
    described = {name for row in table(DOCS / "operations.md", "| event | level | meaning |") for name in
                 re.findall(r"`([a-z.-]+)`", row[0])}  # fmt: skip
    assert described == written | {"library"}


def test_the_picture_has_a_colour_in_the_dark_for_each_in_the_light() -> None:
    style = ElementTree.parse(PICTURE).findtext(".//{*}style")  # noqa: S314 - our own file
    assert style is not None
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    coloured = r"\.(\w+)\s*\{[^}]*#"
    assert set(re.findall(coloured, dark)) == set(re.findall(coloured, light)) != set()


def test_the_picture_names_topics_and_roles_that_there_are() -> None:
    text = PICTURE.read_text()
    known = {spec.name for spec in Topics().specs(8, 0)}
    assert set(re.findall(r"flipback\.[a-z]+", text)) <= known
    assert all(f">{role}<" in text for role in ("ingest", "monitor", "executor"))


def replayed(
    directory: Path,
    when: str,
    seconds: int,
    *,
    rate: int,
    good: dict[str, object],
    bad: dict[str, object],
    share: int,
    silent: range = range(0),
    least: int | str = 30,
) -> Iterator[Line]:
    """Replay traffic of which `share` percent is bad from FAULT on, at most two samples a second; yield the lines."""
    config = directory / "flipback.yaml"
    config.write_text(CONFIG.replace("WHEN", f"'{when}', min_samples: {least}"))
    with (directory / "recording.jsonl").open("w") as recording:
        for second in range(seconds):
            failing = rate * share // 100 if second >= FAULT else 0
            for outcome, n in ((good, rate - failing), (bad, failing)):
                if n and second not in silent:
                    sample = {"ts": T0 + second, "service": "shop", "n": n, **outcome}
                    recording.write(json.dumps(sample) + "\n")
    _, lines = replay(load(config), [directory / "recording.jsonl"], "json", evaluations=True)
    return lines


def state_in(cell: str) -> str:
    """Return the first verdict that a cell names."""
    return str(re.findall(r"ok|pending|firing|unknown", cell)[0])


def test_the_example_second_by_second_is_what_happens(tmp_path: Path) -> None:
    heading = "| evaluation at | errors / requests of the last 10 s | error rate | verdict of A | verdict of B |"
    rows = table(DOCS / "triggers.md", heading)
    assert [int(row[0]) for row in rows] == list(range(12))
    text = (DOCS / "triggers.md").read_text()
    triggers = dict(re.findall(r"^    ([ABC])  (.*)$", text, re.MULTILINE))
    for column, name in ((3, "A"), (4, "B")):
        lines = replayed(tmp_path, triggers[name], FAULT + 20, rate=50, good=GOOD, bad=BAD, share=4)
        said = {line.time - T0 - FAULT: line for line in lines if isinstance(line, Evaluated)}
        for row in rows:
            found = said[int(row[0])]
            errors, requests = (int(number) for number in row[1].split("/"))
            assert found.samples == requests
            assert found.value == pytest.approx(errors / requests)
            assert float(row[2].rstrip(" %")) == pytest.approx(100 * errors / requests)
            assert state_in(row[column]) == found.state, row
    lines = replayed(tmp_path, triggers["C"], FAULT + 60, rate=50, good=GOOD, bad=BAD, share=4)
    (fired,) = [line.time - T0 - FAULT for line in lines if isinstance(line, Change) and line.to == "firing"]
    assert f"C fires at {fired}:" in text


def test_the_example_of_a_silence_is_what_happens(tmp_path: Path) -> None:
    rows = table(DOCS / "triggers.md", "| evaluation at | requests of the last 10 s | verdict of A |")
    lines = replayed(
        tmp_path, "error_rate > 2% over 10s for 5s", FAULT + 30, rate=50, good=GOOD, bad=BAD, share=4,
        silent=range(FAULT + 3, FAULT + 20),
    )  # fmt: skip
    said = {line.time - T0 - FAULT: line for line in lines if isinstance(line, Evaluated)}
    for row in rows:
        first, _, last = row[0].partition(" - ")
        for second in range(int(first), int(last or first) + 1):
            assert (state_in(row[2]), int(row[1])) == (said[second].state, said[second].samples), second


KINDS: dict[str, dict[str, object]] = {
    "error_rate": {"status": 500},
    "latency_p95": {"latency_ms": 60_000},
    "cache_hit_rate": {"cache": "miss"},
    "availability": {"status": 503},
}


def onsets() -> Iterator[tuple[str, str, int, str, int, str]]:
    when = window = ""
    for row in table(DOCS / "triggers.md", "| trigger | window | fault | pending | firing | tier |"):
        when, window = row[0].strip("`") or when, row[1] or window
        share = 100 if row[2].startswith("all") else int(row[2].split()[0])
        yield when, window, share, row[3], int(row[4]), row[5]


@pytest.mark.parametrize(("when", "window", "share", "pending", "firing", "tier"), list(onsets()))
def test_the_seed_triggers_take_as_long_as_is_said(
    tmp_path: Path, when: str, window: str, share: int, pending: str, firing: int, tier: str
) -> None:
    good: dict[str, object] = {"status": 200, "latency_ms": 20, "cache": "hit"}
    bad = good | KINDS[when.split()[0]]
    lines = replayed(
        tmp_path, when, FAULT + firing + 5, rate=100, good=good, bad=bad, share=share, least="auto"
    )  # fmt: skip
    found = [line for line in lines if isinstance(line, Change)]
    changes = [(line.to, line.time - T0 - FAULT) for line in found]
    waiting = [] if pending == "-" else [("pending", int(pending))]
    assert changes == [("ok", changes[0][1]), *waiting, ("firing", firing)]
    assert found[-1].reason.startswith("fast: ") == (tier == "fast")
    (spec,) = load(tmp_path / "flipback.yaml").trigger_specs()
    assert next(w for w in spec.windows if 100 * w >= spec.min_samples) == int(window.rstrip(" s"))


def test_the_samples_that_the_seed_triggers_need_are_those_that_are_said(tmp_path: Path) -> None:
    heading = "| trigger | field of a sample | samples | in its own window from | in `max_window` (10 m) from |"
    for row in table(DOCS / "triggers.md", heading):
        (tmp_path / "flipback.yaml").write_text(CONFIG.replace("WHEN", f"'{row[0].strip('`')}'"))
        (spec,) = load(tmp_path / "flipback.yaml").trigger_specs()
        assert spec.min_samples == int(row[2].split()[0])
        for cell, window in ((row[3], spec.condition.over), (row[4], spec.windows[-1])):
            many, _, every = re.sub(r"[^\d. ]", " ", cell).strip().partition(" ")
            rate = float(many) / float(every or 1)
            assert rate * window >= spec.min_samples
            assert rate * window <= spec.min_samples * 1.3, "and not many more than needed"


def test_the_tests_of_triggers_that_are_shown_pass_on_the_configuration_that_is_shown(tmp_path: Path) -> None:
    (configuration,) = fenced(README, "yaml")
    labels, cases = fenced(DOCS / "detection.md", "yaml")
    for name, text in (("flipback.yaml", configuration), ("labels.yaml", labels), ("tests.yaml", cases)):
        (tmp_path / name).write_text(text)
    assert [result.failures for result in run_tests(tmp_path / "tests.yaml")] == [()]
    assert [(fault.name, fault.service) for fault in read_labels(tmp_path / "labels.yaml")] == [
        ("slow database", "recommendations"),
        ("", ""),
    ]


def test_the_file_of_flags_that_is_shown_serves_the_configuration_that_is_shown() -> None:
    (configuration,) = fenced(README, "yaml")
    flag, safe = re.findall(r"flag: (\S+)|safe: \"(\w+)\"", configuration)
    content, _ = fenced(DOCS / "backends.md", "json")
    document = FlagdDocument(content.encode())
    document.replaced(flag[0], all_to(document.definition(flag[0]), safe[1]))
    assert document.doubts() == document.refused() == []


def test_the_table_of_faults_is_that_of_the_tests() -> None:
    assert fault_table() in (DOCS / "backends.md").read_text()


def test_the_tests_that_mutants_are_tried_on_exist() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    named = [value for values in settings.values() if isinstance(values, list) for value in values]
    assert not [name for name in named if "/" in name and not (ROOT / name).exists()]
