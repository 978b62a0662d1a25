"""The farm's store in a bucket of a real S3 server: Ceph's RGW, started by the tests."""

import contextlib
import http.client
import json
import os
import sys
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
import rgw
from farm import OK, USAGE, Farm, wait_until

EXAMPLE = os.path.join(farm.ROOT, "examples/hello.nix")
BUCKET = "farm"
# What a farm's own user may do, and the user of a member: all but write what binary caches show. docs/operations.md
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/coppice"]}, "Action": "s3:*",
         "Resource": ["arn:aws:s3:::farm", "arn:aws:s3:::farm/*"]},
        {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/elm"]}, "Resource": ["arn:aws:s3:::farm", "arn:aws:s3:::farm/*"],
         "Action": ["s3:GetObject", "s3:ListBucket", "s3:ListBucketMultipartUploads"]},
        {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/elm"]}, "Action": ["s3:PutObject", "s3:AbortMultipartUpload"],
         "Resource": [f"arn:aws:s3:::farm/{folder}/*" for folder in ("nar", "closures", "log", "attempts")]},
    ],
}


class S3(farm.TestCase):
    store = "memstore"

    def setUp(self):
        super().setUp()
        self.rgw = rgw.Rgw(self.scratch.file("ceph"), self.store)
        self.addCleanup(self.rgw.close)
        self.rgw.make_bucket(BUCKET)

    def table(self, name="coppice", access=rgw.ACCESS_KEY, secret=rgw.SECRET_KEY, more=""):
        """The [s3] of a node's settings."""
        file = farm.write(self.scratch.file("credentials", name),
                          f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
        os.chmod(file, 0o600)
        return f'[s3]\nbucket = "{BUCKET}"\nendpoint = "{self.rgw.endpoint}"\ncredentials_file = "{file}"\n{more}'

    def hub(self, more="", **options):
        return self.new_farm(settings='node = "hub"\n' + self.table(more=more), **options)

    def substituted(self, node, out):
        """What stock Nix gets of that output from the node's binary cache."""
        nix = farm.Nix(self.scratch, farm.new_word(), settings={
            "substituters": node.ready["http"], "max-jobs": "0", "trusted-public-keys": node.ready["public_key"]})
        nix.run("nix-store", "--realise", out)
        nix.run("nix", "store", "verify", "--recursive", out)
        return nix.real(out)

    def got(self, node, path, method="GET"):
        """(status, headers, body), redirects not followed."""
        with contextlib.closing(http.client.HTTPConnection(urllib.parse.urlsplit(node.ready["http"]).netloc, timeout=60)) as connection:
            connection.request(method, "/" + path)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()

    def promises_kept(self, node, *answers, told=()):
        self.rgw.mirror(BUCKET, os.path.join(node.state, "cache"))  # where the checker looks
        return super().promises_kept(node, *answers, told=told)

    def large(self, mib, more="{ }"):
        """A derivation with an output of that many MiB that does not compress."""
        drv, = self.instantiate(f'make {more} "large" "head -c {mib}M /dev/urandom > $out"')
        return drv

    def outputs(self, done):
        return ["/nix/store/" + farm.base_name(line) for line in done.out.split()]


class Conformance(S3):
    def test_the_store_does_what_every_store_of_blobs_does(self):
        done = self.scratch.run([os.path.join(farm.BIN, "test_s3")], self.rgw.variables())
        self.assertEqual(done.code, 0, str(done))


class Farms(S3):
    def test_stock_nix_substitutes_what_was_built_from_the_bucket(self):
        hub = self.hub()
        out, = self.outputs(self.ends_with(hub.coppice("build", EXAMPLE), OK))
        self.assertRegex(farm.read(self.scratch.file("work", "result")), r"^hello, coppice ")
        self.assertFalse(os.path.exists(os.path.join(hub.state, "cache")), "there is a store on the disk, too")
        self.assertEqual(farm.read(self.substituted(hub, out)), farm.read(self.scratch.file("work", "result")))
        nar = hub.narinfo(out)["URL"]
        status, headers, _ = self.got(hub, nar)
        self.assertEqual(status, 307)
        self.assertTrue(headers["Location"].startswith(f"{self.rgw.endpoint}/{BUCKET}/{nar}?"), headers)
        self.assertEqual(self.got(hub, nar, "HEAD")[0], 200)
        self.assertIn("nix-cache-info", self.rgw.keys(BUCKET))
        self.assertEqual(self.ends_with(hub.coppice("build", EXAMPLE, "--no-link"), OK).err.count("0 built"), 1)
        self.promises_kept(hub)

        hub = self.hub(more="redirect = false\n")
        self.assertEqual(self.got(hub, nar)[0], 200)
        self.assertEqual(farm.read(self.substituted(hub, out)), farm.read(self.scratch.file("work", "result")))

    def test_stock_nix_substitutes_from_the_bucket_alone(self):
        """The bucket itself is a binary cache, to whom it may be read by."""
        hub = self.hub()
        out, = self.outputs(self.ends_with(hub.coppice("build", EXAMPLE), OK))
        public = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
                                                           "Resource": f"arn:aws:s3:::{BUCKET}/*"}]}
        status, _, body = self.rgw.request("PUT", BUCKET, query={"policy": ""}, body=json.dumps(public).encode())
        self.assertIn(status, (200, 204), body)
        self.ends_with(hub.stop(), 0)
        hub.ready["http"] = f"{self.rgw.endpoint}/{BUCKET}"
        self.assertEqual(farm.read(self.substituted(hub, out)), farm.read(self.scratch.file("work", "result")))

    def test_a_member_puts_what_it_built_straight_into_the_bucket(self):
        secret = "elmsecretkey"
        self.rgw.make_user("elm", "ELMACCESSKEY", secret)
        status, _, body = self.rgw.request("PUT", BUCKET, query={"policy": ""}, body=json.dumps(POLICY).encode())
        self.assertIn(status, (200, 204), body)
        listen = f"tcp://127.0.0.1:{farm.free_port()}"
        hub = self.hub(listen=listen)
        told = self.ends_with(hub.admin("invite", "elm", "--hub", listen), OK).out
        elm = Farm(self.scratch, state=self.scratch.file("elm"),
                   settings=told + 'features = ["elm"]\n' + self.table("elm", "ELMACCESSKEY", secret)).start()
        wait_until("elm offers itself", lambda: '"elm"' in hub.admin("nodes", "--json").out)
        drv = self.large(40, '{ requiredSystemFeatures = [ "elm" ]; }')
        out, = self.outputs(self.ends_with(hub.build(drv), OK))
        nar = hub.narinfo(out)["URL"]
        owners = self.rgw.owners(BUCKET)
        self.assertEqual(owners[nar], "elm")
        self.assertEqual({owner for key, owner in owners.items() if key.endswith(".narinfo")}, {"coppice"})
        self.assertEqual(self.rgw.keys(BUCKET)[nar], os.path.getsize(self.fetched(hub, nar)))
        self.assertEqual(os.path.getsize(self.substituted(hub, out)), 40 << 20)
        self.ends_with(elm.stop(), 0)

    def fetched(self, node, path):
        file = self.scratch.file("work", "fetched")
        with open(file, "wb") as f:
            f.write(node.http(path))  # follows redirects
        return file

    def test_wrong_settings_are_told_before_the_node_serves(self):
        for table, code, words in ((self.table().replace('"farm"', '"not-there"'), 1, "NoSuchBucket"),
                                   (self.table("wrong", secret="wrong"), 1, "SignatureDoesNotMatch"),
                                   (self.table().replace("credentials/coppice", "credentials/none"), 1, "credentials/none"),
                                   (self.table().replace("http://", "s3://"), USAGE, "neither http://")):
            node = Farm(self.scratch, settings=table)
            done = self.scratch.run(node.argv)
            self.assertEqual(done.code, code, str(done))
            self.assertIn("[s3]", done.err)
            self.assertIn(words, done.err)


class Faults(S3):
    store = "bluestore"  # what was put survives its server

    def until_in_parts(self):
        wait_until("an upload in parts is under way", lambda: self.rgw.uploads(BUCKET))

    def came_through(self, hub, request, lost=()):
        """What was asked for is in the bucket whole, and nothing else is; these attempts were lost on the way."""
        self.ends_with(request.end(), OK)
        out, = self.outputs(request.end())
        self.assertEqual(os.path.getsize(self.substituted(hub, out)), 192 << 20)
        self.assertEqual(hub.attempts_at("large"), [*lost, "success"])
        self.assertEqual(self.rgw.uploads(BUCKET), [])
        self.assertEqual([key for key in self.rgw.keys(BUCKET, "nar/")], [hub.narinfo(out)["URL"]])
        self.promises_kept(hub)

    def test_a_server_that_is_killed_in_the_middle_of_an_upload_is_waited_for(self):
        hub = self.hub()
        request = hub.build(self.large(192), start=True)
        self.until_in_parts()
        self.rgw.kill()
        self.assertTrue(request.running())
        self.rgw.restart()
        self.came_through(hub, request)

    def test_a_node_that_is_killed_in_the_middle_of_an_upload_leaves_no_part_behind(self):
        hub = self.hub()
        request = hub.build(self.large(192), start=True)
        self.until_in_parts()
        hub.kill()
        self.assertNotEqual(self.rgw.uploads(BUCKET), [])
        hub.start()
        self.came_through(hub, request, lost=["infra"])  # the killed process's; what it built may have been kept


if __name__ == "__main__":
    if rgw.missing_programs():
        sys.exit(f"these programs of Ceph are not installed: {' '.join(rgw.missing_programs())}")
    farm.main()
