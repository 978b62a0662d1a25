"""Outputs that are built and cannot be delivered are kept, whoever dies meanwhile (INV-12), and can be had."""

import fnmatch
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import farm
from farm import FAILED, OK, USAGE, Hub, wait_until
from net import Network


class Partial(farm.TestCase):
    @unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
    def test_a_store_that_refuses_costs_no_second_build_even_if_worker_uploader_and_pool_die(self):
        drv, = self.instantiate('step "slow" "sleep 2; date +%s%N > $out"')
        node = self.new_farm()
        client = node.build(drv, start=True)
        self.builders(node)
        # temporary files on another file system: every put fails when it is renamed into place
        store = os.path.join(node.state, "cache", ".tmp")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", store], check=True)
        try:
            wait_until("the lock to be partial", lambda: "partial" in node.admin("locks").out, 60)
            kept, = wait_until("its outputs are listed", lambda: node.admin("partial", "list", "--json").json())
            self.ends_with(node.admin("partial", "fetch", kept["outputs"][0], "--out", self.scratch.file("early")), OK)
            for path in ("/work/workers/*", "/work/uploads/*", "/work/worker-pool"):
                # an upload that has failed is away for a moment
                wait_until(f"a kill of {path}", lambda: self.killed(node, path), 60)
        finally:
            subprocess.run(["umount", store], check=True)
        self.ends_with(client.end(120), OK)
        self.assertEqual(len([a for a in node.attempts() if a["result"] == "success"]), 1, node.attempts())
        self.ends_with(node.coppice("build", drv, "--out-link", self.scratch.file("late")), OK)
        self.assertEqual(farm.read(self.scratch.file("early")), farm.read(self.scratch.file("late")))
        wait_until("the journal to be empty", lambda: not os.listdir(os.path.join(node.state, "kept")), 30)

    def killed(self, node, pattern):
        """Whether any actor of these could be killed."""
        some = [path for path in node.actors() if fnmatch.fnmatchcase(path, "/*" + pattern)]
        return any(node.admin("kill", path).code == OK for path in some)

    def test_a_cancel_reaches_a_build_although_the_lock_manager_was_killed(self):
        drv, = self.instantiate('step "slow" "sleep 600; echo > $out"')
        node = self.new_farm()
        request = node.submit(drv)
        builders = self.builders(node)
        self.assertTrue(self.killed(node, "/lock/lock-manager"))
        self.ends_with(node.coppice("cancel", request), OK)
        self.builders_gone(builders, 30)
        self.still_serves(node)


HUB, ELM, OAK = 1, 2, 3


class OnMembers(farm.TestCase):
    """A member has built what the hub's store does not take from it."""

    def setUp(self):
        super().setUp()
        self.net = Network(3)
        self.addCleanup(self.net.close)
        self.hub = Hub(self.scratch, self.net.machine(HUB), jobs=1).start()
        self.elm = self.hub.member(self.net.machine(ELM), "elm", 'features = ["slow"]\n').start()
        self.oak = self.hub.member(self.net.machine(OAK), "oak").start()
        wait_until("both offer themselves", lambda: len(self.hub.admin("nodes", "--json").json()) == 3)
        drv, = self.instantiate("""make { requiredSystemFeatures = [ "slow" ]; outputs = [ "out" "dev" ]; } "made"
          "sleep 100000 || true; mkdir -p $out/bin; date +%s%N > $out/when; ln -s ../when $out/bin/link; echo $out > $dev" """)
        self.client = self.hub.build(drv, start=True)
        wait_until("its builder runs", self.sleepers)
        self.net.refuse(ELM, HUB, 8080)
        self.end_sleepers()
        row, = wait_until("its outputs are kept", lambda: self.hub.admin("partial", "list", "--json").json())
        os.mkdir(self.scratch.file("to"))
        self.out, = (path for path in row["outputs"] if path.endswith("-made"))
        self.dev, = (path for path in row["outputs"] if path.endswith("-made-dev"))

    def fetch(self, asked, *words):
        return asked.admin("partial", "fetch", *words)

    def left(self):
        return os.listdir(self.scratch.file("to"))

    def uploaded(self):
        self.net.accept(HUB)
        self.ends_with(self.hub.admin("partial", "retry", "all"), OK)
        self.ends_with(self.client.end(), OK)
        self.assertEqual([(a["node"], a["result"]) for a in self.hub.attempts()], [("elm", "success")])

    def test_what_the_store_does_not_take_is_fetched_from_its_builder_by_whoever_reaches_it(self):
        tree, file = self.scratch.file("to", "tree"), self.scratch.file("to", "file")
        self.assertIn("from elm", self.ends_with(self.fetch(self.oak, self.out, "--out", tree), OK).out)
        fact, = self.ends_with(self.fetch(self.hub, self.dev, "--out", file, "--json"), OK).json()
        self.assertEqual((fact["path"], fact["node"], fact["out"]), (self.dev, "elm", file))
        self.assertEqual(farm.read(file), self.out + "\n")
        self.assertEqual(os.readlink(os.path.join(tree, "bin/link")), "../when")
        self.assertIn("is there already", self.ends_with(self.fetch(self.oak, self.out, "--out", tree), USAGE).err)
        self.uploaded()
        info = self.hub.narinfo(self.out)
        hashed = self.ends_with(self.scratch.run(["nix-hash", "--type", "sha256", "--base32", tree]), OK).out.strip()
        self.assertEqual("sha256:" + hashed, info["NarHash"])
        self.assertIn("not among", self.ends_with(self.fetch(self.hub, self.out, "--out", tree + "2"), USAGE).err)
        self.assertEqual(sorted(self.left()), ["file", "tree"])

    def test_a_builder_that_cannot_be_reached_or_gives_other_bytes_is_named(self):
        to = self.scratch.file("to", "tree")
        self.net.refuse(HUB, ELM, 8080)
        told = self.ends_with(self.fetch(self.hub, self.out, "--out", to), FAILED).err
        self.assertRegex(told, rf"cannot fetch {self.out} from elm: http://{self.net.address(ELM)}:8080/held/")
        when = os.path.join(self.elm.state, "local/store", farm.base_name(self.out), "when")
        text = farm.read(when)
        farm.write(when, text[::-1])
        told = self.ends_with(self.fetch(self.oak, self.out, "--out", to), FAILED).err
        self.assertRegex(told, r"from elm: .*its NAR has the hash [0-9a-f]{64}, and [0-9a-f]{64} was built")
        self.assertEqual(self.left(), [])
        farm.write(when, text)
        self.ends_with(self.fetch(self.oak, self.out, "--out", to), OK)
        self.elm.pause()
        self.addCleanup(self.elm.resume)
        told = self.ends_with(self.fetch(self.hub, self.dev, "--out", to + "2"), USAGE).err
        self.assertIn("no answer from elm", told)


if __name__ == "__main__":
    farm.main()
