#pragma once

#include "actors/deliver/cache_server.hpp"
#include "actors/tree.hpp"
#include "store/closure.hpp"
#include "store/directory_blob_store.hpp"
#include "store/pack.hpp"
#include "tests/support/diamond.hpp"
#include "tests/support/scratch_dir.hpp"
#include "tests/support/scripted_builders.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <set>

namespace coppice::test {

/// An upstream cache that has files of one line, and answers after a while.
class cache_of_one final : public store::upstream_port {
public:
  cache_of_one(world& w, const fs::path& dir, nix::store_path path, const std::string& text)
      : world_(w), file_(dir / "upstream") {
    std::ofstream{file_} << text;
    need(store::canonicalise(file_));
    info_ = store::to_path_info(path, need(store::pack(file_, nullptr, {})), {}, {}, {});
    info_.blob = {};
    info_.blob_size = 0;
  }
  void find(std::vector<nix::store_path> paths, answer done) override {
    upstream_paths found;
    if (std::find(paths.begin(), paths.end(), info_.path) != paths.end()) found.found.push_back(info_);
    world_.after(5ms, [found, done] { done(found, false); });
  }
  expected<void> fetch(const nix::store_path& path, store::local_store& into) override {
    if (path != info_.path) return fail(ec::missing, "no cache has " + path.to_string());
    return into.add_from_nar(info_, [this](const store::byte_sink& to) { return store::dump_path(file_, to); });
  }

private:
  world& world_;
  fs::path file_;
  path_info info_;
};

/// The whole tree of one node in a world: real ledger, real stores, real files; fakes only for the processes of
/// builders, the upstream cache, and the client.
class whole_node {
public:
  explicit whole_node(std::uint64_t seed) : w(seed) {
    for (auto dir : {"running", "uploads"})
      fs::create_directory(scratch.path / dir);
    builders.starts_that_fail["left"] = 1;
  }

  /// Submits the diamond as a client does that repeats what is not answered, waits for the end of the request and then
  /// until nothing is under way, and tells what came of it: the answer, what ledger and store hold, what was left
  /// behind.
  std::string run() {
    start();
    submit(id_, {"top", "found"});
    const auto answer = follow(id_);
    const auto left = left_behind();
    std::string told = tell(answer);
    if (tell(follow(id_)) != told) told += "another answer to the same question (INV-5)\n";
    for (auto& name : diamond::names)
      told += tell_row(name);
    if (*ended_) told += "the tree ended\n";
    return told + builders.faults() + left;
  }

  /// Starts the tree, and waits until it serves.
  void start() {
    tree_.emplace(need(actors::declare_tree(w.directory, parts())));
    ended_ = w.run(tree_->root).ended;
    auto session = w.directory.find_as<session_actor>("/oak/lock/session");
    insist<session_info>(session, atom::get_v);
    names_ = paths();
  }
  /// Asks for these parts of the diamond.
  void submit(const request_id& id, const std::vector<std::string>& roots) {
    const auto bytes = need(store::pack_closure(work.derivations()));
    submit_request s;
    s.id = id;
    for (auto& name : roots)
      s.body.roots.push_back({work.drv(name), {}});
    s.body.closure = store::closure_id(bytes);
    need(blobs->put(store::closure_key(s.body.closure, {1}), bytes));
    transact<ledger::done>(ledger::register_blob{s.body.closure, {1}, bytes.size()});
    insist<accepted>(*tree_->gateway, atom::submit_v, client_, s);
  }
  /// Waits for the end of a request.
  request_result follow(const request_id& id) {
    poll_request p{id, 0, poll_wait_ms_max};
    for (auto end = w.now() + 1h; w.now() < end;) {
      auto news = insist<request_progress>(*tree_->gateway, atom::poll_v, client_, p);
      if (news.result) return *news.result;
      p.after = news.next;
    }
    throw std::runtime_error("the request does not end (INV-2)");
  }
  /// As an operator whose call may be repeated; the actor's restarts afterwards.
  std::uint64_t kill(const kill_actor& order) {
    insist<ledger::done>(tree_->observatory, atom::kill_atom::value, caller{"root", role::admin}, order);
    w.advance(1s);
    for (auto& s : w.directory.describe())
      if (s.path == order.path) return s.restarts;
    throw std::runtime_error("there is no " + order.path);
  }
  actor_state state_of(const std::string& path) {
    for (auto& s : w.directory.describe())
      if (s.path == path) return s.state;
    throw std::runtime_error("there is no " + path);
  }
  /// What should not be there any more, a line for each; waits a while for it to go.
  std::string left_behind() {
    std::string left;
    for (auto end = w.now() + 2min; !(left = left_now()).empty() && w.now() < end;)
      w.advance(1s);
    return left;
  }

private:
  scratch_dir scratch;
  diamond work;
  std::unique_ptr<store::blob_store> blobs = need(store::directory_blob_store::open_dir(scratch.path / "cache"));
  std::unique_ptr<store::local_store> local =
      need(store::local_store::open({scratch.path / "local", "/nix/store", {}, {}, false}));
  store::kept_journal kept = need(store::kept_journal::open(scratch.path / "kept"));
  rt::cgroup_root cgroups{"test", {}};
  actors::bound_port http_port{};
  scripted_builders builders{w}; // these two are needed until the world ends
  cache_of_one upstream{w, scratch.path, work.out("found"), work.text("found")};

public:
  world w;

private:
  actors::node_parts parts() {
    static const auto key = std::make_shared<nix::secret_key>(*nix::secret_key::generate("test-1")); // of all twins
    actors::node_parts p;
    p.settings.http = "127.0.0.1:0";
    p.settings.limits.reserve = {0, 0, 0, 0}; // what this machine has left must not matter
    p.settings.limits.processes_max = 0;
    p.state_dir = scratch.path;
    p.me = {{"oak"}, {}, {1}};
    p.me.session.bytes[0] = 7;
    p.version = "test";
    p.open_ledger = [file = scratch.path / "ledger.sqlite"] { return store::open_sqlite_ledger(file); };
    p.blobs = blobs.get();
    p.local = local.get();
    p.kept = &kept;
    p.upstream = &upstream;
    p.upstream_pool = p.pool = p.ledger_thread = &w.executor;
    p.processes = &builders;
    p.clock = &w.clock;
    p.cgroups = &cgroups;
    p.signing_key = key;
    p.systems = {"x86_64-linux"};
    p.slots = 2;
    p.http_port = &http_port;
    p.make_worker = [](std::string label, rt::child_options o, actors::worker_state::config c, const auto& peers, job j,
                       nonce who, auto entry) {
      c.exec_program = "/proc/self/exe"; // opened, never run
      return actors::worker_pool_state::make_worker(std::move(label), o, c, peers, std::move(j), who, std::move(entry));
    };
    return p;
  }

  /// The client's part of R2: asks until there is an answer.
  template <class T, class Handle, class... Ts>
  T insist(const Handle& to, Ts... xs) {
    for (auto end = w.now() + 10min; w.now() < end; w.advance(100ms))
      if (auto a = w.ask(to, xs...))
        return std::move(*a);
      else if (a.error().code != ec::restarted && a.error().code != ec::unavailable && a.error().code != ec::deadline)
        throw std::runtime_error("refused: " + to_string(a.error()));
    throw std::runtime_error("nobody answers");
  }
  template <class T, class Tx>
  T transact(Tx tx) {
    auto to = w.directory.find_as<ledger_actor>("/oak/lock/ledger");
    return std::get<T>(insist<ledger::answer>(to, atom::transact_v, ledger::transaction{std::move(tx)}).body);
  }

  static std::string tell(const std::vector<realised_output>& outputs) {
    std::string text;
    for (auto& [name, i] : outputs) {
      text += fmt::format(" {}={} nar={}:{} blob={}.{} ca={}", name, i.path.base_name(), i.nar_hash.to_string(),
                          i.nar_size, i.blob.to_string(), i.gen.value, i.ca);
      for (auto& r : i.references)
        text += " ->" + r.base_name();
    }
    return text;
  }
  static std::string tell(const request_result& r) {
    auto text = fmt::format("request {} {}\n", to_string(r.state), r.reason);
    for (auto& root : r.roots)
      text += fmt::format("root {} {}{}\n", root.drv.base_name(), to_string(root.failure), tell(root.outputs));
    for (auto& f : r.failures)
      text += fmt::format("failed {} {}\n", f.drv.base_name(), f.reason);
    return text;
  }
  /// Of one derivation: what ledger and store hold of it, or say of it.
  std::string tell_row(const std::string& name) {
    auto row = transact<ledger::lock_states>(ledger::read_locks{{work.key(name)}}).rows.at(0);
    auto text = fmt::format("row {} {} published={} failed={}{}\n", name, to_string(row.phase), row.published,
                            row.failed.has_value(), tell(row.outputs));
    auto infos = transact<ledger::path_infos>(ledger::read_paths{{work.out(name)}}).rows;
    text += infos.empty() ? name + " is not in the store\n" : "";
    for (auto& i : infos) {
      auto info = store::read_blob(*blobs, store::narinfo_key(i.path), 1 << 20);
      auto nar = store::verify_blob(*blobs, store::nar_key(i.blob, i.gen), i.blob, i.blob_size);
      text += fmt::format("{}{}\n", info ? *info : to_string(info.error()), nar ? "" : to_string(nar.error()));
    }
    return text;
  }

  std::set<std::string> paths() const {
    std::set<std::string> all;
    for (auto& s : w.directory.describe())
      all.insert(s.path);
    return all;
  }
  std::string left_now() {
    std::string text;
    for (auto& row : transact<ledger::lock_states>(ledger::held_locks{}).rows)
      text += fmt::format("left: lock {} {}\n", row.drv.to_string(), to_string(row.phase));
    for (auto& pinned : local->pins())
      text += fmt::format("left: a pin on {} paths\n", pinned.size());
    for (auto& entry : need(kept.list()).entries)
      text += "left: kept entry " + entry.drv.to_string() + "\n";
    for (auto dir : {"local/staging", "running", "cache/.tmp"})
      for (auto& file : fs::directory_iterator{scratch.path / dir})
        text += "left: file " + file.path().lexically_relative(scratch.path).string() + "\n";
    if (auto n = builders.running()) text += fmt::format("left: {} builders\n", n);
    auto now = paths();
    for (auto& path : now)
      if (!names_.contains(path)) text += "left: actor " + path + "\n";
    for (auto& path : names_)
      if (!now.contains(path)) text += "not left: actor " + path + "\n";
    return text;
  }

  const request_id id_ = [] {
    request_id id;
    id.bytes[0] = 1;
    return id;
  }();
  const caller client_{"me", role::submitter};
  std::shared_ptr<std::optional<error>> ended_;
  std::optional<actors::node_tree> tree_;
  std::set<std::string> names_; ///< of the actors that are there from the start
};

} // namespace coppice::test
