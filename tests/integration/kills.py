"""Random kills of random actors, one after another, while a real build runs: it ends as without them, and leaves nothing
behind.

COPPICE_CHAOS_ROUNDS=20 builds the real workload so often on one daemon, under COPPICE_CHAOS_KILLS (200) kills each, and
prints the daemon's memory after each round."""

import json
import os
import random
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import OK, wait_until

# Deaths that a supervisor bears within a minute, by its path below the root. More would end it, as they should; how is
# what tests/integration/supervision.py is about. Of graphs, each is borne for itself, up to 8; but after each death it is
# started again later, and nothing is left to kill meanwhile. What is below the others is temporary: a death costs a
# try, no more.
BORNE = {"": 3, "/lock": 5, "/coord": 5, "/work": 5, "/deliver": 5, "/coord/graphs": 4}
MINUTE_S = 61

ROUNDS = int(os.environ.get("COPPICE_CHAOS_ROUNDS", "0"))
KILLS = int(os.environ.get("COPPICE_CHAOS_KILLS", "200"))
WORKLOAD = os.environ.get("COPPICE_CHAOS_ATTRIBUTE", "all")

# Any number of deaths of workers: none of them is the derivation's fault here.
# Few events are kept, so that memory is flat once they are, in a round or two, and not in 25.
SETTINGS = 'events_max = 1000\n[failures]\nattempts_max = 1000000\npoison_max = 1000\nretry_first = "50 ms"\nretry_max = "400 ms"\n'

# Layers that refer to all below, some outputs of more than one name, one fixed output in its own lane.
GRAPH = '''let
  fixed = make { outputHashMode = "flat"; outputHashAlgo = "sha256";
                 outputHash = builtins.hashString "sha256" "fixed\\n"; } "fixed" "sleep 0.2; echo fixed > $out";
  row = n: below: map (i: make { outputs = [ "out" "dev" ]; } "s-${toString n}-${toString i}"
    "sleep 0.4; mkdir $out; cat /usr/include/stdio.h > $out/h; echo ${toString below} ${fixed} $out > $dev") [ 1 2 3 4 ];
  rows = n: if n == 0 then [ ] else row n (map (s: s.dev) (rows (n - 1)));
in step "top" "echo ${toString (map (s: s.dev) (rows 4))} > $out"'''


class Killer:
    """Kills what its seed says, among what can be borne."""

    def __init__(self, node, seed):
        self.node, self.chance, self.deaths, self.killed = node, random.Random(seed), {}, 0

    def _bearable(self, path, root):
        below = path.removeprefix(root)
        parent = below.rpartition("/")[0]
        if not below:
            return False
        if parent not in BORNE:
            return True
        now = time.monotonic()
        self.deaths[parent] = [t for t in self.deaths.get(parent, []) if now - t < MINUTE_S]
        return len(self.deaths[parent]) < BORNE[parent]

    def kill_one(self):
        try:
            actors = self.node.actors()
        except AssertionError:
            return  # a busy machine, and what answers was just killed
        root = next(iter(actors))
        paths = sorted(p for p, a in actors.items() if a["state"] == "up" and self._bearable(p, root))
        if not paths:
            return
        path = self.chance.choice(paths)
        how = self.chance.choice([[], ["--crash"]])
        if self.node.admin("kill", path, *how).code != OK:
            return  # it has just ended
        self.killed += 1
        parent = path.removeprefix(root).rpartition("/")[0]
        if parent in BORNE:
            self.deaths.setdefault(parent, []).append(time.monotonic())

    def kill_until(self, count, over):
        while self.killed < count and self.node.alive() and not over():
            self.kill_one()
            time.sleep(self.chance.uniform(0, 0.4))  # all of the build is to see some


class RandomKills(farm.TestCase):
    def attempts_are_sound(self, node, derivations):
        """One attempt per token; of each derivation one success, and nothing that is its own fault."""
        attempts = node.attempts()
        tokens = [(a["inhash"], a["token"]) for a in attempts]
        self.assertEqual(len(tokens), len(set(tokens)))
        successes = [a["inhash"] for a in attempts if a["result"] == "success"]
        self.assertEqual(len(successes), len(set(successes)))
        self.assertEqual(len(successes), derivations)
        self.assertLessEqual({a["result"] for a in attempts}, {"success", "infra", "inputs_missing", "store_down"})

    def nothing_is_left(self, node):
        """No process, no lock, no temporary file."""
        def rest():
            here = [f"process {c}" for c in farm.descendants(node.daemon.pid).values()]
            here += [f"actor {p}" for p in node.actors() if "/work/workers/" in p or "/work/uploads/" in p]
            here += [f"lock {row}" for row in self.ends_with(node.admin("locks", "--json"), OK).json()]
            for folder in ("running", "uploads", "kept", "local/staging", "cache/.tmp"):
                found = os.path.join(node.state, folder)
                here += [os.path.join(folder, n) for n in (os.listdir(found) if os.path.isdir(found) else [])]
            for folder, _, files in os.walk(node.state):
                here += [os.path.join(folder, f) for f in files if f.startswith(".tmp-")]
            return here

        try:
            wait_until("nothing is left", lambda: not rest(), 60)
        except AssertionError:
            self.fail("left behind:\n" + "\n".join(rest()))

    def graph_of(self, drv):
        return [p for p in self.nix.lines("nix-store", "--query", "--requisites", drv) if p.endswith(".drv")]

    def outputs_of(self, node, graph):
        """{path: NAR hash} as the node's cache says."""
        outputs = set(self.nix.lines("nix-store", "--query", "--outputs", *graph))
        return {path: farm.hash_bytes(node.narinfo(path)["NarHash"]) for path in outputs}

    def same_as_stock_nix(self, node, drv):
        """Every output of every derivation below."""
        ours = self.outputs_of(node, self.graph_of(drv))
        self.nix.run("nix-store", "--realise", drv, "--max-jobs", "8", seconds=900)
        infos = json.loads(self.nix.run("nix", "path-info", "--json", *ours).out)
        self.assertEqual(ours, {info["path"]: farm.hash_bytes(info["narHash"]) for info in infos})

    def build_under_kills(self, node, killer, count, drv):
        """Until the build is over, with that many kills or (if it is over before) a few less."""
        before = len(node.attempts())
        client = node.build(drv, start=True)
        wait_until("something is built", lambda: len(node.attempts()) > before or not client.running())
        killer.kill_until(killer.killed + count, lambda: not client.running())
        self.ends_with(client.end(), OK)
        self.assertTrue(node.alive())
        self.nothing_is_left(node)

    def seed(self):
        seed = int(os.environ.get("COPPICE_SEED", random.randrange(2**32)))
        print(f"COPPICE_SEED={seed}", file=sys.stderr)
        return seed

    def test_a_build_under_random_kills_ends_as_without_them_and_leaves_nothing(self):
        node = self.new_farm(settings=SETTINGS, jobs=4)
        killer = Killer(node, self.seed())
        drv, = self.instantiate(GRAPH)
        drv = "/nix/store/" + farm.base_name(drv)
        self.build_under_kills(node, killer, 40, self.nix.real(drv))
        self.attempts_are_sound(node, len(self.graph_of(drv)))
        self.same_as_stock_nix(node, drv)
        print(f"{killer.killed} kills, {len(node.attempts())} attempts", file=sys.stderr)

    @unittest.skipUnless(ROUNDS, "takes long: COPPICE_CHAOS_ROUNDS=20")
    def test_the_real_workload_is_built_under_kills_again_and_again_by_one_daemon(self):
        node = self.new_farm(settings=SETTINGS, jobs=4)
        killer, derivations = Killer(node, self.seed()), 0
        for n in range(1, ROUNDS + 1):
            real, = self.nix.instantiate(os.path.join(farm.ROOT, "bench/workloads/real/default.nix"), "-A", WORKLOAD, "--arg",
                                         "sources", farm.real_sources(), "--arg", "withXz", "false", "--argstr", "salt", str(n))
            drv = "/nix/store/" + farm.base_name(real)
            derivations += len(self.graph_of(drv))
            begun, before = time.monotonic(), killer.killed
            self.build_under_kills(node, killer, KILLS, real)
            print(f"round {n}: {killer.killed - before} kills, {time.monotonic() - begun:.0f} s, "
                  f"{farm.resident_kib(node.daemon.pid)} KiB resident", file=sys.stderr, flush=True)
            if n in (1, ROUNDS):
                self.same_as_stock_nix(node, drv)
        self.attempts_are_sound(node, derivations)


if __name__ == "__main__":
    farm.main()
