"""What a person sees on terminals of all sizes, and without one."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import FAILED, OK
from terminal import Terminal


class Display(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.node = self.new_farm()

    def graph(self, last="echo > $out"):
        """Two chatty steps that run until told to end, below one that waits for both, below the root."""
        words = r"printf '\\033[31m\\346\\247\\213\\347\\257\\211 e\\314\\201 \\a\\t%s\\n' deep-in-the-log-of-a-build"
        return self.instantiate(f"""let
            slow = n: end: step "slow-${{n}}" "{words}; sleep 100000 || true; ${{end}}";
            lib = step "lib-1.2" "cat ${{slow "a" "echo > $out"}} ${{slow "b" "{last}"}} > $out";
          in step "app" "cat ${{lib}} > $out" """)[0]

    def on_terminal(self, words, width, height, **env):
        terminal = Terminal(self.node.client("coppice", *words), {**self.scratch.env, "TERM": "xterm", **env}, width, height)
        self.addCleanup(terminal.close)
        return terminal

    def build(self, drv, width, height, **env):
        return self.on_terminal(["build", drv, "--no-fetch", "--no-link"], width, height, **env)

    def test_a_terminal_shows_what_runs_and_what_waits_for_it(self):
        terminal = self.build(self.graph(), 100, 30)
        lines = terminal.shows(r"(?s)\A(?=.*▸ slow-a [^\n]*deep-in-the-log)(?=.*▸ slow-b [^\n]*deep-in-the-log)")
        self.assertRegex("\n".join(lines), r"◦ app · waits for 1\n└─ ◦ lib-1.2 · waits for 2\n   ├─ ▸ slow-.*\n   └─ ▸ slow-.*\n\[0/4 built · 2 running")
        self.assertIn("構築 é  deep-in", "\n".join(lines).replace("e\u0301", "é"))
        self.end_sleepers(2)
        self.assertEqual(terminal.end(), OK)
        self.assertEqual(terminal.screen.wraps, 0)
        end = "\n".join(terminal.screen.lines())
        self.assertNotRegex(end, "▸|◦|running")  # nothing of the block is left
        self.assertRegex(end, "(?m)^built slow-a ")
        self.assertRegex(end, "(?m)^built app ")
        self.assertRegex(end, r"(?m)^/nix/store/.*-app$")

    def test_the_screen_stays_whole_while_the_terminal_is_resized(self):
        terminal = self.build(self.graph(), 90, 30)
        terminal.shows("▸ slow-b")
        for width, height in ((20, 30), (21, 4), (132, 50), (37, 9), (20, 24)):
            terminal.resize(width, height)
            # What was drawn for the old size may be cut; the next picture is for the new one.
            drawn = terminal.screen.draws
            farm.wait_until("it is drawn anew", lambda: terminal.read() or terminal.screen.draws > drawn + 3)
            before = terminal.screen.wraps
            drawn = terminal.screen.draws
            farm.wait_until("and again", lambda: terminal.read() or terminal.screen.draws > drawn + 3)
            self.assertEqual(terminal.screen.wraps, before)
            shown = terminal.screen.rows
            self.assertLess(len(shown), height + 1)
            self.assertEqual(len(re.findall(r"\[0/4 built", "\n".join("".join(row) for row in shown))), 1, shown)
        self.end_sleepers(2)
        self.assertEqual(terminal.end(), OK)
        self.assertNotRegex("\n".join("".join(row) for row in terminal.screen.rows), "▸|◦|running")

    def test_a_failure_stays_to_be_read(self):
        terminal = self.build(self.graph("echo bad words; exit 3"), 80, 24)
        terminal.shows("▸ slow-b")
        self.end_sleepers(2)
        self.assertEqual(terminal.end(), FAILED)
        end = "\n".join(terminal.screen.lines())
        self.assertRegex(end, "failed slow-b: builder for ")
        self.assertIn("failed with exit code 3", end.replace("\n", ""))
        self.assertIn("> bad words", end)

    def test_watch_shows_what_runs_without_knowing_the_graph(self):
        request = self.node.submit(self.graph())
        terminal = self.on_terminal(["watch", request], 80, 24)
        lines = terminal.shows(r"(?s)\A(?=.*▸ slow-a )(?=.*▸ slow-b )")
        self.assertNotIn("◦", "\n".join(lines))
        self.end_sleepers(2)
        self.assertEqual(terminal.end(), OK)

    def test_log_follow_waits_for_a_killed_daemon_and_leaves_no_trace_of_it(self):
        request = self.node.submit(self.instantiate('step "talks" "echo first; sleep 100000 || true; printf last; echo > $out"')[0])
        self.builders(self.node)
        terminal = self.on_terminal(["log", "-f", self.node.attempts()[0]["drv"]], 80, 24)
        terminal.shows("^first$")
        self.node.kill()
        terminal.shows(r"^waiting for tcp://\S+ \(\d+ s\)$")
        self.node.start()
        lines = "\n".join(terminal.shows(r"(?s)^first$.*^first$"))
        self.assertNotRegex(lines, "waiting for tcp")
        self.assertRegex(lines, "waiting for the next one")
        self.end_sleepers()
        self.assertEqual(terminal.end(), OK)
        self.assertRegex("\n".join(terminal.screen.lines()), r"(?m)^last\ncoppice: built talks ")
        self.ends_with(self.node.coppice("wait", request), OK)

    def test_no_colours_where_none_are_wanted_and_no_block_on_a_dumb_terminal(self):
        drv = self.graph()
        plain = self.build(drv, 80, 24, NO_COLOR="1")
        dumb = self.build(drv, 80, 24, TERM="dumb")
        plain.shows("▸ slow-b")
        dumb.shows("building slow-b on")
        self.end_sleepers(2)
        self.assertEqual((plain.end(), dumb.end()), (OK, OK))
        self.assertNotIn("m", plain.screen.escapes)
        self.assertEqual(dumb.screen.escapes, set())
        self.assertRegex("\n".join(dumb.screen.lines()), "(?m)^built app ")

    def test_without_a_terminal_there_are_plain_lines(self):
        client = self.node.build(self.graph(), start=True)
        self.end_sleepers(2)
        done = self.ends_with(client.end(), OK)
        self.assertNotIn("\x1b", done.err)
        self.assertRegex(done.err, "(?m)^building slow-a on .*\n")
        self.assertRegex(done.err, "(?m)^built lib-1.2 ")

    def test_a_second_build_of_a_name_tells_how_long_the_first_took(self):
        def slow(text):
            return self.instantiate(f"""step "known-{text}" "sleep 1; echo {text} > $out; sleep 100000 || true" """)[0]

        for version in ("1.0", "2.0"):
            terminal = self.build(slow(version), 80, 24)
            if version == "2.0":
                terminal.shows(r"▸ known-2.0 · \d+ s of ~\d+ s")
            self.end_sleepers()
            self.assertEqual(terminal.end(), OK)


if __name__ == "__main__":
    farm.main()
