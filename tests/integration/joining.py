"""A machine joins a farm by what its hub prints for it, and nothing else."""

import os
import sys
import tomllib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import OK, USAGE, Hub
from net import Network


def public_key(node):
    """Of the key that it serves with."""
    return tomllib.loads(farm.read(os.path.join(node.state, "endpoint.toml")))["server_key"]


class Joining(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.net = Network(2)
        self.addCleanup(self.net.close)
        self.hub = Hub(self.scratch, self.net.machine(1)).start()

    def authorized(self):
        """{name: (role, public key)} of those who are let in by the hub."""
        keys = tomllib.loads(farm.read(os.path.join(self.hub.state, "authorized.toml")))["key"]
        return {key["name"]: (key["role"], key["public_key"]) for key in keys}

    def member(self, *words):
        """A daemon with these options on the second machine, which ends at once."""
        argv = [os.path.join(farm.BIN, "coppiced"), "--state-dir", self.scratch.file("elm"), *words]
        return self.scratch.run(argv, inside=self.net.inside(2))

    def test_an_invitation_is_all_the_settings_that_a_machine_needs(self):
        text = self.hub.invite("elm")
        self.assertLessEqual(len(text.splitlines()), 10)
        says = tomllib.loads(text)
        self.assertEqual(list(says), ["node", "hub", "hub_node", "hub_key", "secret_key"])
        self.assertEqual(list(says.values())[:4], ["elm", "tcp://10.77.0.1:5000", "hub", public_key(self.hub)])
        self.assertEqual(self.authorized()["elm"][0], "node")

    def test_an_invitation_says_where_others_reach_the_machine_if_that_is_known(self):
        done = self.ends_with(self.hub.admin("invite", "elm", "--http", "elm.example:8080"), OK)
        says = tomllib.loads(done.out)
        self.assertEqual((says["http"], says["http_url"]), ("0.0.0.0:8080", "http://elm.example:8080"))
        for wrong in ("elm.example", "elm.example:0", ":8080", "http://elm.example:8080/x"):
            self.assertIn("HOST:PORT", self.ends_with(self.hub.admin("invite", "oak", "--http", wrong), USAGE).err)
        self.assertNotIn("oak", self.authorized())

    def test_the_hub_knows_a_member_by_the_key_that_it_was_given_over_restarts_and_new_invitations(self):
        elm = self.hub.member(self.net.machine(2), "elm")
        for _ in range(2):
            elm.start()
            self.assertEqual(elm.ready["node"], "elm")
            self.assertEqual(public_key(elm), self.authorized()["elm"][1])
            self.assertEqual(elm.admin("nodes").code, OK)
            self.assertEqual(elm.stop().code, 0)
        former = self.authorized()["elm"]
        self.assertEqual(self.hub.admin("revoke", "elm").code, OK)
        self.assertNotIn("elm", self.authorized())
        elm = self.hub.member(self.net.machine(2), "elm").start()
        self.assertEqual(public_key(elm), self.authorized()["elm"][1])
        self.assertNotEqual(self.authorized()["elm"], former)
        self.assertEqual(elm.admin("nodes").code, OK)

    def test_a_name_that_is_taken_or_is_none_is_not_invited(self):
        self.hub.invite("elm")
        before = self.authorized()
        for name, why in (("elm", "taken"), ("hub", "taken"), ("local", "taken"), ("el/m", "no name"), ("", "no name")):
            self.assertIn(why, self.ends_with(self.hub.admin("invite", name), USAGE).err)
        self.assertEqual(self.authorized(), before)

    def test_where_the_hub_can_be_reached_has_to_be_known(self):
        solo = self.new_farm()
        self.assertIn("--hub", self.ends_with(solo.admin("invite", "elm"), USAGE).err)
        self.assertIn("no endpoint", self.ends_with(solo.admin("invite", "elm", "--hub", "oak:5000"), USAGE).err)
        done = self.ends_with(solo.admin("invite", "elm", "--hub", "tcp://oak.example:5000"), OK)
        self.assertEqual(tomllib.loads(done.out)["hub"], "tcp://oak.example:5000")

    def test_settings_that_others_may_read_or_that_lack_something_are_refused(self):
        text = self.hub.invite("elm")
        file = farm.write(self.scratch.file("elm.toml"), text)
        self.assertIn("others may read", self.ends_with(self.member("--config", file), USAGE).err)
        os.chmod(file, 0o600)
        for key in ("node", "hub", "hub_node", "hub_key", "secret_key"):
            farm.write(file, "".join(line + "\n" for line in text.splitlines() if not line.startswith(key + " ")))
            self.assertIn("needs node, hub, hub_node, hub_key and secret_key", self.ends_with(self.member("--config", file), USAGE).err)
        lines = text.splitlines()
        for key in ("hub_key", "secret_key"):
            farm.write(file, "".join((f'{key} = "short"' if line.startswith(key + " ") else line) + "\n" for line in lines))
            self.assertIn("40 characters of z85", self.ends_with(self.member("--config", file), USAGE).err)


if __name__ == "__main__":
    farm.main()
