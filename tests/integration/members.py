"""A farm of three machines, each in a network of its own: a hub and two members. Machines share the work, and none of
them but the hub is missed."""

import glob
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import FAILED, OK, Hub, wait_until
from net import Network

HUB, ELM, OAK = 1, 2, 3
SLOW = 'features = ["slow"]\n'  # what takes long may be built there, and not on the hub
SHORT = '[lease]\nttl = "15 s"\nrenew = "1 s"\nguard = "500 ms"\n'


class Members(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.net = Network(3)
        self.addCleanup(self.net.close)
        self.hub = Hub(self.scratch, self.net.machine(HUB), settings=SHORT, jobs=1)
        self.hub.start().record()

    def member(self, number, name, settings="", jobs=2):
        """A member that serves and is connected."""
        node = self.hub.member(self.net.machine(number), name, settings + SHORT, jobs).start()
        wait_until(f"{name} offers itself", lambda: name in self.machines())
        return node

    def machines(self):
        """{name: status} of those that offer themselves."""
        return {row["node"]: row for row in self.hub.admin("nodes", "--json").json()}

    def nodes_of(self, name):
        """(node, result) of the attempts at the derivations of that name."""
        return [(a["node"], a["result"]) for a in self.hub.attempts() if farm.drv_name(a["drv"]) == name]

    def until_built_at(self, name, node):
        wait_until(f"{name} is being built on {node}", lambda: self.nodes_of(name) == [(node, "running")])
        wait_until("its builder runs", self.sleepers)

    def long_build(self, ask_elm=False):
        """A member, and the client of a build that runs there until end_sleepers(), each time with another output."""
        elm = self.member(ELM, "elm", SLOW)
        drv, = self.instantiate(
            'make { requiredSystemFeatures = [ "slow" ]; } "long" "date +%N > $out; sleep 100000 || true"')
        client = (elm if ask_elm else self.hub).build(drv, start=True)
        self.until_built_at("long", "elm")
        return elm, client

    def test_machines_share_the_work_and_any_of_them_takes_requests(self):
        elm, oak = self.member(ELM, "elm"), self.member(OAK, "oak")
        graph = '''let row = map (i: step "row-${toString i}" "sleep 1; echo ${toString i} > $out") [ 1 2 3 4 5 6 7 8 9 10 ]; in
          step "top" "cat ${toString row} > $out"'''
        done = self.ends_with(elm.coppice("build", *self.instantiate(graph), "--json"), OK)
        self.assertEqual(farm.read(self.scratch.file("work", "result")).split(), [str(i) for i in range(1, 11)])
        self.assertEqual({a["node"] for a in self.hub.attempts()}, {"hub", "elm", "oak"})
        self.assertEqual([a["result"] for a in self.hub.attempts()], ["success"] * 11)
        self.assertIn("0 built", self.ends_with(oak.build(*self.instantiate(graph)), OK).err)
        out = list(done.json()[0]["outputs"].values())[0]
        nix = farm.Nix(self.scratch, settings={"substituters": elm.ready["http"], "max-jobs": "0",
                                               "trusted-public-keys": self.hub.ready["public_key"]})
        self.assertEqual(elm.narinfo(out), self.hub.narinfo(out))
        self.ends_with(self.scratch.run(["nix-store", "--realise", out], nix.env, inside=self.net.inside(OAK)), OK)
        self.ends_with(elm.stop(), 0)
        self.ends_with(oak.stop(), 0)
        self.promises_kept(self.hub, done)

    def test_what_a_member_dies_with_is_built_elsewhere(self):
        elm, client = self.long_build()
        builders = self.builders(elm)
        elm.kill()
        self.builders_gone(builders)
        oak = self.member(OAK, "oak", SLOW)
        wait_until("it is built on oak", lambda: ("oak", "running") in self.nodes_of("long"))
        wait_until("its builder runs", self.sleepers)
        self.end_sleepers()
        self.ends_with(client.end(), OK)
        self.assertEqual(self.nodes_of("long"), [("elm", "infra"), ("oak", "success")])
        self.ends_with(oak.stop(), 0)
        self.promises_kept(self.hub)

    def test_a_member_that_is_started_again_at_once_gives_its_locks_back(self):
        elm, client = self.long_build()
        builders = self.builders(elm)
        elm.kill()
        self.builders_gone(builders)
        elm.start()
        wait_until("it is built again", lambda: self.nodes_of("long") == [("elm", "infra"), ("elm", "running")])
        wait_until("its builder runs", self.sleepers)
        self.end_sleepers()
        self.ends_with(client.end(), OK)

    def test_members_go_on_building_while_the_hub_is_dead_and_hand_in_what_they_built(self):
        elm, client = self.long_build(ask_elm=True)
        self.hub.kill()
        self.end_sleepers()  # it ends while nobody is there to be told
        wait_until("no builder is left", lambda: not self.sleepers())
        self.hub.start().record()
        self.ends_with(client.end(), OK)
        self.assertEqual(self.nodes_of("long"), [("elm", "success")])
        self.ends_with(elm.stop(), 0)
        self.promises_kept(self.hub)

    def test_a_cable_that_is_cut_and_mended_in_time_costs_nothing(self):
        elm, client = self.long_build()
        self.net.cut(HUB, ELM)
        wait_until("the hub notices", lambda: "node lost name=elm" in self.hub.daemon.err())
        self.end_sleepers()
        wait_until("no builder is left", lambda: not self.sleepers())
        self.net.heal(HUB, ELM)
        self.ends_with(client.end(), OK)
        self.assertEqual(self.nodes_of("long"), [("elm", "success")])
        self.ends_with(elm.stop(), 0)
        self.promises_kept(self.hub)

    def test_what_a_member_says_after_it_stood_still_for_longer_than_its_lease_is_void(self):
        elm, client = self.long_build()
        elm.pause()
        oak = self.member(OAK, "oak", SLOW)
        wait_until("it is being built on oak", lambda: self.nodes_of("long") == [("elm", "infra"), ("oak", "running")])
        wait_until("both builders run", lambda: len(self.sleepers()) == 2)
        elm.resume()
        self.end_sleepers(2)  # what elm was at, and what oak has in hand, would differ
        done = self.ends_with(client.end(), OK)
        wait_until("elm has given up what it had", lambda: not any(
            "/work/workers/" in path or "/work/uploads/" in path for path in elm.actors()))
        self.assertEqual(self.nodes_of("long"), [("elm", "infra"), ("oak", "success")])
        self.assertEqual(self.hub.narinfo(done.out.strip()), elm.narinfo(done.out.strip()))
        elm.kill()
        self.ends_with(oak.stop(), 0)
        self.promises_kept(self.hub)

    def test_a_log_is_followed_by_whoever_reaches_the_hub_alone(self):
        self.member(ELM, "elm", SLOW)
        oak = self.member(OAK, "oak")
        self.net.refuse(OAK, ELM, 8080)
        drv, = self.instantiate("""make { requiredSystemFeatures = [ "slow" ]; } "talks"
          "echo early; sleep 100000 || true; seq 100000; echo late; echo > $out" """)
        client = self.hub.build(drv, start=True)
        self.until_built_at("talks", "elm")
        log = oak.start_coppice("log", "-f", drv)
        wait_until("what it said is shown while it runs", lambda: log.out() == "early\n")
        self.end_sleepers()
        said = self.ends_with(log.end(), OK).out.replace("Killed\n", "")  # by the shell, of its child
        self.assertEqual(said, "\n".join(["early", *map(str, range(1, 100001)), "late", ""]))
        self.ends_with(client.end(), OK)

    def test_a_log_that_the_store_does_not_have_yet_is_had_from_its_machine(self):
        self.member(ELM, "elm", SLOW)
        self.net.refuse(ELM, HUB, 8080)
        drv, = self.instantiate("""make { requiredSystemFeatures = [ "slow" ]; } "fails" "echo words; exit 1" """)
        self.ends_with(self.hub.build(drv), FAILED)
        self.assertEqual(self.nodes_of("fails"), [("elm", "build_failed")])
        stored = os.path.join(self.hub.state, "cache", "attempts", "*.log")
        self.assertEqual(glob.glob(stored), [])
        self.assertIn("words\n", self.ends_with(self.hub.coppice("log", drv), OK).out)
        self.net.accept(HUB)
        wait_until("the store has it", lambda: glob.glob(stored))
        self.assertIn("words\n", self.ends_with(self.hub.coppice("log", drv), OK).out)

    def test_a_machine_whose_key_is_revoked_builds_no_more(self):
        self.member(ELM, "elm", SLOW)
        self.ends_with(self.hub.admin("revoke", "elm"), OK)
        wait_until("it offers nothing", lambda: "node lost name=elm" in self.hub.daemon.err())
        drv, = self.instantiate('step "a" "echo > $out"')
        self.ends_with(self.hub.build(drv), OK)
        self.assertEqual(self.nodes_of("a"), [("hub", "success")])


if __name__ == "__main__":
    farm.main()
