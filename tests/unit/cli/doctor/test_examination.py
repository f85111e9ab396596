"""What follows from what."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from vllm_mindspore.cli.doctor.examination import examine
from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem

MEND = Remedy("mend")
AROUND: Any = SimpleNamespace()


@dataclass
class Check:
    NAME: str
    findings: list[Finding]
    FOLLOWS: tuple[str, ...] = ()
    LOOKS_AT: str = "something"
    raises: Exception | None = field(default=None)

    def run(self, around: Any) -> list[Finding]:
        if self.raises:
            raise self.raises
        return self.findings


def test_a_problem_follows_from_an_earlier_one_about_the_same() -> None:
    checks = [
        Check("packages", [problem("transformers 5", MEND, ["transformers"])]),
        Check("imports", [problem("vllm fails", MEND, ["vllm", "transformers"])], ("packages",)),
        Check("platform", [problem("no platform", MEND, ["vllm"])], ("packages", "imports")),
        Check("kernels", [problem("not built", MEND, ["vllm-mindspore"])], ("packages", "imports")),
    ]
    found = list(examine(checks, AROUND))
    assert [(one.name, one.diagnoses[0].follows_from) for one in found] == [
        ("packages", None),
        ("imports", "packages"),
        ("platform", "packages"),  # its cause is the cause of its cause
        ("kernels", None),
    ]
    assert [one.name for one in found if one.diagnoses[0].is_cause] == ["packages", "kernels"]


def test_a_problem_may_follow_from_an_earlier_one_of_its_own_check() -> None:
    findings = [problem("torch fails", MEND, ["torch"]), problem("vllm fails", MEND, ["vllm", "torch"], follows=True)]
    (alone,) = examine([Check("imports", findings)], AROUND)
    assert [one.follows_from for one in alone.diagnoses] == [None, "imports"]
    cause = Check("limits", [problem("little", MEND, ["torch"])])
    *_, behind = examine([cause, Check("imports", findings, ("limits",))], AROUND)
    assert [one.follows_from for one in behind.diagnoses] == ["limits", "limits"]


def test_a_note_causes_nothing() -> None:
    checks = [Check("a", [note("hm", about=["x"])]), Check("b", [problem("bad", MEND, ["x"])], ("a",))]
    assert [one.diagnoses[0].follows_from for one in examine(checks, AROUND)] == [None, None]


def test_names_are_compared_as_python_compares_distributions() -> None:
    checks = [
        Check("a", [problem("bad", MEND, ["vllm_mindspore"])]),
        Check("b", [problem("bad", MEND, ["vllm-mindspore"])], ("a",)),
    ]
    assert [one.diagnoses[0].follows_from for one in examine(checks, AROUND)] == [None, "a"]


def test_the_status_of_a_check_is_its_worst() -> None:
    checks = [Check("a", [ok("x"), note("y")]), Check("b", []), Check("c", [ok("x"), problem("z", MEND), note("y")])]
    assert [one.status for one in examine(checks, AROUND)] == ["note", "skipped", "problem"]


def test_a_check_that_fails_itself_does_not_take_the_others_with_it() -> None:
    found = list(examine([Check("a", [], raises=KeyError("x")), Check("b", [ok("fine")])], AROUND))
    assert found[0].diagnoses[0].finding.text == "This check failed itself: KeyError: 'x'"
    assert found[1].status == "ok"
