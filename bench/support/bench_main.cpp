#include "bench/support/bench_main.hpp"

#include <filesystem>
#include <iostream>

namespace coppice::bench {

int bench_main(CLI::App& app, int argc, char** argv, const std::function<expected<void>()>& run) {
  CLI11_PARSE(app, argc, argv);
  const auto failed = [&](const std::string& why) {
    std::cerr << std::filesystem::path(argv[0]).filename().string() << ": " << why << '\n';
    return 1;
  };
  try {
    const auto done = run();
    return done ? 0 : failed(done.error().what);
  } catch (const std::exception& e) {
    return failed(e.what());
  }
}

} // namespace coppice::bench
