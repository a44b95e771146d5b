# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from unittest import mock

from absl.testing import absltest, parameterized

from tests.children import is_alive, wait_for
from tfvae import processes
from tfvae.processes import EndedError, Process

# Imported from its folder, as the package itself may import TensorFlow.
_IMPORT = f"""
import json, os, pathlib, signal, subprocess, sys, time
sys.path.insert(0, {str(pathlib.Path(processes.__file__).parent)!r})
import processes
"""
_ECHO = """
requests = processes.Requests()
for request in requests:
    print("chatter")
    requests.answer({"got": request["sent"]}, request)
"""


# Programs start a process that lives on without them, and print its number.
_LONELY = (
    "print(subprocess.Popen(['sleep', '99'], start_new_session=True).pid)",
    # An orphan in the session of the program.
    "print(os.popen('sleep 99 > /dev/null & echo $!').read().strip())",
    # A daemon: an orphan with a session of its own.
    "print(os.popen(\"setsid sh -c 'sleep 99 > /dev/null & echo $!'\").read()"
    ".strip())",
)


def _python(code, **kwargs):
    argv = [sys.executable, "-c", _IMPORT + textwrap.dedent(code)]
    return Process(argv, **kwargs)


class ProcessTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.log = self.folder / "log"

    @parameterized.parameters(1, 10**6)
    def test_messages_arrive_whole_and_other_lines_are_skipped(self, size):
        code = """
            print("a line", "[1]", "3", sep="\\n")
            for line in sys.stdin:
                print("chatter", line, json.loads(line)["a"] != "", sep="\\n")
        """
        with _python(code) as process:
            for letter in "xy":
                process.send({"a": letter * size})
                self.assertEqual(process.receive(), {"a": letter * size})

    def test_lines_are_read_to_the_end_and_the_last_may_lack_its_own(self):
        with _python("print('a\\n\\nb', end='')") as process:
            self.assertEqual([*process.lines()], ["a", "", "b"])
            with self.assertRaises(EndedError):
                process.receive()

    def test_reading_ends_with_the_time_limit(self):
        with _python("time.sleep(1000)") as process:
            started = time.monotonic()
            self.assertIsNone(process.receive(0.2))
            self.assertBetween(time.monotonic() - started, 0.2, 5.0)
            self.assertIsNone(process.read_line(0.0))

    @parameterized.parameters(
        ("pass", 0, "ended with exit code 0"),
        ("sys.exit(3)", 3, "ended with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15, "ended by SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, "ended by SIGKILL"),
    )
    def test_says_how_the_program_ended(self, code, expected, how):
        with _python(code) as process:
            ended = process.end(None)
        self.assertEqual((ended.code, ended.how), (expected, how))
        self.assertTrue(process.has_ended)
        self.assertEqual(process.end(), ended)

    def test_program_that_is_not_there_is_reported(self):
        with Process(["/nowhere/run"], log=self.log) as process:
            with self.assertRaisesRegex(OSError, "No such file.*/nowhere/run"):
                process.check_started()
            self.assertEqual(process.end(None).code, 127)
        self.assertRegex(processes.last_line(self.log), "/nowhere/run")

    def test_has_a_log_and_variables_and_no_other_open_files(self):
        self.log.write_text("before\n")
        other = (self.folder / "other").open("w")
        self.addCleanup(other.close)
        os.set_inheritable(other.fileno(), True)
        code = """
            print(os.environ["A_VARIABLE"], flush=True)
            print(*sorted(os.listdir("/proc/self/fd")))
            print("\\nerror: why\\n", file=sys.stderr)
        """
        with _python(
            code, log=self.log, environment={"A_VARIABLE": "7"}
        ) as process:
            lines = [*process.lines()]
        # The fourth is that of the listing itself.
        self.assertEqual(lines, ["7", "0 1 2 3"])
        self.assertStartsWith(self.log.read_text(), "before\n")
        self.assertEqual(processes.last_line(self.log), "why")

    def test_log_without_a_word_has_no_last_line(self):
        self.log.write_text(" \n\n")
        self.assertEqual(processes.last_line(self.log), "no message")

    def test_program_is_pinned_to_its_processors(self):
        cores = sorted(os.sched_getaffinity(0))[:1]
        with _python("print(*os.sched_getaffinity(0))", cores=cores) as process:
            self.assertEqual(process.read_line(), str(cores[0]))

    def test_peak_memory_is_that_of_the_program_alone(self):
        ours = b"1" * (300 * 2**20)
        for size_mb in (0, 100):
            with _python(f"x = b'1' * ({size_mb} * 2**20)") as process:
                peak = process.end(None).peak_memory_mb
            self.assertBetween(peak - size_mb, 5.0, 60.0)
        del ours

    def test_input_may_end_without_an_end_of_the_program(self):
        code = "print(sys.stdin.read() == '', flush=True); time.sleep(0.2)"
        with _python(code + "; print(2); sys.exit(5)") as process:
            process.close_input()
            self.assertEqual([*process.lines()], ["True", "2"])
            self.assertEqual(process.end(None).code, 5)

    def test_end_waits_for_the_program_no_longer_than_it_may(self):
        with _python("sys.stdin.read(); sys.exit(7)") as process:
            self.assertEqual(process.end(60.0).code, 7)
        with _python("print(1, flush=True); time.sleep(1000)") as process:
            process.read_line()
            started = time.monotonic()
            self.assertEqual(process.end(0.2).code, -signal.SIGKILL)
            self.assertBetween(time.monotonic() - started, 0.2, 10.0)

    def test_what_the_program_started_ends_with_it(self):
        code = """
            child = subprocess.Popen(["sleep", "1000"])
            print(os.getpid(), child.pid, flush=True)
            sys.stdin.readline()
        """
        for is_killed in (False, True):
            with _python(code) as process:
                program, child = process.read_line().split()
                self.assertEqual(int(program), process.pid)
                self.assertTrue(is_alive(child))
                process.end(0.0 if is_killed else None)
                # Reaped as well, as its number is gone.
                self.assertFalse(pathlib.Path(f"/proc/{program}").exists())
                self.assertTrue(
                    wait_for(lambda child=child: not is_alive(child))
                )

    @parameterized.parameters(*_LONELY)
    def test_what_leaves_the_session_of_the_program_ends_with_it(self, start):
        code = f"""
            {start}
            sys.stdout.flush()
            sys.stdin.readline()
        """
        for is_killed in (False, True):
            with _python(code) as process:
                child = process.read_line()
                self.assertTrue(is_alive(child))
                process.end(0.0 if is_killed else None)
                self.assertFalse(is_alive(child))

    def test_output_ends_with_the_program_though_another_holds_it_open(self):
        code = """
            child = subprocess.Popen(["sleep", "30"], start_new_session=True)
            print(child.pid, flush=True)
            os.kill(os.getppid(), signal.SIGKILL)  # Else it would end, too.
        """
        with _python(code) as process:
            started = time.monotonic()
            (child,) = process.lines()
            self.addCleanup(os.kill, int(child), signal.SIGKILL)
            self.assertLess(time.monotonic() - started, 20.0)
            self.assertTrue(is_alive(child))

    def test_program_is_killed_though_its_supervisor_was(self):
        with _python("print(1, flush=True); time.sleep(1000)") as process:
            process.read_line()
            program = process.pid
            os.kill(process._popen.pid, signal.SIGKILL)
            self.assertTrue(wait_for(lambda: process.has_ended))
            self.assertEqual(process.end().code, -signal.SIGKILL)
        self.assertTrue(wait_for(lambda: not is_alive(program)))

    def test_wait_returns_those_with_a_whole_line_or_an_end(self):
        codes = (
            "print('a', end='', flush=True); time.sleep(1000)",
            "print('b', flush=True); time.sleep(1000)",
            "time.sleep(0.5)",
        )
        partial, whole, ended = found = [_python(code) for code in codes]
        for process in found:
            self.addCleanup(process.end)
        self.assertTrue(wait_for(lambda: ended.has_ended))
        self.assertEqual(processes.wait([ended]), [ended])
        self.assertEqual(processes.wait([partial, whole]), [whole])
        self.assertEqual(whole.read_line(0.0), "b")
        self.assertEqual(processes.wait([partial, whole], 0.2), [])
        self.assertEqual(processes.wait(found), [ended])

    def test_interrupt_loses_nothing_that_was_read(self):
        read = os.read

        def interrupted(file, size):
            data = read(file, size)
            signal.raise_signal(signal.SIGINT)
            return data

        with _python("print('{\"a\": 1}', flush=True)") as process:
            with mock.patch.object(os, "read", interrupted):
                with self.assertRaises(KeyboardInterrupt):
                    process.receive()
            self.assertEqual(process.receive(), {"a": 1})


# A program that ends neither with its input nor when asked to, with a child.
_STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "1000"])
print(os.getpid(), child.pid, flush=True)
time.sleep(1000)
"""
# A shell's background jobs ignore interrupts, and so do their children.
_PARENT = """
signal.signal(signal.SIGINT, signal.default_int_handler)
process = processes.Process(
    [sys.executable, "-c", {code!r}], grace_seconds={grace_seconds}
)
print(process.read_line(), flush=True)
time.sleep(1000)
"""


class EndOfParentTest(parameterized.TestCase):
    def _start(self, code, grace_seconds=0.0):
        """Starts a process with a program; returns it and what that prints."""
        text = _PARENT.format(code=_IMPORT + code, grace_seconds=grace_seconds)
        parent = subprocess.Popen(
            [sys.executable, "-c", _IMPORT + text],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

        def end():
            with parent:
                parent.kill()

        self.addCleanup(end)
        return parent, parent.stdout.readline().split()

    @parameterized.parameters(signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    def test_no_program_outlives_its_parent(self, number):
        parent, program = self._start(_STUBBORN)
        self.assertLen(program, 2)
        for one in program:
            self.assertTrue(is_alive(one))
        parent.send_signal(number)
        for one in program:
            self.assertTrue(wait_for(lambda one=one: not is_alive(one)))

    def test_program_has_its_grace_to_finish_then(self):
        path = pathlib.Path(self.create_tempdir().full_path) / "written"
        code = (
            "print(os.getpid(), flush=True)\n"
            "sys.stdin.read()\n"
            "time.sleep(0.3)\n"
            f"pathlib.Path({str(path)!r}).touch()\n"
            "time.sleep(1000)\n"
        )
        parent, program = self._start(code, grace_seconds=3.0)
        parent.kill()
        self.assertTrue(wait_for(path.exists))
        self.assertTrue(wait_for(lambda: not is_alive(*program)))


class RequestsTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.path = self.folder / "path"

    def _touch(self, name="path"):
        return f"pathlib.Path({str(self.folder / name)!r}).touch()"

    def test_each_request_is_answered_and_what_is_printed_is_no_answer(self):
        log = self.folder / "log"
        code = """
            requests = processes.Requests()
            requests.send({"ready": True})
            for request in requests:
                print('{"got": 7}', flush=True)
                os.write(1, b"{}\\n")
                assert sys.stdin.read() == ""
                requests.answer({"got": request["sent"]}, request)
        """
        with _python(code, log=log) as process:
            self.assertEqual(process.receive(), {"ready": True})
            for content in (3, "x" * 10**6, None):
                process.send({"sent": content})
                self.assertEqual(process.receive(), {"got": content})
        self.assertEqual(log.read_text(), '{"got": 7}\n{}\n' * 3)

    def test_answer_is_that_of_its_request_whatever_else_is_written(self):
        code = """
            requests = processes.Requests()
            for request in requests:
                for line in (b'{"got": 0}', b'{"got": 0, "request": "1"}'):
                    os.write(requests._output, line + b"\\n")
                os.write(requests._output, b"no end")
                requests.send({"part": 1}, request)
                requests.answer({"got": request["sent"]}, request)
                requests.send({"got": 0}, request)
        """
        with _python(code) as process:
            for content in (3, 4):
                number = process.request({"sent": content})
                found = [process.receive(20.0, number) for _ in range(2)]
                self.assertEqual(found, [{"part": 1}, {"got": content}])

    def test_copy_of_a_program_answers_nothing(self):
        code = """
            requests = processes.Requests()
            for request in requests:
                child = os.fork()
                if child:
                    os.waitpid(child, 0)
                requests.answer({"got": child}, request)
        """
        with _python(code) as process:
            number = process.request({"a": 1})
            self.assertGreater(process.receive(20.0, number)["got"], 0)
            self.assertIsNone(process.receive(0.1))

    @parameterized.parameters(*_LONELY)
    def test_what_is_meant_to_outlive_a_block_ends_with_it(self, start):
        code = f"""
            requests = processes.Requests()
            def start():
                {start.replace("print", "return str", 1)}
            before = start()
            for request in requests:
                with requests.leftovers_ended():
                    other = subprocess.Popen(["sleep", "99"])
                    left = start()
                found = [before, other.pid, left]
                requests.answer({{"found": found}}, request)
        """
        with _python(code) as process:
            number = process.request({})
            found = process.receive(20.0, number)["found"]
            self.assertEqual([*map(is_alive, found)], [True, True, False])
            process.end()
            self.assertEqual([*map(is_alive, found)], [False] * 3)

    def test_nothing_is_ended_where_the_supervisor_is_gone(self):
        code = f"""
            requests = processes.Requests()
            with requests.leftovers_ended():
                args = ["sleep", "30"]
                child = subprocess.Popen(args, start_new_session=True)
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(0.1)
            pathlib.Path({str(self.path)!r}).write_text(str(child.pid))
            time.sleep(99)
        """
        with _python(code):
            self.assertTrue(wait_for(self.path.exists))
            self.assertTrue(wait_for(self.path.read_text))
            child = int(self.path.read_text())
            self.addCleanup(os.kill, child, signal.SIGKILL)
            self.assertTrue(is_alive(child))

    def test_without_a_log_it_prints_where_the_parent_does(self):
        code = f"""
            argv = [sys.executable, "-c", {_IMPORT + _ECHO!r}]
            with processes.Process(argv) as process:
                process.send({{"sent": 1}})
                process.receive()
                process.end(None)
            print("parent")
        """
        found = subprocess.run(
            [sys.executable, "-c", _IMPORT + textwrap.dedent(code)],
            capture_output=True,
            text=True,
        )
        self.assertEqual(found.stdout, "chatter\nparent\n", found.stderr)

    def test_idle_program_leaves_in_order(self):
        code = f"import atexit\natexit.register(lambda: {self._touch()})\n"
        with _python(code + _ECHO) as process:
            process.send({"sent": 1})
            process.receive()
            self.assertEqual(process.end(60.0).code, 0)
        self.assertTrue(self.path.exists())

    def test_busy_program_exits_at_once(self):
        code = f"""
            for request in processes.Requests():
                {self._touch()}
                time.sleep(1000)
        """
        with _python(code) as process:
            process.send({"a": 1})
            self.assertTrue(wait_for(self.path.exists))
            self.assertEqual(process.end(60.0).code, 0)

    def test_result_that_is_being_written_is_finished_first(self):
        code = f"""
            requests = processes.Requests()
            for request in requests:
                with processes.finishing():
                    {self._touch("begun")}
                    time.sleep(0.5)
                    {self._touch()}
                time.sleep(1000)
        """
        with _python(code) as process:
            process.send({"a": 1})
            self.assertTrue(wait_for((self.folder / "begun").exists))
            self.assertFalse(self.path.exists())
            self.assertEqual(process.end(60.0).code, 0)
        self.assertTrue(self.path.exists())

    def test_program_whose_answers_nobody_reads_is_killed(self):
        code = """
            requests = processes.Requests()
            os.closerange(3, 100)
            requests.send({"a": 1})
        """
        with _python(code) as process:
            self.assertEqual(process.end(60.0).code, -signal.SIGKILL)


class InterruptsHeldTest(absltest.TestCase):
    def test_interrupt_comes_after_the_block(self):
        events = []
        with self.assertRaises(KeyboardInterrupt):
            with processes.interrupts_held():
                with processes.interrupts_held():
                    signal.raise_signal(signal.SIGINT)
                    events.append("inner")
                events.append("outer")
            events.append("never")
        self.assertEqual(events, ["inner", "outer"])
        with self.assertRaises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    def test_block_without_an_interrupt_leaves_its_handler(self):
        before = signal.getsignal(signal.SIGINT)
        with self.assertRaisesRegex(ValueError, "why"):
            with processes.interrupts_held():
                raise ValueError("why")
        self.assertIs(signal.getsignal(signal.SIGINT), before)

    def test_other_threads_may_use_it(self):
        done = []

        def work():
            with processes.interrupts_held():
                done.append(1)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.assertEqual(done, [1])


class ImportsTest(absltest.TestCase):
    def test_are_of_the_standard_library_only(self):
        tree = ast.parse(pathlib.Path(processes.__file__).read_text())
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module)
        tops = {name.partition(".")[0] for name in names}
        self.assertContainsSubset(tops, sys.stdlib_module_names)


if __name__ == "__main__":
    absltest.main()
