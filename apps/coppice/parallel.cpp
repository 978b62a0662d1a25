#include "apps/coppice/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

namespace coppice::app {

expected<void> in_parallel(std::size_t count, std::size_t threads,
                           const std::function<expected<void>(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  expected<void> result;
  const auto run = [&] {
    for (auto i = next++; i < count; i = next++) {
      auto done = work(i);
      if (done) continue;
      next = count;
      const std::lock_guard lock(mutex);
      if (result) result = tl::unexpected(done.error());
    }
  };
  std::vector<std::thread> pool;
  for (std::size_t i = 1; i < std::min(count, threads); ++i)
    pool.emplace_back(run);
  run();
  for (auto& thread : pool)
    thread.join();
  return result;
}

expected<void> with_retries(std::size_t tries, const std::function<expected<void>()>& work) {
  auto pause = std::chrono::milliseconds{200};
  for (std::size_t i = 1;; ++i, pause *= 2) {
    auto done = work();
    if (done || done.error().code != ec::unavailable || i >= tries) return done;
    std::this_thread::sleep_for(pause);
  }
}

} // namespace coppice::app
