"""A nemesis strikes a farm without a single point of failure, one machine after another, while it builds: it kills machines
with their etcd member, hub and member, cuts them off both ways and one way, kills etcd's leader, and has the hub stand still for
longer than its lease. The client is told all endpoints, and never fails.

The sequence is drawn from a seed, which is printed with it; COPPICE_SEED=N repeats it. COPPICE_NEMESIS_S=600 is for how long
faults go on, COPPICE_NEMESIS_ROWS=140 how much there is to build meanwhile. Says how long it took from the death of a hub to the next
assignment."""

import os
import random
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import chaos
import farm
import moving
from chaos import wait_until
from moving import MACHINES

FAULTS_S = int(os.environ.get("COPPICE_NEMESIS_S", "60"))
ROWS = int(os.environ.get("COPPICE_NEMESIS_ROWS", "14"))
PAUSE_S = 4.0  # between two faults, at most

GRAPH = f'''let
  row = n: below: map (i: step "n-${{toString n}}-${{toString i}}"
    "sleep 3; mkdir $out; seq ${{toString (i * 2000)}} > $out/numbers; echo ${{toString below}} $out > $out/refs") [ 1 2 3 4 5 6 ];
  rows = n: if n == 0 then [ ] else row n (rows (n - 1));
in step "top" "echo ${{toString (rows {ROWS})}} > $out"'''


class Nemesis(moving.MovingFarm):
    GRAPH = GRAPH

    def number(self, name):
        return MACHINES.index(name) + 1

    # What is done to a machine; each gives what undoes it, and whether it is a death of the hub if it runs there.

    def killed(self, name, _):
        self.kill_machine(name)
        return lambda: self.start_machine(name), True

    def cut_off(self, name, _):
        self.net.unplug(self.number(name))
        return lambda: self.net.plug_in(self.number(name)), True

    def others(self, name):
        return [n for n in range(1, moving.OUTSIDE + 1) if n != self.number(name)]

    def heal(self, name):
        for other in self.others(name):
            self.net.heal(self.number(name), other)

    def deaf(self, name, _):
        for other in self.others(name):
            self.net.cut_one_way(other, self.number(name))
        return lambda: self.heal(name), True

    def mute(self, name, _):
        for other in self.others(name):
            self.net.cut_one_way(self.number(name), other)
        return lambda: self.heal(name), True

    def etcd_leader_killed(self, _, __):
        at = self.etcd.leader()
        self.etcd.kill(at)
        return lambda: self.etcd.start_member(at), False

    def hub_paused(self, _, where):
        self.hubs[where].pause()
        return self.hubs[where].resume, True

    KINDS = ("killed", "killed", "cut_off", "deaf", "mute", "etcd_leader_killed", "hub_paused")

    def strike(self, client, chance):
        """Faults, one at a time; when hubs died."""
        deaths, end = [], time.monotonic() + FAULTS_S
        while time.monotonic() < end and client.running():
            where = wait_until("some machine has the hub", self.where)
            kind, name = chance.choice(self.KINDS), chance.choice([where, *MACHINES])
            seconds = chance.choice([chance.uniform(0.5, 3), chance.uniform(3, 2 * moving.LEDGER_LEASE_S + 4)])
            if kind == "hub_paused":
                name, seconds = where, max(seconds, 2.0 * moving.LEDGER_LEASE_S)
            print(f"  {time.monotonic() - self.begun:5.1f} s: {kind} {name} for {seconds:.1f} s, the hub is on {where}", file=sys.stderr,
                  flush=True)
            undo, fatal = getattr(self, kind)(name, where)
            if fatal and name == where and (kind == "killed" or seconds > moving.LEDGER_LEASE_S):
                deaths.append(time.time())
            time.sleep(seconds)
            undo()
            wait_until("etcd serves", lambda: self.etcd.ctl("get", "x", check=False).returncode == 0)
            time.sleep(chance.uniform(0, PAUSE_S))
        return deaths

    def test_whatever_happens_to_machines_one_by_one_the_build_ends_as_it_does_with_stock_nix(self):
        seed = int(os.environ.get("COPPICE_SEED", random.randrange(2**32)))
        print(f"COPPICE_SEED={seed}", file=sys.stderr, flush=True)
        self.begun = time.monotonic()
        client = self.hub.build(self.stock.drv, "--json", start=True)
        deaths = self.strike(client, random.Random(seed))
        struck = time.monotonic() - self.begun
        self.let_go(client)
        print(f"  {time.monotonic() - self.begun:5.1f} s: the build has ended; faults for {struck:.0f} s", file=sys.stderr, flush=True)
        started = sorted(a["started"] for a in self.hub.attempts())
        waits = sorted(next(s for s in started if s > death) - death for death in deaths if started[-1] > death)
        if waits:
            print(f"  from the death of a hub to the next assignment: median {statistics.median(waits):.1f} s, worst {waits[-1]:.1f} s, "
                  f"{len(waits)} deaths; lease {chaos.TTL_S} s", file=sys.stderr, flush=True)
        wait_until("all machines are back", lambda: set(moving.MEMBERS) <= self.online())
        self.outputs_are_right(client)


if __name__ == "__main__":
    farm.main()
