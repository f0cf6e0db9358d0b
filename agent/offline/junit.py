"""Results of trigger tests as JUnit XML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from agent.offline.trigger_tests import TriggerTestResult


def junit_xml(results: Mapping[Path, Sequence[TriggerTestResult]]) -> bytes:
    """Return the results of test files as one document: a test suite for each file, as promtool writes it."""
    suites = ElementTree.Element("testsuites")
    for path, found in results.items():
        failed = sum(bool(result.failures) for result in found)
        suite = ElementTree.SubElement(
            suites, "testsuite", name=str(path), tests=str(len(found)), failures=str(failed), errors="0"
        )
        for result in found:
            case = ElementTree.SubElement(suite, "testcase", name=result.name, classname=path.stem)
            for failure in result.failures:
                ElementTree.SubElement(case, "failure", message=failure)
    written: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return written + b"\n"
