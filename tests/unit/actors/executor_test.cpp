#include "actors/build/build_dir.hpp"
#include "actors/build/executor.hpp"
#include "actors/build/log_relay.hpp"
#include "runtime/cgroup.hpp"
#include "runtime/process_loop.hpp"
#include "store/nar_files.hpp"
#include "tests/unit/actors/fake_worker.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <catch2/catch.hpp>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fstream>
#include <future>
#include <sstream>
#include <thread>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

/// A directory that builders of any user can reach.
class scratch {
public:
  scratch() {
    std::string pattern = fs::temp_directory_path() / "coppice-exec-XXXXXX";
    path = ::mkdtemp(pattern.data());
    ::chmod(path.c_str(), 0755);
    fs::create_directory(path / "inputs");
  }
  ~scratch() { (void)store::remove_tree(path); }
  fs::path path;
};

const auto drv_path = *nix::store_path::from_base_name("bb70gkx7c0hr4lzyjjl4ycy8cpgn9bjx-minimal.drv");

nix::derivation shell(std::string script) {
  std::ifstream in{COPPICE_TEST_DATA "/nix/generated/drv/" + drv_path.base_name()};
  std::string text{std::istreambuf_iterator<char>{in}, {}};
  auto drv = nix::parse_derivation(text, drv_path);
  REQUIRE(drv);
  drv->args = {"-c", std::move(script)};
  drv->env["PATH"] = "/usr/bin:/bin";
  return *drv;
}

sandbox_settings host_tools() {
  sandbox_settings s;
  s.paths = *parse_sandbox_paths({"/usr", "/bin", "/lib", "/lib64?"});
  return s;
}

struct built {
  build_exit exit;
  std::string log, out;  ///< contents of the output, if it is a file
  std::string no_output; ///< why outputs could not be collected
  fs::path dir;
};

struct options {
  std::vector<nix::store_path> closure{};
  std::optional<rt::process_user> run_as{};
  rt::process_limits limits{};
  std::shared_ptr<rt::cgroup> group{};
  std::function<void(rt::process_spec&)> change{};
};

/// Builds without actors.
built build(const scratch& where, const nix::derivation& drv, const options& o = {}) {
  build_inputs inputs;
  for (const auto& path : o.closure) {
    inputs.closure.emplace_back();
    inputs.closure.back().path = path;
  }
  auto plan = plan_sandbox(drv_path, drv, inputs, host_tools());
  REQUIRE(plan);
  build_dir_config config{where.path / "job", where.path / "inputs", where.path / "etc"};
  config.run_as = o.run_as;
  config.group = o.group;
  auto dir = build_dir::make(*plan, config);
  INFO((dir ? "" : dir.error().what));
  REQUIRE(dir);
  built result;
  std::promise<rt::process_exit> ended;
  rt::process_loop loop;
  auto id = loop.reserve();
  auto spec = (*dir)->process(o.limits);
  if (o.change) o.change(spec);
  loop.start(id, std::move(spec),
             {[&](const std::string& bytes) {
                result.log += bytes;
                loop.ack(id, bytes.size());
              },
              [&](const rt::process_exit& e) { ended.set_value(e); }});
  limit_settings limits;
  limits.timeout = o.limits.timeout;
  limits.max_silent = o.limits.silence;
  limits.log_bytes_max = o.limits.log_bytes_max;
  result.exit = describe_exit(drv_path.to_string(), limits, ended.get_future().get());
  if (auto outputs = (*dir)->collect_outputs()) {
    std::ifstream in{outputs->at("out")};
    result.out = {std::istreambuf_iterator<char>{in}, {}};
  } else {
    result.no_output = outputs.error().reason;
  }
  result.dir = where.path / "job";
  return result;
}

built build(const std::string& script, const options& o = {}) {
  scratch where;
  return build(where, shell(script), o);
}

/// The output of a script that writes to $out, which must succeed.
std::string out_of(const std::string& script, const options& o = {}) {
  auto b = build(script, o);
  INFO(b.log << b.exit.reason << b.no_output);
  CHECK(b.exit.failure == failure::none);
  return b.out;
}

bool eventually(const std::function<bool()>& f, std::chrono::milliseconds within = 5s) {
  for (auto end = std::chrono::steady_clock::now() + within; std::chrono::steady_clock::now() < end;) {
    if (f()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return f();
}

bool runs(const std::string& mark) {
  for (const auto& entry : fs::directory_iterator{"/proc"}) {
    std::ifstream in{entry.path() / "cmdline"};
    std::string line{std::istreambuf_iterator<char>{in}, {}};
    if (line.find(mark) != std::string::npos) return true;
  }
  return false;
}

std::string unlikely_seconds() {
  static int counter = 0;
  return std::to_string(2'000'000 + ::getpid()) + "." + std::to_string(++counter + 100);
}

} // namespace

TEST_CASE("a simple derivation is built in a sandbox") {
  auto b = build("echo hello > $out; echo from the builder >&2");
  CHECK(b.exit.failure == failure::none);
  CHECK(b.out == "hello\n");
  CHECK(b.log == "from the builder\n");
  CHECK(b.exit.usage.log_bytes == 17);
}

TEST_CASE("a builder is user 1000 of group 100 on localhost without capabilities") {
  CHECK(out_of("(id -u; id -g; id -un; hostname; cat /proc/sys/kernel/domainname; grep Cap /proc/self/status; "
               "grep NoNewPrivs /proc/self/status) > $out") ==
        "1000\n100\nnixbld\nlocalhost\n(none)\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n"
        "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n");
}

TEST_CASE("etc has only what Nix puts there") {
  CHECK(out_of("(ls /etc; cat /etc/passwd /etc/group /etc/hosts) > $out") ==
        "group\nhosts\npasswd\n"
        "root:x:0:0:Nix build user:/build:/noshell\nnixbld:x:1000:100:Nix build user:/build:/noshell\n"
        "nobody:x:65534:65534:Nobody:/:/noshell\nroot:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n"
        "127.0.0.1 localhost\n::1 localhost\n");
}

TEST_CASE("a builder starts in /build with mode 0700, umask 022 and exactly its environment") {
  auto drv =
      shell("(pwd; stat -c %a /build; umask; ulimit -Sc; ulimit -Hc; tr '\\0' '\\n' < /proc/1/environ | sort) > $out");
  drv.env.erase("PATH");
  drv.args[1] = "PATH=/usr/bin:/bin; " + drv.args[1];
  scratch where;
  auto b = build(where, drv);
  CHECK(b.exit.failure == failure::none);
  std::istringstream in{b.out};
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);)
    lines.push_back(line);
  INFO(b.out << b.log);
  REQUIRE(lines.size() == 21);
  CHECK(lines[0] == "/build");
  CHECK(lines[1] == "700");
  CHECK(lines[2] == "0022");
  CHECK(lines[3] == "0");
  CHECK(lines[5] == "HOME=/homeless-shelter");
  CHECK(lines[6] == "NIX_BUILD_CORES=1");
}

TEST_CASE("argv 0 is the base name of the builder") {
  CHECK(out_of("tr '\\0' '\\n' < /proc/$$/cmdline | head -1 > $out") == "sh\n");
}

TEST_CASE("the builder is process 1 of its own session") {
  CHECK(out_of("(echo $$; cut -d' ' -f6 /proc/1/stat) > $out") == "1\n1\n");
}

TEST_CASE("a builder has no descriptors but the standard ones") {
  // 3 is that of ls
  CHECK(out_of("ls /proc/self/fd > $out") == "0\n1\n2\n3\n");
}

TEST_CASE("output is a terminal that can be opened again, and is not controlling") {
  auto b =
      build("test -t 1 && test -t 2 && echo tty; echo reopened > /dev/stderr; (: < /dev/tty) 2>/dev/null || echo none; "
            "test ! -t 0 && cat; ls /dev > $out");
  CHECK(b.log == "tty\nreopened\nnone\n");
  CHECK(b.out == "core\nfd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n");
}

TEST_CASE("no network but a working loopback") {
  CHECK(out_of("(tail -n +3 /proc/net/dev | cut -d: -f1; python3 -c \"\n"
               "import socket\n"
               "for host in ('127.0.0.1', '192.0.2.1'):\n"
               "    try: socket.create_connection((host, 9), 5)\n"
               "    except OSError as e: print(e.strerror)\n"
               "\") > $out") == "    lo\nConnection refused\nNetwork is unreachable\n");
}

TEST_CASE("a fixed output has the host's network") {
  auto drv = shell("(readlink /proc/self/ns/net; ls /etc/nsswitch.conf; cat /etc/hosts) > $out");
  auto& out = drv.outputs.at("out");
  out.hash_algo = "sha256";
  out.hash = std::string(64, '0');
  scratch where;
  auto b = build(where, drv);
  CHECK(b.out.starts_with(fs::read_symlink("/proc/self/ns/net").string() + "\n/etc/nsswitch.conf\n"));
}

TEST_CASE("directories have the permissions that builders expect") {
  CHECK(
      out_of(
          "(stat -c '%a %u' /tmp /dev/shm /nix /nix/store; echo x > /file; echo x > /tmp/file; mkdir /nix/store/mine; "
          "ls / | tr '\\n' ' ') > $out") ==
      "1777 1000\n1777 1000\n755 1000\n1775 1000\nbin build dev etc file lib lib64 nix proc tmp usr ");
}

TEST_CASE("a builder cannot change the kernel's settings or the host's files") {
  auto b = build("for f in /proc/sys/kernel/core_pattern /proc/sys/vm/swappiness /usr/bin/env; do "
                 "(echo x >> $f) 2>/dev/null && echo wrote $f; done; echo done > $out");
  CHECK(b.log.empty());
  CHECK(b.out == "done\n");
}

TEST_CASE("inputs are where they belong, read-only, also files and symbolic links") {
  scratch where;
  std::vector<nix::store_path> closure;
  for (const char* name : {"dir", "file", "link"})
    closure.push_back(*nix::store_path::from_base_name(std::string(32, '0') + "-" + name));
  auto inputs = where.path / "inputs";
  fs::create_directory(inputs / closure[0].base_name());
  std::ofstream{inputs / closure[0].base_name() / "x"} << "in a directory\n";
  std::ofstream{inputs / closure[1].base_name()} << "in a file\n";
  fs::create_symlink(closure[0].base_name() + "/x", inputs / closure[2].base_name());
  auto b = build(where,
                 shell("cd /nix/store; ls > /build/all; (cat /build/all */x *-file *-link; readlink *-link; "
                       "(echo x > $(ls -d *-file)) 2>/dev/null || echo read-only) > $out"),
                 {.closure = closure});
  INFO(b.log);
  CHECK(b.out == std::string(32, '0') + "-dir\n" + std::string(32, '0') + "-file\n" + std::string(32, '0') +
                     "-link\nin a directory\nin a file\nin a directory\n" + closure[0].base_name() + "/x\nread-only\n");
}

TEST_CASE("a builder finds none of the machine's store but its inputs, whatever namespaces it makes") {
  scratch where;
  std::ofstream{where.path / "inputs" / "secret"} << "of others\n";
  const std::string dig = R"(
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(os.listdir('/dev/shm'))
uid, gid = os.getuid(), os.getgid()
if libc.unshare(0x10000000 | 0x20000) == 0:
  open('/proc/self/setgroups', 'w').write('deny')
  open('/proc/self/uid_map', 'w').write('0 %d 1' % uid)
  open('/proc/self/gid_map', 'w').write('0 %d 1' % gid)
  print(libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None))
  for _ in range(3): libc.umount2(b'/dev/shm', 2)
  print(os.listdir('/dev/shm'))
  print(libc.mount(b'/dev', b'/tmp', None, 0x1000, None))
  print(libc.mount(b'/dev', b'/tmp', None, 0x5000, None), os.listdir('/tmp/shm'))
)";
  auto b = build(where, shell("cat > dig.py <<'E'\n" + dig + "E\npython3 dig.py > $out"));
  INFO(b.log);
  CHECK(b.out == "[]\n0\n[]\n-1\n0 []\n");
}

TEST_CASE("thousands of inputs are mounted") {
  scratch where;
  options o;
  for (int i = 0; i < 3'000; ++i) {
    auto digits = std::to_string(i);
    o.closure.push_back(*nix::store_path::from_base_name(std::string(32 - digits.size(), '0') + digits + "-x"));
    std::ofstream{where.path / "inputs" / o.closure.back().base_name()} << i << '\n';
  }
  auto b = build(where, shell("cat /nix/store/* | sort -u | wc -l > $out"), o);
  INFO(b.log);
  CHECK(b.out == "3000\n");
}

TEST_CASE("an input that is not there is told before anything starts") {
  scratch where;
  path_info absent;
  absent.path = drv_path;
  auto plan = plan_sandbox(drv_path, shell("true"), {{absent}}, host_tools());
  auto dir = build_dir::make(*plan, {where.path / "job", where.path / "inputs", where.path / "etc"});
  REQUIRE_FALSE(dir);
  CHECK(dir.error().code == ec::missing);
  CHECK_FALSE(fs::exists(where.path / "job"));
}

TEST_CASE("a sandbox path that is not there is an error unless it is optional") {
  scratch where;
  sandbox_settings s;
  s.paths = {{"/nowhere", "/nowhere", true}};
  CHECK(build_dir::make(*plan_sandbox(drv_path, shell("true"), {}, s),
                        {where.path / "job", where.path / "inputs", where.path / "etc"}));
  s.paths = {{"/nowhere", "/nowhere", false}};
  auto dir = build_dir::make(*plan_sandbox(drv_path, shell("true"), {}, s),
                             {where.path / "job", where.path / "inputs", where.path / "etc"});
  REQUIRE_FALSE(dir);
  CHECK(dir.error().what.find("/nowhere") != std::string::npos);
}

TEST_CASE("files of passAsFile are the builder's") {
  auto drv = shell("(cat $textPath; stat -c '%u %a' $textPath) > $out");
  drv.env["passAsFile"] = "text";
  drv.env["text"] = "in a file\n";
  scratch where;
  CHECK(build(where, drv).out == "in a file\n1000 644\n");
}

TEST_CASE("set-user-id bits and extended attributes are refused as in Nix") {
  CHECK(out_of("touch f; chmod 4755 f 2>/dev/null || echo no suid > $out; chmod 755 f && echo plain >> $out; "
               "python3 -c \"\n"
               "import os, errno\n"
               "try: os.setxattr('f', 'user.x', b'y')\n"
               "except OSError as e: print(e.errno == errno.ENOTSUP)\n"
               "\" >> $out") == "no suid\nplain\nTrue\n");
}

TEST_CASE("addresses are not randomised") {
  CHECK(out_of("cat /proc/self/personality > $out") == "00040000\n");
}

TEST_CASE("a failing builder is told with its exit code") {
  auto b = build("echo oops; exit 3");
  CHECK(b.exit.failure == failure::build_failed);
  CHECK(b.exit.exit_code == 3);
  CHECK(b.exit.reason == "builder for '" + drv_path.to_string() + "' failed with exit code 3");
  CHECK(b.log == "oops\n");
}

TEST_CASE("a builder that makes no output is told in Nix's words") {
  CHECK(
      build("true").no_output ==
      "builder for '" + drv_path.to_string() +
          "' failed to produce output path for output 'out' at '/nix/store/pwf438sikcmp3h7hgl8nhpibslpv7dch-minimal'");
}

TEST_CASE("a builder that does not exist is the derivation's fault") {
  auto drv = shell("");
  drv.builder = "/nowhere/bash";
  scratch where;
  auto b = build(where, drv);
  CHECK(b.exit.failure == failure::build_failed);
  CHECK(b.exit.reason ==
        "builder for '" + drv_path.to_string() + "' cannot be started: /nowhere/bash: No such file or directory");
}

TEST_CASE("a sandbox that cannot be set up is nobody's fault") {
  scratch where;
  auto b = build(where, shell("echo x > $out"), {.change = [](rt::process_spec& spec) {
                   spec.argv.insert(spec.argv.begin() + 3, {"--bind", "/nowhere", "/x"});
                 }});
  CHECK(b.exit.failure == failure::infra);
  CHECK(b.log.find("/nowhere") != std::string::npos);
  b = build(where, shell("echo x > $out"), {.change = [](rt::process_spec& spec) { spec.argv[0] = "/nowhere/bwrap"; }});
  CHECK(b.exit.failure == failure::infra);
}

TEST_CASE("a build that takes too long, is silent, or talks too much says so") {
  options o;
  o.limits.timeout = 300ms;
  CHECK(build("while :; do echo x; sleep 0.05; done", o).exit.failure == failure::timed_out);
  o.limits = {};
  o.limits.silence = 300ms;
  CHECK(build("sleep 100", o).exit.failure == failure::silent);
  o.limits = {};
  o.limits.log_bytes_max = 100'000;
  auto b = build("yes", o);
  CHECK(b.exit.failure == failure::log_limit);
  CHECK(b.log.size() == 100'000);
}

TEST_CASE("daemons that a successful builder leaves are gone at its end (fault 36)") {
  auto mark = unlikely_seconds();
  auto b = build("setsid sh -c \"trap '' TERM HUP; setsid sleep " + mark + " & sleep " + mark +
                 "\" & sleep 0.2; echo x > $out");
  CHECK(b.exit.failure == failure::none);
  CHECK(b.exit.usage.wall_ms < 5'000);
  CHECK_FALSE(runs(mark));
}

#ifndef __SANITIZE_THREAD__ // which does not let a forked process start threads
TEST_CASE("no builder runs 2 s after our process was killed (INV-11)") {
  scratch where;
  const auto mark = unlikely_seconds();
  auto plan = plan_sandbox(
      drv_path,
      shell("trap '' TERM HUP; setsid sh -c \"setsid sleep " + mark + " & sleep " + mark + "\" & sleep " + mark), {},
      host_tools());
  build_dir_config config{where.path / "job", where.path / "inputs", where.path / "etc"};
  // another user outside must not lose the parent-death signal
  if (::geteuid() == 0) config.run_as = rt::process_user{64'321, 64'321};
  auto dir = build_dir::make(*plan, config);
  REQUIRE(dir);
  const pid_t daemon = ::fork();
  if (daemon == 0) {
    rt::process_loop loop;
    loop.start(loop.reserve(), (*dir)->process({}), {[](const auto&) {}, [](const auto&) {}});
    for (;;)
      ::pause();
  }
  CHECK(eventually([&] { return runs(mark); }));
  std::this_thread::sleep_for(100ms);
  ::kill(daemon, SIGKILL);
  ::waitpid(daemon, nullptr, 0);
  CHECK(eventually([&] { return !runs(mark); }, 2s));
}
#endif

TEST_CASE("forty megabytes of output arrive through the terminal") {
  auto b = build("head -c 40000000 /dev/zero; echo x > $out");
  CHECK(b.exit.usage.log_bytes == 40'000'000);
  CHECK(b.log.size() == 40'000'000);
}

TEST_CASE("a huge environment and many arguments pass") {
  auto drv = shell("echo ${#big} $# > $out");
  drv.env["big"] = std::string(100'000, 'x');
  for (int i = 0; i < 10'000; ++i)
    drv.args.push_back("argument");
  scratch where;
  CHECK(build(where, drv).out == "100000 9999\n");
}

TEST_CASE("a build directory is removed whatever the builder left in it") {
  scratch where;
  auto plan = plan_sandbox(
      drv_path,
      shell("mkdir -p $out/a/b; echo x > $out/a/b/c; chmod 555 $out/a/b $out/a $out; mkfifo /build/f; mkdir d; "
            "chmod 0 d; python3 -c \"\nimport os\nfor i in range(900): os.mkdir('x'); os.chdir('x')\n\""),
      {}, host_tools());
  auto dir = build_dir::make(*plan, {where.path / "job", where.path / "inputs", where.path / "etc"});
  REQUIRE(dir);
  std::promise<rt::process_exit> ended;
  rt::process_loop loop;
  loop.start(loop.reserve(), (*dir)->process({}), {[](const auto&) {}, [&](const auto& e) { ended.set_value(e); }});
  CHECK(ended.get_future().get().code == 0);
  auto removed = (*dir)->remove();
  INFO((removed ? "" : removed.error().what));
  CHECK(removed);
  CHECK_FALSE(fs::exists(where.path / "job"));
}

TEST_CASE("root's builders can be another user outside") {
  if (::geteuid() != 0) return;
  scratch where;
  options o;
  o.run_as = rt::process_user{64'321, 64'321};
  auto b = build(
      where, shell("id -u; chmod 666 /dev/null 2>/dev/null || echo not its; echo ok > /dev/stderr; echo x > $out"), o);
  INFO(b.log);
  CHECK(b.exit.failure == failure::none);
  CHECK(b.log == "1000\nnot its\nok\n");
  struct stat s {};
  REQUIRE(::lstat((b.dir / "store" / "pwf438sikcmp3h7hgl8nhpibslpv7dch-minimal").c_str(), &s) == 0);
  CHECK(s.st_uid == 64'321);
}

TEST_CASE("a fork bomb in a sandbox is told as such (fault 34)") {
  rt::cgroup_root root{"exec-test-" + std::to_string(::getpid())};
  auto group = root.make("build", {0, 40});
  REQUIRE(group);
  if (!*group) {
    WARN("no control groups here");
    return;
  }
  options o;
  o.group = *group;
  auto b = build("set -e; for i in $(seq 100); do sleep 100 & done; echo x > $out", o);
  CHECK(b.exit.failure == failure::pids);
  CHECK((*group)->remove(5s));
  CHECK(root.sweep());
}

// -- the actors ---------------------------------------------------------------

namespace {

struct news {
  std::promise<build_exit> exited;
  std::atomic<int> exits{0};
};

/// One build with EXECUTOR and LOG_RELAY.
struct farm {
  explicit farm(const std::string& script) {
    auto plan = plan_sandbox(drv_path, shell(script), {}, host_tools());
    auto dir = build_dir::make(*plan, {where.path / "job", where.path / "inputs", where.path / "etc"});
    REQUIRE(dir);
    auto id = loop.reserve();
    worker = rt::spawn<fake_worker>(system, fake_worker::on_exited{[n = told](const build_exit& e) {
                                      if (n->exits++ == 0) n->exited.set_value(e);
                                    }},
                                    fake_worker::on_progress{[](const step_progress&) {}});
    std::ofstream{where.path / "log"}; // as WORKER makes it
    relay =
        rt::spawn<log_relay_state>(system, log_relay_state::config{&pool, &loop, id, where.path / "log", {}}, worker);
    auto spec = (*dir)->process({});
    spec.grace = 200ms;
    executor = rt::spawn<executor_state>(
        system, executor_state::config{&loop, id, std::move(spec), *dir, drv_path.to_string()}, worker, relay);
  }
  build_exit wait() {
    auto f = told->exited.get_future();
    REQUIRE(f.wait_for(10s) == std::future_status::ready);
    return f.get();
  }
  std::string tail() {
    caf::scoped_actor me{system};
    std::string result;
    me->request(relay, 5s, atom::done_v)
        .receive([&](std::string& t) { result = t; }, [](const caf::error& e) { FAIL(to_string(from_caf(e))); });
    return result;
  }
  std::string log() const {
    std::ifstream in{where.path / "log"};
    return {std::istreambuf_iterator<char>{in}, {}};
  }
  scratch where;
  std::shared_ptr<news> told = std::make_shared<news>();
  rt::pool pool{1, 100};
  caf::actor_system_config cfg;
  caf::actor_system system{cfg};
  rt::process_loop loop;
  worker_actor worker;
  log_relay_actor relay;
  executor_actor executor;
};

} // namespace

TEST_CASE("EXECUTOR tells its worker the exit, and the log is complete then") {
  farm f{"for i in $(seq 20000); do echo line $i; done; echo x > $out"};
  CHECK(f.wait().failure == failure::none);
  CHECK(f.tail().ends_with("line 19999\nline 20000\n"));
  CHECK(f.log().size() == 208894);
}

TEST_CASE("EXECUTOR stops a build for the reason given") {
  auto mark = unlikely_seconds();
  farm f{"trap '' TERM; echo up; sleep " + mark};
  REQUIRE(eventually([&] { return runs("sleep") && runs(mark); }));
  caf::anon_send(f.executor, atom::stop_v, failure::infra, std::string{"the lease is lost"});
  auto e = f.wait();
  CHECK(e.failure == failure::infra);
  CHECK(e.reason == "the lease is lost");
  CHECK(eventually([&] { return !runs(mark); }, 2s));
}

TEST_CASE("an EXECUTOR that dies takes its builder along (INV-11)") {
  auto mark = unlikely_seconds();
  farm f{"setsid sleep " + mark + " & sleep " + mark};
  REQUIRE(eventually([&] { return runs(mark); }));
  caf::anon_send_exit(f.executor, caf::exit_reason::kill);
  CHECK(eventually([&] { return !runs(mark); }, 2s));
  CHECK(f.told->exits == 0);
}

TEST_CASE("a LOG_RELAY that dies ends the build, which is nobody's fault") {
  auto mark = unlikely_seconds();
  farm f{"sleep " + mark};
  REQUIRE(eventually([&] { return runs(mark); }));
  caf::anon_send_exit(f.relay, caf::exit_reason::kill);
  auto e = f.wait();
  CHECK(e.failure == failure::infra);
  CHECK(e.reason.find("the log of") != std::string::npos);
  CHECK(eventually([&] { return !runs(mark); }, 2s));
}
