#include "actors/plan/substituter.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"

namespace coppice::actors {
namespace {

/// Another try would be told the same.
bool is_final(const caf::error& e) {
  return is(e, ec::missing) || is(e, ec::corrupt) || is(e, ec::conflict) || is(e, ec::invalid);
}

} // namespace

substituter_state::substituter_state(rt::self<interface>* self, config c, peers p)
    : self_(self), config_(std::move(c)), peers_(std::move(p)) {}

substituter_state::interface::behavior_type substituter_state::make_behavior() {
  return {
      [this](atom::find_atom, std::vector<nix::store_path>& paths) -> caf::result<upstream_paths> {
        rt::reply<upstream_paths> out{self_};
        auto id = ++next_;
        pending_.emplace(id, pending{{{}, std::move(paths), {}}, 0, out});
        ask(id);
        return out;
      },
      [this](atom::substitute_atom, substitution& what) -> caf::result<ledger::done> {
        rt::reply<ledger::done> out{self_};
        auto id = ++next_;
        order o{std::move(what), {}, {}, out};
        for (auto& output : o.what.outputs)
          o.paths.push_back(output.info.path);
        orders_.emplace(id, std::move(o));
        fetch(id);
        return out;
      },
      [this](atom::import_atom, upstream_wanted& wanted) -> caf::result<ledger::done> {
        rt::reply<ledger::done> out{self_};
        auto id = ++next_;
        imports_.emplace(id, import_order{std::move(wanted.paths), out});
        begin_import(id);
        return out;
      },
      [this](atom::done_atom, std::uint64_t id, upstream_paths& news, bool again) {
        on_answer(id, std::move(news), again);
      },
      [this](atom::tick_atom, std::uint64_t id) { pending_.contains(id) ? ask(id) : fetch(id); },
  };
}

void substituter_state::ask(std::uint64_t id) {
  auto& p = pending_.at(id);
  ++p.tries;
  auto paths = std::exchange(p.result.unknown, {});
  self_->doing("asking upstream caches for " + std::to_string(paths.size()) + " paths");
  config_.ask(std::move(paths), [me = self_->incarnation(), id](upstream_paths found, bool again) {
    caf::anon_send(me, atom::done_v, id, std::move(found), again);
  });
}

void substituter_state::on_answer(std::uint64_t id, upstream_paths news, bool again) {
  auto at = pending_.find(id);
  if (at == pending_.end()) return;
  auto& [result, tries, out] = at->second;
  std::move(news.found.begin(), news.found.end(), std::back_inserter(result.found));
  result.unknown = std::move(news.unknown);
  result.troubles = std::move(news.troubles);
  if (again && !result.unknown.empty() && tries < config_.tries_max) {
    self_->later(config_.retry_first * (1u << (tries - 1)), atom::tick_v, id);
    return;
  }
  out.deliver(std::move(result));
  pending_.erase(at);
}

void substituter_state::fetch(std::uint64_t id) {
  auto& o = orders_.at(id);
  self_->doing("substituting " + std::string(o.what.drv.name()));
  ++o.tries;
  o.pin.reset();
  self_->call(peers_.fetcher, atom::fetch_v, o.paths)
      .then(
          [this, id](fetched& f) {
            if (!f.missing.empty())
              return end(id, make_error(ec::missing, "cannot fetch " + f.missing[0].to_string() + ": " + f.why));
            orders_.at(id).pin = std::move(f.pin);
            import(id);
          },
          [this, id](caf::error& e) { end(id, e); });
}

void substituter_state::import(std::uint64_t id) {
  self_->call(peers_.importer, atom::import_v, orders_.at(id).paths)
      .then(
          [this, id](ledger::done&) {
            transact<ledger::path_infos>(
                self_, peers_.ledger, ledger::read_paths{orders_.at(id).paths},
                [this, id](ledger::path_infos& known) { commit(id, known.rows); },
                [this, id](const error& e) { end(id, make_error(e)); });
          },
          [this, id](caf::error& e) { end(id, e); });
}

void substituter_state::commit(std::uint64_t id, const std::vector<path_info>& infos) {
  auto& o = orders_.at(id);
  ledger::substitute tx{o.what.key, o.what.drv, o.what.outputs};
  for (auto& output : tx.outputs)
    for (auto& info : infos)
      if (info.path == output.info.path) output.info = info;
  transact<ledger::done>(
      self_, peers_.ledger, std::move(tx), [this, id](ledger::done&) { end(id, {}); },
      [this, id](const error& e) { end(id, make_error(e)); });
}

void substituter_state::begin_import(std::uint64_t id) {
  auto& o = imports_.at(id);
  auto wanted = o.all ? o.paths : std::vector{o.paths.at(o.at)};
  self_->doing("importing " + std::to_string(o.paths.size()) + " paths for another machine");
  self_->call(peers_.fetcher, atom::fetch_v, wanted)
      .then(
          [this, id, wanted](fetched& f) {
            auto& i = imports_.at(id);
            if (!f.missing.empty()) return next_import(id); // whoever wants it sees that it is not there
            i.pin = std::move(f.pin);
            self_->call(peers_.importer, atom::import_v, wanted)
                .then([this, id](ledger::done&) { imports_.at(id).all ? end_import(id, {}) : next_import(id); },
                      [this, id](caf::error& e) { end_import(id, e); });
          },
          [this, id](caf::error& e) { end_import(id, e); });
}

void substituter_state::next_import(std::uint64_t id) {
  auto& o = imports_.at(id);
  o.pin.reset();
  o.at = o.all ? 0 : o.at + 1;
  if ((o.all && o.paths.size() == 1) || o.at == o.paths.size()) return end_import(id, {});
  o.all = false;
  begin_import(id);
}

void substituter_state::end_import(std::uint64_t id, const caf::error& e) {
  auto o = imports_.extract(id);
  if (e) {
    rt::log::warn("SUBSTITUTER", "not imported for another machine error={}", to_string(from_caf(e)));
    o.mapped().out.deliver(e);
  } else {
    o.mapped().out.deliver(ledger::done{});
  }
}

void substituter_state::end(std::uint64_t id, const caf::error& e) {
  auto& o = orders_.at(id);
  if (e) rt::log::warn("SUBSTITUTER", "not substituted drv={} error={}", o.what.drv.to_string(), to_string(from_caf(e)));
  if (e && !is_final(e) && o.tries < config_.tries_max)
    return self_->later(config_.retry_first * (1u << (o.tries - 1)), atom::tick_v, id);
  if (e) {
    o.out.deliver(e);
  } else {
    rt::log::info("SUBSTITUTER", "substituted drv={}", o.what.drv.to_string());
    o.out.deliver(ledger::done{});
  }
  orders_.erase(id);
}

} // namespace coppice::actors
