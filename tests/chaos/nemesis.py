"""Random faults, several at a time, during one build of a farm: machines are killed or stand still, cables are cut, actors
killed, disks full, bytes hostile. When all is mended the build ends, and what it made is what stock Nix makes.

The sequence is drawn from a seed, which is printed with it; COPPICE_SEED=N repeats it. COPPICE_CHAOS_ROUNDS=50 does it so
often, each time on a new farm with the next seed; COPPICE_CHAOS_FAULTS=40 is how many faults a round has."""

import contextlib
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import chaos
import farm
from chaos import ELM, HTTP_PORT, HUB, OAK
from hostile_bytes import send_streams

ROUNDS = int(os.environ.get("COPPICE_CHAOS_ROUNDS", "1"))
FAULTS = int(os.environ.get("COPPICE_CHAOS_FAULTS", "10"))
AT_ONCE_S = 3.0  # faults begin within so much of each other, on average half of it

# Long enough for all faults, mostly by sleep.
GRAPH = '''let
  row = n: below: map (i: step "n-${toString n}-${toString i}"
    "sleep 1; mkdir $out; seq ${toString (i * 20000)} > $out/numbers; echo ${toString below} $out > $out/refs") [ 1 2 3 4 5 6 ];
  rows = n: if n == 0 then [ ] else row n (rows (n - 1));
in step "top" "echo ${toString (rows 8)} > $out"'''

MEMBERS = {"elm": ELM, "oak": OAK}


class Fault:
    """What is done to the farm, and undone after `seconds`."""

    def __init__(self, kind, who, seconds):
        self.kind, self.who, self.seconds = kind, who, seconds

    def __str__(self):
        return f"{self.kind} {self.who} for {self.seconds:.1f} s"

    def do(self, test):
        """Does it; gives what undoes it."""
        return getattr(self, self.kind)(test, test.nodes[self.who])

    def kill(self, _, node):
        node.kill()
        return node.start

    def pause(self, _, node):
        node.pause()
        return node.resume

    def cut(self, test, _):
        test.net.cut(HUB, MEMBERS[self.who])
        return lambda: test.net.heal(HUB, MEMBERS[self.who])

    def deafen(self, test, _):
        test.net.cut_one_way(HUB, MEMBERS[self.who])
        return lambda: test.net.heal(HUB, MEMBERS[self.who])

    def silence(self, test, _):
        test.net.cut_one_way(MEMBERS[self.who], HUB)
        return lambda: test.net.heal(HUB, MEMBERS[self.who])

    def cut_store(self, test, _):
        test.net.cut(MEMBERS[self.who], HUB, HTTP_PORT)
        return lambda: test.net.heal(HUB, MEMBERS[self.who])

    def refuse_store(self, test, _):
        test.net.refuse(MEMBERS[self.who], HUB, HTTP_PORT)
        return lambda: test.net.accept(HUB)

    def unplug(self, test, _):
        test.net.unplug(test.numbers[self.who])
        return lambda: test.net.plug_in(test.numbers[self.who])

    def kill_actor(self, test, node):
        """Any but those whose supervisor would give up of it, which is a death of the process."""
        actors = [path for path in test.actors_of(node) if path.count("/") > 2]
        if actors:
            node.admin("kill", test.chance.choice(actors), "--crash")
        return lambda: None

    def hostile_bytes(self, test, node):
        with contextlib.suppress(OSError):  # it was dead
            for port in (5000, HTTP_PORT):
                test.net.call(node.machine.number, lambda port=port: send_streams(node.machine.address, port))
        program = test.scratch.start([os.path.join(farm.ROOT, "tests/support/hostile_bytes.py"), f"tcp://{node.machine.address}:5000", test.key],
                                     inside=node.inside)
        return program.kill


ANYWHERE = ["kill", "pause", "unplug", "kill_actor", "hostile_bytes"]
AT_MEMBERS = ["cut", "deafen", "silence", "cut_store", "refuse_store"]


def draw(seed):
    """[(seconds to wait, fault)]"""
    chance, found = random.Random(seed), []
    for _ in range(FAULTS):
        kind = chance.choice(ANYWHERE + AT_MEMBERS)
        who = chance.choice(["hub", "elm", "oak"] if kind in ANYWHERE else ["elm", "oak"])
        seconds = chance.choice([chance.uniform(0.1, 2), chance.uniform(2, 1.5 * chaos.TTL_S)])
        found.append((chance.uniform(0, AT_ONCE_S), Fault(kind, who, seconds)))
    return found


class Nemesis(chaos.Chaos):
    GRAPH = GRAPH

    def actors_of(self, node):
        try:
            return sorted(node.actors()) if node.alive() else []
        except AssertionError:
            return []  # it stands still

    def strike(self, faults, client):
        """All of them in turn, each mended in time, whatever else is under way; but no two on the same machine."""
        busy, mending = {}, []
        for wait, fault in faults:
            time.sleep(wait)
            if not client.running():
                break
            self.mend(mending, time.monotonic())
            self.mend(mending, busy.get(fault.who, 0))
            begun = time.monotonic()
            print(f"  {begun - self.begun:5.1f} s: {fault}", file=sys.stderr, flush=True)
            undo = fault.do(self)
            busy[fault.who] = begun + fault.seconds
            mending.append((begun + fault.seconds, undo))
        self.mend(mending, float("inf"))

    def mend(self, mending, until):
        """Whatever is due until then."""
        for end, undo in sorted((m for m in mending if m[0] <= until), key=lambda m: m[0]):
            time.sleep(max(0, end - time.monotonic()))
            undo()
            mending.remove((end, undo))

    def test_whatever_happens_the_build_ends_as_it_does_with_stock_nix(self):
        first = int(os.environ.get("COPPICE_SEED", random.randrange(2**32)))
        for n in range(ROUNDS):
            if n > 0:
                self.doCleanups()
                self.setUp()
            self.round(first + n)

    def round(self, seed):
        print(f"COPPICE_SEED={seed}", file=sys.stderr, flush=True)
        self.chance, self.begun = random.Random(seed), time.monotonic()
        _, _, _, self.key = self.key_of(self.hub, "submitter")
        client = self.hub.build(self.stock.drv, "--json", start=True)
        self.strike(draw(seed), client)
        self.outputs_are_right(client)
        print(f"  {time.monotonic() - self.begun:5.1f} s: it is right", file=sys.stderr, flush=True)


if __name__ == "__main__":
    farm.main()
