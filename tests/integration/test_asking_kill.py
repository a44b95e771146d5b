# SPDX-License-Identifier: Apache-2.0
"""Kills processes that ask and tell, in random order, five queries pending.

With `-s` it prints what was killed, and what had been recorded:

    python -m pytest -m slow -s tests/integration/test_asking_kill.py
"""

from __future__ import annotations

import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import pytest
from absl.testing import absltest, parameterized

from tests.integration import asking
from tfvae.lso.ledger import LEDGER, Ledger

PROGRAM = asking.__file__
NUM_PENDING = 5


def _script(kind: str, folder: str, chance: random.Random) -> list[list]:
    """Asks and tells at random in one process, until the budget is spent.

    Returns:
      The steps, each a method and its arguments.
    """
    script = []
    with asking.opened(kind, folder) as optimizer:

        def take(*step):
            script.append([*step])
            asking.take(optimizer, [*step])

        while optimizer.num_done < asking.PLAN.budget:
            waiting = [one.number for one in optimizer.ledger.waiting]
            left = asking.PLAN.budget - optimizer.num_done - len(waiting)
            wanted = min(NUM_PENDING - len(waiting), chance.randint(1, 3), left)
            if wanted > 0:
                take("ask", wanted)
                continue
            number = chance.choice(waiting)
            take("tell", number, -chance.expovariate(1.0))
            if chance.random() < 0.2:
                take("amend", number, -chance.expovariate(1.0))
            if chance.random() < 0.1:
                take("withdraw", number)
            if chance.random() < 0.1:
                take("add", -chance.expovariate(1.0))
    return script


def _state(folder: pathlib.Path) -> tuple[list, list]:
    """Returns all queries, and all records of results, without times."""
    if not (folder / LEDGER).exists():
        return [], []
    with Ledger(folder / LEDGER) as ledger:
        records = ledger.records
        sequence = [
            one._replace(time="", **_without_seconds(one))
            for one, _ in records.sequence
        ]
        return [*records._queries.values()], sequence


def _without_seconds(record) -> dict[str, float]:
    return {"seconds": 0.0} if hasattr(record, "seconds") else {}


@pytest.mark.slow
class KillTest(parameterized.TestCase):
    @parameterized.parameters(("fakes", 20), ("model", 20))
    def test_nothing_is_lost_or_repeated_and_the_sequence_is_the_same(
        self, kind, num_kills
    ):
        folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        chance = random.Random(1)
        script = _script(kind, str(folder / "unbroken"), chance)
        expected = _state(folder / "unbroken")
        self.assertLen(expected[0], asking.PLAN.budget)
        broken = folder / "broken"
        # The first tells how long a process takes.
        killed = set(chance.sample(range(1, len(script)), num_kills // 2))
        num_killed, num_effects, usual = 0, 0, 0.0
        for place, step in enumerate(script):
            before = _state(broken)
            # Of these steps each is killed twice, before it may succeed.
            kills = 2 if place in killed else 0
            while True:
                started = time.monotonic()
                process = subprocess.Popen(
                    [sys.executable, PROGRAM, kind, broken, json.dumps(step)],
                    stderr=subprocess.PIPE,
                    text=True,
                )
                if not kills:
                    _, error = process.communicate()
                    self.assertEqual(process.returncode, 0, error)
                    usual = time.monotonic() - started
                    break
                kills -= 1
                time.sleep(chance.uniform(0.4, 1.1) * usual)
                process.kill()
                process.communicate()
                num_killed += 1
                has_effect = _has_effect(before, _state(broken), step)
                num_effects += has_effect
                print(
                    f"kill {num_killed}: {step[0]}, after "
                    f"{time.monotonic() - started:.1f} s, "
                    f"{'recorded' if has_effect else 'without effect'}"
                )
                if has_effect:  # As the person sees who asks again.
                    break
        found = _state(broken)
        print(
            f"{kind}: {len(script)} processes, {num_killed} kills of which "
            f"{num_effects} came after the record; "
            f"{len(found[0])} queries, "
            f"{'the same' if found == expected else 'OTHERS'}"
        )
        self.assertEqual(found[0], expected[0])
        self.assertEqual(found[1], expected[1])


def _has_effect(before: tuple, after: tuple, step: list) -> bool:
    """Whether a step is on record, though its process was killed."""
    if step[0] == "ask":
        return len(after[0]) - len(before[0]) == step[1]
    return len(after[1]) > len(before[1])


if __name__ == "__main__":
    absltest.main()
