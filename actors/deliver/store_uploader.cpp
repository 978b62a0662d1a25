#include "actors/deliver/store_uploader.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"
#include "store/nar_files.hpp"

namespace coppice::actors {

store_uploader_state::store_uploader_state(rt::self<interface>* self, config c, ledger_actor ledger, upload_task task)
    : self_(self)
    , config_(std::move(c))
    , ledger_(std::move(ledger))
    , task_(std::move(task))
    , delay_(config_.retry_first)
    , told_(task_.registered) {}

store_uploader_state::interface::behavior_type store_uploader_state::make_behavior() {
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg&) { self_->quit(); }); // nobody wants it any more
  self_->monitor(task_.worker);
  pack();
  return {
      [this](atom::retry_atom) { try_again(try_); },
      [this](atom::tick_atom, std::uint64_t after) { try_again(after); },
      [this](atom::packed_atom, const packed_outputs& p, const caf::error& e) { on_packed(p, e); },
      [this](atom::stored_atom, const packed_outputs&, const caf::error& e) {
        if (e)
          retry(from_caf(e));
        else
          register_blobs();
      },
  };
}

void store_uploader_state::try_again(std::uint64_t after) {
  if (!pausing_ || after != try_) return;
  pausing_ = false;
  ++try_;
  put_ ? import_references() : pack();
}

void store_uploader_state::pack() {
  self_->doing("packing " + std::string(task_.drv.name()));
  auto into = packed_ = std::make_shared<std::vector<one>>();
  auto work = [into, task = task_, c = config_]() -> expected<packed_outputs> {
    packed_outputs result;
    for (std::size_t i = 0; i < task.outputs.size(); ++i) {
      if (!task.registered)
        if (auto done = store::canonicalise(task.trees[i]); !done) return tl::unexpected(done.error());
      store::pack_options options;
      options.candidates = task.candidates;
      options.content = task.content;
      options.nar_bytes_max = c.nar_bytes_max;
      options.compression = c.compression;
      options.blob_optional = true;
      auto packed = store::pack(task.trees[i], c.blobs, options);
      if (!packed) return tl::unexpected(packed.error());
      result.plain_file = packed->content_hash.has_value();
      if (packed->content_hash) result.content_hash = packed->content_hash->base16();
      realised_output o{task.outputs[i].name,
                        store::to_path_info(task.outputs[i].info.path, *packed, task.drv, task.outputs[i].info.ca, {})};
      result.outputs.push_back(std::move(o));
      into->push_back({std::move(*packed), {}, false});
    }
    return result;
  };
  auto me = self_->incarnation();
  bool posted = rt::post_and_send(
      *config_.pool, work,
      [me](expected<packed_outputs> p) {
        caf::anon_send(me, atom::packed_v, p ? std::move(*p) : packed_outputs{},
                       p ? caf::error{} : make_error(p.error()));
      },
      [me](const std::string& what) {
        caf::anon_send(me, atom::packed_v, packed_outputs{}, make_error(ec::crashed, what));
      });
  if (!posted) retry({ec::overloaded, "the pool is full"});
}

void store_uploader_state::on_packed(const packed_outputs& p, const caf::error& e) {
  if (e) {
    auto why = from_caf(e);
    if (told_) return retry(why); // what is kept was good once: the machine is in trouble, not the output
    auto kind = why.code == ec::limit_exceeded                       ? failure::output_limit
                : why.code == ec::invalid || why.code == ec::missing ? failure::output_rejected
                                                                     : failure::infra;
    self_->send(task_.worker, atom::failed_v, kind, why.what);
    return self_->quit();
  }
  task_.outputs = p.outputs;
  if (told_) return ask_generations();
  self_->call(task_.worker, atom::packed_v, p)
      .then(
          [this](ledger::done&) {
            told_ = task_.registered = true;
            task_.trees = task_.kept_trees;
            ask_generations();
          },
          [this](caf::error& why) {
            // its WORKER knows why; but if that has not heard us, it must hear that we are gone
            if (is(why, ec::invalid) || is(why, ec::stale)) return self_->quit();
            self_->quit(std::move(why));
          });
}

void store_uploader_state::ask_generations() {
  for (auto& x : *packed_)
    if (x.facts.blob_failure) return retry(*x.facts.blob_failure);
  open_ = packed_->size();
  for (std::size_t i = 0; i < packed_->size(); ++i)
    transact<ledger::blob_state>(
        self_, ledger_, ledger::stat_blob{(*packed_)[i].facts.blob},
        [this, i, mine = packed_](ledger::blob_state& s) {
          if (mine != packed_) return; // of an earlier try
          (*packed_)[i].gen = s.gen;
          (*packed_)[i].present = s.present;
          if (--open_ == 0) put();
        },
        [this, mine = packed_](const error& e) {
          if (mine == packed_) retry(e);
        });
}

void store_uploader_state::tell(event_kind kind) {
  auto e = event_of(kind, task_.drv, task_.key, task_.token);
  for (auto& x : *packed_)
    if (!x.present) e.bytes += x.facts.blob_size;
  config_.events.add(std::move(e));
}

void store_uploader_state::put() {
  tell(event_kind::upload_begun);
  self_->doing("putting " + std::string(task_.drv.name()));
  auto work = [batch = packed_, blobs = config_.blobs]() -> expected<void> {
    for (auto& x : *batch) {
      auto key = store::nar_key(x.facts.blob, x.gen);
      if (x.present) {
        x.facts.writer.reset();
        continue;
      }
      if (auto done = x.facts.writer->commit(key); !done) return done;
    }
    return {};
  };
  auto me = self_->incarnation();
  bool posted = rt::post_and_send(
      *config_.pool, work,
      [me](expected<void> done) {
        caf::anon_send(me, atom::stored_v, packed_outputs{}, done ? caf::error{} : make_error(done.error()));
      },
      [me](const std::string& what) {
        caf::anon_send(me, atom::stored_v, packed_outputs{}, make_error(ec::crashed, what));
      });
  if (!posted) retry({ec::overloaded, "the pool is full"});
}

void store_uploader_state::register_blobs() {
  open_ = packed_->size();
  for (std::size_t i = 0; i < packed_->size(); ++i) {
    auto& x = (*packed_)[i];
    task_.outputs[i].info.gen = x.gen;
    transact<ledger::done>(
        self_, ledger_, ledger::register_blob{x.facts.blob, x.gen, x.facts.blob_size},
        [this, mine = packed_](ledger::done&) {
          if (mine != packed_ || --open_ > 0) return;
          put_ = true;
          config_.importer ? import_references() : finish();
        },
        [this, mine = packed_](const error& e) {
          if (mine == packed_) retry(e);
        });
  }
}

// INV-3: what outputs refer to is in the farm's store before anybody is told of them.
void store_uploader_state::import_references() {
  std::set<nix::store_path> paths;
  for (auto& o : task_.outputs)
    paths.insert(o.info.references.begin(), o.info.references.end());
  for (auto& o : task_.outputs)
    paths.erase(o.info.path);
  if (paths.empty()) return finish();
  self_->call(*config_.importer, atom::import_v, std::vector<nix::store_path>(paths.begin(), paths.end()))
      .then([this](ledger::done&) { finish(); }, [this](caf::error& e) { retry(from_caf(e)); });
}

void store_uploader_state::finish() {
  tell(event_kind::upload_ended);
  self_->send(task_.worker, atom::stored_v, packed_outputs{task_.outputs, {}, false});
  self_->quit();
}

void store_uploader_state::retry(const error& e) {
  rt::log::warn("STORE_UPLOADER", "not stored, tried again drv={} in_ms={} error={}", task_.drv.to_string(),
                delay_.count(), to_string(e));
  self_->doing("waiting " + std::to_string(std::chrono::ceil<std::chrono::seconds>(delay_).count()) + " s to try " +
               std::string(task_.drv.name()) + " again: " + to_string(e));
  if (!put_) packed_.reset();
  if (told_) self_->send(task_.worker, atom::failed_v, make_error(e));
  pausing_ = true;
  self_->later(delay_, atom::tick_v, try_);
  delay_ = std::min(delay_ * 2, config_.retry_max);
}

} // namespace coppice::actors
