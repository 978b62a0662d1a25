"""A member that does not hear of its hub until its lease ends: its builds stand still before others may begin them, and go
on or are killed when it hears again."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import OK, Hub, wait_until
from net import Network

HUB, ELM, OAK = 1, 2, 3
SLOW = 'features = ["slow"]\n'  # what takes long may be built there, and not on the hub
LEASE = '[lease]\nttl = "6 s"\nrenew = "500 ms"\nguard = "200 ms"\nfreeze_max = "{}"\n[limits]\nkill_grace = "500 ms"\n'
PATIENT, HASTY = LEASE.format("10 min"), LEASE.format("1 s")


def frozen(pid):
    """Whether the process's control group stands still; in a vfork version 1 says FREEZING for good, and means it."""
    def says(file):
        try:
            return farm.read(file)
        except OSError:  # another version, or it has just ended
            return ""

    groups = [line.split(":", 2)[1:] for line in says(f"/proc/{pid}/cgroup").splitlines()]
    return any(says(f"/sys/fs/cgroup/freezer{path}/freezer.state").startswith("FR") if controllers == "freezer" else
               any("frozen 1" in says(f"/sys/fs/cgroup/{mount}{path}/cgroup.events") for mount in ("unified", "."))
               for controllers, path in groups if controllers in ("", "freezer"))


class Leases(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.net = Network(3)
        self.addCleanup(self.net.close)
        self.hub = Hub(self.scratch, self.net.machine(HUB), settings=PATIENT, jobs=1)
        self.hub.start().record()

    def member(self, number, name, settings=PATIENT):
        """One that serves and is connected."""
        node = self.hub.member(self.net.machine(number), name, SLOW + settings).start()
        wait_until(f"{name} offers itself", lambda: any(
            row["node"] == name for row in self.hub.admin("nodes", "--json").json()))
        return node

    def nodes_of(self, name="long"):
        """(node, result) of the attempts at the derivation."""
        return [(a["node"], a["result"]) for a in self.hub.attempts() if farm.drv_name(a["drv"]) == name]

    def long_build(self, settings=PATIENT):
        """A member, the derivation that it builds until end_sleepers(), each time with another output, the client, and the
        builder."""
        elm = self.member(ELM, "elm", settings)
        drv, = self.instantiate(
            'make { requiredSystemFeatures = [ "slow" ]; } "long" "sleep 100000 || true; date +%N > $out"')
        client = self.hub.build(drv, start=True)
        wait_until("it is being built on elm", lambda: self.nodes_of() == [("elm", "running")])
        return elm, drv, client, wait_until("its builder runs", self.sleepers)[0]

    def until_lost(self, builder):
        """Until the hub has ended the lease of elm, at which moment the builder stands still already."""
        wait_until("the hub has ended the lease of elm", lambda: ("elm", "infra") in self.nodes_of())
        self.assertTrue(frozen(builder[0]))

    def reclaimed(self, elm, drv, client, builder):
        """It goes on where it was, is the one that counts, and says so."""
        wait_until("the build goes on", lambda: not frozen(builder[0]))
        self.assertEqual(self.sleepers(), [builder])
        self.end_sleepers()
        self.ends_with(client.end(), OK)
        self.assertEqual(self.nodes_of(), [("elm", "infra"), ("elm", "success")])
        log = self.ends_with(self.hub.coppice("log", drv), OK).out
        self.assertRegex(log, r"the build stands still\n(.|\n)*the build goes on, after \d+ seconds\n")
        self.ends_with(elm.stop(), 0)
        self.promises_kept(self.hub)

    def given_up(self, elm, oak, client, builder):
        """elm kills it, and what oak builds is the one that counts."""
        wait_until("elm has killed its builder", lambda: builder not in self.sleepers())
        wait_until("elm has nothing left of it", lambda: not any(
            "/work/workers/" in path or "/work/uploads/" in path for path in elm.actors()))
        self.end_sleepers()
        done = self.ends_with(client.end(), OK)
        self.assertEqual(self.nodes_of(), [("elm", "infra"), ("oak", "success")])
        self.assertEqual(self.hub.narinfo(done.out.strip()), elm.narinfo(done.out.strip()))
        for node in (elm, oak):
            self.ends_with(node.stop(), 0)
        self.promises_kept(self.hub)

    def taken_over(self):
        """By a second member."""
        oak = self.member(OAK, "oak")
        wait_until("it is being built on oak", lambda: self.nodes_of() == [("elm", "infra"), ("oak", "running")])
        wait_until("both builders are there", lambda: len(self.sleepers()) == 2)
        return oak

    def test_a_build_that_nobody_took_over_while_its_machine_was_cut_off_goes_on_where_it_was(self):
        elm, drv, client, builder = self.long_build()
        self.net.cut(HUB, ELM)
        wait_until("the build stands still", lambda: frozen(builder[0]))
        self.until_lost(builder)
        wait_until("its graph waits for a machine", lambda: "long" in self.hub.admin("queue").out)
        self.net.heal(HUB, ELM)
        self.reclaimed(elm, drv, client, builder)

    def test_a_build_that_another_machine_took_over_is_killed_when_its_own_is_back(self):
        elm, _, client, builder = self.long_build()
        self.net.cut(HUB, ELM)
        self.until_lost(builder)
        oak = self.taken_over()
        self.assertTrue(frozen(builder[0]))
        self.net.heal(HUB, ELM)
        self.given_up(elm, oak, client, builder)

    def test_a_build_stands_still_although_its_daemon_does_so_too_and_is_reclaimed_when_that_goes_on(self):
        elm, drv, client, builder = self.long_build()
        elm.pause()
        self.until_lost(builder)
        elm.resume()
        self.reclaimed(elm, drv, client, builder)

    def test_a_build_whose_daemon_stood_still_while_another_machine_took_over_is_killed(self):
        elm, _, client, builder = self.long_build()
        elm.pause()
        self.until_lost(builder)
        oak = self.taken_over()
        self.assertTrue(frozen(builder[0]))
        elm.resume()
        self.given_up(elm, oak, client, builder)

    def test_a_build_that_stood_still_for_too_long_is_killed_and_begun_again(self):
        elm, _, client, builder = self.long_build(HASTY)
        self.net.cut(HUB, ELM)
        wait_until("the build is killed", lambda: builder not in self.sleepers())
        wait_until("the hub has ended the lease of elm", lambda: self.nodes_of() == [("elm", "infra")])
        self.net.heal(HUB, ELM)
        wait_until("it is begun again", lambda: self.nodes_of() == [("elm", "infra"), ("elm", "running")])
        self.end_sleepers()
        self.ends_with(client.end(), OK)
        self.ends_with(elm.stop(), 0)
        self.promises_kept(self.hub)

    def test_a_member_that_would_go_on_for_longer_than_its_hub_waits_is_not_let_in(self):
        elm = self.hub.member(self.net.machine(ELM), "elm", SLOW).start()
        done = self.ends_with(elm.daemon.end(), farm.GAVE_UP)
        self.assertIn("the node's lease.ttl, 30000 ms, is longer than that of the hub, 6000 ms", done.err)

    def test_a_lease_that_is_too_short_for_its_keep_alives_is_refused_at_the_start(self):
        with self.assertRaisesRegex(AssertionError, "lease.ttl 6000 ms is too short"):
            self.new_farm(settings='[lease]\nttl = "6 s"\n')


if __name__ == "__main__":
    farm.main()
