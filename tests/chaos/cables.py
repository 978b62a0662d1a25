"""A cable between a member and the hub is cut while a build runs there: both ways or one, for less than the lease or for
longer, or only between the member and the store."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import chaos
import farm
from chaos import HTTP_PORT, HUB, wait_until
from farm import OK


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


if __name__ == "__main__":
    farm.main()
