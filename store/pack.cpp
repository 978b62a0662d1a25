#include "store/pack.hpp"

#include "nix/nar.hpp"
#include "nix/references.hpp"
#include "store/nar_files.hpp"

namespace coppice::store {

namespace {

/// Hashes the file that a NAR consists of, if it is one regular file that is not executable.
class flat_hasher final : public nix::nar_visitor {
public:
  explicit flat_hasher(nix::hash_algo algo) : hasher_(algo) {}
  nix::expected<void> regular(bool executable, std::uint64_t) override {
    is_flat_ = depth_ == 0 && !executable;
    return {};
  }
  nix::expected<void> begin_directory() override {
    ++depth_;
    return {};
  }
  nix::expected<void> contents(std::string_view chunk) override {
    if (is_flat_) hasher_.update(chunk);
    return {};
  }
  bool could_be_flat() const { return depth_ == 0; }
  std::optional<nix::hash> finish() {
    if (!is_flat_) return std::nullopt;
    return hasher_.finish();
  }

private:
  nix::hasher hasher_;
  std::uint64_t depth_ = 0;
  bool is_flat_ = false;
};

/// Takes the content hash that was asked for from the NAR's bytes.
class content_hasher {
public:
  explicit content_hasher(const std::optional<content_request>& request) {
    if (!request) return;
    if (request->method == nix::content_method::recursive) {
      nar_.emplace(request->algo);
    } else {
      flat_.emplace(request->algo);
      reader_.emplace(*flat_);
    }
  }
  expected<void> write(std::string_view bytes) {
    if (nar_) nar_->update(bytes);
    if (flat_ && flat_->could_be_flat())
      if (auto read = reader_->feed(bytes); !read) return fail(ec::corrupt, "the NAR just made: " + read.error().what);
    return {};
  }
  std::optional<nix::hash> finish() {
    if (nar_) return nar_->finish();
    return flat_ ? flat_->finish() : std::nullopt;
  }

private:
  std::optional<nix::hasher> nar_;
  std::optional<flat_hasher> flat_;
  std::optional<nix::nar_reader> reader_;
};

/// Compresses, hashes and stores; after a failure that may be, takes no more.
class blob_part {
public:
  blob_part(blob_store* blobs, const pack_options& options)
      : optional_(options.blob_optional)
      , compressor_([this](std::string_view bytes) { return store(bytes); }, options.compression)
      , wanted_(blobs != nullptr) {
    if (!wanted_) return;
    auto begun = blobs->begin();
    if (begun)
      writer_ = std::move(*begun);
    else
      failure_ = begun.error();
  }
  expected<void> write(std::string_view bytes) {
    return step([&] { return compressor_.write(bytes); });
  }
  expected<void> finish(packed& into) {
    auto done = step([&] { return compressor_.finish(); });
    into.blob_failure = failure_;
    if (!done || failure_ || !wanted_) return done;
    into.blob_size = hasher_.size();
    into.blob.bytes = hasher_.finish().sha256();
    into.writer = std::move(writer_);
    return {};
  }

private:
  template <class Act>
  expected<void> step(Act act) {
    if (!wanted_) return {};
    if (!failure_)
      if (expected<void> done = act(); !done) {
        failure_ = done.error();
        writer_.reset(); // gives its space back
      }
    if (failure_ && !optional_) return tl::unexpected(*failure_);
    return {};
  }
  expected<void> store(std::string_view bytes) {
    hasher_.update(bytes);
    return writer_->write(bytes);
  }

  bool optional_;
  nix::hasher hasher_;
  zstd_compressor compressor_;
  bool wanted_;
  std::unique_ptr<blob_writer> writer_;
  std::optional<error> failure_;
};

} // namespace

expected<packed> pack(const std::filesystem::path& real, blob_store* blobs, const pack_options& options) {
  nix::hasher nar;
  nix::reference_scanner references{options.candidates};
  content_hasher content{options.content};
  blob_part blob{blobs, options};
  auto take = [&](std::string_view bytes) -> expected<void> {
    if (nar.size() + bytes.size() > options.nar_bytes_max)
      return fail(ec::limit_exceeded, "the NAR of " + real.string() + " is larger than " +
                                          std::to_string(options.nar_bytes_max) + " bytes");
    nar.update(bytes);
    references.feed(bytes);
    return content.write(bytes).and_then([&] { return blob.write(bytes); });
  };

  packed result;
  auto done = dump_path(real, take).and_then([&] { return blob.finish(result); });
  if (!done) return tl::unexpected(done.error());
  result.nar_size = nar.size();
  result.nar_hash.bytes = nar.finish().sha256();
  result.references = references.found();
  result.content_hash = content.finish();
  return result;
}

path_info to_path_info(const nix::store_path& path, const packed& p, std::optional<nix::store_path> deriver,
                       std::string ca, generation gen) {
  path_info info;
  info.path = path;
  info.nar_hash = p.nar_hash;
  info.nar_size = p.nar_size;
  info.references.assign(p.references.begin(), p.references.end());
  info.deriver = std::move(deriver);
  info.ca = std::move(ca);
  info.blob = p.blob;
  info.blob_size = p.blob_size;
  info.gen = gen;
  return info;
}

} // namespace coppice::store
