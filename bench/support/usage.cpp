#include "bench/support/usage.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace coppice::bench {

std::vector<thread_use> threads_now() {
  std::vector<thread_use> all;
  for (auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream in(task.path() / "schedstat"), comm(task.path() / "comm");
    double ns = 0;
    if (!(in >> ns)) continue; // it ended meanwhile
    thread_use t;
    std::getline(comm, t.name);
    t.name += "/" + task.path().filename().string();
    t.cpu_s = ns * 1e-9;
    all.push_back(std::move(t));
  }
  return all;
}

thread_use busiest_since(const std::vector<thread_use>& then) {
  thread_use most;
  for (auto t : threads_now()) {
    auto before = std::find_if(then.begin(), then.end(), [&](auto& x) { return x.name == t.name; });
    if (before != then.end()) t.cpu_s -= before->cpu_s;
    if (t.cpu_s > most.cpu_s) most = t;
  }
  return most;
}

std::int64_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  std::int64_t size = 0, resident = 0;
  in >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

} // namespace coppice::bench
