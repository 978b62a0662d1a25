"""A real S3 server on this machine: Ceph's RGW over one monitor and one OSD, as plain processes below one directory.

    rgw.py [--store bluestore] COMMAND...    runs the command beside one, which it finds by COPPICE_S3_ENDPOINT,
                                             COPPICE_S3_PORT and AWS_*, and ends with its exit code

No cephx and no manager; objects are kept in memory, or with bluestore on disk, where they survive `kill -9`."""

import argparse
import contextlib
import datetime
import hashlib
import hmac
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
import xml.etree.ElementTree

ACCESS_KEY, SECRET_KEY, REGION = "COPPICEACCESSKEY", "coppicesecretkey", "us-east-1"
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
START_S = 120

# What is not said here is as Ceph has it. `crc`: radosgw would insist on encryption, which needs cephx. `tcp_nodelay`:
# else each GET over a connection that is kept takes 44 ms.
CONFIG = """[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
run_dir = {dir}/run
admin_socket = {dir}/run/$cluster-$name.$pid.asok
pid_file =
log_file = {dir}/log/$name.log
log_to_stderr = false
crash_dir = {dir}/run
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_warn = 1
mon_data_avail_crit = 0
ms_initial_backoff = 0.02
ms_max_backoff = 0.2
paxos_propose_interval = 0.02
mon_tick_interval = 1
mon_osd_report_timeout = 900
osd_heartbeat_grace = 60
[mon.a]
mon_data = {dir}/mon
[osd.0]
osd_data = {dir}/osd
osd_objectstore = {store}
memstore_device_bytes = {bytes}
bluestore_block_size = {bytes}
bluestore_block_db_size = 0
bluestore_block_wal_size = 0
osd_memory_target = 1073741824
bluestore_cache_autotune = false
bluestore_cache_size = 134217728
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
osd_max_object_name_len = 256
osd_max_object_namespace_len = 64
osd_class_load_list = *
osd_class_default_list = *
[client.rgw]
rgw_data = {dir}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_enable_apis = s3,admin
rgw_dns_name = localhost
rgw_enable_usage_log = false
rgw_run_sync_thread = false
rgw_enable_quota_threads = false
rgw_num_rados_handles = 1
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def missing_programs():
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Rgw:
    """A server that runs; close() ends it. It and its programs end with the one that started them."""

    def __init__(self, directory, store="memstore", gib=10, machine=None):
        """`machine`: one of a network (net.py) on which it serves."""
        host, inside = (machine.address, machine.inside) if machine else ("127.0.0.1", ())
        self.call = machine.call if machine else lambda function: function()
        self.dir, self.store, self.host, self.inside = os.path.abspath(directory), store, host, list(inside)
        self.port = free_port()
        self.endpoint = f"http://{host}:{self.port}"
        self.processes = {}
        for name in ("mon", "osd", "run", "log"):
            os.makedirs(os.path.join(self.dir, name))
        self.env = {**os.environ, "CEPH_CONF": os.path.join(self.dir, "ceph.conf")}
        self.fsid = str(uuid.uuid4())
        ports = {"mon1": free_port(), "mon2": free_port(), "port": self.port}
        text = CONFIG.format(fsid=self.fsid, dir=self.dir, store=store, bytes=gib << 30, **ports)
        if host != "127.0.0.1":
            text = text.replace("endpoint=127.0.0.1:", f"endpoint={host}:")
        with open(self.env["CEPH_CONF"], "w", encoding="utf-8") as f:
            f.write(text)
        try:
            self._make(ports)
        except BaseException:
            self.close()
            raise

    def _make(self, ports):
        monmap, osd = os.path.join(self.dir, "monmap"), str(uuid.uuid4())
        address = f"[v2:127.0.0.1:{ports['mon2']},v1:127.0.0.1:{ports['mon1']}]"
        self._run("monmaptool", "--create", "--clobber", "--fsid", self.fsid, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self.start("mon")
        self._until("the monitor answers", lambda: self._ask("ceph", "-s", "--connect-timeout", "5"))
        self._run("ceph", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.start("osd")
        self._until("the OSD is up", lambda: "1 up" in (self._ask("ceph", "osd", "stat") or ""))
        self.start("rgw")
        self.wait()
        self.make_user("coppice", ACCESS_KEY, SECRET_KEY)

    def make_user(self, name, access_key, secret_key):
        self._run("radosgw-admin", "-n", "client.rgw", "user", "create", f"--uid={name}", f"--display-name={name}",
                  f"--access-key={access_key}", f"--secret-key={secret_key}")

    def start(self, name):
        """Starts mon, osd or rgw, anew if it was killed."""
        argv = {"mon": ["ceph-mon", "-i", "a", "-f"], "osd": ["ceph-osd", "-i", "0", "-f"], "rgw": ["radosgw", "-n", "client.rgw", "-f"]}
        with open(os.path.join(self.dir, "log", name + ".out"), "ab") as out:
            self.processes[name] = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *self.inside, *argv[name]], env=self.env,
                                                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)

    def wait(self):
        """Until it answers requests."""
        def answers():
            try:
                with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=5)) as connection:
                    connection.request("GET", "/")
                    return connection.getresponse().status < 500
            except OSError:
                return False

        self._until("RGW answers", lambda: self.call(answers))

    def kill(self, *names):
        """kill -9"""
        for name in names or ("rgw", "osd"):
            self.processes[name].kill()
            self.processes[name].wait()

    def restart(self, *names):
        """What was killed, until it answers again."""
        for name in names or ("osd", "rgw"):
            self.start(name)
        self.wait()

    def close(self):
        for name in ("rgw", "osd", "mon"):
            if name in self.processes:
                self.kill(name)

    def variables(self):
        """What clients find it by."""
        return {"COPPICE_S3_ENDPOINT": self.endpoint, "COPPICE_S3_PORT": str(self.port), "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": REGION}

    def resident_kib(self):
        def of(pid):
            with open(f"/proc/{pid}/status", encoding="utf-8") as f:
                return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))

        return {name: of(p.pid) for name, p in self.processes.items()}

    # --- a client of few words, whose signatures are its own

    def request(self, method, bucket, key="", query=None, body=b"", headers=None):
        """(status, headers, body) of a signed request."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        path = "/" + bucket + ("/" + urllib.parse.quote(key, safe="/~") if key else "")
        pairs = sorted((urllib.parse.quote(k, safe="~"), urllib.parse.quote(v, safe="~")) for k, v in (query or {}).items())
        query = "&".join(f"{k}={v}" for k, v in pairs)
        digest = hashlib.sha256(body).hexdigest()
        signed = {"host": f"{self.host}:{self.port}", "x-amz-content-sha256": digest, "x-amz-date": now}
        names = ";".join(sorted(signed))
        canonical = "\n".join([method, path, query, *(f"{k}:{signed[k]}" for k in sorted(signed)), "", names, digest])
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key_ = ("AWS4" + SECRET_KEY).encode()
        for part in (now[:8], REGION, "s3", "aws4_request"):
            key_ = hmac.new(key_, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key_, text.encode(), hashlib.sha256).hexdigest()
        signed["Authorization"] = f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}"

        def ask():
            with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=60)) as connection:
                connection.request(method, path + ("?" + query if query else ""), body, {**signed, **(headers or {})})
                reply = connection.getresponse()
                return reply.status, dict(reply.getheaders()), reply.read()

        return self.call(ask)

    def make_bucket(self, bucket):
        status, _, body = self.request("PUT", bucket)
        if status != 200:
            raise AssertionError(f"no bucket {bucket}: {status} {body}")
        return bucket

    def keys(self, bucket, prefix=""):
        """{key: bytes} of the objects."""
        return {c.findtext("{*}Key"): int(c.findtext("{*}Size")) for c in self._objects(bucket, {"prefix": prefix})}

    def owners(self, bucket):
        """{key: who put it} of the objects."""
        return {c.findtext("{*}Key"): c.findtext("{*}Owner/{*}ID") for c in self._objects(bucket, {"fetch-owner": "true"})}

    def mirror(self, bucket, directory):
        """Writes the objects as files below there."""
        for key in self.keys(bucket):
            status, _, body = self.request("GET", bucket, key)
            if status != 200:
                raise AssertionError(f"{bucket}/{key} cannot be read: {status} {body}")
            file = os.path.join(directory, key)
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with open(file, "wb") as f:
                f.write(body)

    def uploads(self, bucket):
        """[(key, id)] of the uploads in parts that are open."""
        return [(u.findtext("{*}Key"), u.findtext("{*}UploadId")) for u in self._listed(bucket, {"uploads": ""}).iterfind("{*}Upload")]

    def _objects(self, bucket, query):
        more = {}
        while more is not None:
            page = self._listed(bucket, {"list-type": "2", **query, **more})
            yield from page.iterfind("{*}Contents")
            token = page.findtext("{*}NextContinuationToken")
            more = {"continuation-token": token} if token else None

    def _listed(self, bucket, query):
        status, _, body = self.request("GET", bucket, query=query)
        if status != 200:
            raise AssertionError(f"{bucket} cannot be listed: {status} {body}")
        return xml.etree.ElementTree.fromstring(body)

    # --- programs

    def _run(self, *argv):
        done = subprocess.run([*self.inside, *argv], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _ask(self, *argv):
        done = subprocess.run([*self.inside, *argv], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S)
        return done.stdout if done.returncode == 0 else None

    def _until(self, what, condition):
        end = time.monotonic() + START_S
        while not condition():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    with open(os.path.join(self.dir, "log", name + ".out"), encoding="utf-8", errors="replace") as f:
                        raise AssertionError(f"{name} ended with {process.returncode}: {f.read()[-2000:]}")
            if time.monotonic() > end:
                raise AssertionError(f"not within {START_S} s: {what}")
            time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=("memstore", "bluestore"), default="memstore")
    parser.add_argument("--gib", type=int, default=10, help="space for objects")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[options.command[:1] == ["--"]:]
    if not command:
        parser.error("no COMMAND")
    if missing_programs():
        sys.exit(f"these programs of Ceph are not installed: {' '.join(missing_programs())}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="coppice-rgw-") as directory:
        server = Rgw(os.path.join(directory, "ceph"), options.store, options.gib)
        try:
            sys.exit(subprocess.run(command, env={**os.environ, **server.variables()}, check=False).returncode)
        finally:
            server.close()


if __name__ == "__main__":
    main()
