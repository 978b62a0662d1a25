#include "actors/deliver/source_upload.hpp"

#include "nix/export.hpp"
#include "store/compression.hpp"

#include <utility>

namespace coppice::actors {

namespace {

/// What surrounds a NAR in an export: far less than this, if the references are as many as allowed.
constexpr std::uint64_t frame_bytes_max = 64 << 20;

/// Hashes a stream by all algorithms at once: which one a path was made by is known only at the end.
class all_hashers {
public:
  void update(std::string_view bytes) {
    for (auto& h : hashers_)
      h.update(bytes);
  }
  all_digests finish() {
    return {hashers_[0].finish(), hashers_[1].finish(), hashers_[2].finish(), hashers_[3].finish()};
  }
  std::uint64_t size() const { return hashers_[0].size(); }

private:
  std::array<nix::hasher, 4> hashers_{nix::hasher{nix::hash_algo::md5}, nix::hasher{nix::hash_algo::sha1},
                                      nix::hasher{nix::hash_algo::sha256}, nix::hasher{nix::hash_algo::sha512}};
};

constexpr auto sha256_at = static_cast<std::size_t>(nix::hash_algo::sha256);

/// Hashes the contents of a NAR that is one regular file, not executable.
class plain_file final : public nix::nar_visitor {
public:
  bool possible() const { return possible_; }
  std::optional<all_digests> finish() { return is_file_ ? std::optional{hashers_.finish()} : std::nullopt; }

private:
  nix::expected<void> begin_directory() override {
    possible_ = false;
    return {};
  }
  nix::expected<void> regular(bool executable, std::uint64_t) override {
    is_file_ = possible_ = !executable;
    return {};
  }
  nix::expected<void> contents(std::string_view chunk) override {
    if (is_file_) hashers_.update(chunk);
    return {};
  }
  all_hashers hashers_;
  bool possible_ = true;
  bool is_file_ = false;
};

} // namespace

std::optional<std::string> find_content_address(const nix::store_path& path, const all_digests& nar,
                                                const std::optional<all_digests>& contents,
                                                const std::set<nix::store_path>& references,
                                                std::string_view store_dir) {
  auto is_path = [&path](const nix::expected<nix::store_path>& made) { return made && *made == path; };
  if (contents && is_path(nix::text_path(path.name(), (*contents)[sha256_at].sha256(), references, store_dir)))
    return "text:" + (*contents)[sha256_at].to_string();
  auto fixed = [&](nix::content_method method, const nix::hash& h) {
    return is_path(nix::fixed_output_path(path.name(), method, h, references, false, store_dir));
  };
  for (auto& h : nar)
    if (fixed(nix::content_method::recursive, h)) return "fixed:r:" + h.to_string();
  if (contents)
    for (auto& h : *contents)
      if (fixed(nix::content_method::flat, h)) return "fixed:" + h.to_string();
  return std::nullopt;
}

class source_upload::reading final : public nix::export_visitor {
public:
  reading(nix::store_path path, std::unique_ptr<store::blob_writer> spool, const options& o)
      : path_(std::move(path))
      , options_(o)
      , spool_(std::move(spool))
      , compressor_([this](std::string_view bytes) { return keep(bytes); }, {o.compression_level, 0})
      , file_reader_(file_)
      , reader_(*this, options_.store_dir)
      , decompressor_([this](std::string_view bytes) { return parse(bytes); },
                      {.bytes_max = o.nar_bytes_max + frame_bytes_max}) {}

  expected<void> write(std::string_view bytes) { return decompressor_.write(bytes); }
  expected<path_info> finish();
  store::blob_writer& spool() { return *spool_; }

private:
  nix::expected<void> begin_path() override {
    if (paths_++ > 0) return nix::fail("the export holds more than one path");
    return {};
  }
  nix::expected<void> nar(std::string_view chunk) override;
  nix::expected<void> end_path(const nix::export_info& info) override {
    info_ = info;
    return note(compressor_.finish());
  }
  /// Keeps an error's code, which the reader cannot carry.
  nix::expected<void> note(expected<void> done) {
    if (done) return {};
    failure_ = done.error();
    return nix::fail(done.error().what);
  }
  expected<void> parse(std::string_view bytes) {
    if (auto read = reader_.feed(bytes); !read)
      return tl::unexpected(
          failure_.value_or(error{ec::bad_message, "this is no export of a path: " + read.error().what}));
    return {};
  }
  expected<void> keep(std::string_view compressed) {
    blob_.update(compressed);
    return spool_->write(compressed);
  }

  const nix::store_path path_;
  const options options_;
  std::unique_ptr<store::blob_writer> spool_;
  nix::hasher blob_;
  all_hashers nar_;
  store::zstd_compressor compressor_;
  plain_file file_;
  nix::nar_reader file_reader_;
  nix::export_reader reader_;
  store::decompressor decompressor_;
  std::optional<nix::export_info> info_;
  std::optional<error> failure_;
  std::size_t paths_ = 0;
};

nix::expected<void> source_upload::reading::nar(std::string_view chunk) {
  if (chunk.size() > options_.nar_bytes_max - nar_.size())
    return note(fail(ec::limit_exceeded, "the source " + path_.base_name() + " is larger than the " +
                                             std::to_string(options_.nar_bytes_max) + " bytes that are allowed"));
  nar_.update(chunk);
  if (file_.possible())
    if (auto read = file_reader_.feed(chunk); !read) return read;
  return note(compressor_.write(chunk));
}

expected<path_info> source_upload::reading::finish() {
  if (auto done = decompressor_.finish(); !done) return tl::unexpected(done.error());
  if (auto done = reader_.finish(); !done)
    return fail(ec::bad_message, "this is no export of a path: " + done.error().what);
  if (!info_) return fail(ec::bad_message, "the export holds no path");
  auto named = path_.to_string(options_.store_dir);
  if (info_->path != path_)
    return fail(ec::invalid, "this is an export of " + info_->path.to_string(options_.store_dir) + ", not of " + named);
  path_info info;
  info.path = path_;
  info.nar_size = nar_.size();
  info.references = {info_->references.begin(), info_->references.end()};
  auto nar = nar_.finish();
  auto ca = find_content_address(path_, nar, file_.finish(), info_->references, options_.store_dir);
  if (!ca) return fail(ec::invalid, named + " is not content-addressed: only sources and texts can be uploaded");
  info.nar_hash.bytes = nar[sha256_at].sha256();
  info.ca = *ca;
  info.blob_size = blob_.size();
  info.blob.bytes = blob_.finish().sha256();
  return info;
}

source_upload::source_upload(nix::store_path path, std::unique_ptr<store::blob_writer> spool, const options& o)
    : reading_(std::make_unique<reading>(std::move(path), std::move(spool), o)) {}
source_upload::~source_upload() = default;
expected<void> source_upload::write(std::string_view bytes) {
  return reading_->write(bytes);
}
expected<path_info> source_upload::finish() {
  return reading_->finish();
}
store::blob_writer& source_upload::spool() {
  return reading_->spool();
}

} // namespace coppice::actors
