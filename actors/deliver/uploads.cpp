#include "actors/deliver/uploads.hpp"

#include "actors/deliver/http_answers.hpp"
#include "nix/narinfo.hpp"
#include "runtime/log.hpp"
#include "store/closure.hpp"
#include "store/path_records.hpp"
#include "store/spool_file.hpp"

#include <httplib.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace coppice::actors {

namespace {

constexpr std::string_view source_prefix = "/upload/source/", closure_prefix = "/upload/closure/";
constexpr std::size_t paths_per_query_max = 1000;

std::string_view tail(std::string_view path, std::string_view prefix) {
  return path.substr(prefix.size());
}

expected<void> ignore(std::string_view) {
  return {};
}

} // namespace

uploads::uploads(config c, ledger_port ledger) : config_(std::move(c)), ledger_(std::move(ledger)) {
  if (auto done = store::spool_file::prepare(config_.dir); !done) throw std::runtime_error(done.error().what);
}

template <class Answer, class Tx>
expected<Answer> uploads::ask(Tx transaction) const {
  auto answer = ledger_(ledger::any_transaction{std::move(transaction)});
  if (!answer) return tl::unexpected(answer.error());
  if (auto* a = std::get_if<Answer>(&*answer)) return std::move(*a);
  return fail(ec::bad_message, "the ledger answered with another type than asked for");
}

bool uploads::admits(const httplib::Request& req, httplib::Response& res) const {
  std::uint64_t bytes_max = 0;
  bool is_source = req.path.starts_with(source_prefix);
  if (is_source && nix::store_path::from_base_name(tail(req.path, source_prefix)))
    bytes_max = config_.source.nar_bytes_max;
  else if (req.path.starts_with(closure_prefix) && blob_id::parse(tail(req.path, closure_prefix)))
    bytes_max = config_.closure_bytes_max;
  if (bytes_max == 0) {
    respond(res, 404, "nothing can be put here");
  } else if (!config_.tickets->find(ticket_of(req), config_.clock->now())) {
    respond_unknown(res, "an upload needs a ticket that is not over: ask the node what is missing, it gives one");
  } else if (!is_source && req.has_header("Content-Length") &&
             req.get_header_value<std::uint64_t>("Content-Length") > bytes_max) {
    respond(res, 413, "the upload is larger than the " + std::to_string(bytes_max) + " bytes that are allowed");
  } else {
    return true;
  }
  return false;
}

void uploads::put(const httplib::Request& req, httplib::Response& res, const body_reader& body) {
  const turn mine{running_};
  if (mine.number > config_.uploads_max)
    return respond_with(res, {ec::overloaded, "there are " + std::to_string(config_.uploads_max) + " uploads already"});
  auto done = [&]() -> expected<void> {
    if (auto path = req.path.starts_with(source_prefix) ? nix::store_path::from_base_name(tail(req.path, source_prefix))
                                                        : nix::fail("no source"))
      return put_source(*path, body);
    auto id = blob_id::parse(tail(req.path, closure_prefix));
    return id ? put_closure(*id, body) : tl::unexpected(id.error());
  }();
  if (done) return respond(res, 200, "stored");
  rt::log::info("CACHE_SERVER", "upload refused path={} error={}", req.path, to_string(done.error()));
  respond_with(res, done.error());
}

expected<std::optional<path_info>> uploads::known(const nix::store_path& path) const {
  auto infos = ask<ledger::path_infos>(ledger::read_paths{{path}});
  if (!infos) return tl::unexpected(infos.error());
  if (infos->rows.empty()) return std::nullopt;
  return infos->rows.front();
}

// Clients upload in order of reference, so that what is in the store is always closed.
expected<void> uploads::require_known(const path_info& info) const {
  for (std::size_t i = 0; i < info.references.size(); i += paths_per_query_max) {
    auto from = info.references.begin() + static_cast<std::ptrdiff_t>(i);
    auto count = std::min(paths_per_query_max, info.references.size() - i);
    ledger::read_paths query{{from, from + static_cast<std::ptrdiff_t>(count)}};
    auto infos = ask<ledger::path_infos>(query);
    if (!infos) return tl::unexpected(infos.error());
    for (auto& wanted : query.paths)
      if (std::none_of(infos->rows.begin(), infos->rows.end(),
                       [&](const path_info& known_one) { return known_one.path == wanted; }))
        return fail(ec::missing, info.path.to_string(config_.source.store_dir) + " refers to " +
                                     wanted.to_string(config_.source.store_dir) + ", which has to be uploaded first");
  }
  return {};
}

expected<generation> uploads::store_once(const blob_id& blob, std::uint64_t size,
                                         const std::function<std::string(generation)>& key,
                                         const std::function<expected<void>(const std::string& key)>& commit) const {
  auto state = ask<ledger::blob_state>(ledger::stat_blob{blob});
  if (!state) return tl::unexpected(state.error());
  auto stored = config_.blobs->stat(key(state->gen));
  if (!stored) return tl::unexpected(stored.error());
  if (!state->present || *stored != size)
    if (auto done = commit(key(state->gen)); !done) return tl::unexpected(done.error());
  if (auto done = ask<ledger::done>(ledger::register_blob{blob, state->gen, size}); !done)
    return tl::unexpected(done.error());
  return state->gen;
}

expected<void> uploads::publish(const path_info& info) const {
  auto narinfo = store::to_narinfo(info);
  auto& store_dir = config_.source.store_dir;
  if (config_.key) narinfo.sigs.push_back(config_.key->sign(narinfo.fingerprint(store_dir)));
  return config_.blobs->put(store::narinfo_key(info.path), nix::print_narinfo(narinfo, store_dir));
}

expected<void> uploads::put_source(const nix::store_path& path, const body_reader& body) {
  auto before = known(path);
  if (!before) return tl::unexpected(before.error());
  if (*before) return take_body(body, config_.source.nar_bytes_max, ignore);
  auto spool = config_.blobs->begin();
  if (!spool) return tl::unexpected(spool.error());
  source_upload upload{path, std::move(*spool), config_.source};
  auto taken = take_body(body, UINT64_MAX, [&](std::string_view bytes) { return upload.write(bytes); });
  if (!taken) return taken;
  auto info = upload.finish();
  if (!info) return tl::unexpected(info.error());
  if (auto closed = require_known(*info); !closed) return closed;
  auto gen = store_once(
      info->blob, info->blob_size, [&](generation g) { return store::nar_key(info->blob, g); },
      [&](const std::string& key) { return upload.spool().commit(key); });
  if (!gen) return tl::unexpected(gen.error());
  info->gen = *gen;
  // the narinfo goes first: a source that the ledger knows is not uploaded again
  if (auto done = publish(*info); !done) return done;
  if (auto done = ask<ledger::done>(ledger::add_source{*info}); !done) return tl::unexpected(done.error());
  auto after = known(path);
  if (!after) return tl::unexpected(after.error());
  // somebody was faster, with another blob: ours will be collected
  if (*after && ((*after)->blob != info->blob || (*after)->gen != info->gen)) return publish(**after);
  return {};
}

expected<void> uploads::put_closure(const blob_id& id, const body_reader& body) {
  auto state = ask<ledger::blob_state>(ledger::stat_blob{id});
  if (!state) return tl::unexpected(state.error());
  if (state->present) return take_body(body, config_.closure_bytes_max, ignore);
  auto spool = store::spool_file::create(config_.dir);
  if (!spool) return tl::unexpected(spool.error());
  nix::hasher hasher;
  auto taken = take_body(body, config_.closure_bytes_max, [&](std::string_view bytes) {
    hasher.update(bytes);
    return spool->write(bytes);
  });
  if (!taken) return taken;
  auto found = hasher.finish().base16();
  if (found != id.to_string()) return fail(ec::invalid, "the closure's sha256 is " + found + ", not " + id.to_string());
  return spool->map([&](std::string_view bytes) -> expected<void> {
    auto closure = store::unpack_closure(bytes, {.bytes_max = config_.closure_unpacked_max}, config_.source.store_dir);
    if (!closure)
      return fail(closure.error().code == ec::limit_exceeded ? ec::limit_exceeded : ec::invalid, closure.error().what);
    auto gen = store_once(
        id, bytes.size(), [&](generation g) { return store::closure_key(id, g); },
        [&](const std::string& key) -> expected<void> {
          auto writer = config_.blobs->begin();
          if (!writer) return tl::unexpected(writer.error());
          if (auto done = (*writer)->write(bytes); !done) return done;
          return (*writer)->commit(key);
        });
    return gen ? expected<void>{} : tl::unexpected(gen.error());
  });
}

} // namespace coppice::actors
