#include "actors/build/fixed_output.hpp"
#include "actors/build/worker.hpp"
#include "actors/build/worker_files.hpp"
#include "runtime/log.hpp"
#include "store/files.hpp"

#include <algorithm>

/// What becomes of the outputs of a build that ended well: packed, judged, kept until they are committed, or given up.
namespace coppice::actors {
namespace {

std::string content_address(nix::content_method method, const nix::hash& hash) {
  return (method == nix::content_method::recursive ? "fixed:r:" : "fixed:") + hash.to_string();
}

} // namespace

void worker_state::pack(bool registered) {
  upload_order o;
  o.name = label();
  o.worker = self_->stable();
  o.drv = job_.drv;
  o.registered = registered;
  o.key = job_.key;
  o.token = attempt_.token();
  for (auto& [output_name, output] : drv_.outputs) {
    realised_output r;
    r.name = output_name;
    r.info.path = *output.path;
    o.kept_trees.push_back(config_.local->real_path(*output.path));
    o.candidates.insert(*output.path);
    o.outputs.push_back(std::move(r));
  }
  for (auto& info : inputs_.closure) o.candidates.insert(info.path);
  if (registered) {
    o.outputs = attempt_.outputs();
    o.trees.clear();
    for (auto& out : o.outputs) {
      o.trees.push_back(config_.local->real_path(out.info.path));
      o.candidates.insert(out.info.references.begin(), out.info.references.end());
    }
    o.kept_trees = o.trees;
  } else {
    for (auto& out : o.outputs) o.trees.push_back(trees_.at(out.name));
  }
  if (drv_.is_fixed_output()) {
    auto& output = drv_.outputs.begin()->second;
    if (auto declared = output.content_hash()) {
      o.content.emplace(output.method(), declared->algo());
      o.outputs[0].info.ca = content_address(output.method(), *declared);
    }
  }
  peers_.upload(self_, std::move(o));
}

std::optional<build_fault> worker_state::fault_of(const packed_outputs& p) const {
  if (!drv_.is_fixed_output()) return output_fault(job_.drv, drv_, p.outputs, inputs_.closure);
  auto& output = drv_.outputs.begin()->second;
  auto declared = output.content_hash();
  if (!declared) return build_fault{failure::output_rejected, declared.error().what};
  fixed_output_facts facts;
  facts.plain_file = p.plain_file;
  if (auto found = nix::hash::parse_any(p.content_hash, declared->algo())) facts.hash = *found;
  facts.references = {p.outputs[0].info.references.begin(), p.outputs[0].info.references.end()};
  auto fault = fixed_output_fault(job_.drv, drv_, facts);
  if (!fault) return output_fault(job_.drv, drv_, p.outputs, inputs_.closure);
  bool only_hash = !p.content_hash.empty() && facts.references.empty();
  return build_fault{only_hash ? failure::hash_mismatch : failure::output_rejected, *fault};
}

caf::result<ledger::done> worker_state::on_packed(packed_outputs& p) {
  rt::reply<ledger::done> out{self_};
  if (attempt_.at() != attempt::stage::packing) {
    out.fail(ec::stale, "this attempt is past packing");
  } else if (auto fault = fault_of(p)) {
    out.fail(ec::invalid, fault->reason);
    if (!dir_)
      drop_damaged();
    else if (fault->kind == failure::hash_mismatch)
      keep_mismatch(p, fault->reason);
    else
      reject(fault->kind, fault->reason);
  } else if (!job_.compare.empty()) {
    out.fail(ec::invalid, "this attempt only compares");
    compare(p.outputs);
  } else {
    uploader_ = out;
    perform(attempt_.on_packed(std::move(p.outputs)));
  }
  return out;
}

// Who corrects the hash that a derivation declares does not wait for the same bytes again.
void worker_state::keep_mismatch(const packed_outputs& p, const std::string& reason) {
  auto& output = drv_.outputs.begin()->second;
  auto info = p.outputs[0].info;
  auto hash = nix::hash::parse_any(p.content_hash, output.content_hash()->algo());
  auto path = hash ? nix::fixed_output_path(drv_.name, output.method(), *hash) : tl::unexpected(hash.error());
  if (!path) return reject(failure::hash_mismatch, reason);
  info.path = *path;
  info.ca = content_address(output.method(), *hash);
  std::vector<std::pair<path_info, std::filesystem::path>> tree{{info, trees_.begin()->second}};
  blocking([local = config_.local, tree, dir = dir_] { return local->add_outputs(tree); },
           [this, path = *path, reason](const error& e) {
             if (e.code != ec::none) rt::log::warn("WORKER", "wrong output not kept path={} error={}", path.to_string(), to_string(e));
             reject(failure::hash_mismatch, reason);
           });
}

void worker_state::drop_damaged() {
  auto path = *drv_.outputs.begin()->second.path;
  blocking([local = config_.local, path] { return local->remove(path); },
           [this, path](const error& e) {
             auto what = "what the local store has as " + path.to_string() + " is damaged";
             reject(failure::infra, e.code == ec::none ? what : what + " and cannot be removed: " + e.what);
           });
}

void worker_state::compare(const std::vector<realised_output>& outputs) {
  std::string differences;
  for (auto& known : job_.compare) {
    auto made = std::find_if(outputs.begin(), outputs.end(), [&](auto& o) { return o.name == known.name; });
    if (made != outputs.end() && made->info.nar_hash == known.info.nar_hash) continue;
    differences += "\n  " + known.info.path.to_string() + " is registered with NAR hash sha256:" +
                   known.info.nar_hash.to_string() + ", and was built again with " +
                   (made == outputs.end() ? "none" : "sha256:" + made->info.nar_hash.to_string());
  }
  if (differences.empty()) return perform(attempt_.on_same(job_.compare));
  reject(failure::not_deterministic, job_.drv.to_string() + " may not be deterministic:" + differences);
}

void worker_state::keep(const std::vector<realised_output>& outputs) {
  std::vector<std::pair<path_info, std::filesystem::path>> trees;
  for (auto& o : outputs) trees.emplace_back(o.info, trees_.at(o.name));
  store::kept_entry entry{job_.key, attempt_.token(), job_.drv, job_.aterm, outputs};
  blocking(
    [local = config_.local, kept = config_.kept, trees, entry]() -> expected<void> {
      if (auto done = add_outputs(*local, *kept, trees); !done) return done;
      return kept->add(entry);
    },
    [this](const error& e) {
      if (e.code != ec::none) return reject(failure::infra, "cannot keep the outputs: " + e.what);
      perform(attempt_.on_kept());
    });
}

bool worker_state::keeps_outputs() const {
  return std::all_of(attempt_.outputs().begin(), attempt_.outputs().end(), [this](auto& o) {
    const auto here = config_.local->query(o.info.path);
    return here && here->nar_hash == o.info.nar_hash;
  });
}

void worker_state::reject(failure kind, std::string reason) {
  if (uploader_) uploader_->fail(ec::invalid, reason);
  uploader_.reset();
  perform(attempt_.on_rejected(kind, std::move(reason)));
}

void worker_state::discard(bool committed) {
  inputs_.pin.reset();
  auto work = [dir = std::exchange(dir_, nullptr), staging = std::exchange(staging_, {}), kept = config_.kept, local = config_.local,
               key = job_.key,
               outputs = committed || !job_.compare.empty() ? std::vector<realised_output>{} : attempt_.outputs()]() -> expected<void> {
    expected<void> result;
    auto note = [&](expected<void> done) {
      if (!done && result) result = done;
    };
    if (dir) note(dir->remove());
    if (!staging.empty()) note(store::remove_tree(staging));
    std::vector<nix::store_path> paths;
    for (auto& o : outputs) paths.push_back(o.info.path);
    note(remove_outputs(*local, std::move(paths))); // another build of it counts, not this one (INV-4)
    note(kept->remove(key));
    return result;
  };
  blocking(std::move(work), [this](const error& e) {
    if (e.code != ec::none) rt::log::warn("WORKER", "scratch not removed drv={} error={}", job_.drv.to_string(), to_string(e));
    self_->quit();
  });
}

// At once, since nothing else may have room before it is gone: neither the log nor the ledger that hears of the failure.
void worker_state::scrap() {
  blocking(
    [dir = std::exchange(dir_, nullptr), staging = std::exchange(staging_, {})]() -> expected<void> {
      auto emptied = dir ? dir->remove() : expected<void>{};
      auto gone = staging.empty() ? expected<void>{} : store::remove_tree(staging);
      return emptied ? gone : emptied;
    },
    [this](const error& e) {
      if (e.code != ec::none) rt::log::warn("WORKER", "scratch not removed drv={} error={}", job_.drv.to_string(), to_string(e));
    });
}

caf::result<ledger::done> worker_state::drop(fence token) {
  rt::reply<ledger::done> out{self_};
  if (!attempt_.may_drop(token)) {
    out.fail(ec::stale, job_.drv.to_string() + " is not waiting for the store under token " +
                            std::to_string(token.value) + ": it is " + std::string(attempt::to_string(attempt_.at())) +
                            " under token " + std::to_string(attempt_.token().value));
    return out;
  }
  rt::log::warn("WORKER", "outputs dropped by an operator drv={} token={}", job_.drv.to_string(), token.value);
  perform(attempt_.on_dropped("its outputs were dropped by an operator"));
  out.deliver(ledger::done{});
  return out;
}

} // namespace coppice::actors
