#include "actors/build/fetcher.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"
#include "store/compression.hpp"

#include <algorithm>

namespace coppice::actors {
namespace {

/// Unpacks a NAR of the store into the local store, which verifies its hash (INV-16).
expected<void> unpack(store::blob_store& blobs, store::local_store& local, const path_info& info) {
  return local.add_from_nar(info, [&](const store::byte_sink& out) -> expected<void> {
    auto blob = blobs.open(store::nar_key(info.blob, info.gen));
    if (!blob) return tl::unexpected(blob.error());
    store::decompress_limits limits;
    limits.bytes_max = info.nar_size;
    store::decompressor inflate{out, limits};
    std::vector<char> block(256 << 10);
    for (std::uint64_t at = 0;;) {
      auto n = (*blob)->read(at, block);
      if (!n) return tl::unexpected(n.error());
      if (*n == 0) return inflate.finish();
      at += *n;
      if (auto done = inflate.write({block.data(), *n}); !done) return done;
    }
  });
}

/// The same, and the error says whose fault it was: `missing` or `corrupt` only if the store has not got these bytes any
/// more. Then what it still has of them is taken away, so that nobody is offered it (INV-16): narinfos of what is not
/// there are not served. A store on another machine looks for itself, and refuses (`conflict`) if the fault is ours.
expected<void> fetch_one(store::blob_store& blobs, store::local_store& local, const path_info& info) {
  auto key = store::nar_key(info.blob, info.gen);
  auto done = unpack(blobs, local, info);
  if (!done && done.error().code == ec::corrupt) done = unpack(blobs, local, info); // it may have been the reading
  if (done || (done.error().code != ec::missing && done.error().code != ec::corrupt)) return done;
  auto e = done.error();
  if (e.code == ec::missing) {
    auto there = blobs.stat(key);
    if (!there) return tl::unexpected(there.error());
    if (*there) return coppice::fail(ec::io, e.what);
  }
  if (auto gone = blobs.remove(key); !gone) return coppice::fail(gone.error().code, e.what + "; " + gone.error().what);
  return tl::unexpected(e);
}

} // namespace

fetcher_state::fetcher_state(rt::self<interface>* self, config c, ledger_actor ledger,
                             std::optional<substituter_actor> substituter)
  : self_(self), config_(std::move(c)), ledger_(std::move(ledger)), substituter_(std::move(substituter)) {}

fetcher_state::interface::behavior_type fetcher_state::make_behavior() {
  return {
    [this](atom::fetch_atom, std::vector<nix::store_path>& paths) -> caf::result<fetched> {
      rt::reply<fetched> out{self_};
      auto id = ++next_;
      orders_.emplace(id, order{paths, out});
      look(id, std::move(paths));
      return out;
    },
    [this](atom::stored_atom, const nix::store_path& path, const caf::error& e) { on_stored(path, e); },
    [this](atom::done_atom, std::uint64_t id, fetched& f, const caf::error& e) {
      auto found = pinning_.find(id);
      if (found == pinning_.end()) return;
      if (e)
        found->second.deliver(e);
      else
        found->second.deliver(std::move(f));
      pinning_.erase(found);
    },
  };
}

// Walks the closure: what is valid here brings its references, for the rest the ledger says what it refers to.
void fetcher_state::look(std::uint64_t id, std::vector<nix::store_path> paths) {
  auto& o = orders_.at(id);
  std::vector<nix::store_path> unknown;
  while (!paths.empty()) {
    auto path = std::move(paths.back());
    paths.pop_back();
    if (!o.seen.insert(path).second) continue;
    if (auto info = config_.local->query(path))
      paths.insert(paths.end(), info->references.begin(), info->references.end());
    else
      unknown.push_back(std::move(path));
  }
  o.absent.insert(unknown.begin(), unknown.end());
  o.asking = !unknown.empty();
  if (!o.asking) return check(id);
  transact<ledger::path_infos>(
    self_, ledger_, ledger::read_paths{unknown},
    [this, id, unknown](ledger::path_infos& infos) { on_infos(id, unknown, infos.rows); },
    [this, id](const error& e) { fail(id, e); });
}

void fetcher_state::on_infos(std::uint64_t id, const std::vector<nix::store_path>& asked, const std::vector<path_info>& infos) {
  if (!orders_.contains(id)) return;
  std::set<nix::store_path> absent(asked.begin(), asked.end());
  std::vector<nix::store_path> references;
  for (auto& info : infos) {
    absent.erase(info.path);
    references.insert(references.end(), info.references.begin(), info.references.end());
  }
  for (auto& info : infos) download(info, false);
  if (!substituter_)
    for (auto& path : absent) miss(id, path, "no store of the farm has it");
  if (absent.empty() || !substituter_) return look(id, std::move(references));
  std::vector<nix::store_path> rest(absent.begin(), absent.end());
  self_->call(*substituter_, atom::find_v, rest)
    .then(
      [this, id, rest, references](upstream_paths& answer) mutable {
        for (auto& info : answer.found) references.insert(references.end(), info.references.begin(), info.references.end());
        on_upstream(id, rest, answer);
        if (orders_.contains(id)) look(id, std::move(references));
      },
      [this, id](caf::error& e) { fail(id, from_caf(e)); });
}

void fetcher_state::on_upstream(std::uint64_t id, const std::vector<nix::store_path>& asked, const upstream_paths& answer) {
  if (!orders_.contains(id)) return;
  std::set<nix::store_path> absent(asked.begin(), asked.end());
  for (auto& info : answer.found) absent.erase(info.path);
  for (auto& path : absent) // SUBSTITUTER has asked often enough: what does not answer is not there
    miss(id, path, "no store of the farm and no upstream cache has it" +
                     (answer.troubles.empty() ? "" : "; " + answer.troubles.front()));
  for (auto& info : answer.found) download(info, true);
}

void fetcher_state::download(const path_info& info, bool upstream) {
  if (!infos_.emplace(info.path, source{info, upstream}).second) return; // on its way for somebody else
  lanes_[upstream].waiting.push_back(info.path);
  pump(upstream);
}

void fetcher_state::pump(bool upstream) {
  auto& [running, waiting] = lanes_[upstream];
  while (running.size() < config_.downloads_max && !waiting.empty()) {
    auto path = waiting.front();
    waiting.pop_front();
    auto& info = infos_.at(path).info;
    auto me = self_->incarnation();
    bool posted = rt::post_and_send(
      upstream ? *config_.upstream_pool : *config_.pool,
      [c = config_, info, upstream] {
        return upstream ? c.upstream->fetch(info.path, *c.local) : fetch_one(*c.blobs, *c.local, info);
      },
      [me, path](expected<void> done) {
        caf::anon_send(me, atom::stored_v, path, done ? caf::error{} : make_error(done.error()));
      },
      [me, path](const std::string& what) { caf::anon_send(me, atom::stored_v, path, make_error(ec::crashed, what)); });
    running.insert(path);
    if (!posted) self_->send(self_->incarnation(), atom::stored_v, path, make_error(ec::overloaded, "the pool is full"));
  }
}

void fetcher_state::on_stored(const nix::store_path& path, const caf::error& e) {
  const bool gone = is(e, ec::missing) || is(e, ec::corrupt);
  const auto from = infos_.at(path);
  lanes_[from.upstream].running.erase(path);
  if (gone && !from.upstream) {
    on_lost(from.info, from_caf(e));
    return pump(false);
  }
  infos_.erase(path);
  for (auto id : waiting_for(path)) {
    const auto why = from_caf(e);
    if (gone) miss(id, path, why.what);
    if (e && !gone)
      fail(id, {why.code, "cannot fetch " + path.to_string() + ": " + why.what});
    else
      check(id);
  }
  pump(from.upstream);
}

// The ledger hears of it first: whoever asks again must find that it has to be built again.
void fetcher_state::on_lost(const path_info& info, const error& why) {
  rt::log::error("FETCHER", "the store lost path={} blob={} generation={} error={}", info.path.to_string(),
                 info.blob.to_string(), info.gen.value, to_string(why));
  transact<ledger::done>(
    self_, ledger_, ledger::gone{info.blob, info.gen},
    [this, path = info.path, why](ledger::done&) {
      infos_.erase(path);
      for (auto id : waiting_for(path)) {
        miss(id, path, "the store has lost it: " + why.what);
        check(id);
      }
    },
    [this, path = info.path](const error& e) {
      infos_.erase(path);
      for (auto id : waiting_for(path)) fail(id, e);
    });
}

std::vector<std::uint64_t> fetcher_state::waiting_for(const nix::store_path& path) const {
  std::vector<std::uint64_t> waiting;
  for (auto& [id, o] : orders_)
    if (o.absent.contains(path)) waiting.push_back(id);
  return waiting;
}

/// Told with all others that are missing: each answer costs a try at what wants them.
void fetcher_state::miss(std::uint64_t id, const nix::store_path& path, const std::string& why) {
  auto found = orders_.find(id);
  if (found == orders_.end() || found->second.absent.erase(path) == 0) return;
  auto& o = found->second;
  if (o.missing.empty()) o.why = why;
  if (o.missing.size() < missing_told_max) o.missing.push_back(path);
}

void fetcher_state::check(std::uint64_t id) {
  auto found = orders_.find(id);
  if (found == orders_.end() || found->second.asking) return;
  auto& o = found->second;
  std::erase_if(o.absent, [&](auto& path) { return config_.local->query(path).has_value(); });
  if (!o.absent.empty()) return;
  if (o.missing.empty()) return finish(id);
  o.out.deliver(fetched{{}, {}, std::move(o.missing), std::move(o.why)});
  orders_.erase(found);
}

void fetcher_state::fail(std::uint64_t id, error e) {
  auto found = orders_.find(id);
  if (found == orders_.end()) return;
  auto& o = found->second;
  if (o.missing.empty())
    o.out.deliver(make_error(e));
  else
    o.out.deliver(fetched{{}, {}, std::move(o.missing), std::move(o.why)}); // no other try would find it either
  orders_.erase(found);
}

// INV-20: pinned first, then the closure is looked up again.
void fetcher_state::finish(std::uint64_t id) {
  auto o = std::move(orders_.at(id));
  orders_.erase(id);
  pinning_.emplace(id, o.out);
  auto work = [local = config_.local, seen = o.seen, roots = o.roots]() -> expected<fetched> {
    auto pin = local->pin(seen);
    auto closure = local->closure(roots);
    if (!closure) return tl::unexpected(closure.error());
    return fetched{std::move(pin), std::move(*closure)};
  };
  auto me = self_->incarnation();
  bool posted = rt::post_and_send(
    *config_.pool, work,
    [me, id](expected<fetched> f) {
      caf::anon_send(me, atom::done_v, id, f ? std::move(*f) : fetched{}, f ? caf::error{} : make_error(f.error()));
    },
    [me, id](const std::string& what) {
      caf::anon_send(me, atom::done_v, id, fetched{}, make_error(ec::crashed, what));
    });
  if (!posted)
    self_->send(self_->incarnation(), atom::done_v, id, fetched{}, make_error(ec::overloaded, "the pool is full"));
}

} // namespace coppice::actors
