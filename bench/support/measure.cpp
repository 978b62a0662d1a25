#include "bench/support/measure.hpp"

#include "store/files.hpp"
#include "store/nar_files.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace coppice::bench {

namespace {

double seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
}

double ticks_per_s() {
  return static_cast<double>(::sysconf(_SC_CLK_TCK));
}

/// CPU time of the whole machine that was not idle.
double machine_busy_s() {
  std::ifstream in{"/proc/stat"};
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0;
  in >> name >> user >> nice >> system >> idle >> wait >> irq >> soft;
  return (user + nice + system + irq + soft) / ticks_per_s();
}

/// Starts it in a child of this process, with `output` as its standard output.
expected<pid_t> start_child(const command& what, int output) {
  const auto log = ::open(what.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  const auto input = ::open(what.input.c_str(), O_RDONLY | O_CLOEXEC);
  const auto pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(input, 0);
    ::dup2(output < 0 ? log : output, 1);
    ::dup2(log, 2);
    for (const auto& [name, value] : what.env)
      ::setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> argv;
    for (const auto& word : what.argv)
      argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(log);
  ::close(input);
  if (pid < 0) return tl::unexpected(store::system_error(errno, "cannot start " + what.argv.front()));
  return pid;
}

std::string end_of(const std::filesystem::path& file) {
  std::ifstream in{file};
  std::string text{std::istreambuf_iterator<char>{in}, {}};
  constexpr std::size_t shown = 2000;
  return text.size() > shown ? text.substr(text.size() - shown) : text;
}

} // namespace

double own_cpu_s() {
  rusage self{}, children{};
  ::getrusage(RUSAGE_SELF, &self);
  ::getrusage(RUSAGE_CHILDREN, &children);
  return seconds(self.ru_utime) + seconds(self.ru_stime) + seconds(children.ru_utime) + seconds(children.ru_stime);
}

void samples::add(const cost& c) {
  wall_s.push_back(c.wall_s);
  cpu_s.push_back(c.cpu_s);
  rss_mib.push_back(c.rss_mib);
  foreign.push_back(c.foreign);
}

stopwatch::stopwatch() : start_(std::chrono::steady_clock::now()), busy_s_(machine_busy_s()) {}

cost stopwatch::since(double own_cpu_s) const {
  cost c;
  c.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  c.cpu_s = own_cpu_s;
  const auto cpus = static_cast<double>(std::thread::hardware_concurrency());
  if (c.wall_s > 0) c.foreign = std::clamp((machine_busy_s() - busy_s_ - own_cpu_s) / (c.wall_s * cpus), 0.0, 1.0);
  return c;
}

expected<cost> run(const command& what) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return tl::unexpected(store::system_error(errno, "cannot make a pipe"));
  const stopwatch watch;
  const auto pid = start_child(what, ends[1]);
  ::close(ends[1]);
  std::string output;
  if (pid)
    for (char block[4096];;) {
      const auto got = ::read(ends[0], block, sizeof block);
      if (got <= 0) break;
      output.append(block, static_cast<std::size_t>(got));
    }
  ::close(ends[0]);
  if (!pid) return tl::unexpected(pid.error());
  int status = 0;
  rusage used{};
  if (::wait4(*pid, &status, 0, &used) != *pid) return tl::unexpected(store::system_error(errno, "cannot wait"));
  auto c = watch.since(seconds(used.ru_utime) + seconds(used.ru_stime));
  c.rss_mib = static_cast<double>(used.ru_maxrss) / 1024;
  c.output = std::move(output);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::string line;
    for (const auto& word : what.argv)
      line += word.substr(0, 200) + " ";
    return fail(ec::io, line + "failed:\n" + end_of(what.log));
  }
  return c;
}

expected<background> background::start(const command& what) {
  const auto pid = start_child(what, -1);
  if (!pid) return tl::unexpected(pid.error());
  return background{*pid};
}

background::background(background&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

background::~background() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGTERM);
  constexpr auto wait = std::chrono::milliseconds{50};
  for (int i = 0; i < 200 && running(); ++i)
    std::this_thread::sleep_for(wait);
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

bool background::running() const {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

double background::cpu_s() const {
  std::ifstream in{"/proc/" + std::to_string(pid_) + "/stat"};
  std::string text{std::istreambuf_iterator<char>{in}, {}};
  std::istringstream fields{text.substr(text.rfind(')') + 2)};
  std::string skipped;
  for (int i = 0; i < 11; ++i)
    fields >> skipped;
  double sum = 0;
  for (int i = 0; i < 4; ++i) {
    double ticks = 0;
    fields >> ticks;
    sum += ticks;
  }
  return sum / ticks_per_s();
}

double background::rss_mib() const {
  std::ifstream in{"/proc/" + std::to_string(pid_) + "/status"};
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  return 0;
}

work_dir::work_dir(const std::filesystem::path& parent) {
  const char* tmp = std::getenv("TMPDIR");
  auto name =
      ((!parent.empty() ? parent : std::filesystem::path{tmp == nullptr ? "/var/tmp" : tmp}) / "coppice-bench-XXXXXX")
          .string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make " + name + ": " + std::strerror(errno));
  path_ = name;
}

work_dir::~work_dir() {
  (void)store::remove_tree(path_); // ignored: it lies in a directory for temporary files
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())))];
}

expected<void> load_nix_db(const std::filesystem::path& root) {
  auto load = nix(root, {"nix-store", "--load-db"});
  load.input = root / "registration";
  auto loaded = run(load);
  return loaded ? expected<void>{} : tl::unexpected(loaded.error());
}

command nix(const std::filesystem::path& root, std::vector<std::string> argv) {
  const auto conf = root / "conf";
  std::filesystem::create_directories(conf);
  std::ofstream{conf / "nix.conf"} << "build-users-group =\nsandbox = true\nsandbox-paths = /usr /bin /lib /lib64\n"
                                      "substituters =\nexperimental-features = nix-command\n";
  argv.insert(argv.begin() + 1, {"--store", "local?root=" + root.string()});
  return {std::move(argv),
          {{"NIX_CONF_DIR", conf}, {"NIX_USER_CONF_FILES", ""}, {"HOME", root}, {"NIX_REMOTE", ""}, {"NIX_PATH", ""}},
          root / "nix.log"};
}

} // namespace coppice::bench
