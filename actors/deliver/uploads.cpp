#include "actors/deliver/uploads.hpp"

#include "nix/narinfo.hpp"
#include "runtime/fd.hpp"
#include "runtime/log.hpp"
#include "store/closure.hpp"
#include "store/files.hpp"
#include "store/path_records.hpp"
#include "store/sinks.hpp"

#include <fcntl.h>
#include <httplib.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <vector>

namespace coppice::actors {

namespace {

constexpr std::string_view source_prefix = "/upload/source/", closure_prefix = "/upload/closure/";
constexpr std::size_t paths_per_query_max = 1000;
constexpr const char* spool_prefix = "upload-";

int status_of(ec code) {
  switch (code) {
  case ec::invalid: return 422;
  case ec::bad_message:
  case ec::corrupt: return 400;
  case ec::limit_exceeded: return 413;
  case ec::missing:
  case ec::conflict: return 409;
  case ec::forbidden: return 403;
  case ec::unsupported: return 415;
  case ec::storage_full: return 507;
  case ec::io: return 500;
  default: return 503; // what the ledger and the way to it may answer; all of it passes
  }
}

void respond_with(httplib::Response& res, const error& e) {
  int status = status_of(e.code);
  if (status == 503) res.set_header("Retry-After", "1");
  respond(res, status, e.what);
}

std::string_view tail(std::string_view path, std::string_view prefix) {
  return path.substr(prefix.size());
}

/// A file without a name, so that nothing of it outlives the upload.
class spool_file {
public:
  static expected<spool_file> create(const std::filesystem::path& dir) {
    auto name = (dir / (std::string{spool_prefix} + "XXXXXX")).string();
    spool_file f;
    f.fd_.reset(::mkostemp(name.data(), O_CLOEXEC));
    if (!f.fd_) return tl::unexpected(store::system_error(errno, "cannot create a file in " + dir.string()));
    ::unlink(name.c_str()); // ignored: a file that stays is removed at the next birth
    f.dir_ = dir;
    return f;
  }
  expected<void> write(std::string_view bytes) {
    size_ += bytes.size();
    return store::write_all(fd_.get(), bytes, dir_);
  }
  std::uint64_t size() const { return size_; }
  /// Calls `use` with all that was written.
  expected<void> read(const std::function<expected<void>(std::string_view)>& use) const {
    if (size_ == 0) return use({});
    void* at = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd_.get(), 0);
    if (at == MAP_FAILED) return tl::unexpected(store::system_error(errno, "cannot map an upload"));
    auto unmap = [this](void* p) { ::munmap(p, size_); };
    std::unique_ptr<void, decltype(unmap)> mapped{at, unmap};
    return use({static_cast<const char*>(at), size_});
  }

private:
  rt::unique_fd fd_;
  std::filesystem::path dir_;
  std::uint64_t size_ = 0;
};

/// Passes a body of at most `bytes_max` bytes on; the first error ends it.
expected<void> take(const body_reader& body, std::uint64_t bytes_max, const store::byte_sink& into) {
  expected<void> done;
  std::uint64_t taken = 0;
  bool whole = body([&](std::string_view bytes) {
    taken += bytes.size();
    done = taken > bytes_max ? fail(ec::limit_exceeded, "the upload is larger than the " + std::to_string(bytes_max) +
                                                            " bytes that are allowed")
                             : into(bytes);
    return done.has_value();
  });
  if (done && !whole) return fail(ec::bad_message, "the upload broke off after " + std::to_string(taken) + " bytes");
  return done;
}

expected<void> ignore(std::string_view) {
  return {};
}

} // namespace

uploads::uploads(config c, ledger_port ledger) : config_(std::move(c)), ledger_(std::move(ledger)) {
  if (auto made = store::make_directories(config_.dir); !made) throw std::runtime_error(made.error().what);
  std::error_code e;
  for (auto& file : std::filesystem::directory_iterator{config_.dir})
    if (file.path().filename().string().starts_with(spool_prefix)) std::filesystem::remove(file.path(), e);
  if (e) throw std::runtime_error("cannot empty " + config_.dir.string() + ": " + e.message());
}

template <class Answer, class Tx>
expected<Answer> uploads::ask(Tx transaction) const {
  auto answer = ledger_(ledger::any_transaction{std::move(transaction)});
  if (!answer) return tl::unexpected(answer.error());
  if (auto* a = std::get_if<Answer>(&*answer)) return std::move(*a);
  return fail(ec::bad_message, "the ledger answered with another type than asked for");
}

bool uploads::admits(const httplib::Request& req, httplib::Response& res) const {
  constexpr std::string_view scheme = "Bearer ";
  auto word = req.get_header_value("Authorization");
  std::uint64_t bytes_max = 0;
  bool is_source = req.path.starts_with(source_prefix);
  if (is_source && nix::store_path::from_base_name(tail(req.path, source_prefix)))
    bytes_max = config_.source.nar_bytes_max;
  else if (req.path.starts_with(closure_prefix) && blob_id::parse(tail(req.path, closure_prefix)))
    bytes_max = config_.closure_bytes_max;
  if (bytes_max == 0) {
    respond(res, 404, "nothing can be put here");
  } else if (!word.starts_with(scheme) ||
             !config_.tickets->find(std::string_view{word}.substr(scheme.size()), config_.clock->now())) {
    respond(res, 401, "an upload needs a ticket that is not over: ask the node what is missing, it gives one");
    res.set_header("WWW-Authenticate", "Bearer");
  } else if (!is_source && req.has_header("Content-Length") &&
             req.get_header_value<std::uint64_t>("Content-Length") > bytes_max) {
    respond(res, 413, "the upload is larger than the " + std::to_string(bytes_max) + " bytes that are allowed");
  } else {
    return true;
  }
  return false;
}

void uploads::put(const httplib::Request& req, httplib::Response& res, const body_reader& body) {
  struct turn {
    explicit turn(std::atomic<std::size_t>& n) : count(n), number(++n) {}
    ~turn() { --count; }
    std::atomic<std::size_t>& count;
    std::size_t number;
  } mine{running_};
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
  if (*before) return take(body, config_.source.nar_bytes_max, ignore);
  auto spool = config_.blobs->begin();
  if (!spool) return tl::unexpected(spool.error());
  source_upload upload{path, std::move(*spool), config_.source};
  auto taken = take(body, UINT64_MAX, [&](std::string_view bytes) { return upload.write(bytes); });
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
  if (state->present) return take(body, config_.closure_bytes_max, ignore);
  auto spool = spool_file::create(config_.dir);
  if (!spool) return tl::unexpected(spool.error());
  nix::hasher hasher;
  auto taken = take(body, config_.closure_bytes_max, [&](std::string_view bytes) {
    hasher.update(bytes);
    return spool->write(bytes);
  });
  if (!taken) return taken;
  auto found = hasher.finish().base16();
  if (found != id.to_string()) return fail(ec::invalid, "the closure's sha256 is " + found + ", not " + id.to_string());
  return spool->read([&](std::string_view bytes) -> expected<void> {
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
