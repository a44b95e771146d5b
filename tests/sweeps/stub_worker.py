# SPDX-License-Identifier: Apache-2.0
"""Stands for `tfvae.sweeps.worker`, without TensorFlow.

The file `behaviour.json` of the folder that it is given as argument says what
happens to which job; without a word, a job counts how often it was done.
"""

import json
import os
import pathlib
import signal
import sys
import time


def _say(content):
    print(json.dumps(content), flush=True)


def _do(job, behaviour):
    path = pathlib.Path(job["path"])
    what = behaviour.get(job["name"], "")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        sys.exit(3)
    if what == "fail":
        (path / "error.txt").write_text("Traceback\nValueError: no luck\n")
        return "ValueError: no luck"
    if what == "wait":
        time.sleep(60)
    if what == "die late":
        (path / "result.json").write_text('{"test_loss": 1.5}')
        os.kill(os.getpid(), signal.SIGKILL)
    with (path / "done").open("a") as done:
        done.write(f"{os.getpid()}\n")
    if what == "write slowly":
        time.sleep(0.5)
    (path / "result.json").write_text('{"test_loss": 1.5, "cell_seconds": 2}')
    return None


def main():
    behaviour = json.loads(
        (pathlib.Path(sys.argv[1]) / "behaviour.json").read_text()
    )
    if behaviour.get("start") == "fail":
        sys.exit("no such module")
    _say({"ready": True})
    for line in sys.stdin:
        job = json.loads(line)
        _say({"error": "of another job", "request": "0"})
        _say({"error": _do(job, behaviour), "request": job["request"]})


if __name__ == "__main__":
    main()
