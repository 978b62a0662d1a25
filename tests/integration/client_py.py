"""A client in another language, written after docs/protocol.md, is as good as any: examples/client.py."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import FAILED, OK, UNREACHABLE

CLIENT = os.path.join(farm.ROOT, "examples/client.py")
EXAMPLES = os.path.join(farm.ROOT, "examples")


class ClientInPython(farm.TestCase):
    def client(self, node, drv, key=None):
        """The client as started by hand, where stock Nix has its store."""
        key = key or os.path.join(node.state, "keys/client.toml")
        return self.scratch.start([CLIENT, node.ready["listen"], key, drv], self.nix.env)

    def test_what_it_builds_is_what_stock_nix_builds(self):
        node = self.new_farm()
        farm.write(self.scratch.file("work", "data/file?.txt"), "of a source\n")
        mine = self.expression('''make { src = ./data; text = builtins.toFile "a?b" "see ${./data}"; outputs = [ "out" "lib" ]; }
          "sources" "cat $src/file* $text > $out; echo $out > $lib"''')
        for drv in self.nix.instantiate(os.path.join(EXAMPLES, "hello.nix")) + self.nix.instantiate(mine):
            done = self.ends_with(self.client(node, drv).end(), OK)
            theirs = self.nix.lines("nix-store", "--realise", "/nix/store/" + farm.base_name(drv))
            self.assertEqual(sorted(done.out.split()), sorted(theirs))
            for path in theirs:
                hash_and_references = (farm.hash_bytes(node.narinfo(path)["NarHash"]), node.narinfo(path)["References"])
                self.assertEqual(hash_and_references, self.as_stock_nix_has(path))

    def as_stock_nix_has(self, path):
        nar_hash, = self.nix.lines("nix-store", "--query", "--hash", path)
        references = self.nix.lines("nix-store", "--query", "--references", path)
        return farm.hash_bytes(nar_hash), sorted(farm.base_name(r) for r in references)

    def test_it_tells_what_happens_and_finds_again_what_is_built(self):
        node = self.new_farm()
        drv, = self.nix.instantiate(os.path.join(EXAMPLES, "hello.nix"))
        first, again = (self.ends_with(self.client(node, drv).end(), OK) for _ in range(2))
        self.assertEqual([line for line in first.err.splitlines() if line.startswith("hello.drv")],
                         ["hello.drv: building", "hello.drv: built"])
        self.assertEqual((again.out, again.err), (first.out, "hello.drv: reused\n"))

    def test_a_build_that_fails_ends_it_with_1_and_the_end_of_the_log(self):
        node = self.new_farm()
        drv, = self.nix.instantiate(os.path.join(EXAMPLES, "broken.nix"), "-A", "failing")
        done = self.ends_with(self.client(node, drv).end(), FAILED)
        self.assertEqual(done.out, "")
        self.assertIn("this goes wrong", done.err)
        self.assertIn("top.drv: not attempted", done.err)

    def test_a_key_that_nobody_let_in_is_told_so(self):
        node = self.new_farm()
        drv, = self.nix.instantiate(os.path.join(EXAMPLES, "hello.nix"))
        stranger = self.scratch.file("stranger.toml")
        self.ends_with(node.admin("keygen", "stranger", "--out", stranger), OK)
        done = self.ends_with(self.client(node, drv, stranger).end(), UNREACHABLE)
        self.assertEqual(done.err, f"client.py: {node.ready['listen']} does not know this key: its authorized.toml does not have it\n")
        self.assertEqual(node.attempts(), [])

    def test_a_key_that_may_only_look_is_told_so(self):
        node = self.new_farm()
        drv, = self.nix.instantiate(os.path.join(EXAMPLES, "hello.nix"))
        key = self.key_of(node, "observer")[-1]
        done = self.ends_with(self.client(node, drv, key).end(), UNREACHABLE)
        self.assertRegex(done.err, r"^client.py: .*needs role submitter.* \(error 21\)\n$")

    def test_it_outlives_kill_9_of_the_node(self):
        node = farm.Farm(self.scratch, listen=f"tcp://127.0.0.1:{farm.free_port()}", http=f"127.0.0.1:{farm.free_port()}").start()
        drv, = self.instantiate('step "slow" "sleep 2; echo > $out"')
        client = self.client(node, drv)
        farm.wait_until("it is being built", lambda: "building" in client.err())
        node.kill()
        node.start()
        self.ends_with(client.end(), OK)
        self.assertEqual(node.attempts_at("slow").count("success"), 1)


if __name__ == "__main__":
    farm.main()
