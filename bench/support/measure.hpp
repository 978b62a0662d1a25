#pragma once

#include "messages/errors.hpp"

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

/// Running programs side by side and saying what they cost.
namespace coppice::bench {

/// A process to run; its standard error and, unless asked for, output go to `log`.
struct command {
  std::vector<std::string> argv;                        ///< the first is searched for in PATH
  std::vector<std::pair<std::string, std::string>> env; ///< in addition to ours
  std::filesystem::path log = "/dev/null";
  std::filesystem::path input = "/dev/null";
};

/// What a run cost.
struct cost {
  double wall_s = 0, cpu_s = 0;
  double rss_mib = 0; ///< the largest single process's peak
  double foreign = 0; ///< share of the machine's CPU time that others used meanwhile, 0 to 1
  std::string output;
};

/// What several runs of one thing cost.
struct samples {
  std::vector<double> wall_s, cpu_s, rss_mib, foreign;
  void add(const cost& c);
};

/// Time from construction on, of the machine and of this process and its waited-for children.
class stopwatch {
public:
  stopwatch();
  /// `own_cpu_s` is what to take for our own CPU time in the foreign share.
  cost since(double own_cpu_s) const;

private:
  std::chrono::steady_clock::time_point start_;
  double busy_s_;
};

/// Runs it to its end; fails, with the end of what it said, unless it exits with 0.
expected<cost> run(const command& what);

/// A process in the background, killed by the destructor.
class background {
public:
  static expected<background> start(const command& what);
  background(background&& other) noexcept;
  background& operator=(background&&) = delete;
  ~background();
  /// CPU time of it and of its descendants that have been waited for.
  double cpu_s() const;
  /// Its own peak of resident memory.
  double rss_mib() const;
  bool running() const;

private:
  explicit background(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

/// CPU time of this process and of its children that have been waited for.
double own_cpu_s();

/// A fresh directory, removed by the destructor.
class work_dir {
public:
  /// Below `parent`, or where TMPDIR says, or /var/tmp.
  explicit work_dir(const std::filesystem::path& parent = {});
  work_dir(const work_dir&) = delete;
  work_dir& operator=(const work_dir&) = delete;
  ~work_dir();
  const std::filesystem::path& path() const { return path_; }

private:
  std::filesystem::path path_;
};

/// Middle of the values (the lower one of two).
double median(std::vector<double> values);
/// The value that this share of them, 0 to 1, does not exceed; 0 of none.
double percentile(std::vector<double> values, double share);

/// Loads `root`/registration into the database of the store there.
expected<void> load_nix_db(const std::filesystem::path& root);

/// Stock Nix without substituters, on a private store below `root`.
command nix(const std::filesystem::path& root, std::vector<std::string> argv);

} // namespace coppice::bench
