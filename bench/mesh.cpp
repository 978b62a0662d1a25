#include "bench/support/bench_main.hpp"
#include "bench/support/measure.hpp"
#include "bench/support/report.hpp"
#include "runtime/bridge.hpp"
#include "runtime/supervisor.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <fmt/core.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.hpp>

#include <csignal>
#include <cstring>

/// What it costs to call an actor of another process through the mesh, over loopback with CURVE, beside bytes of the same
/// length through bare ZeroMQ sockets that are set the same.
namespace {

using namespace coppice;
using namespace std::chrono_literals;

struct settings {
  bool json = false, small = false;
  std::size_t rounds = 7, asks = 3'000, messages = 60'000;
};
constexpr std::size_t window = 64;   // requests in flight
constexpr std::size_t burst = 800; // plain messages between two words of the receiver that it has read them; fewer than a window

void need(bool well, const char* what) {
  if (!well) throw std::runtime_error(what);
}

job some_job() {
  job j;
  j.key.bytes.fill(7);
  j.token = {1};
  j.drv = *nix::store_path::from_base_name("0123456789abcdfghijklmnpqrsvwxyz-a.drv");
  return j;
}
step_progress some_progress() {
  step_progress p;
  p.key.bytes.fill(7);
  p.phase = "building";
  return p;
}

using echo_actor = assignee_actor::extend<caf::reacts_to<atom::progress_atom, step_progress>>;

class echo {
public:
  using interface = echo_actor;
  static constexpr const char* name = "echo";
  explicit echo(rt::self<echo_actor>*) {}
  interface::behavior_type make_behavior() {
    return {[](atom::assign_atom, const job&) -> caf::result<bool> { return true; },
            [](atom::prefetch_atom, const prefetch&) {},
            [](atom::progress_atom, const step_progress&) {}};
  }
};

/// The two nodes' keys, made before they part.
struct keys {
  rt::key_pair hub = rt::make_keys(), member = rt::make_keys();
};

struct sharing : caf::actor_system_config {
  sharing() { set("scheduler.policy", caf::atom("sharing")); }
};

/// One node: a bridge, and what it is told to run.
struct node {
  sharing config;
  caf::actor_system system{config};
  rt::directory names{system};
  rt::tree tree;
  std::shared_ptr<rt::mesh> mesh;
  caf::strong_actor_ptr root;
  bridge_actor bridge;

  node(const std::string& name, const std::filesystem::path& dir, const rt::authorized_keys& allowed,
       const rt::key_pair& own, std::vector<rt::node_address> dials)
      : tree{names, "/" + name}, mesh(std::make_shared<rt::mesh>(names, node_id{name})) {
    rt::bridge_options o;
    o.keys = {name, role::node, own.public_key, own.secret_key, ""};
    o.authorized = dir / (name + ".authorized.toml");
    need(rt::write_authorized(o.authorized, allowed).has_value(), "cannot write an allow-list");
    o.sessions.peers.node = {name};
    o.mesh = mesh;
    o.dials = std::move(dials);
    bridge = tree.child<rt::bridge>("bridge", o, std::make_shared<const rt::registry>(),
                                    std::make_shared<rt::bridge_memory>());
  }
  ~node() {
    if (root) rt::shut_down_and_wait(system, root, 10s);
  }
  node(const node&) = delete;
  node& operator=(const node&) = delete;
  std::string run() {
    root = tree.run();
    caf::scoped_actor me{system};
    std::string where;
    me->request(bridge, 30s, atom::get_v).receive([&](std::string& e) { where = e; }, [](caf::error&) {});
    need(!where.empty(), "a bridge does not bind");
    return where;
  }
};

/// A process that runs `serve`, which tells where it serves, until this one ends.
std::string in_child(const std::function<void(const std::function<void(const std::string&)>&)>& serve) {
  int ends[2];
  need(::pipe(ends) == 0, "cannot make a pipe");
  if (::fork() == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(ends[0]);
    try {
      serve([&](const std::string& where) {
        need(::write(ends[1], where.data(), where.size()) == static_cast<ssize_t>(where.size()), "cannot tell");
        ::close(ends[1]);
      });
    } catch (const std::exception& e) {
      fmt::print(stderr, "{}\n", e.what());
    }
    ::_exit(1);
  }
  ::close(ends[1]);
  char text[200];
  auto n = ::read(ends[0], text, sizeof text);
  ::close(ends[0]);
  need(n > 0, "the other process does not serve");
  return {text, static_cast<std::size_t>(n)};
}

void tune(zmq::socket_t& s) {
  s.set(zmq::sockopt::linger, 0);
  s.set(zmq::sockopt::sndhwm, 8192);
  s.set(zmq::sockopt::rcvhwm, 1024);
}

/// Answers each message whose first part begins with 'q', as soon as it came.
void serve_raw(const keys& k, const std::function<void(const std::string&)>& tell) {
  zmq::context_t context;
  zmq::socket_t router{context, zmq::socket_type::router};
  tune(router);
  router.set(zmq::sockopt::curve_server, true);
  router.set(zmq::sockopt::curve_secretkey, k.hub.secret_key);
  router.bind("tcp://127.0.0.1:0");
  tell(router.get(zmq::sockopt::last_endpoint));
  for (;;) {
    zmq::message_t route, head, body;
    need(router.recv(route) && router.recv(head) && router.recv(body), "receiving ended");
    if (head.to_string_view().front() != 'q') continue;
    router.send(route, zmq::send_flags::sndmore);
    router.send(head, zmq::send_flags::sndmore);
    router.send(zmq::str_buffer("yes"), zmq::send_flags::none);
  }
}

class raw_client {
public:
  raw_client(const keys& k, const std::string& where, std::size_t head, std::size_t body)
      : head_(head, 'q'), body_(body, 'b') {
    tune(socket_);
    socket_.set(zmq::sockopt::curve_serverkey, k.hub.public_key);
    socket_.set(zmq::sockopt::curve_publickey, k.member.public_key);
    socket_.set(zmq::sockopt::curve_secretkey, k.member.secret_key);
    socket_.connect(where);
    ask();
    answer();
  }
  void ask() { send('q'); }
  void answer() {
    zmq::message_t head, body;
    need(socket_.recv(head) && socket_.recv(body), "receiving ended");
  }
  void send(char kind) {
    head_[0] = kind;
    socket_.send(zmq::buffer(head_), zmq::send_flags::sndmore);
    socket_.send(zmq::buffer(body_), zmq::send_flags::none);
  }

private:
  zmq::context_t context_;
  zmq::socket_t socket_{context_, zmq::socket_type::dealer};
  std::string head_, body_;
};

double us_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - t).count();
}

/// Asks `in_flight` at a time until `count` are answered, or sends bursts.
class asker {
public:
  using interface = caf::typed_actor<caf::replies_to<atom::get_atom, std::uint64_t, std::uint64_t>::with<bool>,
                                     caf::replies_to<atom::output_atom, std::uint64_t>::with<bool>>;
  static constexpr const char* name = "asker";
  asker(rt::self<interface>* self, echo_actor to) : self_(self), to_(std::move(to)) {}
  interface::behavior_type make_behavior() {
    return {[this](atom::get_atom, std::uint64_t count, std::uint64_t in_flight) -> caf::result<bool> {
              done_.emplace(self_);
              left_ = count;
              open_ = 0;
              for (std::uint64_t i = 0; i < in_flight && left_ > 0; ++i) ask();
              return *done_;
            },
            [this](atom::output_atom, std::uint64_t count) -> caf::result<bool> {
              done_.emplace(self_);
              left_ = count;
              open_ = 0;
              flood();
              flood();
              return *done_;
            }};
  }

private:
  void ask() {
    --left_;
    ++open_;
    self_->call(to_, atom::assign_v, some_job()).then([this](bool) { answered(); }, [this](caf::error& e) { fail(e); });
  }
  void answered() {
    --open_;
    if (left_ > 0) return ask();
    if (open_ == 0) done_->deliver(true);
  }
  void flood() {
    if (left_ == 0) return;
    auto n = std::min<std::uint64_t>(left_, burst);
    left_ -= n;
    ++open_;
    for (std::uint64_t i = 0; i + 1 < n; ++i) self_->send(to_, atom::progress_v, some_progress());
    self_->call(to_, atom::assign_v, some_job())
        .then(
            [this](bool) {
              --open_;
              flood();
              if (left_ == 0 && open_ == 0) done_->deliver(true);
            },
            [this](caf::error& e) { fail(e); });
  }
  void fail(caf::error& e) { done_->deliver(std::move(e)); }

  rt::self<interface>* self_;
  echo_actor to_;
  std::uint64_t left_ = 0, open_ = 0;
  std::optional<rt::reply<bool>> done_;
};

std::vector<bench::row> measure(const settings& s) {
  const keys k;
  bench::work_dir dir;
  auto where = in_child([&](const auto& tell) {
    node hub{"alder", dir.path(), {{{"birch", role::node, k.member.public_key}}}, k.hub, {}};
    hub.tree.child<echo>("echo");
    hub.mesh->expose<echo_actor>("/alder/echo");
    tell(hub.run());
    for (;;) ::pause();
  });
  auto raw_where = in_child([&](const auto& tell) { serve_raw(k, tell); });

  node member{"birch", dir.path(), {}, k.member, {{{"alder"}, {where}, k.hub.public_key, k.member}}};
  auto echo_there = member.mesh->remote<echo_actor>({"alder"}, "/alder/echo");
  auto ours = member.tree.child<asker>("asker", echo_there);
  member.run();
  for (int i = 0; i < 1'000 && !member.mesh->reaches({"alder"}); ++i) ::usleep(10'000);
  need(member.mesh->reaches({"alder"}), "the nodes do not find each other");
  caf::scoped_actor me{member.system};
  auto ask = [&](const auto& to, auto... xs) {
    bool well = false;
    std::string why;
    me->request(to, 120s, xs...).receive([&](bool x) { well = x; }, [&](caf::error& e) { why = to_string(from_caf(e)); });
    if (!well) throw std::runtime_error("asking another node: " + why);
  };
  rt::envelope head; // so that the rival sends as many bytes
  head.kind = rt::frame_kind::request;
  head.id = 1'000;
  head.target = "/alder/echo";
  head.method = "assign job";
  raw_client raw{k, raw_where, rt::encode_head(head).size(), wire::encode(some_job()).size()};
  raw_client raw_plain{k, raw_where, rt::encode_head(head).size(), wire::encode(some_progress()).size()};

  std::vector<double> rtt, raw_rtt, rate, raw_rate, plain, raw_plain_rate, foreign;
  for (std::size_t round = 0; round < s.rounds; ++round) {
    const auto cpu = bench::own_cpu_s();
    const bench::stopwatch watch;
    for (std::size_t i = 0; i < s.asks; ++i) {
      auto t = std::chrono::steady_clock::now();
      ask(echo_there, atom::assign_v, some_job());
      rtt.push_back(us_since(t));
      t = std::chrono::steady_clock::now();
      raw.ask();
      raw.answer();
      raw_rtt.push_back(us_since(t));
    }
    auto t = std::chrono::steady_clock::now();
    ask(ours, atom::get_v, std::uint64_t{s.messages}, std::uint64_t{window});
    rate.push_back(static_cast<double>(s.messages) / us_since(t) * 1000);
    t = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < window; ++i) raw.ask();
    for (std::size_t i = window; i < s.messages; ++i) {
      raw.answer();
      raw.ask();
    }
    for (std::size_t i = 0; i < window; ++i) raw.answer();
    raw_rate.push_back(static_cast<double>(s.messages) / us_since(t) * 1000);
    t = std::chrono::steady_clock::now();
    ask(ours, atom::output_v, std::uint64_t{s.messages});
    plain.push_back(static_cast<double>(s.messages) / us_since(t) * 1000);
    t = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < s.messages; ++i) {
      raw_plain.send(i % burst == burst - 1 || i + 1 == s.messages ? 'q' : 'p');
    }
    for (std::size_t i = 0; i < s.messages; ++i)
      if (i % burst == burst - 1 || i + 1 == s.messages) raw_plain.answer();
    raw_plain_rate.push_back(static_cast<double>(s.messages) / us_since(t) * 1000);
    foreign.push_back(watch.since(bench::own_cpu_s() - cpu).foreign);
  }
  std::vector<bench::row> rows;
  for (auto [name, share] : {std::pair{"mesh_ask_p50", 0.5}, {"mesh_ask_p99", 0.99}})
    rows.push_back({name, bench::percentile(rtt, share), "us", bench::percentile(raw_rtt, share), bench::at_most(1.5)});
  rows.push_back({"mesh_ask_rate", bench::median(rate), "1/ms", bench::median(raw_rate), bench::at_least(0.5)});
  rows.push_back({"mesh_tell_rate", bench::median(plain), "1/ms", bench::median(raw_plain_rate), bench::at_least(0.5)});
  rows.push_back({"mesh_foreign_and_servers", bench::median(foreign), "share"});
  return rows;
}

} // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Calls of an actor in another process, over loopback with CURVE: one at a time, 64 at a time, and messages "
               "that nobody answers; beside bytes of the same length through bare ZeroMQ sockets."};
  app.add_flag("--json", s.json, "one JSON object a line");
  app.add_flag("--small", s.small, "a run of seconds that shows only that it works");
  app.add_option("--rounds", s.rounds, "the median counts")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--asks", s.asks, "one at a time, in a round")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--messages", s.messages, "at once, in a round")->capture_default_str()->check(CLI::PositiveNumber);
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (s.small) s = {s.json, true, 1, 50, 5'000};
    bench::print(measure(s), s.json);
    return {};
  });
}
