#include "actors/build/build_watch.hpp"
#include "runtime/process_tree.hpp"
#include "store/nar_files.hpp"

#include <catch2/catch.hpp>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t mib = 1 << 20;

/// A build that may write 100 MiB and 1000 files, on a disk that keeps 10 MiB free.
watch_limits limits() {
  watch_limits l;
  l.disk_bytes_max = 100 * mib;
  l.files_max = 1'000;
  l.disk_free_min = 10 * mib;
  return l;
}

/// A look at a file system alone.
build_look seen(std::uint64_t used_mib, std::uint64_t files_used = 5'000, std::uint64_t free_mib = 5'000) {
  build_look l;
  l.disk_used_bytes = used_mib * mib;
  l.files_used = files_used;
  l.disk_free_bytes = free_mib * mib;
  return l;
}

build_look counted(build_look l, std::uint64_t build_mib, std::uint64_t build_files, std::int64_t took_ms = 1) {
  l.counted = true;
  l.disk_bytes = build_mib * mib;
  l.files = build_files;
  l.took_ms = took_ms;
  return l;
}

/// A watch after its first look, which found 10 MiB in 10 files.
struct watching {
  explicit watching(watch_limits l = limits(), std::int64_t took_ms = 1) : watch(l) {
    CHECK_FALSE(watch.on_look(counted(seen(1'000), 10, 10, took_ms), now, "drv"));
  }
  bool counts(const build_look& l, std::chrono::milliseconds later = 1s) const {
    return watch.wants_count(l, now + later);
  }
  build_watch watch;
  build_watch::time_point now{1h};
};

class scratch {
public:
  scratch() {
    std::string pattern = fs::temp_directory_path() / "coppice-watch-XXXXXX";
    path = ::mkdtemp(pattern.data());
  }
  ~scratch() { (void)store::remove_tree(path); }
  fs::path path;
};

} // namespace

TEST_CASE("the first look counts, later ones do so only when the disk has grown by what the build has left") {
  build_watch fresh{limits()};
  CHECK(fresh.wants_count(seen(1'000), {}));
  watching w;
  CHECK_FALSE(w.counts(seen(1'000)));
  CHECK_FALSE(w.counts(seen(1'089)));
  CHECK(w.counts(seen(1'090)));
  CHECK_FALSE(w.counts(seen(1'000, 5'989)));
  CHECK(w.counts(seen(1'000, 5'990)));
  CHECK_FALSE(w.counts(seen(500, 1))); // somebody else removed something
}

TEST_CASE("what others free cannot hide a build's growth for ever") {
  watching w;
  CHECK_FALSE(w.counts(seen(1'000), 59s));
  CHECK(w.counts(seen(1'000), 60s));
}

TEST_CASE("counting takes a small part of the time, however many files there are") {
  watching w{limits(), 3'000};
  CHECK_FALSE(w.counts(seen(5'000), 59s));
  CHECK(w.counts(seen(5'000), 60s));
}

TEST_CASE("looks are rare while nothing happens, and close when a limit or the floor comes near") {
  build_watch quiet{limits()};
  build_watch::time_point now{1h};
  for (int i = 0; i < 10; ++i)
    CHECK_FALSE(quiet.on_look(counted(seen(1'000), 1, 1), now += quiet.pause(), "drv"));
  CHECK(quiet.pause() == build_watch::pause_max);
  // 10 MiB in a second, of 60 that are left: no hurry
  CHECK_FALSE(quiet.on_look(counted(seen(1'010), 40, 1), now += 1s, "drv"));
  CHECK(quiet.pause() == build_watch::pause_max);
  // 40 MiB in a second, of 20 that are left
  CHECK_FALSE(quiet.on_look(counted(seen(1'050), 80, 1), now += 1s, "drv"));
  CHECK(quiet.pause() == 250ms);
  // not counted, but as far as one can see it is full
  CHECK_FALSE(quiet.on_look(seen(1'070), now += 250ms, "drv"));
  CHECK(quiet.pause() == build_watch::pause_min);
  build_watch near_floor{limits()};
  CHECK_FALSE(near_floor.on_look(counted(seen(1'000, 1, 35), 1, 1), now, "drv"));
  CHECK_FALSE(near_floor.on_look(counted(seen(1'010, 1, 20), 1, 1), now += 200ms, "drv"));
  CHECK(near_floor.pause() == 100ms);
}

TEST_CASE("a file system that does not say how many files it has is counted each time") {
  watching w;
  CHECK(w.counts(seen(1'000, 0)));
}

TEST_CASE("without limits nothing is counted, unless the disk is below its floor") {
  watch_limits l;
  l.disk_free_min = 10 * mib;
  build_watch w{l};
  CHECK_FALSE(w.wants_count(seen(1'000), {}));
  CHECK(w.wants_count(seen(1'000, 5'000, 9), {}));
}

TEST_CASE("too many bytes or files end the build, with their figures") {
  watching w;
  CHECK_FALSE(w.watch.on_look(counted(seen(1'100), 100, 1'000), w.now, "drv"));
  auto bytes = w.watch.on_look(counted(seen(1'101), 101, 10), w.now, "drv");
  REQUIRE(bytes);
  CHECK(bytes->why == failure::disk_limit);
  CHECK(bytes->reason.find(std::to_string(100 * mib)) != std::string::npos);
  auto files = w.watch.on_look(counted(seen(1'000), 10, 1'001), w.now, "drv");
  REQUIRE(files);
  CHECK(files->why == failure::disk_limit);
  CHECK(files->reason.find("1001, more than the 1000 allowed") != std::string::npos);
}

TEST_CASE("below the floor a build that uses more than the floor is ended, a smaller one is not") {
  watching w;
  auto low = seen(1'000, 5'000, 9);
  CHECK(w.counts(low));
  CHECK_FALSE(w.watch.on_look(counted(low, 10, 10), w.now, "drv"));
  auto ended = w.watch.on_look(counted(low, 11, 10), w.now, "drv");
  REQUIRE(ended);
  CHECK(ended->why == failure::infra); // whose fault it is nobody knows: it is tried again
}

TEST_CASE("below the floor a build that hides what it uses is ended, above it is not") {
  watching w;
  auto hiding = counted(seen(1'000), 1, 1);
  hiding.hidden = 1;
  CHECK_FALSE(w.watch.on_look(hiding, w.now, "drv"));
  hiding.disk_free_bytes = 9 * mib;
  auto ended = w.watch.on_look(hiding, w.now, "drv");
  REQUIRE(ended);
  CHECK(ended->why == failure::infra);
  CHECK(ended->reason.find("has closed 1 directories") != std::string::npos);
}

TEST_CASE("processes and memory end a build by their own class") {
  auto l = limits();
  l.memory_bytes_max = 64 * mib;
  l.processes_max = 20;
  watching w{l};
  auto look = seen(1'000);
  look.processes = 20;
  look.memory_bytes = 64 * mib;
  CHECK_FALSE(w.watch.on_look(look, w.now, "drv"));
  look.memory_bytes += 1;
  CHECK(w.watch.on_look(look, w.now, "drv")->why == failure::oom);
  look.processes = 21;
  CHECK(w.watch.on_look(look, w.now, "drv")->why == failure::pids);
  auto refused = seen(1'000);
  refused.pids_reached = true;
  CHECK(w.watch.on_look(refused, w.now, "drv")->reason.find("more than the 20") != std::string::npos);
}

TEST_CASE("a tree is counted by blocks and names, up to its limits") {
  scratch s;
  fs::create_directories(s.path / "a/b");
  std::ofstream{s.path / "a/b/big"} << std::string(3 * mib, 'x');
  fs::create_hard_link(s.path / "a/b/big", s.path / "again");
  fs::create_symlink("/usr", s.path / "elsewhere");
  build_look all;
  count_tree(s.path, 0, 0, all);
  CHECK(all.counted);
  CHECK(all.files == 5);
  CHECK(all.disk_bytes >= 3 * mib);
  CHECK(all.disk_bytes < 4 * mib);
  for (int i = 0; i < 50; ++i)
    std::ofstream{s.path / std::to_string(i)};
  build_look some;
  count_tree(s.path, 0, 10, some);
  CHECK(some.files == 11);
}

TEST_CASE("directories that the builder closed to who counts are told as hidden") {
  scratch s;
  constexpr uid_t nobody = 65'534;
  const bool root = ::geteuid() == 0;
  if (root) REQUIRE(::chown(s.path.c_str(), nobody, nobody) == 0);
  const auto child = ::fork(); // nothing is closed to root
  if (child == 0) {
    bool ok = !root || ::setresuid(nobody, nobody, nobody) == 0;
    for (auto* dir : {"unreadable", "unsearchable"})
      ok = ok && ::mkdir((s.path / dir).c_str(), 0755) == 0;
    std::ofstream{s.path / "unsearchable/file"} << "x";
    ok = ok && ::chmod((s.path / "unreadable").c_str(), 0) == 0 && ::chmod((s.path / "unsearchable").c_str(), 0444) == 0;
    build_look l;
    count_tree(s.path, 0, 0, l);
    for (auto* dir : {"unreadable", "unsearchable"})
      ::chmod((s.path / dir).c_str(), 0755);
    ::_exit(ok ? static_cast<int>(l.hidden) : 100);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WEXITSTATUS(status) == 2);
}

TEST_CASE("a tree deeper than any path is counted to a depth, and does no harm") {
  scratch s;
  const auto child = ::fork(); // a directory of its own to be in
  if (child == 0) {
    bool ok = ::chdir(s.path.c_str()) == 0;
    for (int i = 0; ok && i < 3'000; ++i)
      ok = ::mkdir("deep", 0755) == 0 && ::chdir("deep") == 0;
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  build_look l;
  count_tree(s.path, 0, 0, l);
  CHECK(l.files == count_depth_max + 1);
}

TEST_CASE("the processes below one are found with their memory, whoever their parent was at first") {
  constexpr std::size_t eaten = 32 * mib;
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const auto child = ::fork();
  if (child == 0) {
    if (::fork() == 0) {
      auto* memory = ::mmap(nullptr, eaten, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      std::memset(memory, 1, eaten);
      (void)!::write(ready[1], "x", 1);
    }
    ::pause();
    ::_exit(0);
  }
  char byte;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  auto use = rt::use_of_tree(child);
  // of one thread each, and perhaps one of a sanitizer's
  const fs::directory_iterator threads{"/proc/" + std::to_string(child) + "/task"};
  CHECK(use.tasks == 2 * static_cast<std::uint64_t>(std::distance(threads, {})));
  CHECK(use.memory_bytes >= eaten);
  CHECK(rt::use_of_tree(::getpid()).tasks >= 3);
  // both: the group of the test is not to be killed
  fs::path children = "/proc/" + std::to_string(child) + "/task/" + std::to_string(child) + "/children";
  pid_t grandchild = 0;
  std::ifstream{children} >> grandchild;
  if (grandchild > 0) ::kill(grandchild, SIGKILL);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(rt::use_of_tree(child).tasks == 0);
}
