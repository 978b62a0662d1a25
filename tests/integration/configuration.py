"""The documented configuration boots, and what it says holds."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import farm
from farm import OK

DOCUMENTED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "config", "node.toml")


class Configuration(farm.TestCase):
    def test_a_node_boots_from_the_documented_configuration_and_builds(self):
        node = self.new_farm(settings=farm.read(DOCUMENTED))
        drv, = self.instantiate('step "one" "echo > $out"')
        self.ends_with(node.build(drv), OK)

    def test_a_limit_of_the_configuration_ends_a_build_in_its_own_class(self):
        node = self.new_farm(settings='[limits]\nmax_silent = "1 s"\n')
        drv, = self.instantiate('step "silent" "sleep 600; echo > $out"')
        self.ends_with(node.build(drv), farm.FAILED)
        self.assertEqual([a["result"] for a in node.attempts()], ["silent"])


if __name__ == "__main__":
    farm.main()
