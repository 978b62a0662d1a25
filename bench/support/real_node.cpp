#include "bench/support/real_node.hpp"

#include <fstream>
#include <thread>

namespace coppice::bench {
namespace {

constexpr std::chrono::seconds patience{30};

} // namespace

expected<real_node> real_node::start(const std::filesystem::path& dir, const std::string& settings) {
  std::ofstream{dir / "node.toml"} << settings;
  auto started = background::start(
      {{"/bin/sh", "-c",
        "exec \"$0\" --config \"$1/node.toml\" --state-dir \"$1/state\" --listen tcp://127.0.0.1:0 --http "
        "127.0.0.1:0 --ready-json > \"$1/ready\"",
        std::filesystem::read_symlink("/proc/self/exe").parent_path() / "coppiced", dir},
       {},
       dir / "coppiced.log"});
  if (!started) return tl::unexpected(started.error());
  for (const auto end = std::chrono::steady_clock::now() + patience;
       started->running() && std::chrono::steady_clock::now() < end;
       std::this_thread::sleep_for(std::chrono::milliseconds{20})) {
    std::error_code absent;
    if (std::filesystem::file_size(dir / "ready", absent) > 0 && !absent)
      return real_node{dir / "state", std::move(*started)};
  }
  return fail(ec::unavailable, "coppiced does not serve, see " + (dir / "coppiced.log").string());
}

} // namespace coppice::bench
