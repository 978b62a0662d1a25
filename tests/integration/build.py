"""Building: what is built, how often, and where it can be had."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import OK

HELLO = os.path.join(farm.ROOT, "examples/hello.nix")


class Build(farm.TestCase):
    def test_an_expression_is_built_and_result_links_to_its_output(self):
        node = self.new_farm()
        done = self.ends_with(node.coppice("build", HELLO), OK)
        result = self.scratch.file("work", "result")
        self.assertRegex(farm.read(result), r"^hello, coppice \(from /nix/store/[0-9a-z]{32}-both\)\n$")
        self.assertEqual(farm.base_name(done.out.strip()), farm.base_name(os.path.realpath(result)))
        self.assertIn("4 derivations: 4 built, 0 reused", done.err)
        self.assertEqual([a["result"] for a in node.attempts()], ["success"] * 4)

    def test_a_derivation_file_is_built_without_any_nix(self):
        node = self.new_farm()
        drv, = farm.Nix(self.scratch).instantiate(HELLO)
        bare = self.scratch.file("bare")
        os.mkdir(bare)
        env = {"PATH": bare}  # no nix-instantiate
        done = self.ends_with(node.coppice("build", drv, "--json", env=env), OK)
        root, = done.json()
        self.assertEqual(farm.base_name(root["drv"]), farm.base_name(drv))
        self.assertEqual(farm.read(self.scratch.file("work", "result")).split(" (")[0], "hello, coppice")
        self.assertEqual(root["outputs"]["out"], "/nix/store/" + farm.base_name(os.readlink(self.scratch.file("work", "result"))))

    def test_several_roots_and_outputs_make_several_links(self):
        node = self.new_farm()
        drvs = self.instantiate('''[
          (make { outputs = [ "out" "dev" ]; } "two" "echo o > $out; echo d > $dev")
          (step "one" "echo 1 > $out") ]''')
        self.ends_with(node.coppice("build", drvs[0] + "!dev,out", drvs[1], "-o", "made"), OK)
        texts = {name: farm.read(self.scratch.file("work", name)) for name in ("made", "made-dev", "made-2")}
        self.assertEqual(texts, {"made": "o\n", "made-dev": "d\n", "made-2": "1\n"})

    def test_stock_nix_substitutes_the_closure_over_http(self):
        node = self.new_farm()
        out = "/nix/store/" + farm.base_name(self.ends_with(node.coppice("build", HELLO), OK).out.strip())
        nix = farm.Nix(self.scratch, settings={"substituters": node.ready["http"], "max-jobs": "0",
                                               "trusted-public-keys": node.ready["public_key"]})
        nix.run("nix-store", "--realise", out)
        closure = nix.lines("nix-store", "--query", "--requisites", out)
        self.assertEqual(sorted(farm.drv_name(p) for p in closure), ["both", "hello"])
        self.assertEqual(farm.read(nix.real(out)), farm.read(self.scratch.file("work", "result")))
        nix.run("nix", "store", "verify", "--recursive", out)

    def test_stock_nix_refuses_the_outputs_when_it_trusts_another_key(self):
        node = self.new_farm()
        out = "/nix/store/" + farm.base_name(self.ends_with(node.coppice("build", HELLO), OK).out.strip())
        name, _ = node.ready["public_key"].split(":")
        nix = farm.Nix(self.scratch, settings={"substituters": node.ready["http"], "max-jobs": "0",
                                               "trusted-public-keys": name + ":" + "A" * 43 + "="})
        self.assertNotEqual(nix.run("nix-store", "--realise", out, check=False).code, 0)
        self.assertFalse(os.path.exists(nix.real(out)))

    def test_nix_log_finds_the_log(self):
        node = self.new_farm()
        drv, = self.instantiate('step "talks" "echo some words; echo more >&2; echo > $out"')
        self.ends_with(node.build(drv), OK)
        path = "/nix/store/" + farm.base_name(drv)
        out, = self.nix.lines("nix-store", "--query", "--outputs", path)
        logs = {
            "nix log OUTPUT": self.nix.run("nix", "log", "--store", node.ready["http"], out).out,
            "nix log DRV": self.nix.run("nix", "log", path, "--option", "substituters", node.ready["http"]).out,
            "coppice log": self.ends_with(node.coppice("log", path), OK).out,
            "http": node.http("log/" + farm.base_name(drv)).decode(),
        }
        self.assertEqual(logs, dict.fromkeys(logs, "some words\nmore\n"))

    def test_two_clients_at_once_share_one_build_of_each_derivation(self):
        node = self.new_farm()
        drv, = self.instantiate('''let
          many = map (i: step "leaf-${toString i}" "sleep 0.2; echo ${toString i} > $out") [ 1 2 3 4 5 6 7 8 ];
          slow = step "slow" "sleep 2; echo > $out"; in step "top" "echo ${toString many} ${slow} > $out"''')
        clients = [node.build(drv, start=True) for _ in range(2)]
        ends = [self.ends_with(c.end(), OK) for c in clients]
        self.assertEqual(ends[0].out, ends[1].out)
        self.assertEqual(self.per_inhash(node), [["success"]] * 10)

    def test_the_same_request_again_builds_nothing_and_waits_for_nothing(self):
        node = self.new_farm(jobs=1)
        drv, = self.instantiate('let a = step "a" "echo > $out"; in step "b" "echo ${a} > $out"')
        self.ends_with(node.build(drv), OK)
        attempts = node.attempts()
        # The only slot is taken: whatever queues now, waits.
        sleeper = node.submit(*self.instantiate('step "sleeper" "sleep 1000"', name="sleeper"))
        self.builders(node)
        again = self.ends_with(node.build(drv), OK)
        self.assertIn("0 built", again.err)
        self.assertNotRegex(again.err, "building|waiting")
        self.assertEqual([a for a in node.attempts() if a["result"] != "running"], attempts)
        self.ends_with(node.coppice("cancel", sleeper), OK)

    def test_a_part_that_is_built_is_reused_by_another_request(self):
        node = self.new_farm()
        both = self.instantiate('let a = step "a" "echo > $out"; in [ a (step "b" "echo ${a} > $out") ]')
        self.ends_with(node.build(both[0]), OK)
        self.assertIn("1 built, 1 reused", self.ends_with(node.build(both[1]), OK).err)
        self.assertEqual(self.per_inhash(node), [["success"]] * 2)

    def test_sources_are_sent_once(self):
        node = self.new_farm()
        farm.write(self.scratch.file("work", "data/file.txt"), "of the source\n")
        drvs = self.instantiate('''map (n: make { src = ./data; } n "cat $src/file.txt > $out") [ "x" "y" ]''')
        for drv in drvs:
            done = self.ends_with(node.coppice("build", drv, "--no-link"), OK)
            self.assertEqual(farm.read(self.scratch.file("data/coppice/store", farm.base_name(done.out.strip()))), "of the source\n")

    def per_inhash(self, node):
        results = {}
        for a in node.attempts():
            results.setdefault(a["inhash"], []).append(a["result"])
        return list(results.values())


if __name__ == "__main__":
    farm.main()
