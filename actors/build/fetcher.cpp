#include "actors/build/fetcher.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"

#include <algorithm>

namespace coppice::actors {
namespace {

using word = fetch_report::word;

} // namespace

fetcher_state::fetcher_state(rt::self<interface>* self, config c, peers p)
    : self_(self), config_(std::move(c)), peers_(std::move(p)), plan_(config_.plan), queue_(config_.lanes) {}

fetcher_state::interface::behavior_type fetcher_state::make_behavior() {
  return {
      [this](atom::fetch_atom, std::vector<nix::store_path>& paths) -> caf::result<fetched> {
        rt::reply<fetched> out{self_};
        auto id = ++next_;
        orders_.emplace(id, order{paths, out});
        look(id, std::move(paths));
        return out;
      },
      [this](atom::prefetch_atom, const coppice::prefetch& what) { prefetch(what); },
      [this](atom::stored_atom, const nix::store_path& path, const std::shared_ptr<const fetch_report>& report) {
        on_stored(path, *report);
      },
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

// One job ahead: what is fetched for it already goes on, what waits gives way to the next one.
void fetcher_state::prefetch(const coppice::prefetch& what) {
  if (ahead_ && ahead_->first == what.key) return;
  if (ahead_) orders_.erase(ahead_->second);
  for (auto& path : queue_.drop_ahead())
    forget(path);
  auto id = ++next_;
  ahead_.emplace(what.key, id);
  orders_.emplace(id, order{*what.inputs, std::nullopt});
  look(id, *what.inputs);
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
  read(id, unknown);
}

void fetcher_state::read(std::uint64_t id, const std::vector<nix::store_path>& paths,
                         const std::vector<nix::store_path>& more) {
  transact<ledger::path_infos>(
      self_, peers_.ledger, ledger::read_paths{paths, true},
      [this, id, paths, more](ledger::path_infos& known) { on_infos(id, paths, known, more); },
      [this, id](const error& e) { fail(id, e); });
}

void fetcher_state::on_infos(std::uint64_t id, const std::vector<nix::store_path>& asked,
                             const ledger::path_infos& known, std::vector<nix::store_path> more) {
  if (!orders_.contains(id)) return;
  auto& o = orders_.at(id);
  std::set<nix::store_path> absent(asked.begin(), asked.end());
  for (auto& info : known.rows) {
    absent.erase(info.path);
    more.insert(more.end(), info.references.begin(), info.references.end());
  }
  plan_.on_holders(known.holders);
  for (auto& info : known.rows)
    download(info, o.out ? fetch_lane::farm : fetch_lane::ahead);
  if (!o.out) {
    for (auto& path : absent) // who wants it will look further
      o.absent.erase(path);
  } else if (!absent.empty() && peers_.substituter) {
    return ask_upstream(id, absent, more);
  } else if (!absent.empty() && peers_.hub) {
    std::vector<nix::store_path> fresh;
    for (auto& path : absent)
      if (fresh.size() < upstream_wanted_max && o.told_hub.insert(path).second) fresh.push_back(path);
    if (!fresh.empty()) return ask_hub(id, {std::move(fresh)}, {absent.begin(), absent.end()}, more, 1);
  }
  for (auto& path : absent)
    miss(id, path, "no store of the farm has it");
  look(id, std::move(more));
}

void fetcher_state::ask_upstream(std::uint64_t id, const std::set<nix::store_path>& paths,
                                 const std::vector<nix::store_path>& more) {
  std::vector<nix::store_path> rest(paths.begin(), paths.end());
  self_->call(*peers_.substituter, atom::find_v, rest)
      .then(
          [this, id, rest, references = more](upstream_paths& answer) mutable {
            for (auto& info : answer.found)
              references.insert(references.end(), info.references.begin(), info.references.end());
            on_upstream(id, rest, answer);
            if (orders_.contains(id)) look(id, std::move(references));
          },
          [this, id](caf::error& e) { fail(id, from_caf(e)); });
}

void fetcher_state::on_upstream(std::uint64_t id, const std::vector<nix::store_path>& asked,
                                const upstream_paths& answer) {
  if (!orders_.contains(id)) return;
  std::set<nix::store_path> absent(asked.begin(), asked.end());
  for (auto& info : answer.found)
    absent.erase(info.path);
  for (auto& path : absent) // SUBSTITUTER has asked often enough: what does not answer is not there
    miss(id, path,
         "no store of the farm and no upstream cache has it" +
             (answer.troubles.empty() ? "" : "; " + answer.troubles.front()));
  for (auto& info : answer.found)
    download(info, fetch_lane::upstream);
}

// What upstream caches have the hub puts into the farm's store, where all find it. That may take longer than a call.
void fetcher_state::ask_hub(std::uint64_t id, const upstream_wanted& wanted, const std::vector<nix::store_path>& absent,
                            const std::vector<nix::store_path>& more, unsigned asks) {
  self_->call(*peers_.hub, atom::import_v, wanted)
      .then(
          [this, id, absent, more](ledger::done&) {
            if (orders_.contains(id)) read(id, absent, more);
          },
          [this, id, wanted, absent, more, asks](caf::error& e) {
            if (!orders_.contains(id)) return;
            if (is(e, ec::no_such_target)) return on_infos(id, absent, {}, more); // the hub has no upstream caches
            if (is(e, ec::deadline) && asks < config_.hub_asks_max) return ask_hub(id, wanted, absent, more, asks + 1);
            fail(id, from_caf(e));
          });
}

void fetcher_state::download(const path_info& info, fetch_lane lane) {
  const bool fresh = infos_.emplace(info.path, source{info, lane == fetch_lane::upstream}).second;
  if (!fresh && !queue_.contains(info.path)) return; // what became of it is just being told
  queue_.add(info.path, lane);
  pump();
}

void fetcher_state::pump() {
  while (auto path = queue_.next())
    begin(*path);
  show();
}

void fetcher_state::begin(const nix::store_path& path) {
  const auto from = infos_.at(path);
  auto holders = config_.held ? plan_.holders_of(path, config_.clock->now()) : std::vector<ledger::path_holder>{};
  auto told = [me = self_->incarnation(), path](fetch_report r) {
    caf::anon_send(me, atom::stored_v, path, std::make_shared<const fetch_report>(std::move(r)));
  };
  auto work = [c = config_, from, holders = std::move(holders)] {
    if (from.upstream) return fetch_report{c.upstream->fetch(from.info.path, *c.local)};
    return fetch_path({c.blobs, c.local, c.held}, from.info, holders);
  };
  auto& pool = from.upstream ? *config_.upstream_pool : *config_.pool;
  const bool posted = rt::post_and_send(pool, std::move(work), told, [told](const std::string& what) {
    told({coppice::fail(ec::crashed, what)});
  });
  if (!posted) told({coppice::fail(ec::overloaded, "the pool is full")});
}

void fetcher_state::on_stored(const nix::store_path& path, const fetch_report& report) {
  const auto now = config_.clock->now();
  for (auto& [node, what] : report.holders) {
    if (what == word::served) plan_.health().on_served(node);
    if (what == word::failed) plan_.health().on_failed(node, now);
    if (what == word::wrong) plan_.health().on_wrong(node, now);
    if (what == word::failed)
      rt::log::warn("FETCHER", "machine not asked for a while node={} path={}", node.value, path.to_string());
    if (what == word::wrong)
      rt::log::error("FETCHER", "machine sent wrong bytes, not asked for long node={} path={}", node.value,
                     path.to_string());
  }
  held_bytes_ += report.held_bytes;
  store_bytes_ += report.store_bytes;
  rt::log::debug("FETCHER", "fetched path={} from_machines={} from_store={} ok={}", path.to_string(), report.held_bytes,
                 report.store_bytes, report.done.has_value());
  const auto from = infos_.at(path);
  queue_.on_ended(path);
  if (report.lost) {
    on_lost(from.info, report.done.error());
    return pump();
  }
  forget(path);
  const auto why = report.done ? error{} : report.done.error();
  const bool gone = from.upstream && (why.code == ec::missing || why.code == ec::corrupt);
  for (auto id : waiting_for(path)) {
    if (gone) miss(id, path, why.what);
    if (!report.done && !gone)
      fail(id, {why.code, "cannot fetch " + path.to_string() + ": " + why.what});
    else
      check(id);
  }
  pump();
}

void fetcher_state::forget(const nix::store_path& path) {
  infos_.erase(path);
  plan_.forget(path);
}

// The ledger hears of it first: whoever asks again must find that it has to be built again.
void fetcher_state::on_lost(const path_info& info, const error& why) {
  rt::log::error("FETCHER", "the store lost path={} blob={} generation={} error={}", info.path.to_string(),
                 info.blob.to_string(), info.gen.value, to_string(why));
  transact<ledger::done>(
      self_, peers_.ledger, ledger::gone{info.blob, info.gen},
      [this, path = info.path, why](ledger::done&) {
        forget(path);
        for (auto id : waiting_for(path)) {
          miss(id, path, "the store has lost it: " + why.what);
          check(id);
        }
      },
      [this, path = info.path](const error& e) {
        forget(path);
        for (auto id : waiting_for(path))
          fail(id, e);
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
  if (!o.out) return end(id);
  if (o.missing.empty()) return finish(id);
  o.out->deliver(fetched{{}, {}, std::move(o.missing), std::move(o.why)});
  end(id);
}

void fetcher_state::fail(std::uint64_t id, error e) {
  auto found = orders_.find(id);
  if (found == orders_.end()) return;
  auto& o = found->second;
  if (o.out && o.missing.empty())
    o.out->deliver(make_error(e));
  else if (o.out)
    o.out->deliver(fetched{{}, {}, std::move(o.missing), std::move(o.why)}); // no other try would find it either
  end(id);
}

void fetcher_state::end(std::uint64_t id) {
  orders_.erase(id); // that ahead_ still names what was fetched ahead keeps it from being looked at again
}

void fetcher_state::show() {
  if (held_bytes_ + store_bytes_ == 0 && infos_.empty()) return;
  self_->doing(std::to_string(queue_.running(fetch_lane::farm) + queue_.running(fetch_lane::upstream)) + " fetched, " +
               std::to_string(queue_.running(fetch_lane::ahead)) + " ahead, " +
               std::to_string(queue_.waiting(fetch_lane::farm) + queue_.waiting(fetch_lane::upstream)) + " waiting; " +
               std::to_string(held_bytes_ / 1'000'000) + " MB came from machines that hold them, " +
               std::to_string(store_bytes_ / 1'000'000) + " MB from the farm's store");
}

// INV-20: pinned first, then the closure is looked up again.
void fetcher_state::finish(std::uint64_t id) {
  auto o = std::move(orders_.at(id));
  orders_.erase(id);
  pinning_.emplace(id, *o.out);
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
