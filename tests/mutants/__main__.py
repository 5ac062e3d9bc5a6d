"""Draw mutants of the durable core and see whether the tests notice them: `make mutants SEED=1 COUNT=300`.

    python -m tests.mutants --seed 1 --count 300

What was tried stands in `build/mutants`, so a run that was interrupted goes on. A survivor that is listed in `survivors.toml` with a reason
goes through the quick tests alone. It fails if fewer than nine of ten are killed, or a survivor is not listed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from .making import Mutant, draw
from .trials import QUICK, Copy, Outcome

ROOT: Final = Path(__file__).parents[2]
SURVIVORS: Final = Path(__file__).with_name("survivors.toml")
ENOUGH: Final = 0.9  # of the drawn are killed

Key: TypeAlias = tuple[str, str, str, str]
Results: TypeAlias = dict[Key, Outcome]


def main() -> int:
    """Draw, try, tell."""
    arguments = _arguments()
    mutants = draw({module: (ROOT / module).read_text() for module in QUICK}, arguments.count, arguments.seed)
    reasons = {_key(**row): why for row in tomllib.loads(SURVIVORS.read_text())["survivor"] for why in [row.pop("why")]}
    record = ROOT / "build" / "mutants" / f"{arguments.seed}.jsonl"
    results = _recorded(record, again=arguments.again)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(ROOT, Path(folder), arguments.workers)
        _need_health(copy, {mutant.module for mutant in mutants if mutant.key not in results})
        for mutant in mutants:
            if mutant.key not in results:
                results[mutant.key] = outcome = _trial(copy, mutant, is_quick=arguments.quick or mutant.key in reasons)
                _note(record, mutant, outcome)
    return _tell(mutants, results, reasons)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Mutation testing of the durable core.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2, help="for the thorough rounds, which a mutant sees that survived the quick one")
    parser.add_argument("--quick", action="store_true", help="leave the thorough rounds out")
    parser.add_argument("--again", action="store_true", help="try those again that survived an earlier run")
    return parser.parse_args()


def _key(module: str, where: str, before: str, after: str) -> Key:
    return module, where, before, after


def _recorded(record: Path, *, again: bool) -> Results:
    lines = record.read_text().splitlines() if record.exists() else []
    rows = ((_key(*row["mutant"]), Outcome(*row["outcome"])) for row in map(json.loads, lines))
    return {key: outcome for key, outcome in rows if not (again and outcome.verdict == "survived")}


def _note(record: Path, mutant: Mutant, outcome: Outcome) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a") as file:
        file.write(json.dumps({"mutant": mutant.key, "outcome": outcome}) + "\n")
    print(f"{outcome.verdict:9} {outcome.seconds:5.1f} s  {_shown(mutant.key)}  {outcome.test}", flush=True)


def _need_health(copy: Copy, modules: Iterable[str]) -> None:
    for module in sorted(modules):
        outcome = copy.healthy(module)
        if outcome.verdict != "survived":
            raise SystemExit(f"without a mutant {outcome.test or 'a test'} fails: mend that first")


def _trial(copy: Copy, mutant: Mutant, *, is_quick: bool) -> Outcome:
    outcome = copy.quick(mutant)
    return copy.thorough(mutant) if outcome.verdict == "survived" and not is_quick else outcome


def _shown(key: Key) -> str:
    module, where, before, after = (part.replace("\n", " / ") for part in key)
    return f"{module} {where}: {before}  ->  {after}"


def _tell(mutants: list[Mutant], results: Results, reasons: Mapping[Key, str]) -> int:
    counts: dict[str, Counter[str]] = {}
    for mutant in mutants:
        counts.setdefault(mutant.module, Counter())[results[mutant.key].verdict] += 1
    survivors = [mutant.key for mutant in mutants if results[mutant.key].verdict == "survived"]
    unexplained = [key for key in survivors if key not in reasons]
    for module, count in {**counts, "together": sum(counts.values(), Counter[str]())}.items():
        print(f"{module:22}", *(f"{count[verdict]:4} {verdict}" for verdict in ("killed", "timed out", "survived")))
    for key in survivors:
        print(f"{_shown(key)}\n    {reasons.get(key, 'not explained: write a test that kills it, or a reason in survivors.toml')}")
    return int(bool(unexplained) or len(survivors) > (1 - ENOUGH) * len(mutants))


if __name__ == "__main__":
    raise SystemExit(main())
