#include "runtime/process_tree.hpp"

#include <dirent.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace coppice::rt {
namespace {

struct process {
  pid_t parent = 0;
  std::uint64_t tasks = 0;
};

/// From /proc/PID/stat; its second field, the name, may contain anything.
bool read_process(const std::string& pid, process& p) {
  std::ifstream in{"/proc/" + pid + "/stat"};
  std::string line; // empty if the process has gone since: a bare streambuf would throw
  std::getline(in, line, '\0');
  const auto name_end = line.rfind(')');
  if (name_end == line.npos) return false;
  std::istringstream fields{line.substr(name_end + 1)};
  std::string word;
  for (int number = 3; number <= 20 && fields >> word; ++number) {
    if (number == 4) p.parent = static_cast<pid_t>(std::strtol(word.c_str(), nullptr, 10));
    if (number == 20) p.tasks = std::strtoull(word.c_str(), nullptr, 10);
  }
  return true;
}

std::uint64_t own_memory(pid_t pid) {
  std::ifstream in{"/proc/" + std::to_string(pid) + "/statm"};
  std::uint64_t size = 0, resident = 0, shared = 0;
  in >> size >> resident >> shared;
  return (resident - std::min(shared, resident)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

} // namespace

tree_use use_of_tree(pid_t root) {
  std::multimap<pid_t, pid_t> children;
  std::map<pid_t, std::uint64_t> tasks;
  std::unique_ptr<DIR, int (*)(DIR*)> proc{::opendir("/proc"), ::closedir};
  if (!proc) return {};
  while (const auto* entry = ::readdir(proc.get())) {
    const std::string name = entry->d_name;
    pid_t pid = 0;
    process p;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ptr != name.data() + name.size()) continue;
    if (!read_process(name, p)) continue; // it has just ended
    children.emplace(p.parent, pid);
    tasks.emplace(pid, p.tasks);
  }
  tree_use use;
  if (!tasks.contains(root)) return use;
  std::vector<pid_t> next{root};
  while (!next.empty()) {
    const auto pid = next.back();
    next.pop_back();
    use.tasks += tasks[pid];
    use.memory_bytes += own_memory(pid);
    for (auto [at, end] = children.equal_range(pid); at != end; ++at)
      next.push_back(at->second);
  }
  return use;
}

} // namespace coppice::rt
