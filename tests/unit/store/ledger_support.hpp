#pragma once

#include "store/ledger.hpp"

#ifdef COPPICE_ETCD
#include "runtime/random.hpp"
#include "store/etcd_ledger.hpp"
#endif

#include <catch2/catch.hpp>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

/// A small farm around a ledger: readable ids, and answers of the kind one expects.
namespace coppice::test {

namespace fs = std::filesystem;
using store::ledger_backend;
using store::ledger_io_error;

template <class Id>
Id id(unsigned n) {
  Id x;
  x.bytes[0] = 0xaa;
  x.bytes.back() = static_cast<std::uint8_t>(n);
  x.bytes[x.bytes.size() - 2] = static_cast<std::uint8_t>(n >> 8);
  return x;
}
inline inhash key(unsigned n) {
  return id<inhash>(n);
}
inline request_id request(unsigned n) {
  return id<request_id>(n);
}
inline session_id session(unsigned n) {
  return id<session_id>(n);
}
inline blob_id blob(unsigned n) {
  return id<blob_id>(n);
}
inline holder who(unsigned session_no, unsigned nonce_no) {
  return {session(session_no), id<nonce>(nonce_no)};
}
inline node_id node(unsigned n) {
  return {std::string(1, static_cast<char>('a' + n))};
}
inline nix::store_path path(const std::string& name) {
  return *nix::store_path::from_base_name("00000000000000000000000000000000-" + name);
}
inline nix::store_path drv(unsigned n) {
  return path("step" + std::to_string(n) + ".drv");
}

inline path_info info(const std::string& name, unsigned blob_no, generation gen = {1}) {
  path_info i;
  i.path = path(name);
  i.nar_hash = id<nar_hash>(blob_no);
  i.nar_size = 1000 + blob_no;
  i.references = {path("libc"), path(name)};
  i.deriver = path(name + ".drv");
  i.blob = blob(blob_no);
  i.blob_size = 100;
  i.gen = gen;
  return i;
}

class temporary_directory {
public:
  temporary_directory() {
    fs::path shm = "/dev/shm"; // a thousand databases are synced many times each
    auto text = ((fs::is_directory(shm) ? shm : fs::temp_directory_path()) / "coppice-ledger-XXXXXX").string();
    REQUIRE(::mkdtemp(text.data()));
    path_ = text;
  }
  ~temporary_directory() {
    std::error_code ignored; // ignored: a left-over directory in /tmp fails nobody
    fs::remove_all(path_, ignored);
  }
  temporary_directory(const temporary_directory&) = delete;
  temporary_directory& operator=(const temporary_directory&) = delete;
  fs::path operator/(const char* name) const { return path_ / name; }

private:
  fs::path path_;
};

enum class kind { memory, sqlite, sqlite_reopened_each_time, etcd, etcd_reopened_each_time, etcd_in_small_steps };

#ifdef COPPICE_ETCD
/// The etcd that tests/cluster/etcd.py started; empty if there is none.
inline std::vector<std::string> etcd_endpoints() {
  std::vector<std::string> all;
  std::istringstream in{std::getenv("COPPICE_TEST_ETCD") ? std::getenv("COPPICE_TEST_ETCD") : ""};
  for (std::string url; std::getline(in, url, ',');)
    all.push_back(url);
  return all;
}
/// Of a ledger that no other test has.
inline store::etcd_ledger_options fresh_etcd_ledger() {
  store::etcd_ledger_options o;
  o.client.endpoints = etcd_endpoints();
  o.prefix = "/test/" + rt::random_id<session_id>().to_string() + "/";
  o.node = {"n1"};
  return o;
}
#endif

/// What every test of the rules runs over.
inline std::vector<kind> every_ledger() {
#ifdef COPPICE_ETCD
  if (!etcd_endpoints().empty()) return {kind::etcd, kind::etcd_reopened_each_time, kind::etcd_in_small_steps};
#endif
  return {kind::memory, kind::sqlite, kind::sqlite_reopened_each_time};
}

/// A ledger with two nodes, a and b, in sessions 0 and 1, and request 0 adopted by a in epoch 1.
class farm {
public:
  explicit farm(kind k, store::ledger_policy policy = {}) : kind_(k), policy_(policy) {
    open();
    for (unsigned n = 0; n < 2; ++n)
      done(ledger::open_session{node(n), incarnation{1}, session(n)});
    submit(0);
    adopt(0);
  }

  void open() {
    backend_.reset();
    switch (kind_) {
    case kind::memory: backend_ = store::open_memory_ledger(policy_); return;
    case kind::sqlite:
    case kind::sqlite_reopened_each_time:
      backend_ = store::open_sqlite_ledger(directory_ / "ledger.db", policy_);
      return;
    default: break;
    }
#ifdef COPPICE_ETCD
    if (kind_ == kind::etcd_in_small_steps) etcd_.operations_max = 4;
    backend_ = store::open_etcd_ledger(etcd_, policy_);
#endif
  }
  expected<ledger::any_answer> run(ledger::any_transaction t) {
    changed = {};
    auto answers = backend_->run({&t, 1}, now_ms, changed);
    REQUIRE(answers.size() == 1);
    if (kind_ == kind::sqlite_reopened_each_time || kind_ == kind::etcd_reopened_each_time) open();
    return answers[0];
  }
  /// Runs it twice (INV-10); both times the answer must be a T, and the same.
  template <class T>
  T ask(ledger::any_transaction t) {
    auto first = run(t);
    if (!first) FAIL(to_string(first.error()));
    REQUIRE(std::holds_alternative<T>(*first));
    auto told = changed;
    REQUIRE(run(t) == first);
    REQUIRE(changed == ledger::changed{});
    changed = told;
    return std::get<T>(*first);
  }
  void done(ledger::any_transaction t) { ask<ledger::done>(std::move(t)); }
  /// The error that it must end in, and which changes nothing.
  ec refused(ledger::any_transaction t) {
    auto answer = run(std::move(t));
    REQUIRE_FALSE(answer);
    text = answer.error().what;
    REQUIRE(changed == ledger::changed{});
    return answer.error().code;
  }

  void submit(unsigned r, std::string client = "alice") {
    request_body body;
    body.roots = {{drv(r), {"out"}}};
    body.closure = blob(900 + r);
    ask<ledger::request_row>(ledger::submit{request(r), std::move(client), body});
  }
  epoch adopt(unsigned r, unsigned s = 0) { return ask<ledger::owned>(ledger::adopt{request(r), session(s)}).epoch; }
  ledger::acquire acquiring(unsigned k, unsigned r = 0, unsigned s = 0) {
    return {key(k), drv(k), request(r), {1}, who(s, 100 + r)};
  }
  fence acquire(unsigned k, unsigned r = 0, unsigned s = 0) { return ask<ledger::granted>(acquiring(k, r, s)).token; }
  ledger::lock_state refused_lock(unsigned k, unsigned r = 0, unsigned s = 0) {
    return ask<ledger::lock_state>(acquiring(k, r, s));
  }
  fence start(unsigned k, fence token, unsigned s = 1, unsigned nonce_no = 7) {
    return ask<ledger::granted>(ledger::start{key(k), token, who(s, nonce_no), node(s)}).token;
  }
  /// Acquired by request r and started on node s.
  fence build(unsigned k, unsigned r = 0, unsigned s = 1) { return start(k, acquire(k, r), s); }
  void put_blob(unsigned b) { done(ledger::register_blob{blob(b), stat(b).gen, 100}); }
  ledger::blob_state stat(unsigned b) { return ask<ledger::blob_state>(ledger::stat_blob{blob(b)}); }
  ledger::commit committing(unsigned k, fence token) {
    return {key(k), token, {{"out", info("step" + std::to_string(k), k)}}};
  }
  void commit(unsigned k, fence token) {
    put_blob(k);
    done(committing(k, token));
  }
  void publish(unsigned k) { done(ledger::published{key(k), lock(k).outputs}); }
  void realise(unsigned k, unsigned r = 0) {
    commit(k, build(k, r));
    publish(k);
  }
  ledger::lock_state lock(unsigned k) { return ask<ledger::lock_states>(ledger::read_locks{{key(k)}}).rows.at(0); }
  std::vector<ledger::attempt_row> attempts(unsigned k) {
    return ask<ledger::attempt_rows>(ledger::read_attempts{key(k), {}, 0, 100}).rows;
  }
  ledger::request_row row(unsigned r) {
    return ask<ledger::request_rows>(ledger::read_requests{request(r), 1}).rows.at(0);
  }
  ledger::finish finishing(unsigned r, request_state state, std::vector<inhash> roots = {}) {
    ledger::finish f{request(r), {1}, {}, std::move(roots)};
    f.result.state = state;
    for (auto& row : ask<ledger::lock_states>(ledger::read_locks{f.roots}).rows)
      f.result.roots.push_back({row.drv, row.outputs, failure::none});
    return f;
  }
  ledger_backend& backend() { return *backend_; }
  fs::path file() const { return directory_ / "ledger.db"; }

  ledger::changed changed; ///< by the last transaction
  std::string text;        ///< of the last refusal
  std::int64_t now_ms = 1'000'000;

private:
  kind kind_;
  store::ledger_policy policy_;
#ifdef COPPICE_ETCD
  store::etcd_ledger_options etcd_ = fresh_etcd_ledger();
#endif
  temporary_directory directory_;
  std::unique_ptr<ledger_backend> backend_;
};

} // namespace coppice::test

/// Every test of the rules runs over every backend.
#define EVERY_LEDGER GENERATE(from_range(coppice::test::every_ledger()))

namespace Catch {

template <>
struct StringMaker<coppice::expected<coppice::ledger::any_answer>> {
  static std::string convert(const coppice::expected<coppice::ledger::any_answer>& a) {
    return a ? "answer " + std::to_string(a->index()) : to_string(a.error());
  }
};

} // namespace Catch
