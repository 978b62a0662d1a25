"""The hub is killed, or stands still, while the whole farm builds for it."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import chaos
import farm
from chaos import wait_until


class TheHub(chaos.Chaos):
    def test_members_go_on_while_the_hub_is_dead_and_nothing_is_lost(self):
        client, holder, _ = self.begin()
        self.hub.kill()
        self.end_sleepers()  # it ends while nobody is there to be told
        wait_until("no builder is left", lambda: not self.sleepers())
        self.hub.start()
        self.let_go(client)
        self.assertEqual(self.attempts_of("held"), [(holder, "success")])
        self.outputs_are_right(client)

    def test_the_hub_is_killed_again_and_again(self):
        client, _, _ = self.begin()
        for _ in range(3):
            self.hub.kill()
            self.hub.start()
        self.outputs_are_right(client)

    def test_a_hub_that_stands_still_for_longer_than_a_lease_lets_builds_go_on_when_it_does(self):
        client, _, _ = self.begin()
        builder = self.holder()
        self.hub.pause()
        wait_until("it stands still", lambda: self.frozen(builder))
        self.hub.resume()
        self.outputs_are_right(client)


if __name__ == "__main__":
    farm.main()
