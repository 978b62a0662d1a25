#include "bench/support/stock_nix.hpp"

#include <fstream>
#include <sstream>

namespace coppice::bench {

command nix_without_sandbox(const std::filesystem::path& root, std::vector<std::string> argv) {
  for (auto dir : {"store", "var", "log", "state", "conf"})
    std::filesystem::create_directories(root / dir);
  std::ofstream{root / "conf/nix.conf"} << "build-users-group =\nsandbox = false\nsubstituters =\n";
  return {std::move(argv),
          {{"NIX_STORE_DIR", root / "store"},
           {"NIX_STATE_DIR", root / "var"},
           {"NIX_LOG_DIR", root / "log"},
           {"NIX_LOCALSTATE_DIR", root / "state"},
           {"NIX_CONF_DIR", root / "conf"},
           {"NIX_USER_CONF_FILES", ""},
           {"NIX_REMOTE", ""},
           {"NIX_PATH", ""},
           {"HOME", root}},
          root / "nix.log"};
}

expected<std::vector<std::string>> instantiate(const std::filesystem::path& root, const std::string& expression) {
  std::ofstream{root / "expression.nix"} << expression;
  auto made = run(nix_without_sandbox(root, {"nix-instantiate", root / "expression.nix"}));
  if (!made) return tl::unexpected(made.error());
  std::vector<std::string> paths;
  std::istringstream lines(made->output);
  for (std::string line; std::getline(lines, line);)
    paths.push_back(line);
  return paths;
}

} // namespace coppice::bench
