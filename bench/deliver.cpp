#include "bench/support/bench_main.hpp"
#include "bench/support/measure.hpp"
#include "bench/support/report.hpp"
#include "nix/hash.hpp"
#include "store/compression.hpp"
#include "store/directory_blob_store.hpp"
#include "store/files.hpp"
#include "store/nar_files.hpp"
#include "store/pack.hpp"
#include "store/path_records.hpp"

#include <fstream>
#include <random>

using namespace coppice;
namespace fs = std::filesystem;

namespace {

constexpr double mega = 1e6;

struct settings {
  bool json = false, small = false;
  std::size_t rounds = 3, tree_mb = 1000, files = 10'000, paths = 200;
  std::string child; // what this process is to do, as a child
  fs::path from, to;
};

/// Bytes of which every other block is random and the rest text.
class content {
public:
  void write(const fs::path& file, std::size_t bytes) {
    std::ofstream out{file, std::ios::binary};
    for (std::size_t block = 0; bytes > 0; ++block) {
      const auto size = std::min(bytes, buffer_.size());
      for (std::size_t i = 0; i < size;)
        if (block % 2 == 0)
          for (auto word = random_(); i < size && word != 0; word >>= 8)
            buffer_[i++] = static_cast<char>(word & 255);
        else
          for (const char c : words[random_() % std::size(words)])
            if (i < size) buffer_[i++] = c;
      out.write(buffer_.data(), static_cast<std::streamsize>(size));
      bytes -= size;
    }
  }

private:
  static constexpr std::string_view words[] = {"static ", "const ", "return ", "include ", "struct ", "\n  ",
                                               "= 0;\n",  "if (",   ") {\n",   "value",    "size",    "coppice::"};
  std::mt19937_64 random_{1};
  std::string buffer_ = std::string(4096, '\0');
};

/// What lies in a store, without what stock Nix keeps there for itself.
std::vector<fs::path> objects_in(const fs::path& store) {
  std::vector<fs::path> all;
  for (const auto& entry : fs::directory_iterator{store})
    if (nix::store_path::from_base_name(entry.path().filename().string())) all.push_back(entry.path());
  return all;
}

/// Makes store objects below `root`/nix/store and what stock Nix must know of them.
expected<double> register_all(const fs::path& root) {
  std::ofstream registration{root / "registration"};
  double bytes = 0;
  for (const auto& object : objects_in(root / "nix/store")) {
    if (auto done = store::canonicalise(object); !done) return tl::unexpected(done.error());
    nix::hasher hasher;
    auto dumped = store::dump_path(object, [&](std::string_view part) -> expected<void> {
      hasher.update(part);
      return {};
    });
    if (!dumped) return tl::unexpected(dumped.error());
    bytes += static_cast<double>(hasher.size());
    const auto size = hasher.size();
    registration << "/nix/store/" << object.filename().string() << '\n'
                 << hasher.finish().base16() << '\n'
                 << size << "\n\n0\n";
  }
  registration.close();
  auto loaded = bench::load_nix_db(root);
  return loaded ? expected<double>{bytes} : tl::unexpected(loaded.error());
}

fs::path object(const fs::path& root, std::size_t number) {
  const auto digits = std::to_string(number);
  return root / "nix/store" / (std::string(nix::hash_part_chars - digits.size(), '0') + digits + "-object");
}

void make_tree(const fs::path& dir, std::size_t files, std::size_t bytes) {
  content some;
  for (std::size_t i = 0; i < files; ++i) {
    const auto below = dir / ("d" + std::to_string(i % 100));
    fs::create_directories(below);
    some.write(below / ("f" + std::to_string(i)), bytes);
  }
}

/// Child: what STORE_UPLOADER and PUBLISHER do with each object.
expected<void> deliver(const settings& s) {
  const auto blobs = store::directory_blob_store::open_dir(s.to);
  if (!blobs) return tl::unexpected(blobs.error());
  store::pack_options options;
  options.compression.workers = 1; // as actors/tree has it
  for (const auto& object : objects_in(s.from)) {
    auto packed = store::pack(object, blobs->get(), options);
    if (!packed) return tl::unexpected(packed.error());
    if (auto done = packed->writer->commit(store::nar_key(packed->blob, generation{1})); !done) return done;
    const auto path = nix::store_path::from_base_name(object.filename().string());
    const auto info = store::to_path_info(*path, *packed, std::nullopt, "", generation{1});
    if (auto put = (*blobs)->put(store::narinfo_key(*path), nix::print_narinfo(store::to_narinfo(info))); !put)
      return put;
  }
  return {};
}

/// Child: only reads the NARs of all objects, and hashes or compresses them.
expected<void> only(const settings& s) {
  nix::hasher hasher;
  store::zstd_compressor compressor{[](std::string_view) -> expected<void> { return {}; }};
  for (const auto& object : objects_in(s.from)) {
    auto done = store::dump_path(object, [&](std::string_view part) -> expected<void> {
      if (s.child == "zstd") return compressor.write(part);
      hasher.update(part);
      return {};
    });
    if (!done) return done;
  }
  return compressor.finish();
}

expected<void> run_child(const std::string& what, const fs::path& root, bench::samples& into) {
  const bench::work_dir target{root};
  const auto cost = bench::run(
      {{"/proc/self/exe", "--child", what, "--from", root / "nix/store", "--to", target.path()}, {}, root / "log"});
  if (!cost) return tl::unexpected(cost.error());
  into.add(*cost);
  return {};
}

expected<void> run_nix(const fs::path& root, bench::samples& into) {
  const bench::work_dir target{root};
  auto copy =
      bench::nix(root, {"nix", "copy", "--all", "--to", "file://" + target.path().string() + "?compression=zstd"});
  copy.argv.erase(copy.argv.begin() + 1, copy.argv.begin() + 3);
  copy.env.emplace_back("NIX_REMOTE", "local?root=" + root.string());
  const auto cost = bench::run(copy);
  if (!cost) return tl::unexpected(cost.error());
  into.add(*cost);
  return {};
}

expected<void> compare(const settings& s, const std::string& name, const fs::path& root, std::size_t objects,
                       std::vector<bench::row>& rows) {
  const auto bytes = register_all(root);
  if (!bytes) return tl::unexpected(bytes.error());
  bench::samples ours, nix, sha, zstd;
  for (std::size_t round = 0; round < s.rounds; ++round) {
    auto done = run_child("sha256", root, sha)
                    .and_then([&] { return run_child("deliver", root, ours); })
                    .and_then([&] { return run_child("zstd", root, zstd); })
                    .and_then([&] { return run_nix(root, nix); });
    if (!done) return done;
  }
  using bench::median;
  const auto rate = [mb = *bytes / mega](const std::vector<double>& seconds) { return mb / median(seconds); };
  const bool many = objects > 1;
  rows.push_back({"deliver_" + name + "_bytes", *bytes / mega, "MB"});
  if (many) {
    const auto count = static_cast<double>(objects);
    rows.push_back({"deliver_" + name + "_rate", count / median(ours.wall_s), "1/s", count / median(nix.wall_s)});
  } else {
    rows.push_back({"deliver_" + name + "_of_limit", rate(ours.wall_s), "MB/s",
                    std::min(rate(sha.wall_s), rate(zstd.wall_s)), bench::at_least(0.8)});
    rows.push_back({"deliver_" + name + "_of_nix", rate(ours.wall_s), "MB/s", rate(nix.wall_s)});
    rows.push_back({"deliver_" + name + "_cpu_of_limit", median(ours.cpu_s), "s",
                    std::max(median(sha.cpu_s), median(zstd.cpu_s))});
  }
  rows.push_back({"deliver_" + name + "_cpu_of_nix", median(ours.cpu_s), "s", median(nix.cpu_s)});
  rows.push_back({"deliver_" + name + "_foreign", median(ours.foreign), "share"});
  return {};
}

expected<void> compare_all(const settings& s) {
  std::vector<bench::row> rows;
  constexpr std::size_t large_file = 16'000'000, small_file = 8'000;
  expected<void> done;
  {
    const bench::work_dir dir;
    const auto file = std::min(large_file, s.tree_mb * 1'000'000);
    make_tree(object(dir.path(), 1), s.tree_mb * 1'000'000 / file, file);
    done = compare(s, "large", dir.path(), 1, rows);
  }
  if (done) {
    const bench::work_dir dir;
    make_tree(object(dir.path(), 1), s.files, small_file);
    done = compare(s, "small", dir.path(), 1, rows);
  }
  if (done) {
    const bench::work_dir dir;
    for (std::size_t i = 0; i < s.paths; ++i)
      make_tree(object(dir.path(), i), 1, small_file);
    done = compare(s, "paths", dir.path(), s.paths, rows);
  }
  if (done) bench::print(rows, s.json);
  return done;
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Packing store objects and putting them, durably, into a directory store with their narinfos: one large "
      "tree, one of many small files, and many objects of one small file. Against `nix copy` to a file:// cache "
      "with zstd, and against the slower of reading and hashing, and reading and compressing, the same."};
  settings s;
  app.add_flag("--json", s.json, "One line of JSON for each figure");
  app.add_flag("--small", s.small, "Little data, once: to see that it runs");
  app.add_option("--rounds", s.rounds, "Times to run each; the median counts")->capture_default_str();
  app.add_option("--tree-mb", s.tree_mb, "Size of the large tree")->capture_default_str();
  app.add_option("--files", s.files, "Small files of the second tree")->capture_default_str();
  app.add_option("--paths", s.paths, "Objects of one file")->capture_default_str();
  app.add_option("--child", s.child)->group("");
  app.add_option("--from", s.from)->group("");
  app.add_option("--to", s.to)->group("");
  return bench::bench_main(app, argc, argv, [&] {
    if (s.small) {
      s.rounds = 1;
      s.tree_mb = 2;
      s.files = 20;
      s.paths = 3;
    }
    return s.child.empty() ? compare_all(s) : s.child == "deliver" ? deliver(s) : only(s);
  });
}
