"""Each of the derivations in tests/data/nix/generated ends as Nix 2.8.0 wrote down: the outputs' paths, NAR hashes, sizes
and references, or the failure. What is not supported yet is refused with a reason."""

import json
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import FAILED, OK

DATA = os.path.join(farm.ROOT, "tests/data/nix/generated")

# Built as Nix builds them.
BUILT = """
    minimal one-dep two-deps diamond same-dep-twice empty-env-values env-order env-shadows big-env escapes unicode
    pass-as-file long-name self-ref features
    multi-out multi-no-out uses-one-output uses-all-outputs
    src-file src-dir src-text src-text-with-ref src-named-path src-filtered drv-as-input drv-closure-as-input
    fod-flat-md5 fod-flat-sha1 fod-flat-sha256 fod-flat-sha512 fod-flat-sri fod-recursive-sha1 fod-recursive-sha256
    fod-variant uses-fod uses-fod-variant
    structured export-graph export-graph-structured checks builtin-fetchurl
""".split()

# Failing as with Nix and in its words: the class.
FAILING = {"fod-wrong-hash": "hash_mismatch", "impure-env": "hash_mismatch", "no-args": "build_failed", "no-chroot": "unsupported"}

# Failing as with Nix, in words of its own.
OWN_WORDS = {"other-system": ("unplaceable", "no machine can build it: .*aarch64-linux")}

# Refused: what the reason must name.
REFUSED = {
    "ca": "content-addressed",
    "ca-flat": "content-addressed",
    "ca-self-ref": "content-addressed",
    "ca-multi": "content-addressed",
    "ca-chain": "content-addressed",
    "deferred": "content-addressed",
    "deferred-2": "content-addressed",
}


def normalised(line):
    """Without what depends on the place: indentation, the sandbox's root, the program's own prefix."""
    return " ".join(line.split()).removeprefix("error: ").split(" at '")[0]


class Fixtures(farm.TestCase):
    def setUp(self):
        super().setUp()
        with open(os.path.join(DATA, "expected.json"), encoding="utf-8") as f:
            self.expected = json.load(f)["derivations"]
        # The repository holds the symbolic link of the sources as a file with the target in it.
        graph = self.scratch.file("graph")
        shutil.copytree(DATA, graph)
        link = os.path.join(graph, "src/link")
        os.remove(link)
        os.symlink("hello.txt", link)
        names = list(self.expected)
        drvs = farm.Nix(self.scratch).instantiate(os.path.join(graph, "drvs.nix"), *[w for n in names for w in ("-A", n)])
        self.drvs = dict(zip(names, drvs))
        self.node = self.new_farm(settings='features = ["big-parallel", "kvm"]\n[failures]\nfail_unplaceable = true\n')

    def build(self, name, code):
        done = self.ends_with(self.node.build(self.drvs[name], "--json"), code)
        root, = done.json()
        return done, root

    def test_the_graph_is_the_one_that_was_written_down(self):
        self.assertEqual({n: "/nix/store/" + farm.base_name(d) for n, d in self.drvs.items()},
                         {n: e["drvPath"] for n, e in self.expected.items()})
        for drv in self.drvs.values():
            with open(drv, "rb") as made, open(os.path.join(DATA, "drv", farm.base_name(drv)), "rb") as kept:
                self.assertEqual(made.read(), kept.read())

    def test_every_fixture_has_its_outcome_below(self):
        self.assertEqual(sorted(self.expected), sorted([*BUILT, *FAILING, *OWN_WORDS, *REFUSED]))

    def test_outputs_are_those_of_nix(self):
        for name in BUILT:
            with self.subTest(name):
                _, root = self.build(name, OK)
                ours, theirs = {}, {}
                for output, built in self.expected[name]["built"].items():
                    theirs[output] = (built["path"], farm.hash_bytes(built["narHash"]), built["narSize"],
                                      [farm.base_name(r) for r in sorted(built["references"])])
                for output, path in root["outputs"].items():
                    info = self.node.narinfo(path)
                    ours[output] = (path, farm.hash_bytes(info["NarHash"]), int(info["NarSize"]), info["References"])
                self.assertEqual(ours, theirs)

    def test_failures_are_those_of_nix(self):
        for name, result in FAILING.items():
            with self.subTest(name):
                done, root = self.build(name, FAILED)
                self.assertEqual(root["result"], result)
                said = "\n".join(normalised(line) for line in done.err.splitlines())
                for line in self.expected[name]["buildError"]:
                    self.assertIn(normalised(line), said)

    def test_what_no_machine_can_build_is_refused_if_so_told(self):
        for name, (result, words) in OWN_WORDS.items():
            with self.subTest(name):
                done, root = self.build(name, FAILED)
                self.assertEqual(root["result"], result)
                self.assertRegex(done.err, words)

    def test_what_is_not_supported_yet_is_refused_by_name(self):
        for name, words in REFUSED.items():
            with self.subTest(name):
                done, root = self.build(name, FAILED)
                self.assertRegex(done.err, words)
                self.assertIn(root["result"], ("unsupported", "dependency_failed", "unplaceable"))
                self.assertEqual(root["outputs"], {})


if __name__ == "__main__":
    farm.main()
