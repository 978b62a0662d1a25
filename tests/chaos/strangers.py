"""Who has no business in the farm comes while it builds: machines with wrong keys, and peers that send anything but
messages. The build ends as without them, the daemon stays up, and its memory as it was."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import chaos
import farm
from chaos import HUB, OAK, wait_until
from farm import OK, OnMachine
from hostile_bytes import corpus, send_streams

GROWTH_MAX_KIB = 32 << 10  # of a daemon at which hostile bytes are thrown: what an allocator keeps of the largest


class WithStrangers(chaos.Chaos):
    def bridge(self, node, what):
        """How many of these BRIDGE has counted."""
        doing = next(a["doing"] for path, a in node.actors().items() if path.count("/") == 2 and path.endswith("/bridge"))
        return int(re.search(rf"(\d+) {what}", doing)[1])


class Strangers(WithStrangers):
    def imposter(self, settings):
        """A node on oak's machine with these settings, which never gets in; oak has left."""
        before = self.bridge(self.hub, "keys denied")
        node = OnMachine(self.scratch, self.net.machine(OAK), "imposter", settings + SLOW_AND_LEASE, 2).start()
        self.nodes["imposter"] = node
        return node, before

    def oak_leaves(self):
        self.ends_with(self.oak.stop(), 0)
        del self.nodes["oak"]

    def never_gets_in(self, client):
        self.let_go(client)
        self.assertNotIn("imposter", {row["node"] for row in self.hub.admin("nodes", "--json").json()})
        self.assertEqual({a["node"] for a in self.hub.attempts()} - {"hub", "elm", "oak"}, set())
        self.ends_with(self.nodes.pop("imposter").stop(), 0)
        self.outputs_are_right(client)

    def test_a_machine_with_a_key_that_nobody_knows_is_denied_and_builds_nothing(self):
        self.oak_leaves()
        client, _, _ = self.begin()
        settings = self.hub.invite("imposter")
        self.ends_with(self.hub.admin("revoke", "imposter"), OK)
        _, before = self.imposter(settings)
        wait_until("it was denied", lambda: self.bridge(self.hub, "keys denied") > before)
        self.never_gets_in(client)

    def test_a_machine_with_a_key_of_another_role_is_no_node(self):
        self.oak_leaves()
        client, _, _ = self.begin()
        _, _, _, key = self.key_of(self.hub, "submitter")
        settings = self.hub.invite("imposter")
        self.ends_with(self.hub.admin("revoke", "imposter"), OK)
        secret = re.search(r'secret_key = "([^"]+)"', farm.read(key))[0]
        self.imposter(re.sub(r'secret_key = "[^"]+"', lambda _: secret, settings))
        wait_until("it was let in as a client and refused as a node", lambda: "forbidden" in self.nodes["imposter"].daemon.err())
        self.never_gets_in(client)

    def test_a_member_whose_key_is_revoked_while_it_builds_is_thrown_out_and_its_build_moves(self):
        client, victim, other = self.begin()
        late = self.holder()
        self.ends_with(self.hub.admin("revoke", victim), OK)
        wait_until("it is lost", lambda: f"node lost name={victim}" in self.hub.daemon.err())
        wait_until("it is built elsewhere", lambda: self.attempts_of("held") == [(victim, "infra"), (other, "running")])
        self.assertTrue(late not in self.sleepers() or self.frozen(late))
        self.let_go(client)
        node = self.nodes.pop(victim)
        builders = farm.descendants(node.daemon.pid)
        node.kill()
        self.builders_gone(builders)
        self.outputs_are_right(client)


class HostileBytes(WithStrangers):
    LEASE = chaos.lease(60)  # a machine may be slow to answer under them

    def results(self):
        return [a["result"] for a in self.hub.attempts()]

    def hostile_peer(self, key):
        """From elm's machine; how many messages were sent."""
        argv = [os.path.join(farm.ROOT, "tests/support/hostile_bytes.py"), self.hub.ready["listen"], *([key] if key else [])]
        return int(self.ends_with(self.scratch.run(argv, inside=self.net.inside(chaos.ELM)), OK).out)

    def test_hostile_bytes_from_anybody_change_nothing(self):
        client, holder, _ = self.begin()
        # what daemons need for builds and uploads is not what hostile bytes make them take
        wait_until("all but held and top are built", lambda: [r for r in self.results() if r == "success"][len(self.stock.graph) - 3:])
        _, _, _, key = self.key_of(self.hub, "submitter")
        begun = {name: farm.resident_kib(node.daemon.pid) for name, node in self.nodes.items()}
        dropped = self.bridge(self.hub, "bad frames")
        sent = 0
        for _ in range(3):
            for port in (5000, chaos.HTTP_PORT):
                self.net.call(chaos.ELM, lambda port=port: send_streams(self.net.address(HUB), port))
            self.hostile_peer(None)
            sent += self.hostile_peer(key)
            wait_until("all were dropped", lambda: self.bridge(self.hub, "bad frames") >= dropped + sent)
        self.assertEqual(sent, 3 * len(corpus("messages.txt")))
        self.let_go(client)
        self.assertEqual(self.attempts_of("held"), [(holder, "success")])
        for name, node in self.nodes.items():
            self.assertLess(farm.resident_kib(node.daemon.pid) - begun[name], GROWTH_MAX_KIB, f"{name} grows")
        self.outputs_are_right(client)


SLOW_AND_LEASE = chaos.SLOW + chaos.LEASE

if __name__ == "__main__":
    farm.main()
