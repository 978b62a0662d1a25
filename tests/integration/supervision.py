"""What fails again and again climbs the tree step by step, and no higher than it must; the admin tool shows where and why."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import FAILED, GAVE_UP, OK, wait_until

DEATHS_BORNE = {"": 3, "/lock": 5, "/coord": 5}  # within a minute, by supervisor


class Supervision(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.node = self.new_farm(settings='[failures]\nretry_first = "100 ms"\n')
        self.root = next(iter(self.node.actors()))

    def actor(self, path):
        return self.node.actors()[self.root + path]

    def restarts(self):
        """{path: restarts} of those that were restarted."""
        return {path.removeprefix(self.root): a["restarts"] for path, a in self.node.actors().items() if a["restarts"] > 0}

    def kill_until(self, over, matches):
        """Makes every actor crash whose path below the root matches, whenever there is one; how often."""
        killed = 0
        while not over():
            for path in self.node.actors():
                if matches(path.removeprefix(self.root)) and self.node.admin("kill", path, "--crash").code == OK:
                    killed += 1
        return killed


class CrashLoop(Supervision):
    def damage_ledger(self):
        """As a disk may: what is there cannot be opened as a ledger any more. Gives what mends it."""
        moved = [os.path.join(self.node.state, "ledger.sqlite" + tail) for tail in ("", "-wal", "-shm")]
        moved = [file for file in moved if os.path.exists(file)]
        for file in moved:
            os.rename(file, file + ".aside")
        os.mkdir(moved[0])

        def mend():
            os.rmdir(moved[0])
            for file in moved:
                os.rename(file + ".aside", file)

        return mend

    def looks_until_the_end(self):
        """What the admin tool shows, again and again, until the daemon has ended."""
        seen = []
        while self.node.alive():
            try:
                seen.append(self.node.actors())
            except AssertionError:
                wait_until("the daemon that does not answer ends", lambda: not self.node.alive(), 60)
        return [{path: look[self.root + path] for path in ("", "/lock", "/lock/ledger")} for look in seen]

    def test_an_actor_that_fails_at_each_start_climbs_to_the_root_and_each_step_is_shown(self):
        request = self.node.submit(*self.instantiate('step "long" "sleep 3; echo > $out"'))
        builders = self.builders(self.node)
        mend = self.damage_ledger()
        self.ends_with(self.node.admin("kill", self.root + "/lock/ledger"), OK)
        looks = self.looks_until_the_end()

        why = "ledger.sqlite"
        waiting = [look["/lock/ledger"] for look in looks if look["/lock/ledger"]["restart_in_ms"] > 0]
        self.assertTrue(waiting, "the backoff is never shown")
        self.assertEqual({a["state"] for a in waiting}, {"restarting"})
        self.assertTrue([a for a in waiting if a["last_exit"].startswith("crashed") and why in a["last_exit"]], waiting)
        self.assertGreater(max(a["restart_in_ms"] for a in waiting), 1000)  # it grows
        restarts = [look["/lock/ledger"]["restarts"] for look in looks]
        self.assertEqual(restarts, sorted(restarts))
        self.assertGreater(restarts[-1], DEATHS_BORNE["/lock"])

        counted = {path: {look[path]["doing"] for look in looks if "deaths" in look[path]["doing"]} for path in ("", "/lock")}
        for path, shown in counted.items():
            most = DEATHS_BORNE[path]
            self.assertLessEqual(shown, {f"bore {n} of {most} deaths in 60 s" for n in range(1, most + 1)})
            self.assertIn(f"bore {most} of {most} deaths in 60 s", shown)

        escalated = [look["/lock"] for look in looks if look["/lock"]["restarts"] > 0]
        self.assertTrue(escalated, "that the supervisor gave up is never shown")
        for a in escalated:
            self.assertRegex(a["last_exit"], rf"^too_many_restarts.*{self.root}/lock/ledger: crashed.*{why}")
        self.assertEqual({look[""]["restarts"] for look in looks}, {0})

        ended = self.ends_with(self.node.daemon.end(60), GAVE_UP)
        self.assertRegex(ended.err, rf"the tree ended .*{self.root}/lock: .*{self.root}/lock/ledger: .*{why}")
        self.builders_gone(builders)
        mend()
        self.node.start()
        self.ends_with(self.node.coppice("wait", request), OK)

    def test_an_actor_that_is_killed_again_and_again_takes_its_branch_down_and_no_more(self):
        client = self.node.build(*self.instantiate('step "long" "sleep 3; echo > $out"'), start=True)
        self.builders(self.node)
        for n in range(DEATHS_BORNE["/coord"] + 1):
            wait_until("it serves", lambda: self.actor("/coord/allocator")["state"] == "up")
            self.ends_with(self.node.admin("kill", self.root + "/coord/allocator"), OK)
        coord = wait_until("its supervisor is restarted", lambda: self.actor("/coord") if self.actor("/coord")["restarts"] else None)
        self.assertEqual(coord["restarts"], 1)
        self.assertRegex(coord["last_exit"], rf"^too_many_restarts.*{self.root}/coord/allocator: killed")
        self.assertEqual(self.actor("")["doing"], "bore 1 of 3 deaths in 60 s")
        self.ends_with(client.end(), OK)
        self.assertEqual({p for p in self.restarts() if not p.startswith("/coord")}, set())


class Poison(Supervision):
    """INV-17: no derivation costs more than its own tries."""

    GRAPH = '''let poison = step "poison" "sleep 600; echo > $out"; fine = step "fine" "sleep 1; echo > $out";
      in step "top" "echo ${poison} ${fine} > $out"'''

    def dies_with_each_try(self, tail):
        client = self.node.build(*self.instantiate(self.GRAPH), "--keep-going", "--json", start=True)
        killed = self.kill_until(lambda: not client.running(),
                                 lambda path: path.startswith("/work/workers/poison.") and path.endswith(tail))
        done = self.ends_with(client.end(), FAILED)
        self.assertIn("5 attempts ended with their worker or machine", done.err)
        failures = self.ends_with(self.node.admin("failures", "--json"), OK).json()
        self.assertEqual([(farm.drv_name(f["drv"]), f["class"]) for f in failures], [("poison", "poisoned")])
        tries = self.node.attempts_at("poison")
        self.assertEqual(tries, ["infra"] * 5)
        self.assertGreaterEqual(killed, 5)
        self.assertEqual(self.node.attempts_at("fine"), ["success"])
        self.assertEqual(self.node.attempts_at("top"), [])
        self.assertEqual(self.restarts(), {})
        self.still_serves(self.node)

    def test_a_derivation_whose_worker_always_dies_is_poisoned_and_its_siblings_are_built(self):
        self.dies_with_each_try(("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"))

    def test_a_derivation_whose_executor_always_dies_is_poisoned_and_its_siblings_are_built(self):
        self.dies_with_each_try(".exec")


class Reconcile(Supervision):
    def test_a_placement_that_was_lost_is_found_counted_and_made_good(self):
        graph = '''let a = step "a" "sleep 2; echo > $out"; b = step "b" "sleep 2; echo > $out"; c = step "c" "sleep 2; echo > $out";
          in step "top" "echo ${a} ${b} ${c} > $out"'''
        client = self.node.build(*self.instantiate(graph), start=True)
        self.builders(self.node, 2)
        self.assertEqual(len(self.node.attempts()), 2)
        self.ends_with(self.node.admin("kill", self.root + "/coord/allocator"), OK)  # with it, that the third waits for a slot
        self.ends_with(client.end(), OK)
        self.assertIn("1 lost placements made good", self.actor("/coord/allocator")["doing"])
        told = [e for e in self.ends_with(self.node.admin("events", "--json"), OK).json() if e["event"] == "reconciled"]
        self.assertIn(("placements", 1), [(e["text"], e["count"]) for e in told])


class Upload(Supervision):
    def test_a_client_whose_ticket_died_with_who_gave_it_asks_for_another(self):
        sources = 'map (i: builtins.toFile "source-${toString i}" "${word} ${toString i}") (builtins.genList (i: i) 300)'
        client = self.node.build(*self.instantiate(f'step "all" "cat ${{toString ({sources})}} > $out"'), start=True)
        for _ in range(3):
            wait_until("it serves", lambda: self.actor("/deliver/cache-server")["state"] == "up")
            self.ends_with(self.node.admin("kill", self.root + "/deliver/cache-server"), OK)
        self.ends_with(client.end(), OK)


if __name__ == "__main__":
    farm.main()
