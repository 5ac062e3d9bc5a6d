"""What a check of many actors comes to: how many of each kind, and findings that are alike, told once.

It stays small however many actors there are: of each finding a few keys are kept, and of findings that differ in their text alone a few
texts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

from ._upgrade import Checked, Concern, Finding, Verdict

VARIANTS: Final = 3  # texts of one error that are told apart


@final
class _Kind(NamedTuple):
    concern: Concern
    type: str
    version: int
    target: int
    error: str
    name: str


@final
@dataclass(slots=True)
class Group:
    """Findings that are alike: the `first` of them, how many there are, and the first keys."""

    first: Finding
    count: int = 0
    keys: list[str] = field(default_factory=list)


@final
class Report:
    """Counts verdicts, and gathers findings; `limit` keys of each group are kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._groups: dict[_Kind, list[Group]] = {}
        self.verdicts: Counter[Verdict] = Counter()

    @property
    def actors(self) -> int:
        """How many actors have been looked at."""
        return self.verdicts.total()

    @property
    def is_refusal(self) -> bool:
        """Whether anything is a reason not to deploy."""
        return any(kind.concern.is_refusal for kind in self._groups)

    def add(self, checked: Checked) -> None:
        """Take in what was found of one actor."""
        if checked.verdict is not None:
            self.verdicts[checked.verdict] += 1
        for finding in checked.findings:
            group = self._group_of(finding)
            group.count += 1
            if len(group.keys) < self._limit and finding.actor.key not in group.keys:
                group.keys.append(finding.actor.key)

    def groups(self) -> list[Group]:
        """The groups, the gravest first, then by type and version, then by how many they are."""
        order = list(Concern)
        kinds = sorted(self._groups, key=lambda kind: (order.index(kind.concern), kind))
        return [group for kind in kinds for group in sorted(self._groups[kind], key=lambda group: -group.count)]

    def _group_of(self, finding: Finding) -> Group:
        kind = _Kind(finding.concern, finding.actor.type, finding.version, finding.target, finding.error, finding.name)
        groups = self._groups.setdefault(kind, [])
        for group in groups:
            if (group.first.text, group.first.then, group.first.now) == (finding.text, finding.then, finding.now):
                return group
        if len(groups) == VARIANTS:
            return groups[-1]
        groups.append(Group(finding))
        return groups[-1]
