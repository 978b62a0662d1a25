#include "store/directory_blob_store.hpp"
#include "store/pack.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <nlohmann/json.hpp>

#include <fstream>

using namespace coppice;
using namespace coppice::store;
using namespace coppice::store::test;

namespace {

const fs::path nars = fs::path{COPPICE_TEST_DATA} / "nix/generated/nar";

/// A blob store whose disk is full: from the start, or once a blob is written.
class full_store final : public blob_store {
public:
  explicit full_store(bool at_start) : at_start_(at_start) {}
  expected<std::unique_ptr<blob_writer>> begin() override {
    if (at_start_) return full();
    return std::make_unique<writer>();
  }
  expected<void> put(const std::string&, std::string_view) override { return full(); }
  expected<void> put_all(const std::vector<std::pair<std::string, std::string>>&) override { return full(); }
  expected<std::unique_ptr<blob_reader>> open(const std::string&) override { return full(); }
  expected<std::optional<std::uint64_t>> stat(const std::string&) override { return full(); }
  expected<void> remove(const std::string&) override { return full(); }
  expected<void> list(std::string_view, const std::function<bool(const std::string&, std::uint64_t)>&) override {
    return full();
  }

private:
  class writer final : public blob_writer {
    expected<void> write(std::string_view) override { return full(); }
    expected<void> commit(const std::string&) override { return full(); }
  };
  static tl::unexpected<error> full() { return fail(ec::storage_full, "the disk is full"); }
  bool at_start_;
};

pack_options with_content(nix::content_method method, nix::hash_algo algo) {
  pack_options options;
  options.content = content_request{method, algo};
  return options;
}

} // namespace

TEST_CASE("packing takes the size and hashes that stock Nix takes, and the blob unpacks to the NAR") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  const auto all = nlohmann::json::parse(std::ifstream{nars / "expected.json"});
  std::size_t flat = 0;
  for (const auto& [name, entry] : all.items()) {
    const auto& expect = entry.at("expect");
    INFO(name);
    if (!is_there(nars / (name + ".nar"))) continue; // its NAR is too large to be kept
    const auto nar = read(nars / (name + ".nar"));
    good(restore_path(dir / name, source_of(nar), me()));

    auto p = good(pack(dir / name, blobs.get(), with_content(nix::content_method::recursive, nix::hash_algo::sha1)));
    CHECK(p.nar_size == expect.at("narSize"));
    CHECK(p.nar_hash.to_string() == expect.at("sha256").at("base16"));
    CHECK(p.content_hash->base16() == expect.at("sha1").at("base16"));
    CHECK(p.references.empty());
    const auto key = nar_key(p.blob, generation{1});
    good(p.writer->commit(key));
    good(verify_blob(*blobs, key, p.blob, p.blob_size));
    CHECK(good(decompress(good(read_blob(*blobs, key, 1 << 20)), {})) == nar);

    const auto q = good(pack(dir / name, nullptr, with_content(nix::content_method::flat, nix::hash_algo::sha256)));
    CHECK(q.nar_hash == p.nar_hash);
    CHECK_FALSE(q.writer);
    const auto st = stat_of(dir / name);
    const bool is_flat = S_ISREG(st.st_mode) && (st.st_mode & S_IXUSR) == 0;
    CHECK(q.content_hash.has_value() == is_flat);
    if (is_flat && expect.contains("flat-sha256")) {
      ++flat;
      CHECK(q.content_hash->base32() == expect.at("flat-sha256"));
    }
  }
  CHECK(flat > 0);
}

TEST_CASE("packing finds references, its own included") {
  const scratch_dir dir;
  const auto self = path_named("self"), input = path_named("input"), other = path_named("other");
  fs::create_directory(dir / "tree");
  write(dir / "tree/file", "see " + input.to_string() + "/bin");
  fs::create_symlink(self.to_string(), dir / "tree/link");
  pack_options options;
  options.candidates = {self, input, other};
  const auto p = good(pack(dir / "tree", nullptr, options));
  CHECK(p.references == std::set{self, input});
}

TEST_CASE("a NAR beyond the limit is refused and its blob dropped") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  const auto before = entries_below(dir / "cache");
  write(dir / "file", std::string(100'000, 'x'));
  pack_options options;
  options.nar_bytes_max = 100'000;
  CHECK(code_of(pack(dir / "file", blobs.get(), options)) == ec::limit_exceeded);
  CHECK(entries_below(dir / "cache") == before);
  options.nar_bytes_max = 100'112;
  CHECK(good(pack(dir / "file", blobs.get(), options)).nar_size == 100'112);
}

TEST_CASE("a full blob store fails the packing, or just the blob when that is optional") {
  const scratch_dir dir;
  write(dir / "file", std::string(1'000'000, 'x'));
  const auto without = good(pack(dir / "file", nullptr, {}));
  for (const bool at_start : {true, false}) {
    full_store blobs{at_start};
    pack_options options;
    CHECK(code_of(pack(dir / "file", &blobs, options)) == ec::storage_full);
    options.blob_optional = true;
    const auto p = good(pack(dir / "file", &blobs, options));
    CHECK(p.nar_hash == without.nar_hash);
    CHECK(p.blob_failure->code == ec::storage_full);
    CHECK_FALSE(p.writer);
    CHECK(p.blob.empty());
  }
}

TEST_CASE("packing what is not there is missing") {
  const scratch_dir dir;
  CHECK(code_of(pack(dir / "nothing", nullptr, {})) == ec::missing);
}
