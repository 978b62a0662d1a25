"""What an operator sees and orders in a farm of three machines, from whichever of them he asks."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import OK, UNREACHABLE, USAGE, Hub, drv_name, wait_until
from net import Network

HUB, ELM, OAK = 1, 2, 3
SLOW = 'features = ["slow"]\n'
SLOW_STEP = 'make { requiredSystemFeatures = [ "slow" ]; }'


class Operating(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.net = Network(3)
        self.addCleanup(self.net.close)
        self.hub = Hub(self.scratch, self.net.machine(HUB), jobs=1).start()

    def join(self, number, name, settings=SLOW):
        node = self.hub.member(self.net.machine(number), name, settings).start()
        wait_until(f"{name} offers itself", lambda: name in self.machines())
        return node

    def machines(self, asked=None):
        return {row["node"]: row for row in self.ends_with((asked or self.hub).admin("nodes", "--json"), OK).json()}

    def nodes_of(self, name):
        return [(a["node"], a["result"]) for a in self.hub.attempts() if drv_name(a["drv"]) == name]

    def test_a_machine_is_drained_and_undrained_from_any_other(self):
        elm, oak = self.join(ELM, "elm"), self.join(OAK, "oak", "")
        drv, = self.instantiate(f'{SLOW_STEP} "later" "echo > $out"')
        said = self.ends_with(self.hub.admin("drain", "elm", "--why", "new disks"), OK).out
        self.assertIn("drained: elm", said)
        wait_until("elm is drained", lambda: self.machines()["elm"]["drained"])
        client = oak.build(drv, start=True)
        text = wait_until("it is explained", lambda: (lambda t: "is drained" in t and t)(oak.coppice("explain", drv).out))
        self.assertRegex(text, r"machine +elm is drained: new disks - by ")
        self.assertRegex(text, r" oak has no feature 'slow'\n")
        self.ends_with(oak.admin("drain"), OK)  # itself, and not the hub that it passes this on to
        wait_until("oak is drained", lambda: self.machines()["oak"]["drained"])
        self.assertFalse(self.machines(elm)["hub"]["drained"])
        self.ends_with(oak.admin("undrain", "elm"), OK)
        self.ends_with(client.end(), OK)
        self.assertEqual(self.nodes_of("later"), [("elm", "success")])
        self.assertIn("nobody is not connected", self.ends_with(self.hub.admin("drain", "nobody"), USAGE).err)

    def test_outputs_that_a_member_cannot_upload_are_listed_retried_and_dropped_from_elsewhere(self):
        elm, oak = self.join(ELM, "elm"), self.join(OAK, "oak", "")
        drv, = self.instantiate(f'{SLOW_STEP} "made" "sleep 100000 || true; date +%s%N > $out"')
        client = self.hub.build(drv, start=True)
        wait_until("its builder runs", self.sleepers)
        self.net.refuse(ELM, HUB, 8080)
        self.end_sleepers()

        def stuck(asked=self.hub):
            rows = self.ends_with(asked.admin("partial", "list", "--json"), OK).json()
            return rows and "again: " in rows[0]["doing"] and rows[0]
        row = wait_until("the outputs are kept", stuck)
        self.assertEqual((row["node"], drv_name(row["drv"])), ("elm", "made"))
        seen = wait_until("oak is told of them", lambda: stuck(oak))
        self.assertEqual(seen["inhash"], row["inhash"])
        self.addCleanup(elm.resume)
        elm.pause()
        told = self.ends_with(self.hub.admin("partial", "list"), OK)
        self.assertRegex(told.out + told.err, r"no answer from elm: ")
        self.assertNotIn("made", told.out)
        elm.resume()
        wait_until("elm answers again", stuck)
        self.assertIn("on elm", self.ends_with(oak.admin("partial", "retry", "all"), OK).out)
        self.assertIn("on elm", self.ends_with(oak.admin("partial", "drop", drv), OK).out)
        self.end_sleepers()
        wait_until("it was built again", lambda: (lambda r: r and r["token"] > row["token"])(stuck()))
        self.net.accept(HUB)
        self.ends_with(self.hub.admin("partial", "retry", "all"), OK)
        self.ends_with(client.end(), OK)
        self.assertEqual(self.nodes_of("made"), [("elm", "cancelled"), ("elm", "success")])

    def test_the_actors_and_events_of_every_machine_are_shown_and_rehearsed_with_from_any_other(self):
        elm, oak = self.join(ELM, "elm"), self.join(OAK, "oak")
        trees = self.ends_with(oak.admin("tree", "--json"), OK).json()
        self.assertEqual([t["path"] for t in trees][0], "/oak")
        self.assertEqual({t["path"] for t in trees}, {"/oak", "/elm", "/hub"})
        observer = oak.admin("kill", "/elm/work/fetcher", *self.key_of(self.hub, "observer"))
        self.assertIn("needs role admin", self.ends_with(observer, UNREACHABLE).err)
        self.ends_with(oak.admin("kill", "/elm/work/fetcher"), OK)
        wait_until("it was started again", lambda: elm.actors()["/elm/work/fetcher"]["restarts"] == 1)
        died = [e for e in self.ends_with(oak.admin("events", "elm", "--json"), OK).json() if e["event"] == "actor_died"]
        self.assertEqual([e["actor"] for e in died], ["/elm/work/fetcher"])
        elm.pause()
        self.addCleanup(elm.resume)
        trees = self.ends_with(oak.admin("tree", "--json"), OK).json()
        self.assertEqual([t["node"] for t in trees if "silent" in t], ["elm"])
        self.assertEqual({t["path"] for t in trees if "path" in t}, {"/oak", "/hub"})

    def test_the_log_of_a_build_on_a_member_is_followed_from_elsewhere_to_its_end(self):
        self.join(ELM, "elm")
        oak = self.join(OAK, "oak", "")
        drv, = self.instantiate(f'{SLOW_STEP} "talks" "echo early; sleep 100000 || true; echo late; echo > $out"')
        client = self.hub.build(drv, start=True)
        wait_until("its builder runs", self.sleepers)
        followers = [asked.start_coppice("log", "-f", drv) for asked in (self.hub, oak)]
        for follower in followers:
            wait_until("what it said is shown while it runs", lambda f=follower: "early\n" in f.out())
            self.assertNotIn("late", follower.out())
        self.end_sleepers()
        for follower in followers:
            done = self.ends_with(follower.end(), OK)
            self.assertEqual(done.out.count("early\n"), 1)
            self.assertIn("late\n", done.out)
        self.ends_with(client.end(), OK)

    def test_a_machine_that_vanishes_while_it_offers_itself_is_skipped(self):
        elm, oak = self.join(ELM, "elm"), self.join(OAK, "oak")
        graph = f'map (i: {SLOW_STEP} "leaf-${{toString i}}" "echo > $out") [ 1 2 3 4 5 6 ]'
        drvs = self.instantiate(graph)
        elm.kill()
        self.ends_with(self.hub.build(*drvs), OK)
        self.assertEqual({a["node"] for a in self.hub.attempts()}, {"oak"})
        gone = wait_until("it is known to be offline", lambda: (lambda m: not m["online"] and m)(self.machines()["elm"]))
        self.assertLessEqual(gone["since_s"], gone["heard_s"])
        self.assertRegex(self.hub.admin("nodes").out, r"elm +offline ")
        self.ends_with(self.hub.admin("kill", "/coord/allocator"), OK)
        self.hub.kill()
        self.hub.start()
        still = wait_until("a hub that was started again knows of it", lambda: self.machines().get("elm"))
        self.assertFalse(still["online"])
        self.assertGreaterEqual(still["heard_s"], gone["heard_s"])
        elm.start()
        wait_until("it is back", lambda: self.machines()["elm"]["online"])

    def test_a_build_that_takes_all_cores_runs_alone_and_knows_how_many_it_has(self):
        self.join(ELM, "elm", 'features = ["slow", "big-parallel"]\nmax_jobs = 3\ncores = 2\n[machine]\ncores = 6\n')
        self.ends_with(self.hub.admin("drain"), OK)
        said = "echo it has $NIX_BUILD_CORES cores; sleep 100000 || true; echo > $out"
        small, = self.instantiate(f'{SLOW_STEP} "small" "{said}"')
        wide, = self.instantiate(f'make {{ requiredSystemFeatures = [ "slow" "big-parallel" ]; }} "wide" "{said}"')
        first = self.hub.build(small, start=True)
        wait_until("the small one runs", self.sleepers)
        second = self.hub.build(wide, start=True)
        text = wait_until("it is explained", lambda: (lambda t: "cores left" in t and t)(self.hub.coppice("explain", wide).out))
        self.assertRegex(text, r"machine +elm has 4 of 6 cores left, and this build takes 6")
        self.assertEqual(self.machines()["elm"]["cores_left"], 4)
        self.end_sleepers()
        self.ends_with(first.end(), OK)
        wait_until("the wide one runs", self.sleepers)
        wait_until("nothing is left", lambda: self.machines()["elm"]["cores_left"] == 0)
        self.end_sleepers()
        self.ends_with(second.end(), OK)
        self.assertIn("it has 2 cores\n", self.hub.coppice("log", small).out)
        self.assertIn("it has 6 cores\n", self.hub.coppice("log", wide).out)

    def test_a_machine_with_mandatory_features_takes_only_what_asks_for_them(self):
        self.join(ELM, "elm", 'mandatory_features = ["slow"]\n')
        plain, slow = self.instantiate(f'[ (step "plain" "echo > $out") ({SLOW_STEP} "slow" "echo > $out") ]')
        self.ends_with(self.hub.admin("drain"), OK)
        client = self.hub.build(plain, start=True)
        text = wait_until("it waits", lambda: (lambda t: "machine" in t and t)(self.hub.coppice("explain", plain).out))
        self.assertRegex(text, r"machine +elm takes only what requires feature 'slow'")
        self.ends_with(self.hub.build(slow), OK)
        self.ends_with(self.hub.admin("undrain"), OK)
        self.ends_with(client.end(), OK)
        self.assertEqual((self.nodes_of("plain"), self.nodes_of("slow")), ([("hub", "success")], [("elm", "success")]))


if __name__ == "__main__":
    farm.main()
