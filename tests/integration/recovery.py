"""After kill -9 and after an ordered stop, requests go on by themselves, and nothing is built twice."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import OK

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

    def test_ordered_stops_never_count_against_what_is_being_built(self):
        node = self.new_farm()
        request = node.submit(*self.instantiate('step "long" "sleep 100000 || true; echo > $out"'))
        stops = 6  # attempts_max is 5
        for _ in range(stops):
            builders = self.builders(node)
            self.ends_with(node.stop(), OK)
            self.builders_gone(builders)
            node.start()
        self.builders(node)
        self.assertEqual(node.attempts_at("long"), ["cancelled"] * stops + ["running"])
        self.assertIn("was stopped", node.attempts()[0]["reason"])
        self.end_sleepers()
        self.ends_with(node.coppice("wait", request), OK)

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


if __name__ == "__main__":
    farm.main()
