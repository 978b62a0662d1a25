#include "apps/common/evaluate.hpp"

#include "apps/common/text.hpp"
#include "runtime/fd.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace coppice::app {
namespace {

namespace fs = std::filesystem;

/// Bytes of nix-instantiate's standard output that are read: a million derivations.
constexpr std::size_t instantiated_bytes_max = 256 << 20;

/// Whether a private store's evaluation may see this variable: not if it leads to another store or its settings.
bool keeps(std::string_view variable) {
  constexpr std::array<std::string_view, 9> dropped{
      "NIX_REMOTE=",         "NIX_STORE_DIR=", "NIX_STATE_DIR=", "NIX_LOG_DIR=",        "NIX_CONF_DIR=",
      "NIX_LOCALSTATE_DIR=", "NIX_DATA_DIR=",  "NIX_STORE=",     "NIX_USER_CONF_FILES="};
  return std::none_of(dropped.begin(), dropped.end(), [&](auto name) { return variable.starts_with(name); });
}

std::optional<std::string> on_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path ? path : "/usr/local/bin:/usr/bin:/bin";
  while (true) {
    const auto end = rest.find(':');
    const auto dir = rest.substr(0, end);
    auto file = (fs::path(dir.empty() ? "." : dir) / program).string();
    if (::access(file.c_str(), X_OK) == 0) return file;
    if (end == rest.npos) return {};
    rest.remove_prefix(end + 1);
  }
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (const auto& string : strings)
    result.push_back(const_cast<char*>(string.c_str()));
  result.push_back(nullptr);
  return result;
}

struct child {
  pid_t pid = -1;
  rt::unique_fd out, err;
};

expected<child> start(const command& what) {
  std::array<int, 2> out{}, err{};
  if (::pipe2(out.data(), O_CLOEXEC) != 0)
    return fail(ec::io, fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  child result{-1, rt::unique_fd(out[0]), {}};
  const rt::unique_fd out_end(out[1]);
  if (::pipe2(err.data(), O_CLOEXEC) != 0)
    return fail(ec::io, fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  result.err.reset(err[0]);
  const rt::unique_fd err_end(err[1]);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_adddup2(&actions, err[1], 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const auto argv = pointers(what.argv), env = pointers(what.env);
  const int failed = ::posix_spawn(&result.pid, argv[0], &actions, &attributes, argv.data(), env.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (failed) return fail(ec::io, fmt::format("cannot start {}: {}", what.argv[0], std::strerror(failed)));
  return result;
}

/// Reads what is there; false at the end of the stream.
bool read_some(int fd, std::string& into) {
  char chunk[1 << 14];
  const auto got = ::read(fd, chunk, sizeof chunk);
  if (got < 0) return errno == EINTR || errno == EAGAIN;
  into.append(chunk, static_cast<std::size_t>(got));
  return got > 0;
}

/// Whether the evaluator's message is beside the point: roots are not wanted, and building is not its task.
bool is_noise(std::string_view line) {
  return line.find("you did not specify '--add-root'") != line.npos ||
         line.find("specified in 'build-users-group' does not exist") != line.npos;
}

/// Tells each whole line in `held` and keeps the rest.
void tell_lines(std::string& held, const std::function<void(std::string_view)>& message) {
  for (auto end = held.find('\n'); end != held.npos; end = held.find('\n')) {
    const auto line = std::string_view(held).substr(0, end);
    if (!is_noise(line)) message(line);
    held.erase(0, end + 1);
  }
}

} // namespace

eval_store choose_eval_store(const fs::path& root) {
  const bool usable =
      ::access("/nix/store", R_OK | X_OK) == 0 &&
      (::access("/nix/var/nix/daemon-socket/socket", W_OK) == 0 || ::access("/nix/var/nix/db", W_OK) == 0);
  if (usable) return {"/"};
  std::error_code error;
  fs::create_directories(root, error);               // ignored: nix-instantiate says what is wrong with it
  const auto canonical = fs::canonical(root, error); // Nix refuses symbolic links on the way to its store
  return {error ? root : canonical};
}

command instantiate_command(const std::string& program, const evaluation& what, const eval_store& store,
                            const std::vector<std::string>& env) {
  command result{{program}, {}};
  const auto add = [&](auto... words) { (result.argv.emplace_back(words), ...); };
  if (store.is_private()) {
    std::copy_if(env.begin(), env.end(), std::back_inserter(result.env), keeps);
    result.env.push_back("NIX_REMOTE=local?root=" + percent_encoded(store.root.string()));
    result.env.push_back("NIX_CONF_DIR=" + (store.root / "etc").string());
    result.env.emplace_back("NIX_USER_CONF_FILES=");
    add("--option", "build-users-group", "");
    add("--option", "substituters", "");
  } else {
    result.env = env;
  }
  for (const auto& attribute : what.attributes)
    add("-A", attribute);
  for (const auto& [name, expression] : what.args)
    add("--arg", name, expression);
  for (const auto& [name, string] : what.arg_strs)
    add("--argstr", name, string);
  // A file whose name begins with '-' would be taken for an option.
  for (const auto& file : what.files)
    add(file.starts_with('-') ? "./" + file : file);
  return result;
}

expected<nix::store_path> parse_store_path(std::string_view text) {
  while (text.ends_with('/')) text.remove_suffix(1);
  auto path = nix::store_path::from_base_name(text.substr(text.rfind('/') + 1));
  if (!path) return fail(ec::invalid, fmt::format("'{}' is no store path: {}", text, path.error().what));
  return *path;
}

expected<request_root> parse_root(std::string_view text) {
  request_root root;
  const auto slash = text.rfind('/');
  auto name = slash == text.npos ? text : text.substr(slash + 1);
  if (const auto mark = name.find('!'); mark != name.npos) {
    auto rest = name.substr(mark + 1);
    while (true) {
      const auto comma = rest.find(',');
      if (rest.substr(0, comma).empty())
        return fail(ec::invalid, fmt::format("'{}': an output's name is missing behind '!' or ','", text));
      root.outputs.emplace_back(rest.substr(0, comma));
      if (comma == rest.npos) break;
      rest.remove_prefix(comma + 1);
    }
    name = name.substr(0, mark);
  }
  auto path = nix::store_path::from_base_name(name);
  if (!path) return fail(ec::invalid, fmt::format("'{}' is not named like a derivation: {}", text, path.error().what));
  if (!path->is_derivation())
    return fail(ec::invalid, fmt::format("'{}' is not a derivation: its name does not end in .drv", text));
  root.drv = std::move(*path);
  return root;
}

expected<std::vector<request_root>> parse_instantiated(std::string_view text) {
  std::vector<request_root> roots;
  while (!text.empty()) {
    const auto end = text.find('\n');
    const auto line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.empty()) continue;
    auto root = parse_root(line);
    if (!root) return fail(ec::invalid, "nix-instantiate printed " + root.error().what);
    if (std::find(roots.begin(), roots.end(), *root) == roots.end()) roots.push_back(std::move(*root));
  }
  return roots;
}

expected<std::vector<request_root>> evaluate(const evaluation& what, const eval_store& store,
                                             const std::function<void(std::string_view)>& message,
                                             const std::atomic<bool>& stop) {
  const auto files = fmt::format("{}", fmt::join(what.files, ", "));
  const auto program = on_path("nix-instantiate");
  if (!program)
    return fail(ec::not_found,
                fmt::format("cannot evaluate {}: there is no nix-instantiate on PATH (Debian has it in the "
                            "package nix-bin); a .drv file needs none",
                            files));
  std::vector<std::string> env;
  for (char** variable = environ; *variable; ++variable)
    env.emplace_back(*variable);
  auto started = start(instantiate_command(*program, what, store, env));
  if (!started) return tl::unexpected(started.error());

  std::string out, err;
  bool too_long = false;
  std::array<pollfd, 2> open{pollfd{started->out.get(), POLLIN, 0}, pollfd{started->err.get(), POLLIN, 0}};
  while (open[0].fd >= 0 || open[1].fd >= 0) {
    if (::poll(open.data(), open.size(), 100) < 0) continue; // only EINTR can happen
    if (stop) ::kill(started->pid, SIGTERM);
    if (open[0].revents && !read_some(open[0].fd, out)) open[0].fd = -1;
    if (open[1].revents && !read_some(open[1].fd, err)) open[1].fd = -1;
    tell_lines(err, message);
    too_long = out.size() > instantiated_bytes_max;
    if (too_long) ::kill(started->pid, SIGKILL);
  }
  if (!err.empty()) message(err);
  int status = 0;
  while (::waitpid(started->pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (too_long)
    return fail(ec::limit_exceeded,
                fmt::format("evaluating {} gives more than {} bytes of paths", files, instantiated_bytes_max));
  if (stop || (WIFSIGNALED(status) && WTERMSIG(status) == SIGINT)) return fail(ec::shutdown, "evaluation interrupted");
  if (status != 0)
    return fail(
        ec::invalid,
        WIFSIGNALED(status)
            ? fmt::format("evaluating {} failed: nix-instantiate was ended by signal {}", files, WTERMSIG(status))
            : fmt::format("evaluating {} failed: nix-instantiate ended with exit code {}", files, WEXITSTATUS(status)));
  auto roots = parse_instantiated(out);
  if (roots && roots->empty()) return fail(ec::invalid, fmt::format("evaluating {} gives no derivation", files));
  return roots;
}

} // namespace coppice::app
