"""Whatever is cut down grows again: the process, an actor, a supervisor with all below it. Requests go on by themselves."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import GAVE_UP, OK

# Ten leaves, one that takes its time, nine above it.
GRAPH = '''let
  below = map (i: step "leaf-${toString i}" "echo ${toString i} > $out") [ 0 1 2 3 4 5 6 7 8 9 ];
  slow = step "slow" "cat ${toString below} > $out; sleep 5";
  above = map (i: step "above-${toString i}" "cat ${slow} > $out") [ 1 2 3 4 5 6 7 8 ]; in
  step "top" "cat ${toString above} > $out"'''
DERIVATIONS = 20


class KilledProcess(farm.TestCase):
    def each_built_once(self, node):
        """One success per derivation; of how many attempts."""
        tries = {}
        for a in node.attempts():
            tries.setdefault(farm.drv_name(a["drv"]), []).append(a["result"])
        self.assertEqual({name: results.count("success") for name, results in tries.items()}, dict.fromkeys(tries, 1))
        return {name: len(results) for name, results in tries.items()}

    def until_slow(self, node):
        """Until the leaves are finished and their dependant runs; all processes below the daemon."""
        farm.wait_until("the slow one is being built", lambda: node.attempts_at("slow") == ["running"])
        return self.builders(node)

    def test_a_submitted_request_goes_on_after_kill_9_and_builds_nothing_twice(self):
        node = self.new_farm()
        request = node.submit(*self.instantiate(GRAPH))
        builders = self.until_slow(node)
        finished = {a["drv"] for a in node.attempts() if a["result"] == "success"}
        self.assertEqual(len(finished), 10)
        node.kill()
        self.builders_gone(builders)
        node.start()
        self.ends_with(node.coppice("wait", request), OK)
        tries = self.each_built_once(node)
        self.assertEqual(len(tries), DERIVATIONS)
        self.assertEqual({name for name, count in tries.items() if count > 1}, {"slow"})

    def test_a_waiting_client_outlives_kill_9(self):
        node = farm.Farm(self.scratch, listen=f"tcp://127.0.0.1:{farm.free_port()}", http=f"127.0.0.1:{farm.free_port()}").start()
        client = node.start_coppice("build", *self.instantiate(GRAPH))
        builders = self.until_slow(node)
        node.kill()
        self.builders_gone(builders)
        farm.wait_until("the client says that it waits", lambda: "waiting for " + node.ready["listen"] in client.err())
        node.start()
        done = self.ends_with(client.end(), OK)
        self.assertEqual(len(farm.read(self.scratch.file("work", "result")).split()), 80)
        self.assertIn(node.ready["listen"] + " answers again", done.err)
        self.each_built_once(node)

    def test_a_client_on_the_same_machine_finds_the_node_at_its_new_ports(self):
        node = self.new_farm()
        client = node.build(*self.instantiate(GRAPH), start=True)
        self.until_slow(node)
        node.kill()
        node.start()
        self.ends_with(client.end(), OK)
        self.each_built_once(node)

    def test_kill_9_at_any_moment_loses_and_repeats_nothing(self):
        seed = int(os.environ.get("COPPICE_SEED", random.randrange(2**32)))
        print(f"COPPICE_SEED={seed}", file=sys.stderr)
        chance = random.Random(seed)
        node = self.new_farm()
        graph = '''let row = n: below: map (i: step "s-${toString n}-${toString i}" "sleep 0.1; echo ${toString below} > $out") [ 1 2 3 4 ];
          in step "top" "echo ${toString (row 5 (row 4 (row 3 (row 2 (row 1 [ ])))))} > $out"'''
        drv, = self.instantiate(graph)
        request = node.submit(drv)
        for _ in range(6):
            time.sleep(chance.uniform(0, 0.7))
            succeeded = {(a["inhash"], a["token"]) for a in node.attempts() if a["result"] == "success"}
            builders = farm.descendants(node.daemon.pid)
            node.kill()
            self.builders_gone(builders)
            node.start()
            still = {(a["inhash"], a["token"]) for a in node.attempts() if a["result"] == "success"}
            self.assertLessEqual(succeeded, still)
        done = self.ends_with(node.coppice("wait", request), OK)
        self.assertEqual(len(self.each_built_once(node)), 21)
        nix = farm.Nix(self.scratch, settings={"substituters": node.ready["http"], "max-jobs": "0",
                                               "trusted-public-keys": node.ready["public_key"]})
        nix.run("nix-store", "--realise", done.out.strip())

    def test_an_ordered_stop_leaves_requests_open_and_the_next_start_ends_them(self):
        node = self.new_farm()
        request = node.submit(*self.instantiate(GRAPH))
        builders = self.until_slow(node)
        self.ends_with(node.stop(), OK)
        self.builders_gone(builders)
        node.start()
        self.ends_with(node.coppice("wait", request), OK)
        self.each_built_once(node)

    def test_a_cancelled_request_stays_cancelled_after_kill_9(self):
        node = self.new_farm()
        request = node.submit(*self.instantiate('step "long" "sleep 1000"'))
        builders = self.builders(node)
        self.ends_with(node.coppice("cancel", request), OK)
        self.builders_gone(builders)
        node.kill()
        node.start()
        self.assertEqual(node.status(request)["state"], "cancelled")
        self.assertEqual(node.attempts_at("long"), ["cancelled"])

    def test_keys_and_outputs_survive(self):
        node = self.new_farm()
        drv, = self.instantiate('step "x" "echo > $out"')
        out = self.ends_with(node.build(drv), OK).out.strip()
        key, info = node.ready["public_key"], node.narinfo(out)
        node.kill()
        node.start()
        self.assertEqual((node.ready["public_key"], node.narinfo(out)), (key, info))
        self.assertIn("0 built", self.ends_with(node.build(drv), OK).err)


class KilledActor(farm.TestCase):
    """Each actor is killed while a builder runs; the build succeeds all the same."""

    GRAPH = 'let first = step "first" "sleep 2; echo > $out"; in step "second" "sleep 1; cat ${first} > $out"'

    def during_build(self, drv, act):
        """Has a fresh node build it, calls act(node, the root's path) while the first builder runs; the client's end."""
        node = farm.Farm(self.scratch, state=self.scratch.file(f"state-{len(self.scratch.started)}")).start()
        try:
            client = node.build(drv, start=True)
            root = next(iter(farm.wait_until("a builder runs", lambda: self.builders(node) and node.actors())))
            act(node, root)
            done = client.end()
            return node, done
        finally:
            node.kill()
            farm.wait_until("builders end", lambda: not farm.with_word(self.word))

    def paths(self, drv):
        """Of all actors below the root, as they are while a builder runs; those of requests as '…/graphs/*'."""
        found = []

        def look(node, root):
            for path in node.actors():
                path = path.removeprefix(root)
                found.append("/coord/graphs/*" if path.startswith("/coord/graphs/") else path)

        self.ends_with(self.during_build(drv, look)[1], OK)
        return [path for path in found if path]

    def every_actor_killed_once(self, *how):
        drv, = self.instantiate(self.GRAPH)
        paths = self.paths(drv)
        for expected in ("/lock/ledger", "/coord/graphs/*", "/work/workers/first.1.exec", "/deliver/publisher", "/bridge"):
            self.assertIn(expected, paths)
        for path in paths:
            with self.subTest(path=path):
                def kill(node, root):
                    real = next(p for p in node.actors() if p.startswith(root + path.removesuffix("*")) and (p == root + path or path.endswith("*")))
                    self.ends_with(node.admin("kill", real, *how), OK)

                node, done = self.during_build(drv, kill)
                self.ends_with(done, OK)

    def test_every_actor_may_be_killed_once(self):
        self.every_actor_killed_once()

    def test_every_actor_may_crash_once(self):
        self.every_actor_killed_once("--crash")

    def test_the_end_of_the_root_ends_the_process_with_70_and_the_next_goes_on(self):
        node = self.new_farm()
        request = node.submit(*self.instantiate(self.GRAPH))
        builders = self.builders(node)
        node.admin("kill", next(iter(node.actors())))
        self.ends_with(node.daemon.end(60), GAVE_UP)
        self.builders_gone(builders)
        node.start()
        self.ends_with(node.coppice("wait", request), OK)


if __name__ == "__main__":
    farm.main()
