#include "actors/build/sandbox.hpp"

#include "nix/hash.hpp"
#include "nix/placeholder.hpp"

#include <sys/personality.h>

#include <algorithm>
#include <array>
#include <set>
#include <sstream>
#include <thread>

namespace coppice::actors {
namespace {

constexpr std::array sandboxed_files{
    std::pair{"passwd", "root:x:0:0:Nix build user:/build:/noshell\n"
                        "nixbld:x:1000:100:Nix build user:/build:/noshell\n"
                        "nobody:x:65534:65534:Nobody:/:/noshell\n"},
    std::pair{"group", "root:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n"},
};
constexpr std::array checks{"allowedReferences", "allowedRequisites", "disallowedReferences", "disallowedRequisites"};
/// Of the host, for builders that may use its network.
constexpr std::array network_files{"resolv.conf", "services", "hosts"};

std::set<std::string> words(const std::map<std::string, std::string>& env, const std::string& name) {
  std::set<std::string> result;
  if (auto it = env.find(name); it != env.end()) {
    std::istringstream in{it->second};
    for (std::string word; in >> word;)
      result.insert(word);
  }
  return result;
}

std::string replaced(std::string text, const std::map<std::string, std::string>& rewrites) {
  for (const auto& [from, to] : rewrites)
    for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  return text;
}

std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1); // npos + 1 is 0
}

void add_environment(sandbox_plan& plan, const nix::derivation& drv, const sandbox_settings& settings,
                     const std::map<std::string, std::string>& rewrites) {
  const std::string build{sandbox_build_dir};
  const auto cores = settings.cores > 0 ? settings.cores : std::max(1U, std::thread::hardware_concurrency());
  std::map<std::string, std::string> env{{"PATH", "/path-not-set"},
                                         {"HOME", "/homeless-shelter"},
                                         {"NIX_STORE", settings.store_dir},
                                         {"NIX_BUILD_CORES", std::to_string(cores)}};
  const auto in_files = words(drv.env, "passAsFile");
  for (const auto& [name, value] : drv.env) {
    if (!in_files.contains(name)) {
      env[name] = value;
      continue;
    }
    auto file = ".attr-" + nix::base32_encode(nix::sha256(name));
    env[name + "Path"] = build + "/" + file;
    plan.build_files[file] = replaced(value, rewrites);
  }
  for (const char* name : {"NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"})
    env[name] = build;
  if (drv.is_fixed_output()) {
    env["NIX_OUTPUT_CHECKED"] = "1";
    for (const auto& name : words(drv.env, "impureEnvVars")) {
      auto it = settings.impure_env.find(name);
      env[name] = it == settings.impure_env.end() ? "" : it->second;
    }
  }
  env["NIX_LOG_FD"] = "2";
  env["TERM"] = "xterm-256color";
  for (const auto& [name, value] : env)
    plan.env[replaced(name, rewrites)] = replaced(value, rewrites);
}

void add_etc(sandbox_plan& plan) {
  for (auto [name, text] : sandboxed_files)
    plan.etc_files[name] = text;
  if (plan.network) {
    plan.etc_files["nsswitch.conf"] = "hosts: files dns\nservices: files\n";
    for (std::string name : network_files)
      plan.paths.push_back({"/etc/" + name, "/etc/" + name, true});
  } else {
    plan.etc_files["hosts"] = "127.0.0.1 localhost\n::1 localhost\n";
  }
}

} // namespace

expected<sandbox_path> parse_sandbox_path(std::string_view text) {
  sandbox_path path;
  auto rest = text;
  if (rest.ends_with('?')) {
    path.optional = true;
    rest.remove_suffix(1);
  }
  const auto equals = rest.find('=');
  path.target = rest.substr(0, equals);
  path.source = equals == rest.npos ? path.target : std::string{rest.substr(equals + 1)};
  for (const auto& side : {path.source, path.target})
    if (!side.starts_with('/') || side.find('\0') != side.npos || side.size() < 2)
      return fail(ec::invalid,
                  "cannot use the sandbox path " + nix::quoted(text) + ": write /SRC, /DST=/SRC, or with ? at the end");
  return path;
}

expected<std::vector<sandbox_path>> parse_sandbox_paths(const std::vector<std::string>& texts) {
  std::vector<sandbox_path> paths;
  for (const auto& text : texts) {
    auto path = parse_sandbox_path(text);
    if (!path) return tl::unexpected(path.error());
    paths.push_back(std::move(*path));
  }
  return paths;
}

std::optional<std::string> unsupported_reason(const nix::derivation& drv) {
  auto has = [&drv](const char* name) { return drv.env.contains(name); };
  if (drv.builder.starts_with("builtin:") || drv.system == "builtin")
    return "its builder " + drv.builder + " is built into Nix and not into this farm";
  switch (drv.kind()) {
  case nix::output_kind::input_addressed:
  case nix::output_kind::fixed: break;
  case nix::output_kind::floating: return "its outputs are content-addressed (__contentAddressed)";
  case nix::output_kind::deferred: return "it depends on content-addressed derivations";
  case nix::output_kind::impure: return "it is impure (__impure)";
  }
  if (has("__json")) return "it has structured attributes (__structuredAttrs)";
  if (has("exportReferencesGraph")) return "it wants exportReferencesGraph";
  if (auto it = drv.env.find("__noChroot"); it != drv.env.end() && it->second == "1")
    return "it wants to be built outside of a sandbox (__noChroot)";
  for (const char* check : checks)
    if (has(check)) return std::string{"it restricts what its outputs refer to ("} + check + ")";
  return std::nullopt;
}

expected<sandbox_plan> plan_sandbox(const nix::store_path& drv_path, const nix::derivation& drv,
                                    const std::vector<nix::store_path>& closure, const sandbox_settings& settings) {
  auto refuse = [&](const std::string& why) {
    return fail(ec::unsupported, "cannot build " + drv_path.to_string(settings.store_dir) + ": " + why);
  };
  if (auto why = unsupported_reason(drv)) return refuse(*why);
  if (closure.size() > sandbox_inputs_max)
    return refuse("the closure of its inputs has " + std::to_string(closure.size()) + " paths, at most " +
                  std::to_string(sandbox_inputs_max) + " can be mounted");

  sandbox_plan plan;
  plan.drv = drv_path;
  plan.store_dir = settings.store_dir;
  plan.builder = drv.builder;
  plan.paths = settings.paths;
  plan.inputs = closure;
  plan.network = drv.is_fixed_output();
  plan.bwrap = settings.bwrap;
  plan.personality = ADDR_NO_RANDOMIZE;
#ifdef __x86_64__
  if (drv.system == "i686-linux") plan.personality |= PER_LINUX32;
#endif
  std::map<std::string, std::string> rewrites;
  for (const auto& [name, output] : drv.outputs) {
    plan.outputs.emplace(name, *output.path);
    rewrites.emplace(nix::own_placeholder(name), output.path->to_string(settings.store_dir));
  }
  plan.argv = {base_name(drv.builder)};
  for (const auto& arg : drv.args)
    plan.argv.push_back(replaced(arg, rewrites));
  add_environment(plan, drv, settings, rewrites);
  add_etc(plan);
  return plan;
}

std::string bwrap_arguments(const sandbox_plan& plan, const sandbox_place& place) {
  std::string out;
  auto add = [&out](const auto&... words_) { ((out += words_, out += '\0'), ...); };
  add("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try");
  if (!plan.network) add("--unshare-net");
  // INV-11: the whole pid namespace dies with bwrap, and bwrap with us
  add("--die-with-parent", "--as-pid-1", "--uid", "1000", "--gid", "100", "--hostname", "localhost", "--clearenv");
  add("--proc", "/proc");
  // bwrap leaves these to the file system's permissions, which let root's builders change the machine
  for (const char* dir : {"/proc/sys", "/proc/sysrq-trigger"})
    add("--ro-bind-try", dir, dir);
  add("--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm", "--perms", "1777", "--tmpfs", "/tmp");
  add("--perms", "0755", "--dir", "/etc");
  for (const auto& [name, text] : plan.etc_files)
    add("--ro-bind", place.etc + "/" + name, "/etc/" + name);
  // parents that bwrap makes by itself are closed to others
  for (auto at = plan.store_dir.find('/', 1); at != std::string::npos; at = plan.store_dir.find('/', at + 1))
    add("--perms", "0755", "--dir", plan.store_dir.substr(0, at));
  add("--bind", place.build, sandbox_build_dir, "--bind", place.store, plan.store_dir);
  for (const auto& input : place.inputs)
    add("--ro-bind", place.inputs_dir + "/" + input.base_name(), input.to_string(plan.store_dir));
  for (const auto& path : plan.paths)
    add(path.optional ? "--ro-bind-try" : "--ro-bind", path.source, path.target);
  return out;
}

std::string exec_order(const sandbox_plan& plan) {
  std::string out;
  auto add = [&out](const std::string& word) {
    out += word;
    out += '\0';
  };
  add(std::to_string(plan.personality));
  add(plan.builder);
  add(std::to_string(plan.argv.size()));
  for (const auto& word : plan.argv)
    add(word);
  for (const auto& [name, value] : plan.env)
    add(name + "=" + value);
  return out;
}

} // namespace coppice::actors
