"""The store of blobs in a bucket of a real S3 server: Ceph's RGW, started by the tests."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
import rgw


class Conformance(farm.TestCase):
    def test_the_store_does_what_every_store_of_blobs_does(self):
        server = rgw.Rgw(self.scratch.file("ceph"))
        self.addCleanup(server.close)
        done = self.scratch.run([os.path.join(farm.BIN, "test_s3")], server.variables())
        self.assertEqual(done.code, 0, str(done))


if __name__ == "__main__":
    if rgw.missing_programs():
        sys.exit(f"these programs of Ceph are not installed: {' '.join(rgw.missing_programs())}")
    farm.main()
