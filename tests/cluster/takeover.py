"""The hub may run on any of three machines: when its machine dies, another takes it over, and nobody's build is lost."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import chaos
import farm
import moving
from chaos import wait_until
from farm import FAILED, OK, UNREACHABLE

# Long enough for three restarts.
LAYERS = '''let
  row = n: below: map (i: step "l-${toString n}-${toString i}" "sleep 2; echo ${toString below} $out > $out") [ 1 2 3 4 5 6 ];
  rows = n: if n == 0 then [ ] else row n (rows (n - 1));
in step "top" "echo ${toString (rows 15)} > $out"'''


class Takeover(moving.MovingFarm):
    def begun(self):
        """The client of a build, and who builds `held`, which is not where the hub is."""
        client = self.hub.build(self.stock.drv, "--json", start=True)
        (holder,) = wait_until("held is being built", lambda: [n for n, r in self.attempts_of("held") if r == "running"])
        wait_until("its builder runs", self.sleepers)
        self.assertEqual(self.where(), "m1")
        return client, holder

    def test_the_machine_of_the_hub_dies_and_no_build_on_another_is_lost(self):
        client, holder = self.begun()
        self.kill_machine("m1")
        dead = time.monotonic()
        taken = wait_until("another machine takes over", lambda: self.where() not in ("", "m1") and self.where())
        wait_until("it serves", lambda: {"oak", "ash"} <= self.online())
        print(f"  {taken} took over, and its members were there, {time.monotonic() - dead:.1f} s after the death", file=sys.stderr)
        self.assertEqual(self.attempts_of("held"), [(holder, "running")])
        self.let_go(client)
        self.assertEqual(self.attempts_of("held"), [(holder, "success")])
        self.start_machine("m1")
        wait_until("its member is back", lambda: set(moving.MEMBERS) <= self.online())
        self.outputs_are_right(client)

    def test_whoever_asks_a_member_or_begins_at_the_machine_of_the_hub_is_led_to_the_hub_of_the_day(self):
        asked = [node.build(self.stock.drv, "--json", start=True) for node in (self.nodes["oak"], self.hubs["m1"])]
        wait_until("held is being built", lambda: [r for _, r in self.attempts_of("held") if r == "running"])
        self.hubs["m1"].kill()
        wait_until("another machine takes over", lambda: self.where() not in ("", "m1"))
        answers = [self.let_go(client) for client in asked]
        self.hubs["m1"].start()
        self.outputs_are_right(asked[0], *answers[1:])

    def test_a_hub_that_stands_still_for_longer_than_its_lease_has_no_say_any_more(self):
        client, holder = self.begun()
        self.hubs["m1"].pause()
        wait_until("another machine takes over", lambda: self.where() not in ("", "m1"))
        self.hubs["m1"].resume()
        wait_until("it stands by", lambda: os.path.exists(os.path.join(self.hubs["m1"].state, "stands-by")))
        self.let_go(client)
        self.assertEqual(self.attempts_of("held"), [(holder, "success")])
        self.outputs_are_right(client)

    def test_whoever_was_let_in_is_let_in_wherever_the_hub_runs(self):
        self.hubs["m1"].pause()
        wait_until("another machine takes over", lambda: self.where() not in ("", "m1"))
        now = self.hubs[self.where()]
        now.serves()
        revoked, public = os.path.basename(self.hub.key).removesuffix(".toml"), farm.read(os.path.join(self.hubs["m1"].state, "keys/cache.public"))
        wait_until("all members are back", lambda: set(moving.MEMBERS) <= self.online())
        self.assertEqual(farm.read(os.path.join(now.state, "keys/cache.public")), public)
        self.ends_with(now.admin("invite", "birch"), OK)
        self.ends_with(now.admin("revoke", revoked), OK)
        wait_until("it is told", lambda: "birch" in self.etcd.ctl("get", "/coppice/farm", "--print-value-only").stdout)
        refused = self.hub.admin("nodes", "--patience", "2")
        self.assertEqual(refused.code, UNREACHABLE, str(refused))
        self.hubs["m1"].resume()
        wait_until("it stands by", lambda: os.path.exists(os.path.join(self.hubs["m1"].state, "stands-by")))
        for words in (("invite", "alder"), ("revoke", "birch")):
            done = self.ends_with(self.hubs["m1"].admin(*words), UNREACHABLE)
            self.assertRegex(done.err, "the hub runs on another machine now")
        self.ends_with(now.stop(), 0)
        wait_until("one more takes over", lambda: self.where() not in ("", os.path.basename(now.state)))
        allowed = lambda: farm.read(os.path.join(self.hubs[self.where()].state, "authorized.toml"))
        wait_until("it has adopted them", lambda: "birch" in allowed())
        self.assertNotIn(revoked, allowed())


class Rolling(moving.MovingFarm):
    GRAPH = LAYERS

    def running_on(self, node):
        return [a["drv"] for a in self.hub.attempts() if a["node"] == node and a["result"] == "running"]

    def test_all_machines_are_restarted_one_by_one_while_they_build_and_nothing_is_built_twice(self):
        client = self.hub.build(self.stock.drv, "--json", start=True)
        for name, member in zip(moving.MACHINES, moving.MEMBERS):
            wait_until(f"{member} builds", lambda: self.running_on(member) or not client.running())
            self.assertTrue(client.running(), "the build was over before all were restarted")
            self.ends_with(self.hub.admin("drain", member, "--why", "an upgrade"), OK)
            wait_until("it has finished what it ran", lambda: not self.running_on(member))
            for daemon in (self.nodes[member], self.hubs[name]):
                self.ends_with(daemon.stop(), OK)
                daemon.start()
            wait_until("it is back, and takes work again", lambda: self.hub.admin("undrain", member).code == OK)
            wait_until("all have found the hub of the day", lambda: set(moving.MEMBERS) <= self.online())
        self.let_go(client)
        self.assertEqual({a["result"] for a in self.hub.attempts()}, {"success"})
        self.outputs_are_right(client)


class RollingUndrained(moving.MovingFarm):
    MORE_OF = {}
    GRAPH = '''let
  held = map (i: step "held-${toString i}" "sleep 100000 || true; echo ${toString i} > $out") [ 1 2 3 4 5 6 7 8 ];
in step "top" "echo ${toString held} > $out"'''

    def running(self, but=frozenset()):
        """{(inhash, token): machine} of the attempts that run, once those are over and all slots are taken."""
        def taken():
            found = {(a["inhash"], a["token"]): a["node"] for a in self.hub.attempts() if a["result"] == "running"}
            return len(found) == len(moving.MEMBERS) * self.JOBS and not but & found.keys() and found

        return wait_until("all machines build as much as they may", taken)

    def test_all_machines_are_restarted_one_by_one_without_notice_and_only_what_runs_there_is_begun_anew(self):
        client = self.hub.build(self.stock.drv, "--json", start=True)
        before, lost = self.running(), set()
        for name, member in zip(moving.MACHINES, moving.MEMBERS):
            was_hub = self.where() == name
            for daemon in (self.nodes[member], self.hubs[name]):
                self.ends_with(daemon.stop(), OK)
            if was_hub:
                wait_until("another machine takes over", lambda: self.where() not in ("", name))
            for daemon in (self.nodes[member], self.hubs[name]):
                daemon.start()
            here = {attempt for attempt, machine in before.items() if machine == member}
            after = self.running(but=here)
            self.assertEqual(before.keys() - after.keys(), here)
            before, lost = after, lost | here
        self.let_go(client)
        attempts = self.hub.attempts()
        self.assertEqual({(a["inhash"], a["token"]) for a in attempts if a["result"] == "cancelled"}, lost)
        self.assertEqual(sorted(a["drv"] for a in attempts if a["result"] == "success"), sorted(self.stock.graph))
        self.assertEqual(len(attempts), len(lost) + len(self.stock.graph))
        self.outputs_are_right(client)


class Settings(farm.TestCase):
    def test_settings_that_cannot_be_right_are_refused_with_the_reason(self):
        table = '[takeover]\nmachine = "m1"\n'
        etcd, s3 = '[ledger]\netcd = ["http://127.0.0.1:1"]\n', '[s3]\nbucket = "b"\n'
        for settings, why in ((table, "needs `node`"), ('node = "m1"\n' + table, "each machine has one of its own"),
                              ('node = "farm"\n' + table, "needs ledger.etcd"), ('node = "farm"\n' + table + etcd, "needs s3.bucket"),
                              ('node = "farm"\n' + table + etcd + s3, "needs http_url"),
                              ('node = "farm"\nhttp_url = "http://h:1"\n' + table + etcd + s3, "needs endpoints"),
                              ('node = "farm"\nhub = "tcp://h:1"\n' + table + etcd, "has one elsewhere")):
            with self.subTest(settings):
                done = self.scratch.run(farm.Farm(self.scratch, settings=settings).argv)
                self.assertEqual(done.code, farm.USAGE, str(done))
                self.assertIn(why, done.err)


if __name__ == "__main__":
    farm.main()
