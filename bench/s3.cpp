#include "bench/support/bench_main.hpp"
#include "bench/support/measure.hpp"
#include "bench/support/report.hpp"
#include "store/s3_blob_store.hpp"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>

using namespace coppice;
namespace fs = std::filesystem;

namespace {

constexpr double mega = 1e6;

struct settings {
  bool json = false, small = false;
  std::size_t rounds = 3, large_mb = 512, huge_gb = 0, files = 200, file_kb = 64;
  std::string child; // what this process is to do, as a child
  fs::path from;
  std::string bucket;
};

std::string variable(const char* name) {
  const auto* value = std::getenv(name);
  return value ? value : "";
}

/// Files of random bytes, as compressed NARs are.
void make_files(const fs::path& dir, std::size_t count, std::uint64_t bytes) {
  std::mt19937_64 random{1};
  std::vector<std::uint64_t> block(1 << 17);
  for (std::size_t i = 0; i < count; ++i) {
    std::ofstream out{dir / ("f" + std::to_string(i)), std::ios::binary};
    for (auto left = bytes; left > 0;) {
      for (auto& word : block)
        word = random();
      const auto size = std::min<std::uint64_t>(left, block.size() * sizeof block[0]);
      out.write(reinterpret_cast<const char*>(block.data()), static_cast<std::streamsize>(size));
      left -= size;
    }
  }
}

std::vector<fs::path> files_in(const fs::path& dir) {
  std::vector<fs::path> all;
  for (const auto& entry : fs::directory_iterator{dir})
    all.push_back(entry.path());
  return all;
}

struct site {
  site(const std::string& bucket, const fs::path& scratch) {
    options.place = {variable("COPPICE_S3_ENDPOINT"), bucket};
    options.environment = [](const char* name) { return std::getenv(name); };
    options.scratch_dir = scratch;
    options.clock = &clock;
    options.stop = &stop;
  }
  expected<void> make_bucket() {
    store::s3::bucket at{options.place, [this] { return store::s3::find_credentials({}, options.environment); },
                         options.limits, clock, stop};
    return at.demand({"PUT", ""}).map([](const auto&) {});
  }

  rt::real_clock clock;
  std::atomic<bool> stop{false};
  store::s3_blob_options options;
};

/// Child: the files through our store, one after the other.
expected<void> upload(const settings& s) {
  const bench::work_dir scratch;
  site at{s.bucket, scratch.path()};
  auto blobs = store::s3_blob_store::open_bucket(at.options);
  if (!blobs) return tl::unexpected(blobs.error());
  std::string block(1 << 20, '\0');
  for (const auto& file : files_in(s.from)) {
    auto writer = (*blobs)->begin();
    if (!writer) return tl::unexpected(writer.error());
    std::ifstream in{file, std::ios::binary};
    while (in.read(block.data(), static_cast<std::streamsize>(block.size())), in.gcount() > 0)
      if (auto done = (*writer)->write(std::string_view{block}.substr(0, static_cast<std::size_t>(in.gcount()))); !done)
        return done;
    if (auto done = (*writer)->commit("nar/" + file.filename().string()); !done) return done;
  }
  return {};
}

expected<void> download(const settings& s) {
  const bench::work_dir scratch;
  site at{s.bucket, scratch.path()};
  auto blobs = store::s3_blob_store::open_bucket(at.options);
  if (!blobs) return tl::unexpected(blobs.error());
  std::string block(1 << 20, '\0');
  for (const auto& file : files_in(s.from)) {
    auto blob = (*blobs)->open("nar/" + file.filename().string());
    if (!blob) return tl::unexpected(blob.error());
    for (std::uint64_t read = 0; read < (*blob)->size();) {
      const auto got = (*blob)->read(read, block);
      if (!got) return tl::unexpected(got.error());
      read += *got;
    }
  }
  return {};
}

expected<void> run_child(const std::string& what, const std::string& bucket, const fs::path& from,
                         bench::samples& into) {
  std::vector<std::string> argv{"/proc/self/exe", "--child", what, "--from", from, "--bucket", bucket};
  const auto cost = bench::run({argv, {}, from.parent_path() / "log"});
  if (!cost) return tl::unexpected(cost.error());
  into.add(*cost);
  return {};
}

/// curl, one process and one connection for all files.
expected<void> run_curl(bool up, const std::string& bucket, const fs::path& from, bench::samples& into) {
  const auto config = from.parent_path() / "curl.conf";
  std::ofstream out{config};
  bool first = true;
  for (const auto& file : files_in(from)) {
    const auto url = variable("COPPICE_S3_ENDPOINT") + "/" + bucket + "/nar/" + file.filename().string();
    if (!std::exchange(first, false)) out << "next\n";
    out << "url = \"" << url << "\"\nfail\nsilent\nshow-error\naws-sigv4 = \"aws:amz:us-east-1:s3\"\nuser = \""
        << variable("AWS_ACCESS_KEY_ID") << ":" << variable("AWS_SECRET_ACCESS_KEY")
        << "\"\nheader = \"x-amz-content-sha256: UNSIGNED-PAYLOAD\"\noutput = \"/dev/null\"\n";
    if (up) out << "upload-file = \"" << file.string() << "\"\n";
  }
  out.close();
  const auto cost = bench::run({{"curl", "--config", config}, {}, from.parent_path() / "log"});
  if (!cost) return tl::unexpected(cost.error());
  into.add(*cost);
  return {};
}

expected<void> compare(const std::string& name, std::size_t count, std::uint64_t bytes,
                       std::size_t rounds, std::vector<bench::row>& rows) {
  const bench::work_dir dir;
  const auto from = dir.path() / "files";
  fs::create_directory(from);
  make_files(from, count, bytes);
  const std::string ours = "ours-" + name, theirs = "curl-" + name;
  for (const auto& bucket : {ours, theirs})
    if (auto made = site{bucket, dir.path()}.make_bucket(); !made) return made;
  bench::samples up, curl_up, down, curl_down;
  for (std::size_t round = 0; round < rounds; ++round) {
    auto done = run_child("upload", ours, from, up)
                    .and_then([&] { return run_curl(true, theirs, from, curl_up); })
                    .and_then([&] { return run_child("download", ours, from, down); })
                    .and_then([&] { return run_curl(false, theirs, from, curl_down); });
    if (!done) return done;
  }
  using bench::median;
  const auto rate = [mb = static_cast<double>(count * bytes) / mega](const bench::samples& of) {
    return mb / median(of.wall_s);
  };
  rows.push_back({"s3_" + name + "_bytes", static_cast<double>(count * bytes) / mega, "MB"});
  rows.push_back({"s3_" + name + "_upload", rate(up), "MB/s", rate(curl_up), bench::at_least(0.8)});
  rows.push_back({"s3_" + name + "_download", rate(down), "MB/s", rate(curl_down), bench::at_least(0.8)});
  rows.push_back({"s3_" + name + "_upload_cpu", median(up.cpu_s), "s", median(curl_up.cpu_s)});
  rows.push_back({"s3_" + name + "_download_cpu", median(down.cpu_s), "s", median(curl_down.cpu_s)});
  rows.push_back({"s3_" + name + "_memory", median(up.rss_mib), "MiB", median(curl_up.rss_mib)});
  return {};
}

/// This program again, beside a server.
expected<void> beside_server(char** argv) {
  std::vector<std::string> words{"python3", COPPICE_RGW, "--store", "bluestore",
                                 "--gib",   "40",        "--",      fs::read_symlink("/proc/self/exe").string()};
  for (auto** word = argv + 1; *word; ++word)
    words.emplace_back(*word);
  std::vector<char*> all;
  for (auto& word : words)
    all.push_back(word.data());
  all.push_back(nullptr);
  ::execvp(all[0], all.data());
  return fail(ec::io, "cannot start python3");
}

expected<void> compare_all(const settings& s) {
  std::vector<bench::row> rows;
  auto done = compare("small", s.files, s.file_kb * 1024, s.rounds, rows).and_then([&] {
    return compare("large", 1, s.large_mb * 1'000'000, s.rounds, rows);
  });
  if (done && s.huge_gb > 0) done = compare("huge", 1, s.huge_gb * 1'000'000'000, 1, rows);
  if (done) bench::print(rows, s.json);
  return done;
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{"Files into a bucket of a real S3 server (Ceph's RGW on this machine's disk) and back, by the store of "
               "blobs, against curl with the same files and the same server, in turns."};
  settings s;
  app.add_flag("--json", s.json, "One line of JSON for each figure");
  app.add_flag("--small", s.small, "Little data, once: to see that it runs");
  app.add_option("--rounds", s.rounds, "Times to run each; the median counts")->capture_default_str();
  app.add_option("--large-mb", s.large_mb, "Size of the large file")->capture_default_str();
  app.add_option("--files", s.files, "Small files, of --file-kb each")->capture_default_str();
  app.add_option("--file-kb", s.file_kb, "Size of a small file")->capture_default_str();
  app.add_option("--huge-gb", s.huge_gb, "Also, once, one object of that size; 5 is the most that curl can put")
      ->capture_default_str();
  app.add_option("--child", s.child)->group("");
  app.add_option("--from", s.from)->group("");
  app.add_option("--bucket", s.bucket)->group("");
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (variable("COPPICE_S3_ENDPOINT").empty()) return beside_server(argv);
    if (s.small) {
      s.rounds = 1;
      s.large_mb = 40;
      s.files = 5;
    }
    return s.child.empty() ? compare_all(s) : s.child == "upload" ? upload(s) : download(s);
  });
}
