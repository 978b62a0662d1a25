#pragma once

#include "runtime/sessions.hpp"
#include "runtime/supervisor.hpp"

#include <catch2/catch.hpp>

#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

/// Nodes whose sessions are the real ones, and whose connections are queues in this process: nothing is lost or late
/// unless a test says so.
namespace coppice::test {

/// One node: its names, its mesh, and its sessions with others.
class meshed_node {
public:
  struct words {
    std::string head, body;
  };
  /// A connection that another node dialled.
  struct accepted_line {
    std::string route, key;
    std::deque<words> inbox, outbox;
  };

  meshed_node(caf::actor_system& system, std::string name, const std::filesystem::path& dir, std::uint64_t born = 1,
              rt::mesh_options o = {}, std::uint32_t speaks = rt::protocol_version_max)
      : name_(std::move(name))
      , names(system)
      , mesh(std::make_shared<rt::mesh>(names, node_id{name_}, o))
      , counters(std::make_shared<rt::bridge_counters>())
      , out_(std::make_shared<rt::outbox>())
      , port_(rt::reply_port::make(system, out_))
      , users_(dir / (name_ + ".authorized.toml")) {
    rt::session_options options;
    options.peers.node = {name_};
    options.peers.born = {born};
    options.peers.max_version = speaks;
    sessions.emplace(options, users_, std::make_shared<rt::registry>(), port_, counters,
                     [this](const std::string& route, const rt::frame& f) { return send(route, f); }, mesh, out_);
    file_ = dir / (name_ + ".authorized.toml");
  }
  meshed_node(const meshed_node&) = delete;
  meshed_node& operator=(const meshed_node&) = delete;

  /// Lets a key in.
  std::string admit(const std::string& who, role r = role::node) {
    auto key = rt::make_keys().public_key;
    allowed_.key.push_back({who, r, key});
    REQUIRE(rt::write_authorized(file_, allowed_));
    REQUIRE(users_.refresh());
    return key;
  }

  /// Sends everything that waits; true if there was anything.
  bool flush() {
    auto all = out_->take();
    const bool any = !all.empty();
    sessions->deliver(std::move(all));
    return any;
  }

  std::string name_;
  rt::directory names;
  std::shared_ptr<rt::mesh> mesh;
  std::shared_ptr<rt::bridge_counters> counters;
  std::optional<rt::sessions> sessions;
  /// Where frames for a route go; false: it is gone.
  std::map<std::string, std::function<bool(words)>> wires;

private:
  bool send(const std::string& route, const rt::frame& f) {
    auto wire = wires.find(route);
    return wire != wires.end() && wire->second({rt::encode_head(f.head), f.body});
  }
  std::shared_ptr<rt::outbox> out_;
  caf::strong_actor_ptr port_;
  rt::allow_list users_;
  std::filesystem::path file_;
  rt::authorized_keys allowed_;
};

/// The connections between nodes.
class meshed_wires {
public:
  /// `from` dials `to` with a key that `to` knows as that of `known_as`.
  void dial(meshed_node& from, meshed_node& to, const std::string& key) {
    auto route = "r" + std::to_string(++routes_);
    auto cut = std::make_shared<bool>(false);
    links_.push_back({&from, &to, route, cut});
    from.wires[to.name_] = [this, &to, route, key, cut](meshed_node::words w) {
      if (*cut) return true; // lost on the way
      mail_.push_back([this, &to, route, key, w = std::move(w)] {
        to.sessions->heard(route, key, {w.head, w.body}, now());
      });
      return true;
    };
    to.wires[route] = [this, &from, name = to.name_, cut](meshed_node::words w) {
      if (*cut) return true;
      mail_.push_back([this, &from, name, w = std::move(w)] {
        from.sessions->heard_dialled(name, {w.head, w.body}, now());
      });
      return true;
    };
    REQUIRE(from.sessions->dial(to.name_, node_id{to.name_}, now()));
  }
  /// What is said between them is lost from now on, in both directions; nobody is told.
  void cut(meshed_node& a, meshed_node& b) {
    for (auto& l : links_)
      if ((l.from == &a && l.to == &b) || (l.from == &b && l.to == &a)) *l.cut = true;
  }
  /// Carries frames and lets sessions look at the time, until `done`; false if it never is.
  bool run_until(std::initializer_list<meshed_node*> nodes, const std::function<bool()>& done) {
    for (auto until = std::chrono::steady_clock::now() + std::chrono::seconds{20};
         std::chrono::steady_clock::now() < until;) {
      bool busy = false;
      for (auto* n : nodes) {
        busy |= n->flush();
        n->sessions->tick(now());
      }
      while (!mail_.empty()) {
        auto deliver = std::move(mail_.front());
        mail_.pop_front();
        deliver();
        busy = true;
      }
      if (done()) return true;
      if (!busy) std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    return false;
  }
  /// The sessions' clock: time passes when a test says so.
  rt::instant now() const { return rt::instant{std::chrono::hours{1}} + passed; }
  std::chrono::milliseconds passed{0};

private:
  struct link {
    meshed_node *from, *to;
    std::string route;
    std::shared_ptr<bool> cut;
  };
  std::vector<link> links_;
  std::deque<std::function<void()>> mail_;
  int routes_ = 0;
};

} // namespace coppice::test
