#pragma once

#include "runtime/bridge.hpp"
#include "runtime/call.hpp"
#include "runtime/supervisor.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <catch2/catch.hpp>
#include <zmq.hpp>

#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>

/// A node with a bridge and one exposed actor, on real sockets.
namespace coppice::test {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

using oracle_actor = caf::typed_actor<
    // who asks
    caf::replies_to<atom::info_atom, caller, get_info>::with<node_info>,
    // echoes; the counter in the test's hands rises
    caf::replies_to<atom::submit_atom, caller, submit_request>::with<accepted>,
    // after 1: dies; 2: never answers; 3: answers with 5 MiB; 4: with 20 MiB; else at once
    caf::replies_to<atom::poll_atom, caller, poll_request>::with<request_progress>,
    // not to be called from outside: no caller
    caf::replies_to<atom::get_atom, get_info>::with<node_info>>;

class oracle {
public:
  using interface = oracle_actor;
  static constexpr const char* name = "oracle";
  oracle(rt::self<oracle_actor>* self, std::shared_ptr<std::atomic<int>> submits)
      : self_(self), submits_(std::move(submits)) {}

  interface::behavior_type make_behavior() {
    return {
        [](atom::info_atom, const caller& who, get_info) {
          node_info i;
          i.version = who.name + "/" + std::string{to_string(who.role)};
          return i;
        },
        [this](atom::submit_atom, const caller&, const submit_request& m) {
          ++*submits_;
          return accepted{m.id, request_state::open};
        },
        [this](atom::poll_atom, const caller&, const poll_request& m) -> caf::result<request_progress> {
          if (m.after == 1) throw std::runtime_error("as told");
          if (m.after == 2) {
            kept_.emplace_back(self_);
            return kept_.back();
          }
          request_progress p;
          p.id = m.id;
          p.running.resize(m.after == 3 ? 5 : m.after == 4 ? 20 : 0);
          for (auto& r : p.running)
            r.last_line.assign(1 << 20, 'x');
          return p;
        },
        [](atom::get_atom, get_info) { return node_info{}; },
    };
  }

private:
  rt::self<oracle_actor>* self_;
  std::shared_ptr<std::atomic<int>> submits_;
  std::vector<rt::reply<request_progress>> kept_;
};

inline bool eventually(const std::function<bool()>& f, std::chrono::milliseconds patience = 5s) {
  for (auto until = std::chrono::steady_clock::now() + patience; std::chrono::steady_clock::now() < until;) {
    if (f()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return f();
}

struct farm {
  fs::path dir;
  rt::key_pair server = rt::make_keys();
  rt::authorized_keys allowed;
  std::shared_ptr<std::atomic<int>> submits = std::make_shared<std::atomic<int>>(0);
  std::shared_ptr<rt::bridge_memory> memory = std::make_shared<rt::bridge_memory>();
  caf::actor_system_config config;
  std::unique_ptr<caf::actor_system> system;
  std::unique_ptr<rt::directory> names;
  std::unique_ptr<rt::tree> tree;
  caf::strong_actor_ptr root;
  bridge_actor bridge;
  std::string endpoint;
  rt::bridge_options options;
  bool exposes = true;

  farm() {
    std::string pattern = (fs::temp_directory_path() / "coppice-wire-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    dir = pattern;
    config.set("scheduler.policy", caf::atom("sharing"));
    options.keys = {"alder", role::node, server.public_key, server.secret_key, ""};
    options.authorized = dir / "authorized.toml";
    options.sessions.peers.node.value = "alder";
  }
  ~farm() {
    if (root) CHECK(rt::shut_down_and_wait(*system, root, 10s));
    bridge = bridge_actor{};
    tree.reset();
    root = nullptr;
    options.mesh.reset();
    names.reset();
    system.reset();
    fs::remove_all(dir);
  }
  farm(const farm&) = delete;
  farm& operator=(const farm&) = delete;

  /// A new client key with this role, let in.
  rt::credentials client(role r, const std::string& name = "lena") {
    auto k = rt::make_keys();
    allowed.key.push_back({name, r, k.public_key});
    REQUIRE(rt::write_authorized(options.authorized, allowed));
    return stranger(name, r, k);
  }
  /// The same, not let in.
  rt::credentials stranger(const std::string& name = "eve", role r = role::admin,
                           const rt::key_pair& k = rt::make_keys()) {
    return {{{endpoint, server.public_key}}, {name, r, k.public_key, k.secret_key, ""}, dir / (name + ".toml")};
  }

  void start() {
    prepare("");
    run();
  }
  /// Everything but what runs.
  void prepare(const std::string& path = "/alder") {
    system = std::make_unique<caf::actor_system>(config);
    names = std::make_unique<rt::directory>(*system);
    tree = std::make_unique<rt::tree>(*names, path, rt::supervisor_options{});
  }
  void run() {
    auto exposed = std::make_shared<rt::registry>();
    if (exposes) exposed->expose("oracle", tree->child<oracle>("oracle", submits), {{"submit", role::submitter}});
    bridge = tree->child<rt::bridge>("bridge", options, std::shared_ptr<const rt::registry>{exposed}, memory);
    root = tree->run();
    endpoint = ask_endpoint();
  }
  std::string ask_endpoint() {
    caf::scoped_actor self{*system};
    std::string where;
    self->request(bridge, caf::infinite, atom::get_v).receive([&](std::string& e) { where = e; }, [](caf::error&) {});
    REQUIRE(where.starts_with("tcp://127.0.0.1:"));
    return where;
  }
  rt::bridge_counters& counters() { return *memory->counters; }

  static poll_request poll(std::uint64_t after) {
    poll_request m;
    m.id.bytes.fill(1);
    m.after = after;
    return m;
  }
  static submit_request submit() {
    submit_request m;
    m.id.bytes.fill(1);
    m.body.closure.bytes.fill(1);
    m.body.roots = {{*nix::store_path::from_base_name("0123456789abcdfghijklmnpqrsvwxyz-a.drv"), {}}};
    return m;
  }
};

/// A DEALER that says what it is told, with a key.
class raw_dealer {
public:
  raw_dealer(const rt::credentials& c, const std::string& address) : socket_(context_, zmq::socket_type::dealer) {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.set(zmq::sockopt::sndtimeo, 3000);
    if (!c.key.public_key.empty()) {
      socket_.set(zmq::sockopt::curve_serverkey, c.endpoints[0].server_key);
      socket_.set(zmq::sockopt::curve_publickey, c.key.public_key);
      socket_.set(zmq::sockopt::curve_secretkey, c.key.secret_key);
    }
    socket_.connect(address);
  }
  void send(const std::vector<std::string>& parts) {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      socket_.send(zmq::buffer(parts[i]), i + 1 < parts.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
  }
  void send(rt::frame_kind kind, std::uint64_t id = 0, std::string body = {}, const std::string& target = {},
            const std::string& method = {}) {
    rt::envelope e;
    e.kind = kind;
    e.id = id;
    e.target = target;
    e.method = method;
    send({rt::encode_head(e), std::move(body)});
  }
  void greet(std::uint32_t min = 1, std::uint32_t max = 1) {
    send(rt::frame_kind::hello, 0, wire::encode(rt::hello{"coppice", min, max, "raw", "", 0}));
  }
  /// The next frame within `patience`; kind none if there is none.
  rt::frame receive(std::chrono::milliseconds patience = 3s) {
    socket_.set(zmq::sockopt::rcvtimeo, static_cast<int>(patience.count()));
    zmq::message_t head, body;
    if (!socket_.recv(head) || !head.more() || !socket_.recv(body)) return {};
    auto e = rt::decode_head(head.to_string_view());
    return {e ? *e : rt::envelope{}, body.to_string()};
  }
  zmq::socket_t& socket() { return socket_; }

private:
  zmq::context_t context_{1};
  zmq::socket_t socket_;
};

} // namespace coppice::test
