"""Real software (zlib, bzip2, zstd, Lua, jq and their tests, one derivation per compile unit), built by a solo node and by
stock Nix in its sandbox: all outputs of all derivations are the same bit for bit, and stock Nix accepts all of ours."""

import concurrent.futures
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import OK

DERIVATIONS_MIN = 120  # fewer would not be that workload


class RealWorkload(farm.TestCase):
    def test_every_output_is_that_of_stock_nix_and_accepted_by_it(self):
        oracle = farm.Nix(self.scratch, "oracle")
        root, = oracle.instantiate(os.path.join(farm.ROOT, "bench/workloads/real/default.nix"), "-A", "all", "--arg", "sources",
                                   farm.real_sources(), "--arg", "withXz", "false")
        drv = "/nix/store/" + farm.base_name(root)
        graph = [p for p in oracle.lines("nix-store", "--query", "--requisites", drv) if p.endswith(".drv")]
        self.assertGreaterEqual(len(graph), DERIVATIONS_MIN)
        node = self.new_farm()

        done = self.ends_with(node.build(root), OK)
        self.assertEqual([a["result"] for a in node.attempts()], ["success"] * len(graph))
        oracle.run("nix-store", "--realise", drv, seconds=900)

        outputs = sorted(set(oracle.lines("nix-store", "--query", "--outputs", *graph)))
        self.assertIn(done.out.strip(), outputs)
        theirs = {info["path"]: facts(info["narHash"], info["narSize"], info["references"])
                  for info in json.loads(oracle.run("nix", "path-info", "--json", *outputs).out)}
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            infos = dict(zip(outputs, pool.map(node.narinfo, outputs)))
        ours = {path: facts(info["NarHash"], int(info["NarSize"]), info["References"]) for path, info in infos.items()}
        self.assertEqual({path: (ours[path], theirs[path]) for path in outputs if ours[path] != theirs[path]}, {})

        # Every narinfo, every signature, every NAR.
        taker = farm.Nix(self.scratch, "taker", {"trusted-public-keys": node.ready["public_key"]})
        taker.run("nix", "copy", "--from", node.ready["http"], *outputs)
        taker.run("nix", "store", "verify", *outputs)
        self.assertEqual(taker.lines("nix-store", "--query", "--hash", *outputs), oracle.lines("nix-store", "--query", "--hash", *outputs))


def facts(nar_hash, size, references):
    return farm.hash_bytes(nar_hash).hex(), size, sorted(farm.base_name(r) for r in references)


if __name__ == "__main__":
    farm.main()
