#include "actors/build/sandbox.hpp"

#include "nix/attributes.hpp"
#include "nix/hash.hpp"
#include "nix/placeholder.hpp"

#include <sys/personality.h>

#include <algorithm>
#include <array>
#include <thread>

namespace coppice::actors {
namespace {

constexpr std::array sandboxed_files{
    std::pair{"passwd", "root:x:0:0:Nix build user:/build:/noshell\n"
                        "nixbld:x:1000:100:Nix build user:/build:/noshell\n"
                        "nobody:x:65534:65534:Nobody:/:/noshell\n"},
    std::pair{"group", "root:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n"},
};
/// The builder that is no file but a part of Nix, and where it and its authorities for HTTPS are inside.
constexpr std::string_view fetchurl = "builtin:fetchurl";
constexpr const char *fetch_program = "/coppice-fetch", *ca_bundle = "/coppice-ca-bundle.crt";
/// Of the host, where the libraries of our own programs are.
constexpr std::array library_paths{"/usr", "/lib", "/lib64", "/etc/ld.so.cache"};
/// Of the host, for builders that may use its network.
constexpr std::array network_files{"resolv.conf", "services", "hosts"};

using rewrites = std::map<std::string, std::string>;

std::string replaced(std::string text, const rewrites& all) {
  for (const auto& [from, to] : all)
    for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  return text;
}

std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1); // npos + 1 is 0
}

/// The derivation's own variables, or files in their place.
void add_variables(sandbox_plan& plan, const nix::derivation& drv) {
  const auto passed = drv.env.find("passAsFile");
  const auto in_files = nix::split_words(passed == drv.env.end() ? "" : passed->second);
  for (const auto& [name, value] : drv.env) {
    if (std::find(in_files.begin(), in_files.end(), name) == in_files.end()) {
      plan.env[name] = value;
      continue;
    }
    auto file = ".attr-" + nix::base32_encode(nix::sha256(name));
    plan.env[name + "Path"] = std::string{sandbox_build_dir} + "/" + file;
    plan.files[file] = value;
  }
}

/// What the derivation says in one way or the other: variables, files, or both.
expected<void> add_attributes(sandbox_plan& plan, const nix::derivation& drv, const nix::attributes& attributes,
                              const build_inputs& inputs) {
  const auto add = [&plan](expected<build_files> files) -> expected<void> {
    if (!files) return tl::unexpected(files.error());
    plan.files.merge(*files);
    return {};
  };
  if (!attributes.structured()) {
    add_variables(plan, drv);
    const auto exported = drv.env.find("exportReferencesGraph");
    if (exported == drv.env.end()) return {};
    return add(graph_files(exported->second, references_graph{inputs, plan.store_dir}, plan.store_dir));
  }
  const std::string build = std::string{sandbox_build_dir} + "/";
  plan.env["NIX_ATTRS_JSON_FILE"] = build + attributes_json_file;
  plan.env["NIX_ATTRS_SH_FILE"] = build + attributes_shell_file;
  std::map<std::string, std::string> outputs;
  for (const auto& [name, path] : plan.outputs)
    outputs.emplace(name, path.to_string(plan.store_dir));
  return add(
      structured_files(*attributes.structured(), outputs, references_graph{inputs, plan.store_dir}, plan.store_dir));
}

expected<void> add_environment(sandbox_plan& plan, const nix::derivation& drv, const nix::attributes& attributes,
                               const build_inputs& inputs, const sandbox_settings& settings) {
  const auto cores = settings.cores > 0 ? settings.cores : std::max(1U, std::thread::hardware_concurrency());
  plan.env = {{"PATH", "/path-not-set"},
              {"HOME", "/homeless-shelter"},
              {"NIX_STORE", settings.store_dir},
              {"NIX_BUILD_CORES", std::to_string(cores)}};
  if (auto added = add_attributes(plan, drv, attributes, inputs); !added) return added;
  for (const char* name : {"NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"})
    plan.env[name] = sandbox_build_dir;
  if (drv.is_fixed_output()) {
    plan.env["NIX_OUTPUT_CHECKED"] = "1";
    const auto impure = attributes.words("impureEnvVars");
    if (!impure) return fail(ec::invalid, impure.error().what);
    for (const auto& name : impure->value_or(std::vector<std::string>{})) {
      auto it = settings.impure_env.find(name);
      plan.env[name] = it == settings.impure_env.end() ? "" : it->second;
    }
  }
  plan.env["NIX_LOG_FD"] = "2";
  plan.env["TERM"] = "xterm-256color";
  const auto features = attributes.words("requiredSystemFeatures");
  if (!features) return fail(ec::invalid, features.error().what);
  plan.kvm = *features && std::find((*features)->begin(), (*features)->end(), "kvm") != (*features)->end();
  return {};
}

/// Placeholders of the own outputs become their paths, wherever they are.
void rewrite(sandbox_plan& plan) {
  rewrites all;
  for (const auto& [name, path] : plan.outputs)
    all.emplace(nix::own_placeholder(name), path.to_string(plan.store_dir));
  for (auto& arg : plan.argv)
    arg = replaced(std::move(arg), all);
  for (auto& [name, text] : plan.files)
    text = replaced(std::move(text), all);
  std::map<std::string, std::string> env;
  for (auto& [name, value] : plan.env)
    env[replaced(name, all)] = replaced(std::move(value), all);
  plan.env = std::move(env);
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

/// Turns the plan's builder into the program that does here what Nix does itself.
void use_fetch_program(sandbox_plan& plan, const sandbox_settings& settings) {
  plan.builder = fetch_program;
  plan.paths.push_back({settings.fetch_program, fetch_program, false});
  for (std::string path : library_paths)
    plan.paths.push_back({path, path, true});
  plan.argv.resize(1);
  if (settings.ca_bundle.empty()) return;
  plan.argv.push_back(ca_bundle);
  plan.paths.push_back({settings.ca_bundle, ca_bundle, true});
}

/// Why no machine of ours builds this derivation; nothing if we do.
std::optional<std::string> unsupported_reason(const nix::derivation& drv) {
  if (drv.builder != fetchurl && (drv.builder.starts_with("builtin:") || drv.system == "builtin"))
    return "its builder " + drv.builder + " is built into Nix and not into this farm";
  switch (drv.kind()) {
  case nix::output_kind::input_addressed:
  case nix::output_kind::fixed: break;
  case nix::output_kind::floating: return "its outputs are content-addressed (__contentAddressed)";
  case nix::output_kind::deferred: return "it depends on content-addressed derivations";
  case nix::output_kind::impure: return "it is impure (__impure)";
  }
  return std::nullopt;
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

bool wants_references_graph(const nix::derivation& drv) {
  const auto json = drv.env.find("__json");
  return drv.env.contains("exportReferencesGraph") ||
         (json != drv.env.end() && json->second.find("exportReferencesGraph") != std::string::npos);
}

expected<sandbox_plan> plan_sandbox(const nix::store_path& drv_path, const nix::derivation& drv,
                                    const build_inputs& inputs, const sandbox_settings& settings) {
  const auto named = drv_path.to_string(settings.store_dir);
  const auto refuse = [&](ec why, const std::string& text) { return fail(why, "cannot build " + named + ": " + text); };
  if (auto why = unsupported_reason(drv)) return refuse(ec::unsupported, *why);
  const auto attributes = nix::attributes::of(drv);
  if (!attributes) return refuse(ec::invalid, attributes.error().what);
  const auto outside = attributes->flag("__noChroot");
  if (!outside) return refuse(ec::invalid, outside.error().what);
  if (*outside)
    return fail(ec::unsupported,
                "derivation '" + named + "' has '__noChroot' set, but that's not allowed when 'sandbox' is 'true'");
  if (inputs.closure.size() > sandbox_inputs_max)
    return refuse(ec::unsupported, "the closure of its inputs has " + std::to_string(inputs.closure.size()) +
                                       " paths, at most " + std::to_string(sandbox_inputs_max) + " are mounted");

  sandbox_plan plan;
  plan.drv = drv_path;
  plan.store_dir = settings.store_dir;
  plan.builder = drv.builder;
  plan.paths = settings.paths;
  plan.network = drv.is_fixed_output();
  plan.bwrap = settings.bwrap;
  plan.processes_max = settings.processes_max;
  plan.personality = ADDR_NO_RANDOMIZE;
#ifdef __x86_64__
  if (drv.system == "i686-linux") plan.personality |= PER_LINUX32;
#endif
  for (const auto& info : inputs.closure)
    plan.inputs.push_back(info.path);
  for (const auto& [name, output] : drv.outputs)
    plan.outputs.emplace(name, *output.path);
  plan.argv = {base_name(drv.builder)};
  plan.argv.insert(plan.argv.end(), drv.args.begin(), drv.args.end());
  if (auto added = add_environment(plan, drv, *attributes, inputs, settings); !added)
    return refuse(added.error().code, added.error().what);
  rewrite(plan);
  add_etc(plan);
  if (drv.builder == fetchurl) use_fetch_program(plan, settings);
  return plan;
}

std::string bwrap_arguments(const sandbox_plan& plan, const sandbox_place& place) {
  std::string out;
  auto add = [&out](const auto&... words_) { ((out += words_, out += '\0'), ...); };
  add("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try");
  if (!plan.network) add("--unshare-net");
  // INV-11: the whole pid namespace dies with bwrap, and bwrap with us
  add("--die-with-parent", "--as-pid-1", "--uid", "1000", "--gid", "100", "--hostname", "localhost", "--clearenv");
  // coppice-exec mounts the inputs, and then drops what it needs for that
  add("--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP");
  add("--proc", "/proc");
  // bwrap leaves these to the file system's permissions, which let root's builders change the machine
  for (const char* dir : {"/proc/sys", "/proc/sysrq-trigger"})
    add("--ro-bind-try", dir, dir);
  add("--dev", "/dev", "--ro-bind", place.inputs_dir, "/dev/shm", "--perms", "1777", "--tmpfs", "/tmp");
  add("--perms", "0755", "--dir", "/etc");
  for (const auto& [name, text] : plan.etc_files)
    add("--ro-bind", place.etc + "/" + name, "/etc/" + name);
  // parents that bwrap makes by itself are closed to others
  for (auto at = plan.store_dir.find('/', 1); at != std::string::npos; at = plan.store_dir.find('/', at + 1))
    add("--perms", "0755", "--dir", plan.store_dir.substr(0, at));
  add("--bind", place.build, sandbox_build_dir, "--bind", place.store, plan.store_dir);
  for (const auto& path : plan.paths)
    add(path.optional ? "--ro-bind-try" : "--ro-bind", path.source, path.target);
  if (plan.kvm) add("--dev-bind-try", "/dev/kvm", "/dev/kvm");
  return out;
}

std::string exec_order(const sandbox_plan& plan, const sandbox_place& place) {
  std::string out;
  auto add = [&out](const std::string& word) {
    out += word;
    out += '\0';
  };
  add(std::to_string(plan.personality));
  add(std::to_string(plan.processes_max));
  add(plan.store_dir);
  add(std::to_string(place.inputs.size()));
  for (const auto& input : place.inputs)
    add(input.base_name());
  add(plan.builder);
  add(std::to_string(plan.argv.size()));
  for (const auto& word : plan.argv)
    add(word);
  for (const auto& [name, value] : plan.env)
    add(name + "=" + value);
  return out;
}

} // namespace coppice::actors
