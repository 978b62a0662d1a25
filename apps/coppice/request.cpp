#include "apps/coppice/request.hpp"

#include "apps/common/closure.hpp"
#include "apps/common/files.hpp"
#include "store/closure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace coppice::app {
namespace {

namespace fs = std::filesystem;

/// How often in a row something is begun anew because the farm lost what it had a moment before, gave a ticket that died,
/// or is not reached where it said that its bytes are, as when its hub moves, and nothing was won meanwhile.
constexpr int begin_tries_max = 3;

/// Roots that lie in one directory of store objects.
struct located_roots {
  fs::path objects;
  std::vector<request_root> roots;
};

bool is_drv_file(std::string_view file) {
  const auto slash = file.rfind('/');
  return file.substr(0, file.find('!', slash == file.npos ? 0 : slash)).ends_with(".drv");
}

expected<located_roots> locate(client& c, const build_options& options) {
  located_roots found;
  auto nix_files = options.what;
  nix_files.files.clear();
  std::string first_drv;
  for (const auto& file : options.what.files) {
    if (!is_drv_file(file)) {
      nix_files.files.push_back(file);
      continue;
    }
    auto root = parse_root(file);
    if (!root) return tl::unexpected(root.error());
    auto dir = options.eval_store_dir.empty() ? fs::absolute(file).parent_path() : options.eval_store_dir;
    if (!found.objects.empty() && dir != found.objects)
      return fail(ec::invalid,
                  fmt::format("{} and {} lie in different directories: build them one after the other, or name "
                              "the directory that holds both with --eval-store",
                              first_drv, file));
    found.objects = std::move(dir);
    first_drv = file;
    found.roots.push_back(std::move(*root));
  }
  if (nix_files.files.empty()) return found;
  if (!found.roots.empty())
    return fail(ec::invalid, fmt::format("{} is a derivation and {} a Nix expression: build them one after the other",
                                         first_drv, nix_files.files.front()));
  c.doing(fmt::format("evaluating {}", fmt::join(nix_files.files, ", ")));
  const auto store = choose_eval_store(default_eval_root());
  auto roots = evaluate(
      nix_files, store, [&](std::string_view line) { c.screen().say({std::string(line)}); }, c.interrupted());
  if (!roots) return tl::unexpected(roots.error());
  return located_roots{store.objects(), std::move(*roots)};
}

expected<std::string> packed(const derivation_closure& closure) {
  std::vector<std::pair<nix::store_path, std::string>> texts;
  texts.reserve(closure.derivations.size());
  for (const auto& [path, entry] : closure.derivations)
    texts.emplace_back(path, entry.aterm);
  return store::pack_closure(texts);
}

/// What of the closure the farm lacks, asked in pieces that it accepts.
expected<missing> find_lacking(client& c, const derivation_closure& closure, blob_id packed_id) {
  missing all;
  std::vector<nix::store_path> sources;
  auto next = closure.sources.begin();
  do {
    sources.clear();
    for (; next != closure.sources.end() && sources.size() < sources_per_query_max; ++next)
      sources.push_back(next->first);
    auto some = c.ask<missing>("gateway", "missing", find_missing{sources, packed_id});
    if (!some) return some;
    some->sources.insert(some->sources.end(), all.sources.begin(), all.sources.end());
    // An answer by which nothing lacks bears no ticket.
    if (some->ticket.empty()) {
      some->ticket = all.ticket;
      some->upload_url = all.upload_url;
    }
    all = std::move(*some);
  } while (next != closure.sources.end());
  return all;
}

/// The name of the link for an output: "result", "result-2", "result-2-dev".
std::string link_name(const std::string& base, std::size_t root, const std::string& output) {
  auto name = root == 0 ? base : fmt::format("{}-{}", base, root + 1);
  return output == "out" ? name : name + "-" + output;
}

} // namespace

expected<request_body> submit(client& c, const build_options& options, const request_id& id) {
  auto located = locate(c, options);
  if (!located) return tl::unexpected(located.error());
  std::vector<nix::store_path> drvs;
  for (const auto& root : located->roots)
    drvs.push_back(root.drv);
  c.doing("reading derivations");
  auto closure = read_closure(drvs, located->objects);
  if (!closure) return tl::unexpected(closure.error());
  for (const auto& root : located->roots)
    for (const auto& output : root.outputs)
      if (!closure->derivations.at(root.drv).parsed.outputs.contains(output))
        return fail(ec::invalid, fmt::format("{} has no output '{}'", root.drv.to_string(), output));
  auto bytes = packed(*closure);
  if (!bytes) return tl::unexpected(bytes.error());

  request_body body{located->roots, store::closure_id(*bytes), options.priority, options.keep_going,
                    options.when_client_leaves.value_or(on_disconnect::proceed), options.rebuild};
  if (auto connected = c.connect(); !connected) return tl::unexpected(connected.error());
  auto least = std::numeric_limits<std::size_t>::max();
  for (int i = 1;; ++i) {
    c.doing("asking what the farm lacks");
    auto lacks = find_lacking(c, *closure, body.closure);
    if (!lacks) return tl::unexpected(lacks.error());
    if (lacks->sources.size() < least) {
      least = lacks->sources.size();
      i = 1;
    }
    c.transferring("uploading");
    if (auto sent = upload(*lacks, *closure, located->objects, body.closure, *bytes, c.transfers()); !sent) {
      // the ticket was over, or died with who gave it: the next answer bears another one, and the address of the day
      const auto why = sent.error().code;
      if ((why == ec::forbidden || why == ec::unavailable) && i < begin_tries_max) continue;
      return tl::unexpected(sent.error());
    }
    c.doing("submitting");
    auto taken = c.ask<accepted>("gateway", "submit", submit_request{id, body});
    if (taken) {
      if (c.screen().options().live) c.know(graph_of(*closure, body.roots));
      return body;
    }
    if (taken.error().code != ec::missing || i >= begin_tries_max) return tl::unexpected(taken.error());
  }
}

std::vector<realised_output> wanted_outputs(const request_root& root, const request_result& result) {
  std::vector<realised_output> wanted;
  const auto found = std::find_if(result.roots.begin(), result.roots.end(), [&](auto& r) { return r.drv == root.drv; });
  if (found == result.roots.end()) return wanted;
  for (const auto& output : found->outputs)
    if (root.outputs.empty() || std::find(root.outputs.begin(), root.outputs.end(), output.name) != root.outputs.end())
      wanted.push_back(output);
  std::stable_partition(wanted.begin(), wanted.end(), [](const auto& output) { return output.name == "out"; });
  return wanted;
}

expected<void> deliver(client& c, const build_options& options, const request_body& body,
                       const request_result& result) {
  std::set<nix::store_path> absent;
  std::vector<std::pair<std::string, fs::path>> links; // name and target
  for (std::size_t i = 0; i < body.roots.size(); ++i)
    for (const auto& output : wanted_outputs(body.roots[i], result)) {
      const auto& path = output.info.path;
      const fs::path real = path.to_string();
      const bool here = fs::exists(fs::symlink_status(real));
      if (!here) absent.insert(path);
      links.emplace_back(link_name(options.link, i, output.name),
                         here ? real : fs::absolute(options.store / path.base_name()));
    }
  for (std::string tried; !absent.empty();) {
    auto info = c.ask<node_info>("gateway", "info", get_info{});
    if (!info) return tl::unexpected(info.error());
    auto key = nix::public_key::parse(info->public_key);
    if (!key) return fail(ec::bad_message, fmt::format("the node's public key makes no sense: {}", key.error().what));
    c.transferring("fetching outputs");
    auto fetched = fetch_closure({info->http, std::move(*key)}, absent, options.store, c.transfers());
    if (fetched) break;
    // a hub that moved is elsewhere now
    if (fetched.error().code != ec::unavailable || info->http == tried) return fetched;
    tried = info->http;
  }
  if (options.no_link) return {};
  for (const auto& [name, target] : links)
    if (auto linked = replace_link(target, name); !linked) return linked;
  return {};
}

} // namespace coppice::app
