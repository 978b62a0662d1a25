"""The other commands of the client: submit, wait, watch, status, log, cancel, and Ctrl-C."""

import os
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import CANCELLED, FAILED, OK, USAGE


class Commands(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.node = self.new_farm()

    def test_submit_returns_at_once_and_wait_gets_the_result(self):
        drv, = self.instantiate('step "slow" "sleep 100000 || true; echo > $out"')
        request = self.node.submit(drv)
        self.assertRegex(request, "^[0-9a-f]{32}$")
        self.assertEqual(self.node.status(request)["state"], "open")
        self.end_sleepers()
        done = self.ends_with(self.node.coppice("wait", request), OK)
        self.assertRegex(done.out, r"^/nix/store/[0-9a-z]{32}-slow\n$")
        self.assertEqual(done.err, "")
        self.assertEqual(self.node.status(request)["state"], "succeeded")

    def test_wait_and_watch_tell_a_failure(self):
        drv, = self.instantiate('step "bad" "echo words; exit 3"')
        request = self.node.submit(drv)
        for command in ("wait", "watch"):
            done = self.ends_with(self.node.coppice(command, request), FAILED)
            self.assertIn("failed with exit code 3", done.err)
            self.assertIn("> words", done.err)

    def test_status_lists_requests_and_shows_what_runs(self):
        long, bad = self.instantiate('[ (step "long" "sleep 1000") (step "bad" "exit 1") ]')
        failed = self.node.submit(bad)
        self.ends_with(self.node.coppice("wait", failed), FAILED)
        opened = self.node.submit(long)
        self.builders(self.node)
        states = {row["id"]: row["state"] for row in self.ends_with(self.node.coppice("status", "--json"), OK).json()}
        self.assertEqual(states, {failed: "failed", opened: "open"})
        status = farm.wait_until("the running build is shown", lambda: (lambda s: s["running"] and s)(self.node.status(opened)))
        self.assertEqual([farm.drv_name(step["drv"]) for step in status["running"]], ["long"])
        self.assertEqual(status["steps"]["building"], 1)
        text = self.ends_with(self.node.coppice("status"), OK).out
        self.assertRegex(text, f"{opened} +open .*long")
        self.assertRegex(self.ends_with(self.node.coppice("status", opened), OK).out, "(?m)^running +long on ")

    def test_an_unknown_request_is_named(self):
        unknown = "0123456789abcdef" * 2
        for command in ("status", "wait", "watch", "cancel"):
            self.assertIn(unknown, self.ends_with(self.node.coppice(command, unknown), USAGE).err)

    def test_log_prints_what_was_said_and_its_last_lines(self):
        drv, = self.instantiate('step "talks" "for i in 1 2 3 4 5; do echo line $i; done; exit 1"')
        self.ends_with(self.node.build(drv), FAILED)
        self.assertEqual(self.ends_with(self.node.coppice("log", farm.base_name(drv)), OK).out,
                         "".join(f"line {i}\n" for i in range(1, 6)))
        self.assertEqual(self.ends_with(self.node.coppice("log", drv, "-n", "2"), OK).out, "line 4\nline 5\n")
        attempt, = self.node.attempts()
        self.assertEqual(self.ends_with(self.node.coppice("log", f"{attempt['inhash']}-{attempt['token']}", "-n", "1"), OK).out,
                         "line 5\n")

    def test_log_of_a_derivation_that_was_never_built_is_refused(self):
        drv, = self.instantiate('step "never" "echo > $out"')
        self.assertIn("never.drv", self.ends_with(self.node.coppice("log", drv), USAGE).err)

    def test_log_prints_facts_or_lines_and_not_both(self):
        for option in (("-f",), ("-n", "1")):
            self.assertIn("--json", self.ends_with(self.node.coppice("log", "never.drv", "--json", *option), USAGE).err)

    def test_log_follow_prints_lines_as_they_come_and_ends_with_the_build(self):
        drv, = self.instantiate('step "talks" "echo first; sleep 100000 || true; echo second; echo > $out"')
        request = self.node.submit(drv)
        self.builders(self.node)
        log = self.node.start_coppice("log", "-f", drv)
        farm.wait_until("the first line is printed", lambda: log.out() == "first\n")
        self.assertEqual(self.node.attempts()[0]["result"], "running")
        self.end_sleepers()
        done = self.ends_with(log.end(), OK)
        self.assertRegex(done.out, "^first\n(.*Killed\n)?second\n$")
        self.assertIn("built talks", done.err)
        self.ends_with(self.node.coppice("wait", request), OK)

    def test_log_follow_of_a_failure_ends_with_its_reason(self):
        drv, = self.instantiate('step "bad" "echo words; sleep 100000 || true; exit 3"')
        request = self.node.submit(drv)
        self.builders(self.node)
        log = self.node.start_coppice("log", "-f", drv)
        farm.wait_until("the first line is printed", lambda: log.out() == "words\n")
        self.end_sleepers()
        done = self.ends_with(log.end(), FAILED)
        self.assertRegex(done.out, "^words\n(.*Killed\n)?$")
        self.assertIn("build_failed: ", done.err)
        self.assertIn("exit code 3", done.err)
        self.ends_with(self.node.coppice("wait", request), FAILED)

    def test_log_follow_begins_with_the_last_lines_and_breaks_none(self):
        drv, = self.instantiate('step "talks" "echo 1; echo 2; printf unfinished; sleep 100000 || true; echo , finished; echo > $out"')
        self.node.submit(drv)
        self.builders(self.node)
        log = self.node.start_coppice("log", "-f", "-n", "2", drv)
        farm.wait_until("the beginning of a line is printed", lambda: log.out() == "2\nunfinished")
        self.end_sleepers()
        self.assertRegex(self.ends_with(log.end(), OK).out, "^2\nunfinished(.*Killed\n)?, finished\n$")

    def test_log_follow_survives_a_killed_daemon(self):
        drv, = self.instantiate('step "talks" "echo first; printf half; sleep 100000 || true; echo ; echo second; echo > $out"')
        request = self.node.submit(drv)
        self.builders(self.node)
        log = self.node.start_coppice("log", "-f", drv)
        farm.wait_until("the first line is printed", lambda: log.out() == "first\nhalf")
        self.node.kill()
        self.node.start()
        farm.wait_until("the next attempt's line is printed", lambda: log.out() == "first\nhalf\nfirst\nhalf")
        self.end_sleepers()
        done = self.ends_with(log.end(), OK)
        self.assertRegex(done.out, "^first\nhalf\nfirst\nhalf(.*Killed\n)?\nsecond\n$")
        self.assertIn("waiting for the next one", done.err)
        self.ends_with(self.node.coppice("wait", request), OK)

    def test_binary_and_endless_lines_come_as_they_are_in_little_memory(self):
        drv, = self.instantiate(r"""step "binary" "head -c 40000000 /dev/zero | tr '\\0' '\\377'; printf '\\0\\033[31m'; echo > $out" """)
        self.ends_with(self.node.build(drv), OK)
        log = self.node.start_coppice("log", "-n", "3", drv)
        most = 0
        while log.running():
            try:
                most = max(most, int(re.search(r"VmHWM:\s+(\d+)", farm.read(f"/proc/{log.pid}/status")).group(1)))
            except (OSError, AttributeError):  # it has just ended
                pass
        self.ends_with(log.end(), OK)
        self.assertLess(most, 40_000)  # kB; less than the log has
        self.assertGreater(most, 0)
        whole = self.node.start_coppice("log", drv)
        self.ends_with(whole.end(), OK)
        with open(whole.out_file, "rb") as f:
            self.assertEqual(f.read(), b"\xff" * 40_000_000 + b"\0\x1b[31m")

    def test_ctrl_c_cancels_and_the_builder_is_gone(self):
        drv, = self.instantiate('let long = step "long" "sleep 1000"; in step "top" "echo ${long} > $out"')
        client = self.node.build(drv, start=True)
        builders = self.builders(self.node)
        client.send(signal.SIGINT)
        done = self.ends_with(client.end(), CANCELLED)
        self.builders_gone(builders)
        self.assertIn("cancelled", done.err)
        self.assertEqual([(farm.drv_name(a["drv"]), a["result"]) for a in self.node.attempts()], [("long", "cancelled")])
        request, = self.ends_with(self.node.coppice("status", "--json"), OK).json()
        self.assertEqual(request["state"], "cancelled")
        self.still_serves(self.node)

    def test_ctrl_c_leaves_the_request_alone_if_so_asked(self):
        drv, = self.instantiate('step "slow" "sleep 100000 || true; echo > $out"')
        client = self.node.build(drv, "--on-disconnect", "continue", start=True)
        self.builders(self.node)
        client.send(signal.SIGINT)
        self.ends_with(client.end(), CANCELLED)
        self.end_sleepers()
        request, = self.ends_with(self.node.coppice("status", "--json"), OK).json()
        self.ends_with(self.node.coppice("wait", request["id"]), OK)
        self.assertEqual(self.node.attempts_at("slow"), ["success"])

    def test_a_killed_client_of_build_takes_its_request_with_it(self):
        drv, = self.instantiate('step "long" "sleep 1000"')
        client = self.node.build(drv, start=True)
        builders = self.builders(self.node)
        client.kill()
        farm.wait_until("the request is cancelled", lambda: self.ends_with(self.node.coppice("status", "--json"), OK).json()[0]["state"] == "cancelled")
        self.builders_gone(builders)

    def test_cancel_ends_the_request_for_those_who_wait(self):
        drv, = self.instantiate('step "long" "sleep 1000"')
        request = self.node.submit(drv)
        builders = self.builders(self.node)
        waits = self.node.start_coppice("wait", request)
        self.ends_with(self.node.coppice("cancel", request), OK)
        self.builders_gone(builders)
        self.ends_with(waits.end(), CANCELLED)
        self.assertEqual(self.node.attempts_at("long"), ["cancelled"])
        self.assertEqual(self.node.status(request)["state"], "cancelled")

    def test_cancelling_one_of_two_requests_does_not_disturb_the_other(self):
        drv, = self.instantiate('step "shared" "sleep 100000 || true; echo > $out"')
        first, second = self.node.submit(drv), self.node.submit(drv)
        self.builders(self.node)
        self.ends_with(self.node.coppice("cancel", first), OK)
        self.end_sleepers()
        self.ends_with(self.node.coppice("wait", second), OK)
        self.assertEqual(self.node.attempts_at("shared"), ["success"])


if __name__ == "__main__":
    farm.main()
