"""For tests of builds that stock Nix does beside: both must end in the same way."""

import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import farm
from farm import FAILED, OK

# Inside: `structured NAME SCRIPT` is a derivation with structured attributes; `closure` has 25 paths that refer to each
# other, `top` is the last of them.
PRELUDE = r'''
  structured = attrs: name: script: derivation ({
    inherit name; system = "x86_64-linux"; builder = "/bin/bash"; __structuredAttrs = true;
    args = [ "-ec" "source ./.attrs.sh; PATH=/usr/bin:/bin; ${script}" ]; } // attrs);
  none = "0000000000000000000000000000000000000000000000000000";
  leaf = step "leaf" "echo leaf > $out";
  link = n: below: step "link-${toString n}"
    "mkdir $out; head -c ${toString (n * 100)} /dev/zero > $out/f; echo ${toString below} $out > $out/refs";
  closure = builtins.foldl' (have: n: [ (link n (if n < 5 then [ leaf ] else [ (builtins.head have) (builtins.elemAt have 2) ])) ] ++ have)
    [ ] (builtins.genList (i: i) 25);
  top = builtins.head closure;
'''


def normalised(line):
    return " ".join(line.split()).removeprefix("error: ")


class BesideNix(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.node = self.new_farm(settings='features = ["big-parallel", "kvm"]\n')

    def cases(self, attributes):
        """{name: .drv} of the attributes of that set."""
        file = self.expression("let " + PRELUDE + " in { " + attributes + " }")
        names = json.loads(self.nix.run("nix-instantiate", "--eval", "--strict", "--json", "-E",
                                             f"builtins.attrNames (import {file})").out)
        drvs = self.nix.instantiate(file, *[w for n in names for w in ("-A", n)])
        return dict(zip(names, drvs))

    def same_as_nix(self, attributes):
        for name, drv in self.cases(attributes).items():
            with self.subTest(name):
                self.ends_with(self.node.build(drv), OK)
                theirs, ours = {}, {}
                for path in self.nix.lines("nix-store", "--realise", "/nix/store/" + farm.base_name(drv)):
                    info, = json.loads(self.nix.run("nix", "path-info", "--json", path).out)
                    theirs[path] = (farm.hash_bytes(info["narHash"]), info["narSize"], sorted(map(farm.base_name, info["references"])))
                    said = self.node.narinfo(path)
                    ours[path] = (farm.hash_bytes(said["NarHash"]), int(said["NarSize"]), said["References"])
                self.assertEqual(ours, theirs)

    def fails_as_with_nix(self, attributes, result):
        for name, drv in self.cases(attributes).items():
            with self.subTest(name):
                theirs = self.nix.run("nix-store", "--realise", "/nix/store/" + farm.base_name(drv), check=False)
                self.assertNotEqual(theirs.code, 0)
                ours = self.ends_with(self.node.build(drv, "--json"), FAILED)
                root, = ours.json()
                self.assertEqual(root["result"], result)
                said = [normalised(line) for line in ours.err.splitlines()]
                start = theirs.err.index("error: ")
                # Nix says where outputs lie on the host, and adds the output's name in one text
                plain = re.sub(r"/[^' ]*/nix/store/[^/]*\.drv\.chroot", "", theirs.err[start:]).replace(" for output 'out';", ";")
                for line in plain.splitlines():
                    self.assertTrue(any(normalised(line) in s for s in said), (line, said))
