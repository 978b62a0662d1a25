"""What an operator sees and orders: coppice-admin, and coppice explain."""

import concurrent.futures
import contextlib
import itertools
import os
import re
import signal
import sqlite3
import subprocess
import sys
import unittest
import urllib.error

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import CANCELLED, FAILED, OK, UNREACHABLE, USAGE, drv_name, wait_until
from terminal import Terminal


class Admin(farm.TestCase):
    def start(self, **options):
        self.node = self.new_farm(**options)
        return self.node

    def lines(self, *words):
        return self.ends_with(self.node.admin(*words, "--json"), OK).json()

    def order(self, *words):
        return self.ends_with(self.node.admin(*words), OK)

    def explain(self, path):
        """The explanation, and the same for people."""
        found, = self.ends_with(self.node.coppice("explain", path, "--json"), OK).json()
        return found, self.ends_with(self.node.coppice("explain", path), OK).out

    def explained_as(self, path, state):
        def look():
            found, text = self.explain(path)
            return found["state"] == state and (found, text)
        return wait_until(f"{drv_name(path)} is explained as {state}", look)

    def path_of(self, kind):
        return next(p for p, a in self.node.actors().items() if a["kind"] == kind)

    def key(self, role):
        """The file of a new key of that role, which is let in."""
        file = self.scratch.file(role + ".toml")
        block = self.order("keygen", role, "--role", role, "--out", file).out
        with open(os.path.join(self.node.state, "authorized.toml"), "a", encoding="utf-8") as f:
            f.write("\n" + block)
        return file


class OneNode(Admin):
    """One node, and one store that derivations are put into, for all tests here: they leave nothing that waits or runs."""

    @classmethod
    def setUpClass(cls):
        cls.shared = farm.Scratch()
        cls.addClassCleanup(cls.shared.close)
        cls.node = farm.Farm(cls.shared).start()
        cls.nix = farm.Nix(cls.shared, "eval")

    def setUp(self):
        super().setUp()
        self.addCleanup(self.keep_log, self.node.daemon)

    def submit(self, drv):
        request = self.node.submit(drv)
        self.addCleanup(self.node.coppice, "cancel", request)
        return request

    def test_it_shows_what_each_actor_does_and_how_much_it_did(self):
        self.submit(*self.instantiate('step "slow" "sleep 1000"'))
        self.builders(self.node)
        worker = wait_until("the worker's phase is shown", lambda: (lambda a: re.search(r"slow: \w+, \d+ s, \d+ MB", a["doing"]) and a)(
            next(a for a in self.node.actors().values() if a["kind"] == "worker")))
        self.assertGreater(worker["handled"], 0)
        tree, = self.lines("tree")
        self.assertGreater(tree["as_of"], 1.5e9)
        text = self.order("tree").out
        self.assertRegex(text, r"ACTOR +STATE +UPTIME +RESTARTS +MAILBOX +HANDLED +DOING\n")
        self.assertRegex(text, r"allocator .* 0 jobs waiting, \d+ slots and \d+ I/O slots free")
        self.assertRegex(text, r"\(as of 20\S+: \d+ actors\)")

    def test_watch_repaints_in_place_says_how_old_it_is_and_leaves_on_ctrl_c(self):
        terminal = Terminal(self.node.client("coppice-admin", "tree", "--watch"), {**self.scratch.env, "TERM": "xterm"}, 120, 40)
        self.addCleanup(terminal.close)
        terminal.shows("HANDLED(.|\n)*allocator(.|\n)*Ctrl-C leaves")
        screen = terminal.screen

        def drawn_within_the_width():
            wraps, draws = screen.wraps, screen.draws
            wait_until("it is drawn anew", lambda: terminal.read() or screen.draws > draws)
            return screen.wraps == wraps
        for width, height in ((24, 10), (40, 40), (100, 30)):
            terminal.resize(width, height)
            wait_until("it has heard of the new size", drawn_within_the_width)
            self.assertEqual("\n".join("".join(row) for row in screen.rows).count("ACTOR"), 1)
        self.addCleanup(self.node.resume)
        self.node.pause()
        terminal.shows("s ago: the node does not answer")
        self.node.resume()
        terminal.shows("Ctrl-C leaves")
        terminal.process.send_signal(signal.SIGINT)
        self.assertEqual(terminal.end(), OK)

    def test_what_no_machine_can_build_waits_and_says_so_at_once(self):
        drv, = self.instantiate('make { system = "riscv64-linux"; } "foreign" "echo > $out"')
        vm, = self.instantiate('make { requiredSystemFeatures = [ "quantum" ]; } "vm" "echo > $out"', name="vm")
        client = self.node.build(drv, start=True)
        wait_until("the client is told", lambda: re.search("waiting foreign: no machine can build it: .* has no system 'riscv64-linux'", client.err()))
        self.assertTrue(client.running())
        found, text = self.explain(drv)
        self.assertEqual(found["state"], "queued")
        self.assertRegex(text, r"machine +\S+ has no system 'riscv64-linux'")
        self.submit(vm)
        self.assertRegex(self.explained_as(vm, "queued")[1], r"machine +\S+ has no feature 'quantum'")
        client.send(signal.SIGINT)
        self.ends_with(client.end(), CANCELLED)
        self.still_serves(self.node)

    def test_a_failure_is_explained_by_its_attempts(self):
        drv, = self.instantiate('step "bad" "exit 3"')
        self.node.build(drv)
        found, text = self.explain(drv)
        self.assertEqual(found["state"], "failed")
        self.assertEqual([a["result"] for a in found["attempts"]], ["build_failed"])
        self.assertRegex(text, r"failed +build_failed \(1 counted\): .*exit code 3")

    def test_what_is_gone_is_built_again_when_somebody_needs_it(self):
        lib, app = self.instantiate('let lib = step "lib" "date +%s%N > $out"; in [ lib (step "app" "cat ${lib} > $out") ]')
        root, = self.ends_with(self.node.build(lib, "--json"), OK).json()
        path = root["outputs"]["out"]
        self.assertIn("gone: " + path, self.order("gone", path).out)
        with self.assertRaises(urllib.error.HTTPError):
            self.node.narinfo(path)
        self.assertEqual(self.node.attempts_at("lib"), ["success"])
        self.ends_with(self.node.build(app), OK)
        self.assertEqual(self.node.attempts_at("lib"), ["success", "success"])
        self.assertEqual(self.node.narinfo(path)["StorePath"], path)
        never = "/nix/store/" + "0" * 32 + "-never"
        self.assertIn(never, self.ends_with(self.node.admin("gone", never), USAGE).err)

    def test_requests_of_all_clients_are_listed(self):
        bad, long = self.instantiate('[ (step "bad" "exit 1") (step "long" "sleep 1000") ]')
        self.node.build(bad)
        opened = self.submit(long)
        self.builders(self.node)
        states = {farm.base_name(r["roots"][0]): r["state"] for r in self.lines("requests")}
        self.assertEqual((states[farm.base_name(bad)], states[farm.base_name(long)]), ("failed", "open"))
        wait_until("its step is counted", lambda: self.lines("requests", "-n", "0")[0]["steps"]["building"] == 1)
        self.assertRegex(self.order("requests").out, f"{opened} +open .* 0/1 +1 +0 +long")

    def test_lists_fit_narrow_terminals_and_say_how_old_they_are(self):
        bad, slow, later = self.instantiate('''[ (step "bad" "exit 1") (step "slow" "sleep 1000")
                                                 (make { system = "riscv64-linux"; } "later" "echo > $out") ]''')
        self.node.build(bad)
        for drv in (slow, later):
            self.submit(drv)
        self.builders(self.node)
        wait_until("one waits", lambda: "later" in self.order("queue").out)
        shown = {"tree": "allocator", "queue": "later", "locks": "building .*slow", "attempts": "build_failed .*bad",
                 "failures": "build_failed .*bad", "requests": "open .*(slow|later)", "nodes": "ready", "partial list": "DERIVATION"}
        for width, (command, pattern) in itertools.product((80, 40), shown.items()):
            with self.subTest(command=command, width=width):
                argv = self.node.client("coppice-admin", *command.split())
                terminal = Terminal(argv, {**self.scratch.env, "TERM": "xterm"}, width, 100)
                self.addCleanup(terminal.close)
                self.assertEqual(terminal.end(), OK)
                text = "\n".join(terminal.screen.lines())
                self.assertEqual(terminal.screen.wraps, 0, text)
                if width == 80 or command != "requests":  # an id has 32 characters
                    self.assertRegex(text, pattern)
                self.assertRegex(text, r"\(as of 20\S+Z: ")

    def test_an_actor_is_killed_by_its_path_and_the_tree_says_how_it_ended(self):
        path = self.path_of("gateway")
        root = "/" + path.split("/")[1]
        for how, said in ((["--crash"], "crashed"), ([], "killed")):
            before = self.node.actors()[path]["restarts"]
            self.order("kill", path.removeprefix(root) if how else path, *how)
            actor = wait_until("it serves again", lambda: (lambda a: a["restarts"] == before + 1 and a["state"] == "up" and a)(
                self.node.actors()[path]))
            self.assertIn(said, actor["last_exit"])
            self.assertRegex(self.order("tree").out, r"gateway +up .* \(last end: " + said)

    def test_what_makes_no_sense_is_refused_with_a_reason(self):
        drv, = self.instantiate('step "never" "echo > $out"')
        for words, reason in (
                ([], "subcommand is required"), (["trees"], "there is no command 'trees'"), (["tree", "--fast"], "--fast"), (["partial"], "subcommand is required"), (["partial", "all"], "there is no command 'all'"),
                (["queue", "-n", "0"], "Value 0 not in range 1 to"), (["queue", "-n", "many"], "many"), (["locks", "--limit", "-1"], "-1"),
                (["gone"], "PATH is required"), (["gone", "hello"], "no store path"), (["gone", drv], "is in no store of the farm"),
                (["kill", "hello"], "'hello' is no actor's path"), (["kill", "/lock/nobody"], "no actor serves at '/lock/nobody'"),
                (["attempts", "--drv", "hello"], "hello"), (["forget-failure", drv], "no failure of"),
                (["partial", "drop", drv], "wait to be uploaded"), (["partial", "retry", "hello"], "hello"),
                (["events", "--since", "noon"], "noon"), (["drain", "--why", "x" * 201], "at most 200 bytes"),
                (["keygen", "me", "--role", "king"], "king")):
            with self.subTest(words):
                done = self.ends_with(self.scratch.run([*self.node.client("coppice-admin", *words)] if words else
                                                       [os.path.join(farm.BIN, "coppice-admin")]), USAGE)
                self.assertIn(reason, done.err)
                self.assertEqual(done.out, "")
        self.assertIn("no store path", self.ends_with(self.node.coppice("explain", "hello"), USAGE).err)
        nobody = self.scratch.file("nobody")
        for words in (["--state-dir", nobody], ["--node", "tcp://127.0.0.1:1", "--key", os.path.join(self.node.state, "keys/client.toml"), "--patience", "1"]):
            with self.subTest(words):
                done = self.ends_with(self.scratch.run([os.path.join(farm.BIN, "coppice-admin"), "nodes", *words]), UNREACHABLE)
                self.assertRegex(done.err, "coppice-admin: .*(no node serves on this machine|tcp://127.0.0.1:1)")

    def test_orders_need_the_key_of_an_admin_and_questions_do_not(self):
        drv, = self.instantiate('step "x" "echo > $out"')
        submitter = ("--key", self.key("submitter"))
        nothing = "/nix/store/" + "0" * 32 + "-x"
        for words in (["drain"], ["undrain"], ["gone", nothing], ["kill", self.path_of("allocator")], ["forget-failure", "all"]):
            with self.subTest(words):
                done = self.ends_with(self.node.admin(*words, *submitter), UNREACHABLE)
                self.assertRegex(done.err, "needs role admin, and key submitter has role submitter")
        for words in (["tree"], ["queue"], ["requests"], ["nodes"], ["partial", "list"], ["attempts"], ["locks"], ["failures"]):
            with self.subTest(words):
                self.order(*words, *submitter)
        self.ends_with(self.node.coppice("explain", drv, *submitter), OK)
        self.assertFalse(self.lines("nodes")[0]["drained"])

    def test_a_revoked_key_loses_its_live_session_and_is_not_let_in_again(self):
        guest = self.key("observer")
        follower = self.scratch.start(self.node.client("coppice-admin", "events", "-f", "--key", guest))
        wait_until("it follows", lambda: follower.out())
        self.assertIn("revoked: observer", self.order("revoke", "observer").out)
        done = self.ends_with(follower.end(), UNREACHABLE)
        self.assertIn("this key is not let in any more", done.err)
        self.ends_with(self.node.admin("nodes", "--key", guest), UNREACHABLE)
        self.order("nodes")
        self.assertIn("no key of that name", self.ends_with(self.node.admin("revoke", "observer"), USAGE).err)

    def test_every_command_teaches_by_an_example(self):
        commands = [["tree"], ["queue"], ["requests"], ["nodes"], ["drain"], ["undrain"], ["gone"], ["partial"], ["partial", "list"],
                    ["partial", "retry"], ["partial", "drop"], ["attempts"], ["locks"], ["failures"], ["forget-failure"], ["kill"], ["keygen"],
                    ["invite"], ["revoke"]]
        for words in commands:
            with self.subTest(words):
                done = self.ends_with(self.scratch.run([os.path.join(farm.BIN, "coppice-admin"), *words, "--help"]), OK)
                self.assertRegex(done.out, r"Examples?:\n +(\S+ )*coppice-admin " + " ".join(words[:1]))


class Explain(Admin):
    def test_a_chain_is_explained_from_its_first_step_to_its_end(self):
        top, first = self.instantiate('let first = step "first" "sleep 100000 || true; echo > $out"; in [ (step "top" "cat ${first} > $out") first ]')
        other, = self.instantiate('step "other" "echo > $out"', name="other")
        self.start(jobs=1)
        found, text = self.explain(top)
        self.assertEqual(found["state"], "unknown")
        request = self.node.submit(top)
        self.builders(self.node)
        self.node.submit(top)
        self.node.submit(other)
        found, text = self.explained_as(top, "waits_for_inputs")
        self.assertIn("top: it waits for 1 input\n", text)
        self.assertIn("first: building", text)
        self.assertEqual(found["requests"][0]["inputs"], [{"drv": "/nix/store/" + farm.base_name(first), "state": "building"}])
        wait_until("both requests are told", lambda: len(self.explain(top)[0]["requests"]) == 2)
        found, text = self.explained_as(first, "building")
        self.assertEqual(found["lock"]["phase"], "building")
        self.assertRegex(text, r"building +on \S+ for [0-9.]+ s: ")
        self.assertRegex(text, r"lock +building under token \d+ on \S+, since 20")
        found, text = self.explained_as(other, "queued")
        self.assertEqual((found["place"]["position"], found["place"]["total"]), (1, 1))
        self.assertRegex(text, r"machine +\S+ has no free slot \(1\)")
        self.end_sleepers()
        self.ends_with(self.node.coppice("wait", request), OK)
        found, text = self.explained_as(first, "built")
        output, = re.findall(r"output +(/nix/store/\S+)", text)
        self.assertEqual(self.explained_as(output, "built")[0]["drv"], found["drv"])

    def test_the_queue_is_in_order_and_says_what_is_ahead(self):
        one, two, urgent = self.instantiate('[ (step "one" "exit 1") (step "two" "exit 1") (step "urgent" "exit 1") ]')
        self.start()
        self.order("drain", "--why", "new disks")
        for drv in (one, two):
            self.node.submit(drv)
            wait_until("it waits", lambda: self.explain(drv)[0]["state"] == "queued")
        self.node.submit(urgent, "--priority", "7")
        wait_until("all wait", lambda: len(self.lines("queue")) == 3)
        self.assertEqual([(drv_name(j["drv"]), j["position"]) for j in self.lines("queue")], [("urgent", 1), ("one", 2), ("two", 3)])
        self.assertEqual([drv_name(j["drv"]) for j in self.lines("queue", "-n", "1", "--offset", "1")], ["one"])
        self.assertRegex(self.order("queue").out, r"2 +cpu +0 +0 .* one +\S+ is drained: new disks - by ")
        found, text = self.explain(two)
        self.assertEqual([drv_name(j["drv"]) for j in found["place"]["ahead"]], ["urgent", "one"])
        self.assertIn("it waits for a machine, as number 3 of 3", text)


class LongLists(Admin):
    """Longer than the 1000 rows that one answer holds."""

    def all_and_some(self, command, total):
        """The whole list, each row once; with a limit it says that there is more."""
        rows = self.lines(command, "--limit", "5000")
        keys = [r["inhash"] for r in rows]
        self.assertEqual((len(rows), len(set(keys))), (total, total))
        self.assertEqual([r["inhash"] for r in self.lines(command, "-n", "1050")], keys[:1050])
        some = self.order(command, "-n", "7")
        self.assertRegex(some.out, r"\n… 7 (of \d+|and more); ")
        self.assertEqual(some.out.count("\n"), 1 + 7 + 1)
        self.assertNotIn("…", self.order(command, "-n", str(total)).out[-80:])
        return rows

    def test_what_waits_is_listed_in_pages(self):
        top, = self.instantiate('step "top" (toString (map (n: step "leaf-${toString n}" "exit 1") (builtins.genList (n: n) 2100)))')
        self.start()
        self.order("drain")
        self.node.submit(top)
        wait_until("as many wait as a request may place", lambda: len(self.lines("queue", "-n", "5000")) == 2048)
        jobs = self.all_and_some("queue", 2048)
        self.assertEqual([j["position"] for j in jobs], list(range(1, 2049)))
        self.assertEqual([j["position"] for j in self.lines("queue", "--offset", "1020", "-n", "1025")], list(range(1021, 2046)))
        self.assertEqual({j["inhash"] for j in jobs}, {j["inhash"] for j in self.all_and_some("locks", 2048)})
        placed = {j["drv"] for j in jobs}
        left = (set(re.findall(r"/nix/store/\S{32}-leaf-\d+\.drv", farm.read(top))) - placed).pop()
        self.assertRegex(self.explained_as(left, "waits_for_lock")[1], r"it is ready, and waits behind \d+ steps? of its request\n")

    def test_what_failed_and_what_was_tried_is_listed_in_pages(self):
        drv, = self.instantiate('step "bad" "exit 3"')
        self.ends_with(self.start().build(drv), FAILED)
        self.node.stop()
        with contextlib.closing(sqlite3.connect(os.path.join(self.node.state, "ledger.sqlite"))) as db, db:
            keys = [os.urandom(32) for _ in range(1099)]
            for table in ("inhash", "failed", "attempt"):  # the same for other derivations, at the same moment
                row = db.execute(f"SELECT * FROM {table}").fetchone()
                names = [column[1] for column in db.execute(f"PRAGMA table_info({table})")]
                copies = [[key if name == "inhash" else value for name, value in zip(names, row)] for key in keys]
                db.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(names))})", copies)
        self.node.start()
        self.all_and_some("failures", 1100)
        self.all_and_some("attempts", 1100)

    def test_requests_are_listed_in_pages(self):
        drv, = self.instantiate('step "bad" "exit 3"')
        self.start()
        self.order("drain")
        with concurrent.futures.ThreadPoolExecutor(4) as some:
            ids = set(some.map(lambda _: self.node.submit(drv), range(105)))  # a page of requests is 100
        listed = lambda *words: sorted(r["id"] for r in self.lines("requests", *words))
        self.assertEqual(listed("-n", "0"), sorted(ids))
        self.order("undrain")
        wait_until("all have failed", lambda: not listed("-n", "0"))
        self.assertEqual(listed("-n", "1000"), sorted(ids))
        self.assertEqual(len(listed("-n", "102")), 102)


class Orders(Admin):
    def test_a_drained_machine_finishes_takes_nothing_and_stays_so_over_restarts(self):
        slow, later = self.instantiate('[ (step "slow" "sleep 100000 || true; echo > $out") (step "later" "echo > $out") ]')
        self.start()
        running = self.node.submit(slow)
        self.builders(self.node)
        self.order("drain", "--why", "new disks")
        self.end_sleepers()
        waiting = self.node.build(later, start=True)
        self.ends_with(self.node.coppice("wait", running), OK)
        wait_until("the client is told", lambda: "is drained: new disks" in waiting.err())

        def drained():
            nodes = self.lines("nodes")
            return nodes and nodes[0]["drained"] and not nodes[0]["slots_free"] and not nodes[0]["io_slots_free"]
        wait_until("the machine is drained", drained)
        self.assertRegex(self.order("nodes").out, r"drained +0/2 ")
        self.order("kill", self.path_of("worker-pool"))
        self.node.kill()
        self.node.start()
        wait_until("the machine is drained after a restart", drained)
        self.assertRegex(self.explained_as(later, "queued")[1], r"machine +\S+ is drained: new disks")
        self.assertEqual(self.node.attempts_at("later"), [])
        self.order("undrain")
        self.ends_with(waiting.end(), OK)
        self.assertFalse(self.lines("nodes")[0]["drained"])

    @unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
    def test_outputs_that_cannot_be_uploaded_are_listed_retried_and_dropped(self):
        drv, = self.instantiate('step "made" "sleep 100000 || true; date +%s%N > $out"')
        self.start()
        submitter = self.key("submitter")
        client = self.node.build(drv, start=True)
        self.builders(self.node)
        # temporary files on another file system: every put fails when it is renamed into place
        store = os.path.join(self.node.state, "cache", ".tmp")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", store], check=True)
        try:
            self.end_sleepers()

            def stuck():
                rows = self.lines("partial", "list")
                return rows and "again: " in rows[0]["doing"] and rows[0]
            row = wait_until("the outputs are kept", stuck)
            self.assertEqual(drv_name(row["drv"]), "made")
            self.assertGreater(row["nar_bytes"], 0)
            self.assertRegex(self.order("partial", "list").out, r"\d+ +\S+ +\d+ B +made ")
            self.order("partial", "retry", drv)
            wait_until("it is stuck again", stuck)
            for verb in ("retry", "drop"):
                self.assertIn("needs role admin", self.ends_with(self.node.admin("partial", verb, "all", "--key", submitter), UNREACHABLE).err)
            self.order("partial", "drop", drv)
            self.end_sleepers()
            again = wait_until("it is built again", lambda: (lambda r: r and r["token"] > row["token"] and r)(stuck()))
            self.assertEqual(self.node.attempts_at("made"), ["cancelled", "running"])
            self.assertEqual(again["inhash"], row["inhash"])
        finally:
            subprocess.run(["umount", store], check=True)
        self.order("partial", "retry", "all")
        self.ends_with(client.end(), OK)
        self.assertEqual(self.node.attempts_at("made"), ["cancelled", "success"])
        self.assertEqual(self.lines("partial", "list"), [])
        self.assertIn("made.drv", self.ends_with(self.node.admin("partial", "drop", drv), USAGE).err)


if __name__ == "__main__":
    farm.main()
