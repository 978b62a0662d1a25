"""Inputs come from the nearest holder: a hub and two members, each on a machine of its own. What one member has built the
other gets from it, and whatever the holder does, from the farm's store."""

import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import OK, Hub, wait_until
from net import Network

HUB, ELM, OAK = 1, 2, 3
MB = 1 << 20
# What only the one or the other takes; both also take what asks for nothing.
ON = {"elm": 'features = ["elm"]\n', "oak": 'features = ["oak"]\n'}
BIG = 'make { requiredSystemFeatures = [ "elm" ]; } "big" "head -c %d /dev/urandom > $out"'
USER = 'make { requiredSystemFeatures = [ "oak" ]; } "user" "cksum < ${%s} > $out"'


class Holders(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.net = Network(3)
        self.addCleanup(self.net.close)
        self.hub = Hub(self.scratch, self.net.machine(HUB), settings='features = ["hub"]\n', jobs=1).start()

    def member(self, number, name, jobs=1, settings=""):
        text = ON[name] + 'log_level = "debug"\n' + settings
        node = self.hub.member(self.net.machine(number), name, text, jobs).start()
        wait_until(f"{name} offers itself", lambda: name in self.machines())
        return node

    def machines(self):
        return {row["node"]: row for row in self.hub.admin("nodes", "--json").json()}

    def members(self, **more):
        return self.member(ELM, "elm", **more), self.member(OAK, "oak", **more)

    def fetched(self, node, name):
        """(bytes from machines, bytes from the store) of the fetches of paths of that name, one for each time it was tried."""
        found = re.findall(r"fetched path=\S*-" + name + r" from_machines=(\d+) from_store=(\d+)", node.daemon.err())
        return [(int(held), int(stored)) for held, stored in found]

    def until_fetching(self, node):
        wait_until("an input is on its way", lambda: any("1 fetched" in a["doing"] for a in node.actors().values()))

    def build(self, expression):
        drv, = self.instantiate(expression)
        return self.ends_with(self.hub.build(drv), OK).out.strip()

    def nodes_of(self, name):
        return [a["node"] for a in self.hub.attempts() if farm.drv_name(a["drv"]) == name]

    def held_tree(self, node, out):
        return os.path.join(node.state, "local", "store", farm.base_name(out))

    def test_an_input_comes_straight_from_the_machine_that_built_it(self):
        elm, oak = self.members()
        big = BIG % (20 * MB)
        self.build(big)
        before = self.net.sent(HUB)
        self.build(USER % f"({big})")
        (held, stored), = self.fetched(oak, "big")
        self.assertGreater(held, 20 * MB)
        self.assertEqual(stored, 0)
        # packets of the hub carry at most 64 KiB each; what the hub said meanwhile is protocol
        self.assertLess(self.net.sent(HUB) - before, 20 * MB // 65536)
        self.assertEqual(self.nodes_of("user"), ["oak"])
        self.promises_kept(self.hub)

    def test_a_holder_that_dies_in_the_middle_is_followed_by_the_store_and_the_build_is_right(self):
        elm, oak = self.members()
        big = BIG % (24 * MB)
        out = self.build(big)
        self.net.slow(ELM, "16mbit")  # twelve seconds for it
        drv, = self.instantiate(USER % f"({big})")
        client = self.hub.build(drv, start=True)
        self.until_fetching(oak)
        time.sleep(3)
        elm.kill()
        used = self.ends_with(client.end(), OK).out.strip()
        (held, stored), = self.fetched(oak, "big")
        self.assertGreater(held, MB)
        self.assertGreater(stored, MB)
        self.assertLess(held + stored, 25 * MB)  # it was gone on with, not begun again
        self.assertEqual(self.sum_of(used), self.cksum(self.held_tree(oak, out)))
        self.promises_kept(self.hub)

    def test_a_transfer_that_is_cut_is_gone_on_with_at_the_same_machine(self):
        elm, oak = self.members()
        big = BIG % (24 * MB)
        self.build(big)
        self.net.slow(ELM, "16mbit")
        drv, = self.instantiate(USER % f"({big})")
        client = self.hub.build(drv, start=True)
        self.until_fetching(oak)
        time.sleep(2)
        self.net.refuse(OAK, ELM, 8080)
        time.sleep(0.3)
        self.net.accept(ELM)
        self.net.slow(ELM, None)
        self.ends_with(client.end(), OK)
        (held, stored), = self.fetched(oak, "big")
        self.assertEqual(stored, 0)
        self.assertLess(held, 25 * MB)

    def test_a_holder_with_a_flipped_byte_is_barred_and_the_build_is_right(self):
        elm, oak = self.members()
        big, more = BIG % (4 * MB), BIG.replace('"big"', '"more"') % (4 * MB)
        out = self.build(big)
        self.build(more)
        tree = self.held_tree(elm, out)
        with open(tree, "rb") as f:
            right = f.read()
        os.chmod(tree, 0o644)
        with open(tree, "r+b") as f:
            f.seek(2 * MB)
            f.write(bytes([right[2 * MB] ^ 1]))
        used = self.build(USER % f"({big})")
        self.assertIn("machine sent wrong bytes", oak.daemon.err())
        with open(self.held_tree(oak, out), "rb") as f:
            self.assertTrue(f.read() == right)
        self.assertEqual(self.sum_of(used), self.cksum(self.held_tree(oak, out)))
        self.build((USER % f"({more})").replace('"user"', '"user2"'))
        (held, stored), = self.fetched(oak, "more")
        self.assertEqual(held, 0)
        self.assertGreater(stored, 4 * MB)
        self.promises_kept(self.hub)

    def test_a_job_goes_to_the_machine_that_holds_its_large_input(self):
        elm, oak = self.member(ELM, "elm", jobs=2), self.member(OAK, "oak", jobs=3)
        wait_until("both are idle", lambda: {"elm", "oak"} <= set(self.machines()))
        big = BIG % (64 * MB)
        self.build(big)
        for i in range(3):  # oak has more free slots
            self.build(f'step "user{i}" "cksum < ${{{big}}} > $out"')
        self.assertEqual([self.nodes_of(f"user{i}") for i in range(3)], [["elm"]] * 3)
        self.assertEqual(self.fetched(oak, "big"), [])
        self.build('step "light" "echo > $out"')
        self.assertEqual(self.nodes_of("light"), ["oak"])

    def test_the_inputs_of_the_next_job_are_fetched_while_the_present_one_builds(self):
        elm, oak = self.members()
        big = BIG % (4 * MB)
        self.build(big)
        slow = self.instantiate('make { requiredSystemFeatures = [ "oak" ]; } "slow" "sleep 100000 || true; echo > $out"')
        present = self.hub.build(*slow, start=True)
        wait_until("its builder runs", self.sleepers)
        drv, = self.instantiate(USER % f"({big})")
        client = self.hub.build(drv, start=True)
        wait_until("the input is fetched ahead", lambda: self.fetched(oak, "big"))
        self.assertEqual(self.nodes_of("user"), [])
        self.assertTrue(self.sleepers())
        self.end_sleepers()
        self.ends_with(present.end(), OK)
        self.ends_with(client.end(), OK)
        self.assertEqual(len(self.fetched(oak, "big")), 1)

    def test_an_input_is_fetched_once_for_all_builds_of_a_machine(self):
        elm, oak = self.member(ELM, "elm"), self.member(OAK, "oak", jobs=3)
        big = BIG % (8 * MB)
        self.build(big)
        self.net.slow(ELM, "40mbit")
        users = " ".join('(%s)' % (USER % f"({big})").replace('"user"', f'"user{i}"') for i in range(3))
        self.ends_with(self.hub.build(*self.instantiate(f"[ {users} ]")), OK)
        self.assertEqual(len(self.fetched(oak, "big")), 1)

    def test_what_only_upstream_caches_have_reaches_a_member_by_the_farms_store(self):
        graph = '''let
          seed = step "seed" "echo of the seed > $out";
          lib = step "lib" "mkdir $out; seq 1 60000 > $out/numbers; ln -s ${seed} $out/seed";
        in make { requiredSystemFeatures = [ "elm" ]; } "app" "mkdir $out; ln -s ${lib} $out/lib; cat ${lib}/seed > $out/words"'''
        drv, = self.instantiate(graph)
        lib, = self.nix.lines("nix-store", "--realise", *(
            path for path in self.nix.lines("nix-store", "--query", "--references", "/nix/store/" + farm.base_name(drv))
            if path.endswith("-lib.drv")))
        secret, public = self.scratch.file("secret"), self.scratch.file("public")
        self.nix.run("nix-store", "--generate-binary-cache-key", "upstream-1", secret, public)
        self.nix.run("nix", "copy", "--to", f"file://{self.scratch.file('upstream')}?secret-key={secret}", lib)
        self.ends_with(self.hub.stop(), 0)
        self.hub = Hub(self.scratch, self.net.machine(HUB), jobs=1, settings=f'''features = ["hub"]
[upstream]
substituters = ["file://{self.scratch.file('upstream')}"]
trusted_public_keys = ["{farm.read(public).strip()}"]
''').start()
        elm = self.member(ELM, "elm")
        out = self.ends_with(self.hub.build(drv), OK).out.strip()
        self.assertEqual([(farm.drv_name(a["drv"]), a["node"], a["result"]) for a in self.hub.attempts()], [("app", "elm", "success")])
        self.assertEqual(farm.read(os.path.join(self.held_tree(elm, out), "words")), "of the seed\n")
        self.ends_with(elm.stop(), 0)
        nix = farm.Nix(self.scratch, "fresh", settings={"substituters": self.hub.ready["http"], "max-jobs": "0",
                                                        "trusted-public-keys": self.hub.ready["public_key"]})
        self.ends_with(self.scratch.run(["nix-store", "--realise", out], nix.env, inside=self.net.inside(OAK)), OK)
        self.promises_kept(self.hub)

    def sum_of(self, out):
        """What a user of the big input has made of it."""
        return self.hub_file(out).split()

    def hub_file(self, out):
        for node in (self.hub.state, self.scratch.file("oak"), self.scratch.file("elm")):
            path = os.path.join(node, "local", "store", farm.base_name(out))
            if os.path.exists(path):
                return farm.read(path)
        raise AssertionError(f"{out} is nowhere")

    def cksum(self, file):
        with open(file, "rb") as f:
            return subprocess.run(["cksum"], stdin=f, stdout=subprocess.PIPE, text=True, check=True).stdout.split()


if __name__ == "__main__":
    farm.main()
