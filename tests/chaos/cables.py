"""A cable between a member and the hub is cut while a build runs there: both ways or one, for less than the lease or for
longer, again and again, or only between the member and the store; or one between the hub and a client."""

import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import chaos
import farm
from chaos import HTTP_PORT, HUB, OUTSIDE, PORT, wait_until
from farm import OK

FLAP_S, FLAPS = 0.7, 10
GIVEN_UP_S = 10  # more than three pings of 2 s; less than the minute after which a build whose client is gone is cancelled


class Cables(chaos.Chaos):
    def taken_over(self, victim, other):
        wait_until("it is built elsewhere", lambda: self.attempts_of("held") == [(victim, "infra"), (other, "running")])
        wait_until("both builders are there", lambda: len(self.sleepers()) == 2)

    def test_a_cut_that_is_mended_before_the_lease_ends_costs_nothing(self):
        client, victim, _ = self.begin()
        self.net.cut(HUB, self.numbers[victim])
        self.end_sleepers()  # it ends while nobody is there to be told
        wait_until("no builder is left", lambda: not self.sleepers())
        self.net.heal(HUB, self.numbers[victim])
        self.let_go(client)
        self.assertEqual(self.attempts_of("held"), [(victim, "success")])
        self.outputs_are_right(client)

    def test_a_cut_that_outlives_the_lease_ends_in_one_result_though_two_machines_have_begun(self):
        client, victim, other = self.begin()
        late = self.holder()
        self.net.cut(HUB, self.numbers[victim])
        self.taken_over(victim, other)
        self.assertTrue(self.frozen(late))
        self.net.heal(HUB, self.numbers[victim])
        wait_until("the late one is killed", lambda: late not in self.sleepers())
        self.let_go(client)
        self.assertEqual(self.attempts_of("held"), [(victim, "infra"), (other, "success")])
        self.outputs_are_right(client)

    def one_way(self, cut):
        """What a cut like this does to a lease depends on what is still on its way; but the build stands still before
        anybody else may begin, and ends."""
        client, victim, _ = self.begin()
        builder = self.holder()
        cut(self.numbers[victim])
        wait_until("it stands still", lambda: self.frozen(builder), chaos.TTL_S + 10)
        self.net.heal(HUB, self.numbers[victim])
        self.outputs_are_right(client)

    def test_a_member_that_is_heard_and_hears_nothing(self):
        self.one_way(lambda victim: self.net.cut_one_way(HUB, victim))

    def test_a_member_that_hears_and_is_not_heard(self):
        self.one_way(lambda victim: self.net.cut_one_way(victim, HUB))

    def test_what_cannot_be_uploaded_is_kept_and_not_built_again_and_its_log_comes_late(self):
        client, victim, _ = self.begin()
        self.net.cut(self.numbers[victim], HUB, HTTP_PORT)
        self.end_sleepers()
        wait_until("it is kept", lambda: ("held", victim) in self.waits_for_the_store())
        self.assertIn("partial", self.hub.admin("locks").out)
        self.net.heal(HUB, self.numbers[victim])
        self.let_go(client)
        self.assertEqual(self.attempts_of("held"), [(victim, "success")])
        self.nothing_is_left()
        held = next(drv for drv in self.stock.graph if farm.drv_name(drv) == "held")
        self.assertIn("words\n", self.ends_with(self.hub.coppice("log", held), OK).out)
        self.outputs_are_right(client)

    def test_a_link_that_flaps_restarts_nobody_and_costs_no_attempt(self):
        client, victim, _ = self.begin()
        number = self.numbers[victim]
        for n in range(FLAPS):
            if n % 2 == 0:
                self.net.cut(HUB, number)
            else:
                for port in (PORT, HTTP_PORT):  # now all connections break
                    self.net.refuse(number, HUB, port)
            time.sleep(FLAP_S)
            self.net.heal(HUB, number)
            self.net.accept(HUB)
            if n == FLAPS // 2:
                self.end_sleepers()  # what it made is handed in while the link goes on like this
            time.sleep(2 * FLAP_S)  # long enough for a sign of life, or its lease would be over
        self.let_go(client)
        self.assertGreater(self.net.lost(HUB), 0)  # it speaks twice a second
        self.assertGreaterEqual(self.hub.daemon.err().count(f"node lost name={victim}"), FLAPS // 4)
        self.assertEqual(self.attempts_of("held"), [(victim, "success")])
        for name, node in self.nodes.items():
            self.assertEqual({path: a["last_exit"] for path, a in node.actors().items() if a["restarts"] > 0}, {}, name)
        self.outputs_are_right(client)

    def test_a_client_that_is_cut_off_when_its_build_ends_is_told_all_of_it_when_the_cable_is_mended(self):
        build = self.hub.client("coppice", "build", self.stock.drv, "--no-fetch", "--no-link", "--json")
        client = self.scratch.start(build + [*self.key_of(self.hub, "submitter")], inside=self.net.inside(OUTSIDE))
        wait_until("held is being built", self.sleepers)
        self.net.cut(HUB, OUTSIDE)
        cut = time.monotonic()
        wait_until("it notices", lambda: "waiting for " + self.hub.ready["listen"] in client.err())
        self.end_sleepers()
        wait_until("the build ends", lambda: [r["state"] for r in self.hub.admin("requests", "--json").json()] == ["succeeded"])
        wait_until("the hub has given it up", lambda: time.monotonic() - cut > GIVEN_UP_S)
        self.assertTrue(client.running())
        self.assertNotIn("built held", client.err())
        self.net.heal(HUB, OUTSIDE)
        done = self.ends_with(client.end(), OK)
        told = re.findall(r"^built (\S+)", done.err, re.MULTILINE)
        self.assertEqual(sorted(told), sorted(map(farm.drv_name, self.stock.graph)))
        self.assertEqual([a["result"] for a in self.hub.attempts()], ["success"] * len(told))
        self.outputs_are_right(client)


if __name__ == "__main__":
    farm.main()
