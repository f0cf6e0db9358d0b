"""Every problem of a configuration is reported at once: where it is, what was expected, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config import starter
from agent.config.document import Problem, join
from agent.config.load import check, load, render
from agent.errors import ConfigError

VALID = """\
apiVersion: flipback/v1
kafka:
  brokers: [127.0.0.1:9092]
telemetry:
  - {topic: requests, format: json}
backends:
  files: {kind: flagd-file, path: flags.json}
flags:
  - flag: new-cart
    service: shop
    backend: files
    safe: "off"
    triggers:
      - {name: errors, when: error_rate > 2% for 2m}
      - {name: slow, when: latency_p95@on > 45s for 1m}
"""
TRIGGER = "error_rate > 2% for 2m"
LAST = "when: latency_p95@on > 45s for 1m}\n"
NAME = "expected a name of at most 200 characters, without blanks around it"
FORM = "the form is METRIC[@variant] OP VALUE [over WINDOW] [for DURATION]"
AGAIN = """\
  - flag: new-cart
    service: shop
    backend: files
    safe: "off"
    triggers: [{name: other, when: error_rate > 2%}]
"""
OTHER = AGAIN.replace("new-cart", "new-search")


def write(directory: Path, text: str, name: str = "flipback.yaml") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(directory: Path, text: str) -> list[Problem]:
    config, found = check(write(directory, text))
    assert (config is None) == bool(found)
    return found


def test_a_group_is_valid_where_as_many_flags_may_be_turned_back(tmp_path: Path) -> None:
    limits = "automation: {max_flips: 2, max_share: 1}\n"
    group = "    together: [new-search]\n" + OTHER
    assert problems(tmp_path, VALID.replace(LAST, LAST + group).replace("kafka:", f"{limits}kafka:", 1)) == []


def test_the_configuration_these_tests_break_is_valid(tmp_path: Path) -> None:
    assert problems(tmp_path, VALID) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "message", "todo"),
    [
        # shapes and names
        ("flipback/v1", "flipback/v2", 1, "apiVersion", "expected flipback/v1, found 'flipback/v2'", "did you mean fl"),
        ("kafka:", "kafka: 3\nmode: shadow\nx:", 2, "kafka", "expected settings, found 3", "`name: value`"),
        ("brokers:", "broker:", 3, "kafka.broker", "unknown setting", "did you mean brokers?"),
        ("brokers:", "broker:", 2, "kafka.brokers", "missing; expected a list", "add `brokers`"),
        ("brokers:", "wibble: 1\n  brokers:", 3, "kafka.wibble", "unknown setting", "known here: brokers, prefix"),
        ("[127.0.0.1:9092]", "127.0.0.1:9092", 3, "kafka.brokers", "expected a list, found '127.0.0.1:9092'", "- "),
        ("[127.0.0.1:9092]", "[]", 3, "kafka.brokers", "is empty; expected one at least", "add one"),
        ("format: json", "format: jsn", 5, "telemetry[0].format", "expected one of json, json-array, nd", "mean json?"),
        ("format: json", "format: 1", 5, "telemetry[0].format", "expected one of json, json-", 'put it in quotes: "1"'),
        (
            "topic: requests",
            "topic: a/b",
            5,
            "telemetry[0].topic",
            "expected the name of a topic: letters",
            "correct it",
        ),
        (
            "flagd-file,",
            "flagd,",
            7,
            "backends.files.kind",
            "expected one of flagd-file, firestore",
            "name one of them",
        ),
        (
            "kind: flagd-file, ",
            "",
            7,
            "backends.files.kind",
            "missing; expected one of flagd-file",
            "add `kind`",
        ),
        (
            "{kind: flagd-file, path: flags.json}",
            "flags.json",
            7,
            "backends.files",
            "expected settings, found 'fl",
            "`",
        ),
        ("flags.json", '""', 7, "backends.files.path", "expected the path of a file, found ''", "name a file"),
        ("  files:", "  12:", 7, "backends.12", "expected text as name, found 12", "put the name in quotes"),
        ("  - flag: new-cart", "  - flag: ' new'", 9, "flags[0].flag", f"{NAME}, found ' new'", "correct it"),
        ("service: shop", "service: shop\n    environment: a/b", 11, "flags[0].environment", "without blanks or /", ""),
        ("service: shop", 'service: "shop\\n"', 10, "flags[0].service", f"{NAME}, found 'shop\\n'", "correct it"),
        ('safe: "off"', "safe: off", 12, "flags[0].safe", "found off, which YAML reads as false", 'in quotes: "off"'),
        ('safe: "off"', "safe: On", 12, "flags[0].safe", "found On, which YAML reads as true", 'in quotes: "On"'),
        ('safe: "off"', "safe: 1", 12, "flags[0].safe", f"{NAME}, found 1", 'put it in quotes: "1"'),
        ('safe: "off"', 'safe: ""', 12, "flags[0].safe", f"{NAME}, found ''", "correct it"),
        ('safe: "off"', "safe:", 12, "flags[0].safe", f"{NAME}, found nothing", "write a text there"),
        ('    safe: "off"\n', "", 9, "flags[0].safe", f"missing; {NAME}", "add `safe`"),
        (
            "kafka:\n",
            "mode: shadwo\nkafka:\n",
            2,
            "mode",
            "expected one of active, shadow, found 'shadwo'",
            "mean shadow",
        ),
        (
            "name: slow,",
            "name: slow, min_samples: '30',",
            15,
            "flags[0].triggers[1].min_samples",
            "number of at",
            "quotes",
        ),
        (
            "name: slow,",
            "name: slow, min_samples: -1,",
            15,
            "flags[0].triggers[1].min_samples",
            "of at least 0",
            "corr",
        ),
        (
            "name: slow,",
            "name: slow, min_samples: 1.5,",
            15,
            "flags[0].triggers[1].min_samples",
            "a whole number",
            "co",
        ),
        ("name: slow,", "name: slow, action: rolback,", 15, "flags[0].triggers[1].action", "hold, alert", "rollback?"),
        ("name: slow", "nam: slow", 15, "flags[0].triggers[1].nam", "unknown setting", "did you mean name?"),
        ("kafka:\n", "max_scopes: 0\nkafka:\n", 2, "max_scopes", "a whole number from 1 to 1000000, found 0", ""),
        ("kafka:\n", "web: {port: 70000}\nkafka:\n", 2, "web.port", "from 0 to 65535, found 70000", "correct it"),
        ("kafka:\n", "keys: {public_keys: []}\nkafka:\n", 2, "keys.public_keys", "is empty", "add one"),
        (
            "kafka:\n",
            "kafka:\n  create_topics: 'true'\n",
            3,
            "kafka.create_topics",
            "expected true or false",
            "leave out",
        ),
        # durations
        ("kafka:\n", "max_lateness: 2\nkafka:\n", 2, "max_lateness", "expected a duration", "name the unit: 2s"),
        (
            "kafka:\n",
            "max_lateness: soon\nkafka:\n",
            2,
            "max_lateness",
            "such as 30s, 1.5s or 2m, found 'soon'",
            "ms, s",
        ),
        ("kafka:\n", "evaluate_every: 1500ms\nkafka:\n", 2, "evaluate_every", "a duration of whole seconds", "a whole"),
        ("kafka:\n", "evaluate_every: 0s\nkafka:\n", 2, "evaluate_every", "expected 1s at least", "by the second"),
        (
            "kafka:\n",
            "evaluate_every: 31s\ncatching_up_after: 1m\nkafka:\n",
            17,
            "flags[0].triggers[1].when",
            "30s",
            "31s",
        ),
        ("kafka:\n", "unknown_grace: 2h\nkafka:\n", 2, "unknown_grace", "expected 1h at most", "0s"),
        ("name: slow,", "name: slow, unknown_grace: 2h,", 15, "flags[0].triggers[1].unknown_grace", "1h at most", "0s"),
        ("kafka:\n", "catching_up_after: 3s\nkafka:\n", 2, "catching_up_after", "together 3s", "raise it"),
        ("kafka:\n", "command: {expires: 4s}\nkafka:\n", 2, "command.expires", "expected 5s at least", "raise it"),
        ("kafka:\n", "kafka:\n  session_timeout: 500ms\n", 3, "kafka.session_timeout", "1s at least", "6s and more"),
        # brokers
        (
            "127.0.0.1:9092",
            "127.0.0.1",
            3,
            "kafka.brokers[0]",
            "expected host:port, found '127.0.0.1'",
            "127.0.0.1:9092",
        ),
        ("127.0.0.1:9092", "localhost:0", 3, "kafka.brokers[0]", "expected host:port", "such as"),
        (
            "127.0.0.1:9092",
            "kafka:9092",
            2,
            "kafka.security",
            "missing, and kafka:9092 is not on loop",
            "`security: {}`",
        ),
        (
            "kafka:\n",
            "kafka:\n  replication: 0\n",
            3,
            "kafka.replication",
            "expected -1, or 1 and more",
            "as there are brokers",
        ),
        (
            "kafka:\n",
            "kafka:\n  security: {certfile: c}\n",
            3,
            "kafka.security.keyfile",
            "although certfile",
            "`keyfile`",
        ),
        (
            "kafka:\n",
            "kafka:\n  security: {keyfile: c}\n",
            3,
            "kafka.security.certfile",
            "although keyfile",
            "`certfile`",
        ),
        (
            "kafka:\n",
            "kafka:\n  security: {username: u, password_file: p}\n",
            3,
            "kafka.security.mechanism",
            "missing, although password_file is given",
            "add `mechanism`",
        ),
        (
            "kafka:\n",
            "kafka:\n  security: {mechanism: PLAIN, username: u}\n",
            3,
            "kafka.security.password_file",
            "missing, although mechanism is given",
            "add `password_file`",
        ),
        (
            "kafka:\n",
            "kafka:\n  security: {cafile: c, allow_plaintext: true}\n",
            3,
            "kafka.security.cafile",
            "is for TLS, which allow_plaintext turns off",
            "remove one of the two",
        ),
        # settings that must fit together
        (
            "backend: files",
            "backend: file",
            11,
            "flags[0].backend",
            "no backend is named 'file'",
            "did you mean files?",
        ),
        ("backend: files", "backend: x", 11, "flags[0].backend", "no backend is named 'x'", "known are: files"),
        (
            "name: slow",
            "name: errors",
            15,
            "flags[0].triggers[1].name",
            "the name of flags[0].triggers[0] too",
            "a name",
        ),
        ("kafka:\n", "max_scopes: 1\nkafka:\n", 2, "max_scopes", "look at 2 scopes, more than 1", "raise it"),
        ("topic: requests", "topic: flipback.x", 5, "telemetry[0].topic", "begin with flipback. are", "kafka.prefix"),
        (
            "backends:",
            "  - {topic: requests}\nbackends:",
            6,
            "telemetry[1].topic",
            "requests is telemetry[0] too: it would be counted twice",
            "leave one of the two",
        ),
        (LAST, LAST + AGAIN, 16, "flags[1].flag", "flags[0] has the same flag, service and environment", "under one"),
        (
            LAST,
            LAST + AGAIN.replace("shop", "cart").replace('"off"', "old"),
            19,
            "flags[1].safe",
            "flags[0] is the same flag with 'off', found 'old'",
            "make them alike",
        ),
        (
            LAST,
            LAST + AGAIN.replace("shop", "cart").replace("other", "slow"),
            20,
            "flags[1].triggers[0].name",
            "'slow' is the name of flags[0].triggers[1] too",
            "a name of its own",
        ),
        (
            LAST,
            LAST + AGAIN.replace("service", "environment: staging\n    service"),
            19,
            "flags[1].backend",
            "'new-cart' of files is that of production already",
            "give each environment a backend of its own",
        ),
        (
            LAST,
            LAST + "    together: [new-cart]\n",
            16,
            "flags[0].together[0]",
            "is the flag itself",
            "the others only",
        ),
        (
            "name: slow",
            "name: by-hand",
            15,
            "flags[0].triggers[1].name",
            "'by-hand' stands for what a person orders",
            "another name",
        ),
        (
            LAST,
            LAST + "    together: [new-search]\n" + OTHER,
            16,
            "flags[0].together",
            "2 flags are more than automation may turn back at once, 1",
            "automation.max_share",
        ),
        (
            LAST,
            LAST + "    together: [new-serch]\n" + OTHER,
            16,
            "flags[0].together[0]",
            "no flag 'new-serch' is under watch in production",
            "did you mean new-search?",
        ),
        (
            LAST,
            LAST + "    together: [new-search]\n" + OTHER.replace("service", "environment: staging\n    service"),
            16,
            "flags[0].together[0]",
            "no flag 'new-search' is under watch in production",
            "add the flag, or leave it out",
        ),
        (
            LAST,
            LAST + "    together: [new-search, new-search]\n" + OTHER,
            16,
            "flags[0].together[1]",
            "'new-search' is named twice",
            "leave one of the two",
        ),
        (
            LAST,
            LAST + "    together: [new-search]\n" + OTHER + AGAIN.replace("shop", "cart"),
            22,
            "flags[2].together",
            "flags[0] is the same flag with ['new-search'], found []",
            "make them alike",
        ),
        (
            "kafka:\n",
            "baseline: none.json\nkafka:\n",
            2,
            "baseline",
            "cannot be read: No such file",
            "leave the setting",
        ),
    ],
)
def test_a_fault_is_named_with_its_line_and_path_and_what_to_do(
    tmp_path: Path, old: str, new: str, line: int, path: str, message: str, todo: str
) -> None:
    assert old in VALID
    found = problems(tmp_path, VALID.replace(old, new, 1))
    fitting = [problem for problem in found if (problem.line, problem.path) == (line, path)]
    assert len(fitting) == 1, found
    assert message in fitting[0].message
    assert todo in fitting[0].todo


@pytest.mark.parametrize(
    ("when", "marked", "message", "todo"),
    [
        ("eror_rate > 2% for 2m", "eror_rate", "'eror_rate' is not a metric; did you mean error_rate?", FORM),
        ("error_rate > 2 % for 2m", "%", "write the unit without a blank: 2%", FORM),
        ("error_rate > 2% for 2 m", "2", "expected a duration such as 30s, 2m or 1m30s after `for`, found '2'", FORM),
        ("error_rate > 2% over 2h", "2h", "`over` lasts at most 1h, found 2h", FORM),
        (
            "error_rate > 3x control for 1m",
            "error_rate",
            "the control is compared with a variant, not with the whole service",
            "name the variant, such as error_rate@on",
        ),
        (
            "error_rate@off > 3x control for 1m",
            "error_rate@off",
            "'off' is the control: it would be compared with itself",
            "judge another variant, or set `control`",
        ),
        (
            "latency_p95@off>1s for 1m",
            "latency_p95@off",
            "'off' is the safe variant: when it fails, a rollback to it does not help",
            "judge another variant, or set `action: alert`",
        ),
    ],
)
def test_a_wrong_condition_is_shown_with_carets_under_the_word(
    tmp_path: Path, when: str, marked: str, message: str, todo: str
) -> None:
    (problem,) = problems(tmp_path, VALID.replace(TRIGGER, when))
    assert (problem.line, problem.path) == (14, "flags[0].triggers[0].when")
    assert (problem.message, problem.todo) == (message, todo)
    assert problem.excerpt == f"  {when}\n  " + " " * when.rindex(marked) + "^" * len(marked)


@pytest.mark.parametrize(
    ("stored", "when", "message", "todo"),
    [
        (None, "latency_p99 > 1.5x baseline", "but no file of them is named", "set `baseline` at the top level"),
        (
            "{}",
            "latency_p99 > 1.5x baseline",
            "latency_p99 of production/shop, which the baseline file lacks",
            "add it",
        ),
        ('{"latency_p99": 0}', "latency_p99 > 1.5x baseline", "is 0, of which no multiple helps", "an absolute value"),
        (
            '{"error_rate": 0.4}',
            "error_rate > 3x baseline",
            "3 times the stored error_rate of production/shop is 1.2",
            "l",
        ),
    ],
)
def test_a_condition_on_a_baseline_wants_a_stored_value(
    tmp_path: Path, stored: str | None, when: str, message: str, todo: str
) -> None:
    text = VALID.replace(TRIGGER, when)
    if stored is not None:
        write(tmp_path, f'{{"apiVersion": "flipback/v1", "baseline": {{"production/shop": {stored}}}}}', "b.json")
        text += "baseline: b.json\n"
    (problem,) = problems(tmp_path, text)
    assert (problem.line, problem.path) == (14, "flags[0].triggers[0].when")
    assert message in problem.message
    assert todo in problem.todo


def test_all_faults_are_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
apiVersion: flipback/v1
kafka: {brokers: [kafka:9092, nope], prefx: a}
telemetry: [{topic: requests, format: jsn}]
backends: {files: {kind: flagd-file, path: flags.json}}
evaluate_every: 1500ms
flags:
  - flag: new-cart
    service: shop
    backend: file
    safe: off
    mode: shadw
    triggers:
      - {name: errors, when: eror_rate > 2% for 2m}
      - {name: errors, when: latency_p95 > 3x control for 1m}
      - {name: slow, when: latency_p95 > 3x baseline for 1m, min_samples: "30"}
  - 3
"""
    found = [(problem.line, problem.path) for problem in problems(tmp_path, text)]
    assert found == [
        (2, "kafka.prefx"),
        (2, "kafka.brokers[1]"),
        (2, "kafka.security"),
        (3, "telemetry[0].format"),
        (5, "evaluate_every"),
        (9, "flags[0].backend"),
        (10, "flags[0].safe"),
        (11, "flags[0].mode"),
        (13, "flags[0].triggers[0].when"),
        (14, "flags[0].triggers[1].when"),
        (14, "flags[0].triggers[1].name"),
        (15, "flags[0].triggers[2].min_samples"),
        (15, "flags[0].triggers[2].when"),
        (16, "flags[1]"),
    ]


def test_nothing_is_said_that_only_follows_from_another_fault(tmp_path: Path) -> None:
    text = VALID.replace(TRIGGER, "latency_p99 > 1.5x baseline") + "baseline: 3\n"
    assert [problem.path for problem in problems(tmp_path, text)] == ["baseline"]
    text = VALID.replace("127.0.0.1:9092]", "kafka:9092]\n  security: 3")
    assert [problem.path for problem in problems(tmp_path, text)] == ["kafka.security"]


@pytest.mark.parametrize(
    ("text", "line", "path", "message"),
    [
        ("", None, "", "expected settings, found nothing"),
        ("- 1\n", 1, "", "expected settings, found a list"),
        ("a: [1\nb: 2\n", 2, "", "is not YAML: while parsing a flow sequence"),
        ("a: 1\n---\nb: 2\n", 2, "", "is not YAML: expected a single document"),
        ("a: !!python/object:os.system 1\n", 1, "", "is not YAML: could not determine a constructor"),
        ("a: *b\n", 1, "", "is not YAML: found undefined alias"),
        ("a: \0\n", None, "", "is not YAML"),
        ("? [a]\n: 1\n", 1, "", "expected a name as key, found a collection"),
        (VALID + "kafka: {}\n", 16, "kafka", "stands twice, first in line 2"),
        (VALID.replace("name: slow", "name: slow, 'name': fast"), 15, "flags[0].triggers[1].name", "stands twice"),
        ("kafka: &a {brokers: [*a]}\n", 1, "kafka.brokers[0]", "expected text, found settings"),
    ],
)
def test_what_is_no_configuration_at_all_is_said_too(
    tmp_path: Path, text: str, line: int | None, path: str, message: str
) -> None:
    found = problems(tmp_path, text)
    assert any(p.line == line and p.path == path and p.message.startswith(message) for p in found), found


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("flipback.ini", b"{}", "its name ends in .ini: neither YAML nor TOML"),
        ("flipback", b"", "its name has no ending: neither YAML nor TOML"),
        ("flipback.yaml", b"a: \xff", "is not UTF-8: byte 3 is 0xff"),
        ("flipback.toml", b"a = 1\na = 2\n", "is not TOML: Cannot overwrite a value (at line 2"),
        ("flipback.yaml", b"[" * 100_000, "is nested more than 100 levels deep"),
        ("flipback.yaml", b"- " * 100_000, "is nested more than 100 levels deep"),
        ("flipback.yaml", b"a: " + b"{a: " * 100_000, "is nested more than 100 levels deep"),
        ("flipback.json", b"[" * 100_000, "is nested more than 100 levels deep"),
        ("flipback.toml", b"a = " + b"[" * 100_000, "is nested too deep"),
        ("flipback.yaml", b"#" * (16 * 1024 * 1024 + 1), "is larger than 16,777,216 bytes"),
        ("flipback.toml", b"a = \n", "is not TOML: Invalid value (at line 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    (problem,) = check(path)[1]
    assert problem.message.startswith(message)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (problem,) = check(tmp_path / "none.yaml")[1]
    assert problem.message == "cannot be read: No such file or directory"


@pytest.mark.parametrize("name", ["flags.json", "flags.yaml", "flags.toml", "flipback.yaml"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_file_of_flags_is_told_from_a_configuration(tmp_path: Path, name: str, beside: bool) -> None:
    if beside:
        starter.write(tmp_path, starter.Names())
    path = tmp_path / name
    toml = name.endswith(".toml")
    path.write_text("[flags.a]\ndefaultVariant = 'on'" if toml else starter.flags_text(starter.Names()))
    config, (problem,) = check(path)
    assert config is None
    assert "looks like a file of flags in flagd's format" in problem.message
    where = str(tmp_path / "flipback.yaml") if beside and name != "flipback.yaml" else "such as flipback.yaml"
    assert f"name the configuration, {where};" in problem.todo


@pytest.mark.parametrize("text", ["flags: {a: {}}\nkafka: {}", "flags: [{flag: a}]", "flags:", "flag: {}"])
def test_a_configuration_with_faults_is_taken_for_no_file_of_flags(tmp_path: Path, text: str) -> None:
    path = tmp_path / "flipback.yaml"
    path.write_text(text)
    _, problems = check(path)
    assert len(problems) > 1
    assert not any("flagd" in problem.message for problem in problems)


def test_load_raises_with_all_problems_as_text(tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace(TRIGGER, "error_rat > 2%").replace("backend: files", "backend: x"))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.exit_code == 3
    assert str(caught.value) == "\n".join(
        [
            f"{path}:11: flags[0].backend: no backend is named 'x'",
            "    known are: files",
            f"{path}:14: flags[0].triggers[0].when: 'error_rat' is not a metric; did you mean error_rate?",
            "    error_rat > 2%",
            "    ^^^^^^^^^",
            f"    {FORM}",
            f"2 problems in {path}",
        ]
    )


def test_a_problem_of_a_toml_file_has_a_path_and_no_line(tmp_path: Path) -> None:
    path = write(tmp_path, 'apiVersion = "flipback/v1"\nevaluate_every = 1\n', "flipback.toml")
    found = check(path)[1]
    assert (
        Problem(
            "evaluate_every", "expected a duration of whole seconds such as 30s or 2m, found 1", "name the unit: 1s"
        )
        in found
    )
    assert f"{path}: evaluate_every: expected" in render(path, found)


def test_a_name_that_a_path_could_not_hold_is_quoted_in_it() -> None:
    assert join("backends", "a.b") == "backends['a.b']"
    assert join("", "kafka") == "kafka"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(VALID.split()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kafka", "brokers", "security", "telemetry", "topic", "flags", "triggers", "name", "when"])
            | st.sampled_from(["backends", "kind", "path", "safe", "flag", "service", "backend", "keys", "public_keys"])
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(plain)
def test_no_data_is_worse_than_problems(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    config, found = check(path)
    assert config is None
    assert found
    assert render(path, found)


@pytest.mark.parametrize(
    ("old", "new", "path", "message", "todo"),
    [
        (
            "name: slow,",
            "name: slow, min_samples: aut,",
            "flags[0].triggers[1].min_samples",
            "expected auto, or",
            "mean",
        ),
        ("name: slow,", "name: slow, max_window: 2h,", "flags[0].triggers[1].max_window", "expected 1s to 1h", "state"),
        ("kafka:\n", "max_window: 0s\nkafka:\n", "max_window", "expected 1s to 1h, found 0s", "state"),
        ("kafka:\n", "false_alarms: 1m\nkafka:\n", "false_alarms", "expected 1h at least", "nobody"),
        ("name: slow,", "name: slow, fast: sometimes,", "flags[0].triggers[1].fast", "expected true or false", ""),
    ],
)
def test_samples_windows_and_alarms_are_what_they_can_be(
    tmp_path: Path, old: str, new: str, path: str, message: str, todo: str
) -> None:
    (problem,) = problems(tmp_path, VALID.replace(old, new))
    assert problem.path == path
    assert message in problem.message
    assert todo in problem.todo


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("error_rate@on > 3x control", "wants a fixed limit, not one that moves with the control"),
        ("error_rate@on > control", "wants a fixed limit, not one that moves with the control"),
        ("absence@on", "wants a fixed limit, not one that moves with the control"),
        ("throughput < 1/s", "counts bad requests, which throughput < does not"),
        ("error_rate < 2%", "counts bad requests, which error_rate < does not"),
        ("latency_mean > 1s", "counts bad requests, which latency_mean > does not"),
    ],
)
def test_only_a_fixed_limit_on_bad_requests_can_be_fast(tmp_path: Path, when: str, message: str) -> None:
    (problem,) = problems(tmp_path, VALID.replace(f"when: {TRIGGER}", f"when: {when}, fast: true"))
    assert problem.path == "flags[0].triggers[0].fast"
    assert message in problem.message
    assert problem.excerpt is not None


@pytest.mark.parametrize("stored", [0.02, 0.03])
def test_a_limit_that_the_stored_level_breaches_is_refused_unless_a_number_is_given(
    tmp_path: Path, stored: float
) -> None:
    (tmp_path / "b.json").write_text(
        f'{{"apiVersion": "flipback/v1", "baseline": {{"production/shop": {{"error_rate": {stored}}}}}}}'
    )
    text = "baseline: b.json\n" + VALID.replace(TRIGGER, "error_rate > 2%")
    (problem,) = problems(tmp_path, text)
    assert problem.path == "flags[0].triggers[0].when"
    assert "too near to the limit of 0.02" in problem.message
    assert "set `min_samples` to a number" in problem.todo
    assert problems(tmp_path, text.replace("error_rate > 2%", "error_rate > 2%, min_samples: 30")) == []


def test_a_proof_without_a_variant_and_one_of_the_control_itself_are_refused(tmp_path: Path) -> None:
    (missing,) = problems(tmp_path, VALID.replace(TRIGGER, "error_rate > control"))
    assert "compared with a variant, not with the whole service" in missing.message
    (same,) = problems(tmp_path, VALID.replace(TRIGGER, "error_rate@off > control"))
    assert "it would be compared with itself" in same.message
