#include "actors/deliver/importer.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"
#include "store/path_records.hpp"

namespace coppice::actors {

importer_state::importer_state(rt::self<interface>* self, config c, ledger_actor ledger)
    : self_(self), config_(std::move(c)), ledger_(std::move(ledger)) {}

importer_state::interface::behavior_type importer_state::make_behavior() {
  return {
      [this](atom::import_atom, const std::vector<nix::store_path>& paths) -> caf::result<ledger::done> {
        rt::reply<ledger::done> out{self_};
        auto closure = config_.local->closure(paths);
        if (!closure) {
          out.deliver(make_error(closure.error()));
          return out;
        }
        auto id = ++next_;
        orders_.emplace(id, order{{}, {}, out});
        begin(id, std::move(*closure));
        return out;
      },
      [this](atom::packed_atom, const path_info& info, const caf::error& e) { on_packed(info, e); },
      [this](atom::stored_atom, const nix::store_path& path, const caf::error& e) { on_put(path, e); },
      [this](atom::done_atom, std::uint64_t id, const caf::error& e) {
        if (!orders_.contains(id)) return;
        if (e) return fail(id, from_caf(e));
        enter(id, 0);
      },
  };
}

void importer_state::begin(std::uint64_t id, std::vector<path_info> closure) {
  ledger::read_paths read;
  for (auto& info : closure)
    read.paths.push_back(info.path);
  transact<ledger::path_infos>(
      self_, ledger_, std::move(read),
      [this, id, closure = std::move(closure)](ledger::path_infos& known) {
        std::set<nix::store_path> there;
        for (auto& info : known.rows)
          there.insert(info.path);
        auto& o = orders_.at(id);
        for (auto& info : closure) {
          if (there.contains(info.path)) continue;
          o.paths.push_back(info);
          o.open.insert(info.path);
          if (under_way_.emplace(info.path, info).second) waiting_.push_back(info.path);
        }
        if (o.paths.empty()) {
          o.out.deliver(ledger::done{});
          orders_.erase(id);
        }
        pump();
      },
      [this, id](const error& e) { fail(id, e); });
}

void importer_state::pump() {
  while (packing_ < config_.packs_max && !waiting_.empty()) {
    auto path = std::move(waiting_.front());
    waiting_.pop_front();
    pack(under_way_.at(path));
  }
}

void importer_state::pack(const path_info& info) {
  ++packing_;
  self_->doing("packing " + std::string(info.path.name()));
  auto into = packed_[info.path] = std::make_shared<store::packed>();
  auto work = [into, info, c = config_]() -> expected<path_info> {
    store::pack_options options;
    options.nar_bytes_max = info.nar_size;
    options.compression = c.compression;
    auto packed = store::pack(c.local->real_path(info.path), c.blobs, options);
    if (!packed) return tl::unexpected(packed.error());
    if (packed->nar_hash != info.nar_hash) // INV-16
      return coppice::fail(ec::corrupt, info.path.to_string() + " has changed in the local store");
    *into = std::move(*packed);
    auto done = info;
    done.blob = into->blob;
    done.blob_size = into->blob_size;
    return done;
  };
  auto me = self_->incarnation();
  bool posted = rt::post_and_send(
      *config_.pool, work,
      [me, info](expected<path_info> done) {
        caf::anon_send(me, atom::packed_v, done ? *done : info, done ? caf::error{} : make_error(done.error()));
      },
      [me, info](const std::string& what) { caf::anon_send(me, atom::packed_v, info, make_error(ec::crashed, what)); });
  if (!posted) self_->send(self_->incarnation(), atom::packed_v, info, make_error(ec::overloaded, "the pool is full"));
}

void importer_state::on_packed(const path_info& info, const caf::error& e) {
  if (e) return drop(info.path, from_caf(e));
  under_way_[info.path] = info;
  transact<ledger::blob_state>(
      self_, ledger_, ledger::stat_blob{info.blob},
      [this, path = info.path](ledger::blob_state& s) {
        auto& mine = under_way_.at(path);
        mine.gen = s.gen;
        put(mine, s.present);
      },
      [this, path = info.path](const error& why) { drop(path, why); });
}

void importer_state::put(const path_info& info, bool present) {
  if (present) return on_put(info.path, {});
  auto work = [facts = packed_.at(info.path), key = store::nar_key(info.blob, info.gen)] {
    return facts->writer->commit(key);
  };
  auto me = self_->incarnation();
  bool posted = rt::post_and_send(
      *config_.pool, work,
      [me, path = info.path](expected<void> done) {
        caf::anon_send(me, atom::stored_v, path, done ? caf::error{} : make_error(done.error()));
      },
      [me, path = info.path](const std::string& what) {
        caf::anon_send(me, atom::stored_v, path, make_error(ec::crashed, what));
      });
  if (!posted)
    self_->send(self_->incarnation(), atom::stored_v, info.path, make_error(ec::overloaded, "the pool is full"));
}

void importer_state::on_put(const nix::store_path& path, const caf::error& e) {
  if (e) return drop(path, from_caf(e));
  auto& info = under_way_.at(path);
  transact<ledger::done>(
      self_, ledger_, ledger::register_blob{info.blob, info.gen, info.blob_size},
      [this, info](ledger::done&) { on_registered(info); }, [this, path](const error& why) { drop(path, why); });
}

void importer_state::on_registered(const path_info& info) {
  --packing_;
  packed_.erase(info.path);
  under_way_.erase(info.path);
  std::vector<std::uint64_t> complete;
  for (auto& [id, o] : orders_) {
    if (o.open.erase(info.path) == 0) continue;
    for (auto& mine : o.paths)
      if (mine.path == info.path) mine = info;
    if (o.open.empty()) complete.push_back(id);
  }
  for (auto id : complete)
    publish(id);
  pump();
}

// The narinfos go first: a path that the ledger knows is not published again.
void importer_state::publish(std::uint64_t id) {
  auto work = [blobs = config_.blobs, key = config_.key, paths = orders_.at(id).paths] {
    std::vector<std::pair<std::string, std::string>> documents;
    for (auto& info : paths) {
      auto narinfo = store::to_narinfo(info);
      narinfo.sigs.push_back(key->sign(narinfo.fingerprint()));
      documents.emplace_back(store::narinfo_key(info.path), nix::print_narinfo(narinfo));
    }
    return blobs->put_all(documents);
  };
  auto me = self_->incarnation();
  bool posted = rt::post_and_send(
      *config_.pool, work,
      [me, id](expected<void> done) {
        caf::anon_send(me, atom::done_v, id, done ? caf::error{} : make_error(done.error()));
      },
      [me, id](const std::string& what) { caf::anon_send(me, atom::done_v, id, make_error(ec::crashed, what)); });
  if (!posted) fail(id, {ec::overloaded, "the pool is full"});
}

// One after the other: what the ledger knows is always closed under reference.
void importer_state::enter(std::uint64_t id, std::size_t at) {
  auto& o = orders_.at(id);
  if (at == o.paths.size()) {
    o.out.deliver(ledger::done{});
    orders_.erase(id);
    return;
  }
  transact<ledger::done>(
      self_, ledger_, ledger::add_source{o.paths[at]}, [this, id, at](ledger::done&) { enter(id, at + 1); },
      [this, id](const error& e) { fail(id, e); });
}

void importer_state::drop(const nix::store_path& path, const error& e) {
  --packing_;
  packed_.erase(path);
  under_way_.erase(path);
  std::vector<std::uint64_t> waiting;
  for (auto& [id, o] : orders_)
    if (o.open.contains(path)) waiting.push_back(id);
  for (auto id : waiting)
    fail(id, {e.code, "cannot import " + path.to_string() + ": " + e.what});
  pump();
}

void importer_state::fail(std::uint64_t id, const error& e) {
  auto o = orders_.extract(id);
  if (o.empty()) return;
  rt::log::warn("IMPORTER", "not imported error={}", to_string(e));
  o.mapped().out.deliver(make_error(e));
}

} // namespace coppice::actors
